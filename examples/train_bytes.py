"""Train a small language model on bytes, with any mixer of the library, beside a torch-only twin.

    python examples/train_bytes.py                      # two layers: causal, then gla
    python examples/train_bytes.py --mixer mamba2       # any spec that maps sequences to sequences
    python examples/train_bytes.py --mixer fox hgrn2 --steps 500 --png curves.png

The text is real: the prose of this repository and the docstrings of Python's standard library.
Both models start from the same weights and see the same bytes. In one the mixers run by generated
kernels, forward and backward; in the twin by plain torch: SDPA for causal attention, batched
chunks for gated linear attention, and for all others mixc's reference, which is the equations
evaluated as they stand. The losses are printed side by side.
"""

from __future__ import annotations

import argparse
import ast
import copy
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

import mixc
from mixc.autotune.checking.draws import Draw, Law, draws
from mixc.autotune.checking.proportions import Proportions, default_sizes, resized
from mixc.ir.binding import param_values
from mixc.ir.expression import Kind
from mixc.ir.mixer import Input
from mixc.ir.mixer import Mixer as MixerSpec
from mixc.ir.roles import dim_roles

ROOT = Path(__file__).resolve().parents[1]
BYTES = 256


# ------------------------------------------------------------------------------------- the text


def text(most: int = 1 << 20) -> bytes:
    """Prose of the repository, then docstrings of the standard library, ``most`` bytes of it."""
    parts = [path.read_text(encoding="utf-8") for path in sorted(ROOT.glob("*.md"))]
    size = sum(map(len, parts))
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        if size >= most:
            break
        found = "\n\n".join(docstrings(path))
        parts.append(found)
        size += len(found)
    return "\n\n".join(parts).encode()[:most]


def docstrings(path: Path) -> Iterator[str]:
    """The docstrings of a module, its classes and functions."""
    documented = ast.Module | ast.ClassDef | ast.FunctionDef
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, documented) and (found := ast.get_docstring(node)):
            yield found


def batches(data: Tensor, batch: int, length: int, seed: int) -> Iterator[Tensor]:
    """Random stretches of the text, [batch, length + 1]."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        starts = torch.randint(len(data) - length, [batch, 1], generator=generator)
        yield data[starts + torch.arange(length + 1)].long()


# ------------------------------------------------------------------------------------ the model


class Mix(nn.Module):
    """A mixer between two linear maps.

    What the mixer reads at every position is projected from the hidden state, and brought to where
    its equations want it (a log-decay below 0, a share between 0 and 1), which mixc derives. What
    it reads once is a weight. Heads and features of its first output are projected back.
    """

    def __init__(self, name: str, width: int, heads: int, length: int) -> None:
        super().__init__()
        self.name = name
        self.spec = mixc.load(name).mixer
        self.sizes = sizes_of(self.spec, width, heads, length)
        given = {dim for entry in self.spec.inputs for dim in entry.dims}
        sizes = {dim: size for dim, size in self.sizes.items() if dim in given}
        self.mixer = mixc.nn.Mixer(name, sizes=sizes)
        self.time = dim_roles(self.spec, self.sizes).long
        numbers = param_values(self.spec, self.sizes, {})
        self.laws = draws(self.spec, self.sizes, numbers)
        self.batch = next(d for d in self.spec.outputs[0].dims if d not in self.time)
        self.rows = [entry for entry in self.spec.inputs if self._is_row(entry)]
        if not self.rows or not self.time & {*self.spec.outputs[0].dims}:
            raise SystemExit(f"{name} does not map a sequence to a sequence")
        self.project = nn.Linear(width, sum(self._features(entry) for entry in self.rows))
        self.weights = nn.ParameterDict(self._weights())
        self.back = nn.Linear(self._width(self.spec.outputs[0].dims), width)

    def _is_row(self, entry: Input) -> bool:
        """Whether an input is projected; one that is neither row nor weight has its default."""
        along = [dim for dim in entry.dims if dim in self.time]
        if entry.kind is Kind.REAL and len(along) == 1 and self.batch in entry.dims:
            return entry.held is None
        optional = entry.default is not None or entry.held is not None
        if not optional and (entry.kind is not Kind.REAL or along):
            raise SystemExit(f"{self.name} reads {entry.name}, which is no function of the text")
        return False

    def _width(self, dims: Sequence[str]) -> int:
        return prod(self.sizes[d] for d in dims if d not in self.time and d != self.batch)

    def _features(self, entry: Input) -> int:
        return self._width(entry.dims)

    def _weights(self) -> Iterator[tuple[str, nn.Parameter]]:
        """What the mixer reads once, and does not keep itself."""
        for entry in self.spec.inputs:
            if entry in self.rows or entry.held is not None or entry.default is not None:
                continue
            shape = [prod(self.sizes[d] for d in product) for product in entry.layout]
            law = self.laws.get(entry.name, Draw())
            yield entry.name, nn.Parameter(within(law, torch.randn(shape), [-1]))

    def forward(self, hidden: Tensor, run: Callable[..., Tensor]) -> Tensor:
        """[B, T, width] to the same; ``run`` computes the mixer."""
        widths = [self._features(entry) for entry in self.rows]
        parts = self.project(hidden).split(widths, -1)
        given = {e.name: self._laid_out(e, x) for e, x in zip(self.rows, parts, strict=True)}
        made = run(self, **given, **self.weights)
        return self.back(self._flat(made))

    def _laid_out(self, entry: Input, x: Tensor) -> Tensor:
        """[B, T, features] in the layout of an input, and within its bounds."""
        (time,) = (dim for dim in entry.dims if dim in self.time)
        others = [dim for dim in entry.dims if dim not in (self.batch, time)]
        x = x.unflatten(-1, [self.sizes[dim] for dim in others] or [1])
        x = x if others else x.squeeze(-1)
        order = [self.batch, time, *others]
        x = x.permute([order.index(dim) for dim in entry.dims])
        law = self.laws.get(entry.name, Draw())
        x = within(law, x, [entry.dims.index(dim) for dim in law.unit])
        sizes = dict(zip(entry.dims, x.shape, strict=True))
        return x.reshape([prod(sizes[dim] for dim in product) for product in entry.layout])

    def _flat(self, made: Tensor) -> Tensor:
        """The first output as [B, T, features]."""
        output = self.spec.outputs[0]
        (time,) = (dim for dim in output.dims if dim in self.time)
        for axis, product in reversed([*enumerate(output.layout)]):
            if len(product) > 1:
                free = [-1 if dim == time else self.sizes[dim] for dim in product]
                made = made.unflatten(axis, free)
        order = [d for d in output.dims if d not in (self.batch, time)]
        places = [output.dims.index(dim) for dim in (self.batch, time, *order)]
        return made.permute(places).flatten(2)


def sizes_of(spec: MixerSpec, width: int, heads: int, length: int) -> dict[str, int]:
    """The sizes of heads and features: ``width`` channels in all, where there are heads or not."""
    usual = Proportions((length,), (width // heads,), 1, heads, (2, heads), 2)
    sizes = default_sizes(spec, usual)
    return resized(spec, sizes, {"C": width} if "C" in sizes else {}, {})


def within(law: Draw, x: Tensor, axes: Sequence[int]) -> Tensor:
    """Any numbers --> numbers of the kind that the equations want there."""
    if law.unit:
        return law.scale * x / x.square().sum(list(axes), keepdim=True).add(1e-6).sqrt()
    interval = law.interval
    match law.law, abs(interval.low) < 1e9, abs(interval.high) < 1e9:
        case _, True, True:
            return interval.low + (interval.high - interval.low) * torch.sigmoid(x)
        case _, False, True:
            return interval.high + functional.logsigmoid(x + 3)
        case Law.NORMAL, False, False:
            return x
        case _:
            return (interval.low if interval.low > -1e9 else 0.0) + functional.softplus(x)


class Model(nn.Module):
    """Bytes to logits: two blocks of a mixer and a feed-forward part."""

    def __init__(self, mixers: Sequence[str], width: int, heads: int, length: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(BYTES, width)
        nn.init.normal_(self.embed.weight, std=width**-0.5)
        self.mixes = nn.ModuleList(Mix(name, width, heads, length) for name in mixers)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 * len(mixers) + 1))
        self.feeds = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
            for _ in mixers
        )

    def forward(self, seen: Tensor, run: Callable[..., Tensor]) -> Tensor:
        """The logits of every next byte."""
        x = self.embed(seen)
        for n, (mix, feed) in enumerate(zip(self.mixes, self.feeds, strict=True)):
            x = x + mix(self.norms[2 * n](x), run)
            x = x + feed(self.norms[2 * n + 1](x))
        return functional.linear(self.norms[-1](x), self.embed.weight)

    def loss(self, chunk: Tensor, run: Callable[..., Tensor]) -> Tensor:
        """The cross entropy of the next byte, in nats."""
        logits = self(chunk[:, :-1], run)
        return functional.cross_entropy(logits.flatten(0, 1), chunk[:, 1:].flatten())


# ----------------------------------------------------------------------------- kernels and twins


def by_kernels(mix: Mix, **inputs: Tensor) -> Tensor:
    """The mixer as mixc runs it: generated kernels, forward and backward."""
    made = mix.mixer(**inputs)
    return made if isinstance(made, Tensor) else made[0]


def by_torch(mix: Mix, **inputs: Tensor) -> Tensor:
    """The mixer by plain torch: written by hand where it is here, else the reference."""
    if mix.name in TWINS:
        return TWINS[mix.name](**inputs)
    if not hasattr(mix, "reference"):
        mix.reference = mixc.load(mix.name, backend="reference")
    held = {name: getattr(mix.mixer, name) for name in mix.mixer.held}
    made = mix.reference(**inputs, **held)
    return made if isinstance(made, Tensor) else made[0]


def causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """[B, H, T, D]"""
    return functional.scaled_dot_product_attention(q, k, v, is_causal=True)


def gla(q: Tensor, k: Tensor, v: Tensor, g: Tensor, chunk: int = 16) -> Tensor:
    """[B, T, H, D]: S = exp(g) S + k v, o = q S / sqrt(D), by chunks with a state between them."""
    b, t, h, d = q.shape
    state = q.new_zeros(b, h, d, v.shape[-1])
    made = []
    for n in range(0, t, chunk):
        qs, ks, vs, gs = (x[:, n : n + chunk].transpose(1, 2) for x in (q, k, v, g))
        total = gs.cumsum(2)
        # exp(total_i - total_j) for j <= i: no exponent is above 0
        apart = total[:, :, :, None] - total[:, :, None]
        lower = torch.ones(apart.shape[2:4], dtype=torch.bool).tril()[:, :, None]
        apart = apart.masked_fill(~lower, float("-inf")).exp()
        scores = torch.einsum("bhid,bhjd,bhijd->bhij", qs, ks, apart)
        made.append(scores @ vs + (qs * total.exp()) @ state)
        last = total[:, :, -1:]
        state = last.exp().transpose(2, 3) * state
        state = state + (ks * (last - total).exp()).transpose(2, 3) @ vs
    return torch.cat(made, 2).transpose(1, 2) * d**-0.5


TWINS: dict[str, Callable[..., Tensor]] = {"causal": causal, "gla": gla}


# ------------------------------------------------------------------------------------- training


@dataclass(frozen=True)
class Curves:
    """The losses of both models, step by step, and how fast each went."""

    kernels: list[float]
    twin: list[float]
    kernels_tokens_per_s: float
    twin_tokens_per_s: float

    @property
    def apart(self) -> float:
        """The largest difference of the two."""
        return max(abs(a - b) for a, b in zip(self.kernels, self.twin, strict=True))


class Trainer:
    """A model, its optimiser, and the time that they took."""

    def __init__(self, model: Model, run: Callable[..., Tensor], rate: float) -> None:
        self.model, self.run = model, run
        self.optimiser = torch.optim.AdamW(model.parameters(), lr=rate, eps=1e-6)
        self.losses: list[float] = []
        self.seconds: list[float] = []

    def step(self, chunk: Tensor) -> None:
        """One step on a batch."""
        started = time.perf_counter()
        loss = self.model.loss(chunk, self.run)
        self.optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.losses.append(loss.item())
        self.seconds.append(time.perf_counter() - started)

    def tokens_per_s(self, tokens: int) -> float:
        """The pace of the median step: the first ones compile."""
        return tokens / sorted(self.seconds)[len(self.seconds) // 2]


def train(arguments: argparse.Namespace) -> Curves:
    """Train both models in turns on the same batches."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    torch.manual_seed(arguments.seed)
    names = arguments.mixer if len(arguments.mixer) == 2 else 2 * arguments.mixer
    model = Model(names, arguments.width, arguments.heads, arguments.length)
    pair = (
        Trainer(model, by_kernels, arguments.rate),
        Trainer(copy.deepcopy(model), by_torch, arguments.rate),
    )
    data = torch.tensor(list(text()), dtype=torch.uint8)
    tokens = arguments.batch * arguments.length
    console = Console(highlight=False)
    console.print(f"{' + '.join(names)}: {sum(p.numel() for p in model.parameters()):,} weights")
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[pace]}"))
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        bar = progress.add_task("", total=arguments.steps, pace="")
        feed = batches(data, arguments.batch, arguments.length, arguments.seed)
        for step, chunk in zip(range(arguments.steps), feed, strict=False):
            for trainer in pair:
                trainer.step(chunk)
            paces = [f"{trainer.tokens_per_s(tokens):,.0f}" for trainer in pair]
            progress.update(bar, advance=1, pace=f"{paces[0]} tokens/s (twin {paces[1]})")
            if step % arguments.every == 0 or step == arguments.steps - 1:
                ours, twin = (trainer.losses[-1] for trainer in pair)
                console.print(f"step {step:4}  loss {ours:.5f}  twin {twin:.5f}")
    return Curves(pair[0].losses, pair[1].losses, *(t.tokens_per_s(tokens) for t in pair))


def draw(curves: Curves, path: Path, title: str) -> None:
    """The two curves, and how far they are apart, as a picture."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    above.plot(curves.kernels, label="kernels", linewidth=3, alpha=0.5)
    above.plot(curves.twin, label="plain torch", linewidth=1)
    above.set_ylabel("loss, nats per byte")
    above.set_title(title)
    above.legend()
    apart = [abs(a - b) for a, b in zip(curves.kernels, curves.twin, strict=True)]
    below.semilogy([max(x, 1e-9) for x in apart])
    below.axhline(1e-3, color="grey", linestyle="--")
    below.set_ylabel("apart")
    below.set_xlabel("step")
    figure.savefig(path, dpi=120)


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--mixer", nargs="+", default=["causal", "gla"], help="one or two specs")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=128, help="bytes of a sequence")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--heads", type=int, default=2)
    parser.add_argument("--rate", type=float, default=1e-3, help="the learning rate")
    parser.add_argument("--every", type=int, default=20, help="steps between printed losses")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--png", type=Path, default=Path("train_bytes.png"))
    found = parser.parse_args(arguments)
    if len(found.mixer) > 2 or found.width % found.heads:
        parser.error("--mixer takes one or two specs, and --heads must divide --width")
    return found


def main(arguments: Sequence[str] | None = None) -> Curves:
    """Train, print, draw."""
    chosen = options(arguments)
    curves = train(chosen)
    draw(curves, chosen.png, " + ".join(chosen.mixer))
    print(
        f"apart by {curves.apart:.1e} at most; {curves.kernels_tokens_per_s:,.0f} tokens/s by "
        f"kernels, {curves.twin_tokens_per_s:,.0f} by plain torch; curves in {chosen.png}"
    )
    return curves


if __name__ == "__main__":
    sys.exit(0 if main().apart < 1e-3 else 1)
