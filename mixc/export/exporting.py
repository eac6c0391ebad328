"""A mixer as one file that needs torch and triton only: kernels, gradients, a self-test."""

from __future__ import annotations

import hashlib
import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import TYPE_CHECKING

from ..ir.errors import UnsupportedError
from ..ir.expression import Kind
from ..ir.mixer import Mixer
from ..ir.optional import without_inputs

if TYPE_CHECKING:
    from ..backends.triton.cross_compile import KernelSignature
    from ..compiler.mixers.derivative.differentiate import Derivative
    from ..ir.plan import Plan
    from .tuned_tables import Table

WIDEST = 100


@dataclass(frozen=True)
class Exported:
    """The file, and the kernels in it; ``without_gradient`` says why it has no backward pass.

    ``tuned`` stored results are in its tables; ``left_out`` says why others are not.
    """

    source: str
    plans: tuple[Plan, ...]
    without_gradient: str | None = None
    tuned: int = 0
    left_out: tuple[str, ...] = ()

    def signatures(self) -> list[KernelSignature]:
        """What the kernels take, for compiling them without a GPU."""
        from ..backends.triton.signatures import kernel_signatures

        return [signature for plan in self.plans for signature in kernel_signatures(plan)]


def export(
    mixer: Mixer,
    sizes: Mapping[str, int],
    dtype: str,
    *,
    gradients: bool = True,
    optional: Sequence[str] = (),
) -> Exported:
    """The file of a mixer for a working precision.

    Args:
        sizes: feature dims that the kernels are compiled for; 64 for those left out.
        gradients: with a backward pass, where there is one.
        optional: inputs with a default that the file's function takes, beside weights; others are
            their default.

    Raises:
        ArgumentError: other dims, or names that are no inputs with a default.
        UnsupportedError: a term that kernels, or plain torch code, do not have.
    """
    from ..runtime.compiling import check_derived_sizes, check_feature_sizes

    check_feature_sizes(mixer, sizes)
    own = _with_optional(mixer, optional)
    passes, reason = _passes(own, sizes, dtype, gradients)
    check_derived_sizes(passes.forward)
    return _File(own, passes, dtype, reason, _tables(mixer, passes)).exported()


def _tables(mixer: Mixer, passes: _Passes) -> list[Table]:
    """What is stored for the mixer, and for its backward pass."""
    from .tuned_tables import table_of

    tables = [table_of(mixer, passes.forward)]
    if passes.backward is not None and passes.derivative is not None:
        tables.append(table_of(passes.derivative.backward, passes.backward))
    return tables


def _with_optional(mixer: Mixer, optional: Sequence[str]) -> Mixer:
    from ..ir.binding import suggestion
    from ..ir.errors import ArgumentError

    known = [i.name for i in mixer.inputs if i.default is not None]
    for name in optional:
        if name not in known:
            hint = suggestion(name, known) or f"; those with one: {', '.join(known) or 'none'}"
            raise ArgumentError(f"{mixer.name} has no input {name!r} with a default{hint}")
    weights = [i.name for i in mixer.inputs if i.held is not None]
    return without_inputs(mixer, [n for n in known if n not in optional and n not in weights])


@dataclass(frozen=True)
class _Passes:
    """The plans of the passes; without a derivative there is one."""

    forward: Plan
    backward: Plan | None = None
    derivative: Derivative | None = None


def _passes(
    mixer: Mixer, sizes: Mapping[str, int], dtype: str, gradients: bool
) -> tuple[_Passes, str | None]:
    """The passes, and why there is no backward one."""
    from ..compiler.mixers.derivative.differentiate import differentiate
    from ..compiler.pipeline import lower

    reason = "the file was exported without one"
    if gradients:
        try:
            derivative = differentiate(mixer)
            if not derivative.gradients:
                raise UnsupportedError("no output has a gradient by an input")
            forward = replace(derivative.forward, name=f"{mixer.name}_forward")
            plan = lower(forward, sizes, dtype)
            fixed = dict(plan.sizes)
            known = {dim for i in derivative.backward.inputs for dim in i.dims}
            fixed = {dim: size for dim, size in fixed.items() if dim in known}
            backward = lower(derivative.backward, fixed, dtype)
            return _Passes(plan, backward, derivative), None
        except UnsupportedError as error:
            reason = str(error).splitlines()[0]
    return _Passes(lower(replace(mixer, name=f"{mixer.name}_forward"), sizes, dtype)), reason


class _File:
    """The writer of the file."""

    def __init__(
        self,
        mixer: Mixer,
        passes: _Passes,
        dtype: str,
        reason: str | None,
        tables: Sequence[Table],
    ) -> None:
        self.tables = tables
        from ..backends.triton.emit import device_functions, final_form, kernel_texts
        from ..backends.triton.host import HostText
        from ..backends.triton.names import with_plain_names

        self.mixer, self.passes, self.dtype, self.reason = mixer, passes, dtype, reason
        given = [plan for plan in (passes.forward, passes.backward) if plan is not None]
        self.plans = [with_plain_names(final_form(plan)) for plan in given]
        own: dict[str, str] = {}
        kernels = [kernel_texts(plan, own) for plan in self.plans]
        self.functions = device_functions([k for texts in kernels for k in texts], own)
        self.kernels = [
            _kernel(kernel, text)
            for plan, texts in zip(self.plans, kernels, strict=True)
            for kernel, text in zip(plan.emitted, texts, strict=True)
        ]
        self.hosts = []
        for plan, table in zip(self.plans, tables, strict=True):
            name = f"{plan.mixer.name.upper()}_TUNED"
            read = table.call(name)
            self.hosts += [table.text(name)] if read is not None else []
            self.hosts.append(HostText(plan, standalone=True, table=read).text)

    @property
    def _transforms(self) -> bool:
        """Whether some plan has a Fourier transform."""
        return any(len(plan.emitted) < len(plan.kernels) for plan in self.plans)

    def exported(self) -> Exported:
        """The file as text."""
        from ..backends.fourier import source as fourier_source
        from ..backends.plain.emit import reference_function
        from ..backends.triton.checks import CHECKS
        from .exported_calls import call_text, self_test_text
        from .standalone import architecture_of, mend_interpreter, tuned

        reference = reference_function(self.mixer)
        mend = f'{_copied(mend_interpreter)}\n\n\nif os.environ.get("TRITON_INTERPRET") == "1":'
        parts = [
            *([f"{mend}\n    mend_interpreter()"] if self.kernels else []),
            *self.functions,
            *CHECKS.strip().split("\n\n\n"),
            *(fourier_source(standalone=True).split("\n\n\n") if self._transforms else []),
            *([_copied(architecture_of), _copied(tuned)] if self._is_tuned else []),
            "# Kernels and launches keep the layout that they were made with.\n# fmt: off",
            *self.kernels,
            *self.hosts,
            "# fmt: on",
            call_text(self.mixer, self.plans, self.passes.derivative, self.dtype, self.reason),
            *reference.helpers,
            reference.text,
            *self_test_text(self.mixer, self.plans[0], self.passes.derivative, self.dtype),
        ]
        body = "\n\n\n".join(parts) + "\n"
        head = "\n".join(_imports(body))
        digest = hashlib.sha256(body.encode()).hexdigest()[:16]
        source = f"{self._docstring(digest)}\n\n{_lint(body)}{head}\n\n\n{body}"
        given = [plan for plan in (self.passes.forward, self.passes.backward) if plan is not None]
        rows = sum(len(table.rows) for table in self.tables)
        left_out = tuple(said for table in self.tables for said in table.left_out)
        return Exported(source, tuple(given), self.reason, rows, left_out)

    @property
    def _is_tuned(self) -> bool:
        return any(table.varying for table in self.tables)

    def _docstring(self, digest: str) -> str:
        mixer, plan = self.mixer, self.plans[0]
        lines = [f'"""{_sentence(mixer)}', ""]
        lines += [line for line in textwrap.wrap(_rest(mixer), WIDEST)]
        lines += [f"Source: {mixer.source}."] if mixer.source else []
        lines += ["", "The equations, with the axes of every value:", ""]
        lines += [f"    {line}" for line in _equations(mixer)]
        lines += ["", "How to call it:", ""]
        lines += [f"    {line}" for line in _how_to_call(mixer, plan)]
        fixed = ", ".join(f"{dim} = {size}" for dim, size in plan.sizes)
        made_for = f"The kernels are for {self.dtype}" + (f" with {fixed}" if fixed else "")
        lines += ["", f"{made_for}; all other lengths, and strides, are free."]
        if self._is_tuned:
            lines.append("Blocks are looked up in what was tuned, by device and lengths.")
        if self.reason is not None:
            lines += textwrap.wrap(f"There is no backward pass: {self.reason}.", WIDEST)
        lines += [
            f"Self-test: `python {mixer.name}.py`, without a GPU by TRITON_INTERPRET=1.",
            "",
            f"Exported by mixc {version('mixc')}: edit the spec, not this file.",
            f"Content: {digest}.",
            '"""',
        ]
        fitting = [part for line in lines for part in _fitting(line)]
        return "\n".join(line.rstrip() for line in fitting)


def _kernel(kernel: object, text: object) -> str:
    """A kernel with its words as docstring."""
    from ..backends.triton.emit import decorator
    from ..backends.triton.kernel_text import KernelText
    from ..ir.plan import Kernel

    assert isinstance(kernel, Kernel)
    assert isinstance(text, KernelText)
    signature = "\n".join([*decorator(kernel.program), *text.signature])
    about = _docstring(kernel.program.about, 4)
    return "\n".join([signature, *about, *text.body])


def _docstring(text: str, indent: int) -> list[str]:
    """Words as a docstring."""
    space = " " * indent
    text = text[:1].upper() + text[1:]
    text = text if text.endswith(".") else f"{text}."
    if len(text) + indent + 6 <= WIDEST:
        return [f'{space}"""{text}"""']
    first, *more = textwrap.wrap(text, WIDEST - indent - 3)
    return [f'{space}"""{first}', *(space + line for line in more), f'{space}"""']


def _fitting(line: str) -> list[str]:
    """A line of the docstring, as several ones of the same indent where it is too long."""
    space = " " * (len(line) - len(line.lstrip()))
    if len(line) <= WIDEST:
        return [line]
    return textwrap.wrap(line, WIDEST, subsequent_indent=space, break_on_hyphens=False)


def _copied(function: object) -> str:
    """A function of ``standalone`` as it stands."""
    return inspect.getsource(function).rstrip()  # type: ignore[arg-type]


def _imports(body: str) -> Iterator[str]:
    """The imports that the text reads."""
    for name in ("math", "os"):
        if f"{name}." in body:
            yield f"import {name}"
    if "Callable[" in body:
        yield "from collections.abc import Callable, Sequence"
    if "@lru_cache" in body:
        yield "from functools import lru_cache"
    if "Any" in body:
        yield "from typing import Any"
    yield from ("", "import torch")
    if "@triton" in body:
        yield from ("import triton", "import triton.language as tl")
    if "@once_differentiable" in body:
        yield "from torch.autograd.function import once_differentiable"


def _lint(body: str) -> str:
    """Dims keep their names, whatever a linter thinks of ``I``."""
    ambiguous = re.search(r"^ *(?:for )?[IOl](?: = | in )|, [IOl](?:, | = )", body, re.MULTILINE)
    return "# ruff: noqa: E741\n\n" if ambiguous else ""


def _sentence(mixer: Mixer) -> str:
    about = " ".join(mixer.about.split())
    first = about.partition(". ")[0].removesuffix(".")
    whole = f"{mixer.name}: {first}." if first else f"{mixer.name}."
    return whole if len(whole) <= WIDEST - 3 else f"{mixer.name}."


def _rest(mixer: Mixer) -> str:
    about = " ".join(mixer.about.split())
    if _sentence(mixer) == f"{mixer.name}.":
        return about
    return about.partition(". ")[2]


def _equations(mixer: Mixer) -> Iterator[str]:
    """The spec as it was read, without what is said elsewhere."""
    from ..ir.text import write_mixer

    bare = replace(mixer, about="", source="", check=(), bench=(), tiling=())
    for line in write_mixer(bare).splitlines()[1:]:
        indent = len(line) - len(line.lstrip()) + 4
        text = line.replace("\\", "\\\\")
        yield from textwrap.wrap(
            text, WIDEST - 4, subsequent_indent=" " * indent, drop_whitespace=False
        ) or [""]


def _how_to_call(mixer: Mixer, plan: Plan) -> Iterator[str]:
    names = ", ".join(i.name for i in mixer.inputs)
    made = ", ".join(o.name for o in mixer.outputs)
    yield f"{made} = {mixer.name}({names})"
    yield ""
    kinds = {Kind.BOOL: "bool", Kind.INT: "int32"}
    for entry in mixer.inputs:
        dtype = entry.dtype or kinds.get(entry.kind) or plan.dtype.value
        yield f"{entry.name}: [{', '.join('*'.join(p) or '1' for p in entry.layout)}], {dtype}"


__all__ = ["Exported", "export"]
