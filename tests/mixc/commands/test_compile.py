"""``mixc compile``: modules, reports, explanations, and the backward pass."""

import json
import os
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from click.testing import CliRunner

from mixc.cli import commands


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run ``mixc ARGS`` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *args: CliRunner().invoke(commands, [str(arg) for arg in args])


def test_compile_writes_the_module_and_reports(run, tmp_path):
    result = run("compile", "causal", "-o", "kernel.py", "--size", "D=32", "--json")
    assert result.exit_code == 0
    (kernel,) = json.loads(result.stdout)["kernels"]
    assert kernel["target"] == "cuda:90"
    assert kernel["tensor_core_instructions"] > 0
    assert kernel["async_copies"] > 0
    assert kernel["spilled_bytes"] == 0
    assert set(kernel) == {
        "name",
        "target",
        "registers",
        "spilled_bytes",
        "shared_bytes",
        "tensor_core_instructions",
        "async_copies",
    }
    assert "D = 32" in (tmp_path / "kernel.py").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["kernel.py"]


def test_compile_prints_the_module_and_the_report_apart(run):
    result = run("compile", "causal", "--dtype", "fp16", "--target", "cuda:80")
    assert result.exit_code == 0
    assert "Compiled for float16" in result.stdout
    compile(result.stdout, "kernel.py", "exec")
    assert "cuda:80" in result.stderr


def test_compile_explains_what_a_kernel_waits_for(run, tmp_path):
    sizes = ("--size", "T=1024", "--size", "D=64", "--size", "E=64")
    result = run("compile", "gla", "--explain", "-o", "kernel.py", *sizes)
    assert result.exit_code == 0, result.stderr
    for kernel in ("gla_o_prepare_kernel", "gla_o_kernel"):
        assert f"{kernel} on cuda:90" in result.stdout
    assert "bound by latency" in result.stdout
    named = re.findall(r"line (\d+): (.*)", result.stdout)
    module = (tmp_path / "kernel.py").read_text().splitlines()
    assert len(named) == 3 * 2
    assert all(module[int(number) - 1].strip() == text for number, text in named)


def test_compile_explains_as_data_and_by_the_report_where_there_is_no_machine_code(run):
    targets = ("--target", "cuda:80", "--target", "hip:gfx942")
    result = run("compile", "causal", "--explain", "--json", "--size", "T=1024", *targets)
    assert result.exit_code == 0, result.stderr
    data = json.loads(result.stdout)
    assert data["sizes"]["T"] == 1024
    nvidia, amd = data["expected"]
    assert nvidia["expected_us"] > 3
    assert len(nvidia["lines"]) == 3
    assert "lines" not in amd
    assert amd["expected_us"] > 3


def test_compile_takes_the_backward_pass(run, tmp_path):
    options = ("--grad", "--size", "D=32", "--size", "E=16", "--target", "cuda:80", "--json")
    result = run("compile", "causal", "-o", "kernel.py", *options)
    assert result.exit_code == 0, result.stderr
    kernels = json.loads(result.stdout)["kernels"]
    module = (tmp_path / "kernel.py").read_text()
    assert {kernel["target"] for kernel in kernels} == {"cuda:80"}
    assert len(kernels) == len(re.findall(r"^def causal_backward_\w+_kernel\(", module, re.M))
    assert "D = 32" in module
    for gradient in ("d_q", "d_k", "d_v"):
        assert f"causal_backward_{gradient}_kernel" in {kernel["name"] for kernel in kernels}
    result = run("compile", "causal", "-o", "wide.py", "--grad", "--dtype", "fp32")
    assert result.exit_code == 0, result.stderr
    assert "Compiled for float32" in (tmp_path / "wide.py").read_text()


def test_compile_explains_a_backward_pass_at_the_sizes_of_its_spec(run):
    sizes = ("--size", "T=512", "--size", "H=4", "--size", "D=32", "--size", "E=64")
    result = run("compile", "retention", "--grad", "--explain", "--json", *sizes)
    assert result.exit_code == 0, result.stderr
    data = json.loads(result.stdout)
    known = {dim: size for dim, size in data["sizes"].items() if dim in "THDE"}
    assert known == {"T": 512, "H": 4, "D": 32, "E": 64}
    names = [kernel["name"] for kernel in data["expected"]]
    assert names == [kernel["name"] for kernel in data["kernels"]]
    assert all(name.startswith("retention_backward_") for name in names)
    assert all(kernel["expected_us"] > 0 for kernel in data["expected"])


def test_compile_says_where_there_is_no_backward_pass(run, tmp_path):
    (tmp_path / "counted.yaml").write_text(
        "mixer: counted\n"
        "inputs: {n: {dims: [B, T], dtype: int32}}\n"
        "stages:\n"
        "  - map: {twice: 2 * n}\n"
        "outputs: {twice: [B, T]}\n"
    )
    result = run("compile", "counted.yaml", "--grad")
    assert result.exit_code == 1  # the answer is no
    assert "counted: no output has a gradient by an input" in result.output
    assert result.stdout == ""


def test_compile_leaves_a_file_that_it_cannot_replace_as_it_is(run, tmp_path):
    result = run("compile", "causal", "-o", "nowhere/kernel.py")
    assert result.exit_code == 2
    assert "nowhere" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_compile_writes_to_a_pipe_and_leaves_it_there(run, tmp_path):
    """As root, `-o /dev/null` put a file in the place of the device."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as reader:
        text = reader.submit(pipe.read_text)
        assert run("compile", "causal", "-o", "pipe", "--size", "D=32").exit_code == 0
        assert "D = 32" in text.result(timeout=60)
    assert pipe.is_fifo()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--target", "cuda:91"], "did you mean 'cuda:90'?"),
        (["--dtype", "int8"], "int8"),
        (["--size", "H=4"], "the size of H is known at run time only"),
        (["--grad", "--size", "H=4"], "the size of H is known at run time only"),
        (["--grad", "--size", "Q=4"], "no dim 'Q'"),
        (["--grad", "--explain", "--size", "Q=4"], "no dim 'Q'"),
    ],
)
def test_compile_refuses_what_there_is_not(run, tmp_path, options, message):
    result = run("compile", "causal", "-o", "kernel.py", *options)
    assert result.exit_code == 2
    assert message in result.stderr
    assert list(tmp_path.iterdir()) == []
