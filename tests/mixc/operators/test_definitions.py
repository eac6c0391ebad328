"""Mixers as operators of PyTorch: what its compilers, exporters and transforms do with them."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.checkpoint import checkpoint

import mixc
from mixc.compiler.analysis.multiplied import multiplied_inputs
from mixc.operators.call import call_operator
from mixc.operators.signature import read_call

FORWARD, BACKWARD = torch.ops.mixc.forward, torch.ops.mixc.backward


@pytest.fixture(autouse=True)
def fresh_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "disabled", True)  # pytest keeps it all
    torch._dynamo.reset()


@pytest.fixture(scope="module")
def causal() -> mixc.LoadedMixer:
    return mixc.load("causal")


def qkv(batch: int = 2, rows: int = 12, seed: int = 0) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(batch, 2, rows, 16, generator=generator) for _ in range(3))


class Model(torch.nn.Module):
    """One layer, with the mixer between projections."""

    def __init__(self, mixer: mixc.LoadedMixer) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.project, self.mix = torch.nn.Linear(32, 96), mixer

    def forward(self, x: Tensor) -> Tensor:
        parts = (t.unflatten(-1, (2, 16)).transpose(1, 2) for t in self.project(x).chunk(3, -1))
        return self.mix(*parts).transpose(1, 2).flatten(2)


def gradients(run: Callable[..., Tensor], *inputs: Tensor) -> tuple[Tensor, ...]:
    leaves = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    run(*leaves).square().sum().backward()
    return tuple(leaf.grad for leaf in leaves)


def by_operator(mixer: mixc.LoadedMixer, **inputs: Tensor) -> Tensor:
    return call_operator(mixer._told.text, inputs, {}, None)[0]


def texts(mixer: mixc.LoadedMixer, inputs: dict[str, Tensor]) -> tuple[list[object], list[object]]:
    """The arguments of both operators in a call that wants all gradients."""
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in inputs.items()}
    made = call_operator(mixer._told.text, leaves, {}, None)
    context = made[0].grad_fn
    recording = mixc.operators.recording.recording_of(mixer._told.text, context.later)
    given = recording.with_cotangents(context.saved_tensors, [torch.ones_like(x) for x in made])
    names = " ".join(inputs)
    ahead = [mixer._told.text, f"{names}; ; ; {names}", list(leaves.values()), []]
    return ahead, [mixer._told.text, context.later, [t.detach() for t in given], []]


def test_the_two_operators_keep_their_promises(causal: mixc.LoadedMixer) -> None:
    ahead, back = texts(causal, dict(zip("qkv", qkv(), strict=True)))
    torch.library.opcheck(FORWARD.default, ahead)
    torch.library.opcheck(BACKWARD.default, back)


def test_they_do_where_the_backward_pass_goes_forward_again(causal: mixc.LoadedMixer) -> None:
    leaves = [tensor.requires_grad_() for tensor in qkv()]
    torch.library.opcheck(FORWARD.default, (causal._told.text, "q k v", leaves, []))
    q, k, v = (tensor[:1].detach().requires_grad_() for tensor in leaves)
    cuts = torch.tensor([0, 5, 12])
    packed = (causal._told.text, "q k v; *; ; q k v", [q, k, v, cuts], [])
    torch.library.opcheck(FORWARD.default, packed)
    found = gradients(lambda *x: FORWARD(*packed[:2], [*x, cuts], [])[0], q, k, v)
    wanted = gradients(lambda *x: causal(*x, cu_seqlens=cuts), q, k, v)
    assert all(map(torch.equal, found, wanted))


def test_gradients_are_those_of_a_plain_call(causal: mixc.LoadedMixer) -> None:
    found = gradients(lambda q, k, v: by_operator(causal, q=q, k=k, v=v), *qkv())
    again = gradients(lambda *x: FORWARD(causal._told.text, "q k v", list(x), [])[0], *qkv())
    wanted = gradients(causal, *qkv())
    assert all(map(torch.equal, found, wanted))
    assert all(map(torch.equal, again, wanted))


def test_a_call_is_read_as_it_is_written() -> None:
    text = "q k; *; rate; q; float32 float32; k d_o=o; q"
    assert str(read_call(text)) == text


def test_a_model_compiles_whole_for_all_lengths(causal: mixc.LoadedMixer) -> None:
    model, counter = Model(causal), CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    for rows in (12, 19, 40):
        x = torch.randn(2, rows, 32)
        torch._dynamo.mark_dynamic(x, 1)
        assert torch.equal(compiled(x), model(x))
        found = torch.autograd.grad(compiled(x).square().sum(), model.project.weight)
        wanted = torch.autograd.grad(model(x).square().sum(), model.project.weight)
        torch.testing.assert_close(found, wanted)
    with torch.no_grad():
        assert torch.equal(compiled(x), model(x))
    assert counter.frame_count == 2  # with gradients, and without


def test_packed_rows_and_absent_inputs_compile() -> None:
    mixer = mixc.load("gla")
    x = [torch.randn(1, 9, 2, 16) for _ in range(3)]
    gate, cuts = torch.rand(1, 9, 2, 16).log(), torch.tensor([0, 4, 9])

    def run(q: Tensor, cuts: Tensor) -> tuple[Tensor, Tensor]:
        result = mixer(q, *x[1:], gate, S0=None, cu_seqlens=cuts)
        return result.o, result.S

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    for found, wanted in zip(compiled(x[0], cuts), run(x[0], cuts), strict=True):
        torch.testing.assert_close(found, wanted)


def test_documents_in_one_row_go_forward_once(
    causal: mixc.LoadedMixer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*inputs: Tensor) -> Tensor:
        return causal(*inputs[:3], cu_seqlens=inputs[3])

    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(run, fullgraph=True, backend=counter, dynamic=True)
    for cuts in ([0, 5, 12], [0, 3, 9, 17], [0, 30]):
        x, edges = qkv(1, cuts[-1]), torch.tensor(cuts)
        wanted = gradients(lambda *x, e=edges: run(*x, e), *x)
        with monkeypatch.context() as patch:  # what a backward pass without kernels goes through
            patch.delattr(mixc.operators.recording.Recording, "_recomputed")
            patch.delattr(mixc.runtime.running.Execution, "directly")
            found = gradients(lambda *x, e=edges: compiled(*x, e), *x)
        assert all(map(torch.equal, found, wanted))
    assert counter.frame_count == 1
    with pytest.raises(mixc.MixcError, match="boundaries that end at T = 30 as I in q, got 29"):
        compiled(*x, torch.tensor([0, 29]))
    told = causal._told.text, "q k v; *", [*x, edges], []
    torch.library.opcheck(torch.ops.mixc.documents.default, told)


def test_what_does_not_fit_is_said_while_compiling(causal: mixc.LoadedMixer) -> None:
    q, k, v = qkv()
    compiled = torch.compile(lambda q, k: causal(q, k, v), fullgraph=True, backend="eager")
    with pytest.raises(Exception, match=r"k: expected \[B, G, J, D\] with .*D = 16 as in q"):
        compiled(q, k[..., :8])
    with pytest.raises(Exception, match=r"v: expected a tensor \[B, G, J, E\], got none"):
        torch.compile(lambda q, k: causal(q, k), fullgraph=True, backend="eager")(q, k)


def test_a_saved_program_runs_in_a_new_process(causal: mixc.LoadedMixer, tmp_path: Path) -> None:
    model, x = Model(causal), torch.randn(2, 12, 32)
    rows = torch.export.Dim("rows", max=512)
    program = torch.export.export(model, (x,), dynamic_shapes=({1: rows},))
    longer = torch.randn(2, 30, 32)
    found = torch.autograd.grad(program.module()(longer).square().sum(), program.parameters())
    wanted = torch.autograd.grad(model(longer).square().sum(), model.parameters())
    for one, right in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, right)
    torch.export.save(program, tmp_path / "model.pt2")
    torch.save((longer, model(longer).detach()), tmp_path / "pair.pt")
    script = (
        "import torch, mixc.operators.definitions\n"
        "x, y = torch.load('pair.pt')\n"
        "assert torch.equal(torch.export.load('model.pt2').module()(x), y)"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoints(causal: mixc.LoadedMixer, reentrant: bool) -> None:
    found = gradients(lambda *x: checkpoint(causal, *x, use_reentrant=reentrant), *qkv())
    assert all(map(torch.equal, found, gradients(causal, *qkv())))


def test_transforms_of_functions(causal: mixc.LoadedMixer) -> None:
    q, k, v = qkv()

    def loss(q: Tensor) -> Tensor:
        return causal(q, k, v).square().sum()

    wanted = gradients(lambda q: causal(q, k, v), q)[0]
    assert torch.equal(torch.func.grad(loss)(q), wanted)
    several = torch.stack([q, 2 * q, -q])
    found = torch.vmap(torch.func.grad(loss))(several)
    torch.testing.assert_close(found, torch.stack([torch.func.grad(loss)(one) for one in several]))
    mapped = torch.func.grad(lambda x: torch.vmap(causal, (0, None, None))(x, k, v).square().sum())
    torch.testing.assert_close(mapped(several), found)
    model = Model(causal)
    weights = {name: value.detach() for name, value in model.named_parameters()}
    x = torch.randn(2, 12, 32)
    whole = torch.func.grad(lambda w: torch.func.functional_call(model, w, x).square().sum())
    wanted = torch.autograd.grad(model(x).square().sum(), model.parameters())
    for one, right in zip(whole(weights).values(), wanted, strict=True):
        torch.testing.assert_close(one, right)
    with pytest.raises(mixc.MixcError, match="causal: kernels compute no gradient of a gradient"):
        torch.func.grad(lambda q: torch.func.grad(loss)(q).sum())(q)


@pytest.mark.parametrize("dims", [(0, 0, 0), (2, None, 0), (None, 3, None)])
def test_a_mapped_axis_is_part_of_the_batch(
    causal: mixc.LoadedMixer, dims: tuple[int | None, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = qkv()
    several = tuple(
        tensor if dim is None else torch.stack([tensor, 2 * tensor, -tensor], dim)
        for tensor, dim in zip(one, dims, strict=True)
    )
    pairs = list(zip(several, dims, strict=True))
    rows = [[t if dim is None else t.select(dim, n) for t, dim in pairs] for n in range(3)]
    wanted = torch.stack([causal(*row) for row in rows])
    calls = []
    directly = mixc.runtime.running.Execution.directly
    monkeypatch.setattr(
        mixc.runtime.running.Execution, "directly", lambda *args: calls.append(1) or directly(*args)
    )
    torch.testing.assert_close(torch.vmap(causal, dims)(*several), wanted)
    assert len(calls) == 1


def test_what_has_no_batch_is_mapped_one_by_one() -> None:
    mixer, q, k, v = mixc.load("sink"), *qkv()
    logits = torch.randn(3, 2)
    found = torch.vmap(mixer, (None, None, None, 0))(q, k, v, logits)
    torch.testing.assert_close(found, torch.stack([mixer(q, k, v, one) for one in logits]))

    def gradient(logit: Tensor, q: Tensor) -> Tensor:
        return torch.func.grad(lambda x: mixer(q, k, v, x).square().sum())(logit)

    several = torch.stack([q, 2 * q, -q])  # a gradient of what has no batch, for each sample
    found = torch.vmap(gradient, (None, 0))(logits[0], several)
    wanted = torch.stack([gradient(logits[0], one) for one in several])
    torch.testing.assert_close(found, wanted)


def test_derivatives_forward_go_through_torch() -> None:
    q, k, v = qkv()
    attend = mixc.load("causal", backend="reference")
    _, found = torch.func.jvp(lambda q: attend(q, k, v), (q,), (q,))
    step = 1e-3
    wanted = (attend(q * (1 + step), k, v) - attend(q * (1 - step), k, v)) / (2 * step)
    torch.testing.assert_close(found, wanted, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("trained", [False, True])
def test_tangents_are_carried_or_refused(causal: mixc.LoadedMixer, trained: bool) -> None:
    q, k, v = qkv()
    q.requires_grad_(trained)
    causal(q, k, v)
    _, wanted = torch.func.jvp(
        lambda q: mixc.load("causal", backend="reference")(q, k, v), (q,), (q,)
    )
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(q, q.detach())
        found = forward_ad.unpack_dual(causal(dual, k, v)).tangent
        with pytest.raises(mixc.MixcError, match="no tangents, and q carries one; load it with"):
            mixc.load("causal", backend="interpreter")(dual, k, v)
    torch.testing.assert_close(found, wanted)


def test_tracers_see_one_call(causal: mixc.LoadedMixer) -> None:
    q, k, v = qkv()
    graph = make_fx(lambda *x: causal(*x).sum(), tracing_mode="fake")(q, k, v).graph
    assert [node.target for node in graph.nodes].count(FORWARD.default) == 1
    with FakeTensorMode() as mode:
        fakes = [mode.from_tensor(tensor).requires_grad_() for tensor in (q, k, v)]
        found = torch.autograd.grad(causal(*fakes).sum(), fakes)
    assert [one.shape for one in found] == [q.shape, k.shape, v.shape]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_narrows_what_is_multiplied(dtype: torch.dtype) -> None:
    mixer = mixc.load("simple_gla")
    q, k, v = (torch.randn(1, 12, 2, 16) for _ in range(3))
    g = -torch.rand(1, 12, 2)
    wanted = mixer(q.to(dtype), k.to(dtype), v.to(dtype), g).o

    def run(q: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype):
            return mixer(q, k, v, g).o

    assert run(q).dtype is dtype
    assert torch.equal(run(q), wanted)
    assert torch.equal(torch.compile(run, fullgraph=True, backend="aot_eager")(q), wanted)
    (gradient,) = gradients(run, q)
    assert gradient.dtype is torch.float32
    by_torch = mixc.load("simple_gla", backend="reference")
    with torch.autocast("cpu", dtype):
        found = by_torch(q, k, v, g).o
    assert found.dtype is dtype
    torch.testing.assert_close(found, wanted, rtol=0.05, atol=0.05)


def test_what_autocast_narrows_in_the_library() -> None:
    kept = {
        "gla": "g S0",
        "alibi_window": "slope",
        "mamba": "dt A_log skip bias h0",
        "sink": "logit",
    }
    for name, names in kept.items():
        mixer = mixc.load(name).mixer
        narrow = multiplied_inputs(mixer)
        assert [i.name for i in mixer.inputs if i.name not in narrow] == names.split()


def test_two_processes_train_one_model(tmp_path: Path) -> None:
    script = Path(__file__).with_name("two_processes.py")
    subprocess.run([sys.executable, str(script), str(tmp_path / "meet")], check=True, timeout=250)


def test_a_state_carries_gradients_between_stretches(causal: mixc.LoadedMixer) -> None:
    q, k, v = (tensor.requires_grad_() for tensor in qkv())
    cut = [(t[:, :, :7], t[:, :, 7:]) for t in (q, k, v)]
    first, state = causal(*(a for a, _ in cut), return_state=True)
    second = causal(*(b for _, b in cut), state=state)
    loss = first.square().sum() + second.square().sum()
    for found, wanted in zip(
        torch.autograd.grad(loss, (q, k, v)), gradients(causal, q, k, v), strict=True
    ):
        torch.testing.assert_close(found, wanted)
    second = causal(*(b for _, b in cut), state=state.detach())
    (found,) = torch.autograd.grad(second.sum(), k)
    assert not found[:, :, :7].any()
    assert found[:, :, 7:].any()


def test_numbers_of_each_call_compile_and_have_gradients_beside(tmp_path: Path) -> None:
    spec = tmp_path / "warm.yaml"
    spec.write_text(
        "mixer: warm\n"
        "inputs: {x: [B, T, C]}\n"
        "params: {warmth: {default: 1.0, runtime: true}, rows: {default: 2, runtime: true}}\n"
        "map: {o: warmth * x * x + rows}\n"
        "outputs: {o: [B, T, C]}\n"
    )
    mixer, x = mixc.load(spec), torch.randn(1, 5, 8)
    compiled = torch.compile(mixer, fullgraph=True, backend="aot_eager")
    for warmth, rows in ((0.5, 3), (0.7, 4)):
        found = gradients(lambda x, w=warmth, r=rows: compiled(x, warmth=w, rows=r), x)
        wanted = gradients(lambda x, w=warmth, r=rows: mixer(x, warmth=w, rows=r), x)
        torch.testing.assert_close(found, wanted)
