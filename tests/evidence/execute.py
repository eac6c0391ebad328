"""Executes launches of Triton kernels without a GPU: the last TTGIR of each, by ttsem.

Runs in an environment of its own (Python 3.12, triton, numpy, ttsem), and knows nothing of mixc.
Each line of its input names a folder with a module and what was launched; its kernels are compiled
for the target as Triton would for these arguments, and executed one after the other on one memory.
Buffers are read from the folder and written back; the answer is a line of JSON.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import time
import traceback
from functools import cache
from pathlib import Path

import numpy as np
import triton
from in_flight import InFlight, watch
from triton._C.libtriton import ir
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.compiler.compiler import make_backend
from ttsem.interp import Interp
from ttsem.memory import Memory, MemoryFault
from ttsem.mlir import enable_generic_printing, parse
from ttsem.values import Poison, Unsupported

# Buffers stand this far apart, so that no offset that is wrong ends in another one.
_APART = 1 << 44
_POINTERS = {
    "bfloat16": "*bf16", "float16": "*fp16", "float32": "*fp32", "float64": "*fp64",
    "int32": "*i32", "int64": "*i64", "bool": "*i1",
}  # fmt: skip


_FLIGHT = InFlight()


class Program(Interp):
    """The interpreter, which begins every program with nothing in flight."""

    def run(self, fn, args, program_id=(0, 0, 0)):
        """One program of the grid."""
        _FLIGHT.start()
        return super().run(fn, args, program_id)


def main() -> None:
    """Answer one line after another."""
    enable_generic_printing()
    watch(_FLIGHT)
    print(f"triton {triton.__version__}", flush=True)  # ready
    answers = sys.stdout
    sys.stdout = sys.stderr  # what compilers print is no answer
    for line in sys.stdin:
        try:
            answer = execute(Path(json.loads(line)["folder"]))
        except MemoryFault as fault:
            answer = {"fault": f"{fault.kind or 'an access'} outside every tensor: {fault}"}
        except Poison as poison:
            answer = {"fault": f"undefined: {poison}"}
        except Unsupported as what:
            answer = {"unsupported": str(what)}
        except Exception:
            answer = {"error": traceback.format_exc(limit=-4)}
        print(json.dumps(answer), file=answers, flush=True)


def execute(folder: Path) -> dict[str, float]:
    """Run the launches of a folder; seconds of compiling and of executing."""
    case = json.loads((folder / "case.json").read_text())
    module = _module(folder / "module.py")
    arrays = [
        np.frombuffer(bytearray((folder / f"{n}.bin").read_bytes()), dtype=np.uint8)
        for n in range(len(case["buffers"]))
    ]
    memory = Memory()
    for number, array in enumerate(arrays):
        if array.size:
            memory.register((number + 1) * _APART, array)
    seconds = {"compiling": 0.0, "executing": 0.0}
    for launch in case["launches"]:
        start = time.monotonic()
        function = getattr(module, launch["kernel"])
        bound = _bound(function, launch["arguments"], case["buffers"])
        text = ttgir(function, bound, launch["options"], case["architecture"])
        compiled = time.monotonic()
        interpreter = Program(parse(text), memory, tuple([*launch["grid"], 1, 1][:3]))
        values = [value for kind, value, _ in bound.values() if kind != "constexpr"]
        interpreter.run_grid(launch["kernel"], values)
        if interpreter.unsupported:
            raise Unsupported(", ".join(sorted(interpreter.unsupported)), "")
        seconds["compiling"] += compiled - start
        seconds["executing"] += time.monotonic() - compiled
    for number, array in enumerate(arrays):
        (folder / f"{number}.bin").write_bytes(array.tobytes())
    return seconds


@cache
def _module(path: Path):
    spec = importlib.util.spec_from_file_location(f"case_{path.parent.name}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _bound(function, arguments, buffers):
    """For each parameter its type, its value, and whether 16 divides it: as Triton specialises."""
    found = {}
    for parameter in function.params:
        given = arguments[parameter.name]
        if isinstance(given, dict):
            buffer = buffers[given["buffer"]]
            address = (given["buffer"] + 1) * _APART + given["offset"]
            value = np.array(address, dtype=np.int64)
            found[parameter.name] = (_POINTERS[buffer], value, address % 16 == 0)
        else:
            found[parameter.name] = _number(parameter, given)
    return found


def _number(parameter, given):
    special = not parameter.do_not_specialize
    if parameter.is_constexpr or given is None or (special and given == 1 and _is_int(given)):
        return "constexpr", given, False
    if isinstance(given, bool):
        return "i1", np.array(given), False
    if isinstance(given, float):
        return "fp32", np.array(given, dtype=np.float32), False
    wide = not -(2**31) <= given < 2**31
    value = np.array(given, dtype=np.int64 if wide else np.int32)
    return "i64" if wide else "i32", value, special and given % 16 == 0


def _is_int(given) -> bool:
    return isinstance(given, int) and not isinstance(given, bool)


def ttgir(function, bound, options, architecture: int) -> str:
    """The last TTGIR of a kernel, after every pass on it, in MLIR's generic form."""
    target = GPUTarget("cuda", architecture, 32)
    source = ASTSource(
        function,
        {name: kind for name, (kind, _, _) in bound.items()},
        {name: value for name, (kind, value, _) in bound.items() if kind == "constexpr"},
        {
            (place,): [["tt.divisibility", 16]]
            for place, (_, _, divisible) in enumerate(bound.values())
            if divisible
        },
    )
    backend = make_backend(target)
    parsed = backend.parse_options({**options, **source.parse_options()})
    context = ir.context()
    ir.load_dialects(context)
    backend.load_dialects(context)
    stages = {}
    backend.add_stages(stages, parsed, source.language)
    helpers = backend.get_codegen_implementation(parsed), backend.get_module_map()
    module = source.make_ir(target, parsed, *helpers, context)
    metadata = {"target": target, **parsed.__dict__}
    for stage in ("ttir", "ttgir"):
        module = stages[stage](module, metadata)
    return str(module)


if __name__ == "__main__":
    main()
