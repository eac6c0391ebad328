"""Visible pairs and operations, against counting by hand."""

import pytest
import torch

from mixc.autotune.bench import machine as machine_of
from mixc.autotune.bench.machine import Machine
from mixc.autotune.bench.timed_inputs import left_out, timed_inputs
from mixc.autotune.bench.work import Work, work_of
from mixc.autotune.checking.shapes import (
    CPU_PROPORTIONS,
    checked_sizes,
    length_buckets,
    timed_sizes,
)
from mixc.autotune.results.devices import this_cpu
from mixc.autotune.search.kernels import cpu_space
from mixc.compiler.language.find import find_spec, library
from mixc.compiler.language.load import load_file
from mixc.ir.binding import bind_sizes, shape_of
from mixc.ir.errors import ArgumentError
from mixc.ir.optional import without_inputs

N = 70


def work(name, **sizes):
    mixer = load_file(find_spec(name))
    timed = timed_sizes(mixer, CPU_PROPORTIONS, {"T": N, **sizes})
    tensors = timed_inputs(mixer, timed, torch.float32)
    return work_of(without_inputs(mixer, left_out(mixer)), timed, tensors, torch.float32)


@pytest.mark.parametrize("at_once", [1 << 24, 1000])
def test_pairs_of_masks(monkeypatch, at_once):
    monkeypatch.setattr("mixc.autotune.bench.work._PAIRS_AT_ONCE", at_once)
    assert work("dense").pairs == 8 * N * N
    assert work("causal").pairs == 8 * N * (N + 1) // 2
    assert work("alibi_window").pairs == work("causal").pairs  # the window is longer
    document = torch.arange(N) * 4 // N
    same = document[:, None] == document[None, :]
    assert work("packed").pairs == 8 * int(same.tril().sum())


def test_operations_are_those_of_the_two_products():
    assert work("causal", D=32, E=16).flops == 2 * (32 + 16) * 8 * N * (N + 1) / 2


def test_operations_of_steps_are_those_written():
    """S = exp(g) * S + k * v; o = scale * sum(q * S, D)."""
    rows, D, E = 8 * N, 64, 64
    assert work("simple_gla").flops == rows * (1 + 3 * D * E + 2 * D * E + E)
    assert work("simple_gla").pairs == 0
    more = work("delta_product", R=3).flops - work("delta_product", R=1).flops
    assert more == 2 * rows * (4 * D * E + D + E)  # k * S, its sum, beta * k * (v - ...), S + ...


def test_every_spec_has_sizes_that_bind():
    for path in library():
        mixer = load_file(path)
        sizes = timed_sizes(mixer, CPU_PROPORTIONS, {})
        for made in (sizes, checked_sizes(mixer, sizes)):
            shapes = {i.name: shape_of(i.layout, made) for i in mixer.inputs}
            bound = bind_sizes(mixer, shapes)
            assert {d: made[d] for d in bound} == bound, mixer.name
        assert max(checked_sizes(mixer, sizes).values()) < 2000


def test_a_check_sees_the_end_of_a_window():
    mixer = load_file(find_spec("alibi_window"))
    sizes = checked_sizes(mixer, timed_sizes(mixer, CPU_PROPORTIONS))
    assert 1024 < sizes["T"] < 1400
    assert (sizes["H"], sizes["D"]) == (2, 64)


def test_a_dim_that_is_not_there_is_an_error():
    with pytest.raises(ArgumentError, match="no dim 'S'"):
        timed_sizes(load_file(find_spec("causal")), CPU_PROPORTIONS, {"S": 3})


def test_lengths_are_kept_in_powers_of_two():
    mixer = load_file(find_spec("cross"))
    assert length_buckets(mixer, {"I": 1, "J": 4097}) == {"I": 1, "J": 8192}


def test_the_space_of_a_decoding_call_has_the_split_as_a_knob():
    mixer = load_file(find_spec("cross"))
    few = timed_sizes(mixer, CPU_PROPORTIONS, {"I": 1, "J": 8192, "H": 1, "G": 1})
    many = timed_sizes(mixer, CPU_PROPORTIONS)
    torch.set_num_threads(2)
    try:
        decoding, training = (cpu_space(mixer, sizes, "bfloat16") for sizes in (few, many))
    finally:
        torch.set_num_threads(1)
    assert "splits" not in training.default
    assert decoding.default["splits"] == 2
    assert decoding.default["block_keys"] == 32
    assert decoding.admits({"splits": 4})
    assert not training.admits({"splits": 4})
    assert "registers" in training.refusal({**training.default, "dot_rows": 12, "dot_vectors": 4})


def test_a_share_is_of_the_rate_that_bounds():
    machine = Machine("a CPU", "cpu:avx2", products_gflop_s=100.0, copies_gb_s=10.0)
    products = Work(flops=1e9, pairs=0, bytes=1000)  # 10 ms at best
    assert machine.share(products, 40_000.0) == pytest.approx(0.25)
    copies = Work(flops=1e6, pairs=0, bytes=10**8)  # 10 ms at best
    assert machine.share(copies, 20_000.0) == pytest.approx(0.5)
    assert machine.sentence == "a CPU (cpu:avx2): products 100 GFLOP/s, copies 10 GB/s"


def test_a_machine_is_measured(monkeypatch):
    monkeypatch.setitem(machine_of._SIDE, "cpu", 64)
    monkeypatch.setitem(machine_of._COPIED_BYTES, "cpu", 1 << 20)
    made = machine_of.measured_machine("cpu", torch.bfloat16)
    assert made.name == this_cpu().name
    assert made.products_gflop_s > 0
    assert made.copies_gb_s > 0
