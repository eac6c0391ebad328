"""Runs a mixer as its TTGIR says for a GPU: recorded launches, executed in another process."""

from __future__ import annotations

import inspect
import itertools
import json
import os
import selectors
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from unittest.mock import patch

import torch
from torch import Tensor

from mixc.backends.names import plain_names
from mixc.backends.precision import with_own_dtypes, working_dtype
from mixc.backends.triton.emit import emit_module
from mixc.backends.triton.names import TAKEN
from mixc.backends.triton.run import _own_dtype, import_source
from mixc.compiler.pipeline import lower
from mixc.ir.binding import Number, bind_sizes
from mixc.ir.errors import MixcError
from mixc.ir.mixer import Input, Mixer
from mixc.ir.optional import without_inputs
from mixc.ir.roles import feature_dims
from mixc.ir.targets import target_of

_POISON = 0xFF  # of memory that nobody wrote: NaN, and an integer that is no index
Change = Callable[[str], str]


class ExecutionError(Exception):
    """An access outside every tensor, an undefined value, or a compile that failed."""


class NotExecutedError(MixcError):
    """An operation that the executing package has no meaning for."""


@dataclass
class Recording:
    """The launches of a call on tensors without values, and the memory that they name."""

    storages: dict[int, int] = field(default_factory=dict)
    tensors: list[Tensor] = field(default_factory=list)
    contents: dict[int, bytes] = field(default_factory=dict)
    launches: list[dict[str, Any]] = field(default_factory=list)

    def buffer(self, tensor: Tensor) -> int:
        """The number of the buffer that a tensor is a view of."""
        key = tensor.untyped_storage()._cdata
        if key not in self.storages:
            self.storages[key] = len(self.tensors)
            self.tensors.append(tensor)
        return self.storages[key]

    def argument(self, value: Any) -> Any:
        """An argument as JSON."""
        if not isinstance(value, Tensor):
            return value
        offset = value.storage_offset() * value.element_size()
        return {"buffer": self.buffer(value), "offset": offset}

    def tensor(self, values: Any, *, dtype: torch.dtype, device: Any) -> Tensor:
        """In place of ``torch.tensor``: one without values keeps them here."""
        made = torch.empty(torch.tensor(values).shape, dtype=dtype, device=device)
        self.contents[self.buffer(made)] = _bytes(_REAL_TENSOR(values, dtype=dtype))
        return made


_REAL_TENSOR = torch.tensor


@dataclass
class _Recorder:
    """In place of a kernel: keeps what it is launched with."""

    name: str
    parameters: tuple[str, ...]
    recording: Recording

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        def launch(*given: Any, **named: Any) -> None:
            bound = dict(zip(self.parameters, given, strict=False))
            bound |= {name: named.pop(name) for name in self.parameters if name in named}
            arguments = {name: self.recording.argument(value) for name, value in bound.items()}
            self.recording.launches.append(
                {"kernel": self.name, "grid": grid, "arguments": arguments, "options": named}
            )

        return launch


class Executor:
    """The process that executes, started at once; use as a context manager."""

    def __init__(self, python: Path, limit_s: float = 300.0) -> None:
        self._limit_s = limit_s
        self._folder = tempfile.TemporaryDirectory(prefix="mixc_evidence_")
        self._numbers = itertools.count()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed by close)
        compiled = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
        self._start = lambda: subprocess.Popen(
            [str(python), str(Path(__file__).with_name("execute.py"))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True,
            env=compiled,
        )  # fmt: skip
        self._process = self._start()
        if self._answer(120.0) is None:
            self._log.seek(0)
            last = self._log.read().decode().strip().splitlines()[-1:]
            raise ExecutionError(f"this Triton can't be executed: {' '.join(last)}")
        self.seconds = {"compiling": 0.0, "executing": 0.0}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._folder.cleanup()
        self._log.close()

    def runner(
        self, target: str = "cuda:90", change: Change = lambda source: source, shares: int = 1
    ) -> Callable[[Mixer], Runner]:
        """What makes the kernels of a mixer for a target, keys and rows in so many shares."""
        return lambda mixer: Runner(self, mixer, target, change, shares)

    def execute(self, source: str, recording: Recording, architecture: int) -> list[bytes]:
        """What stands in every buffer after the launches."""
        folder = Path(self._folder.name) / str(next(self._numbers))
        folder.mkdir()
        (folder / "module.py").write_text(source)
        for number, tensor in enumerate(recording.tensors):
            size = tensor.untyped_storage().nbytes()
            known = recording.contents.get(number, bytes([_POISON]) * size)
            (folder / f"{number}.bin").write_bytes(known)
        case = {
            "architecture": architecture,
            "buffers": [str(t.dtype).removeprefix("torch.") for t in recording.tensors],
            "launches": recording.launches,
        }
        (folder / "case.json").write_text(json.dumps(case))
        self._ask(folder)
        return [(folder / f"{n}.bin").read_bytes() for n in range(len(recording.tensors))]

    def _ask(self, folder: Path) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"folder": str(folder)}) + "\n")
        self._process.stdin.flush()
        text = self._answer(self._limit_s)
        if text is None:
            self._process.kill()
            code = self._process.wait()
            self._process = self._start()
            self._answer(120.0)
            raise ExecutionError(f"the compiler aborted, or ran past {self._limit_s} s ({code})")
        answer = json.loads(text)
        if "unsupported" in answer:
            raise NotExecutedError(answer["unsupported"])
        if "compiling" not in answer:
            raise ExecutionError(answer.get("fault") or answer["error"])
        for name, seconds in answer.items():
            self.seconds[name] += seconds

    def _answer(self, limit_s: float) -> str | None:
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            ready = selector.select(limit_s)
        return (self._process.stdout.readline().strip() or None) if ready else None


@dataclass
class Runner:
    """A mixer's calls, executed; takes tensors of the CPU and gives such.

    ``change`` is made to the source of every module: a planted fault.
    """

    executor: Executor
    mixer: Mixer
    target: str
    change: Change
    shares: int

    def __call__(
        self, tensors: Mapping[str, Tensor], params: Mapping[str, Number] = {}
    ) -> dict[str, Tensor]:
        """The outputs by name.

        Raises ExecutionError and NotExecutedError, and UnsupportedError where nothing lowers.
        """
        mixer = without_inputs(
            self.mixer, [i.name for i in self.mixer.inputs if i.name not in tensors]
        )
        dtype = working_dtype(mixer, tensors)
        mixer = with_own_dtypes(mixer, tensors, dtype)
        sizes = bind_sizes(mixer, {n: tuple(t.shape) for n, t in tensors.items()}, params)
        fixed = {dim: sizes[dim] for dim in sorted(feature_dims(mixer))}
        name = str(dtype).removeprefix("torch.")
        plan = lower(mixer, fixed, name, self.shares, target=target_of(self.target))
        source = self.change(emit_module(plan, wide_dots=False))
        words = plain_names(plan, TAKEN)
        given = {i.name: _as_kernels_take(tensors[i.name], i, dtype) for i in mixer.inputs}
        runtime = {words.get(n, n): v for n, v in params.items() if _is_runtime(mixer, n)}
        recording, made = _recorded(source, words.get(mixer.name, mixer.name), given, runtime)
        architecture = int(self.target.removeprefix("cuda:"))
        contents = self.executor.execute(source, recording, architecture)
        results = made if isinstance(made, tuple) else (made,)
        return {
            output.name: _read(result, contents[recording.buffer(result)])
            for output, result in zip(mixer.outputs, results, strict=True)
        }


def _is_runtime(mixer: Mixer, name: str) -> bool:
    return any(param.name == name and param.runtime for param in mixer.params)


def _as_kernels_take(tensor: Tensor, entry: Input, dtype: torch.dtype) -> Tensor:
    own = _own_dtype(entry, dtype)
    return tensor if own is None else tensor.to(own)


def _recorded(
    source: str, name: str, given: Mapping[str, Tensor], runtime: Mapping[str, Number]
) -> tuple[Recording, Any]:
    recording = Recording()
    stands = {}
    for key, tensor in given.items():
        count = tensor.untyped_storage().nbytes() // tensor.element_size()
        whole = torch.empty(count, dtype=tensor.dtype, device="meta")
        stands[key] = whole.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())
        recording.contents[recording.buffer(whole)] = _storage_bytes(tensor)
    module = import_source(source, "evidence")
    with _kernels_recorded(module, recording), patch("torch.tensor", recording.tensor):
        made = getattr(module, name)(*stands.values(), **runtime)
    return recording, made


@contextmanager
def _kernels_recorded(module: Any, recording: Recording) -> Iterator[None]:
    kernels = {n: f for n, f in vars(module).items() if n.endswith("_kernel")}
    for name, function in kernels.items():
        parameters = tuple(inspect.signature(function.fn).parameters)
        setattr(module, name, _Recorder(name, parameters, recording))
    try:
        yield
    finally:
        for name, function in kernels.items():
            setattr(module, name, function)


def _storage_bytes(tensor: Tensor) -> bytes:
    whole = torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage())  # type: ignore[call-overload]
    return bytes(whole.numpy().tobytes())


def _bytes(tensor: Tensor) -> bytes:
    return _storage_bytes(tensor.contiguous())


def _read(stand: Tensor, content: bytes) -> Tensor:
    whole = torch.empty(0, dtype=stand.dtype)
    if content:
        whole = torch.frombuffer(bytearray(content), dtype=stand.dtype)
    return whole.as_strided(stand.shape, stand.stride(), stand.storage_offset()).clone()
