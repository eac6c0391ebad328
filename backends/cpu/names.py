"""Words that emitted C++ needs for itself."""

from __future__ import annotations

from ...ir.plan import Plan
from ...ir.targets import CpuTarget
from .. import names

_KEYWORDS = (
    "alignas alignof and and_eq asm auto bitand bitor bool break case catch char char8_t char16_t "
    "char32_t class compl concept const consteval constexpr constinit const_cast continue co_await "
    "co_return co_yield decltype default delete do double dynamic_cast else enum explicit export "
    "extern false float for friend goto if inline int long mutable namespace new noexcept not "
    "not_eq nullptr operator or or_eq private protected public register reinterpret_cast requires "
    "return short signed sizeof static static_assert static_cast struct switch template this "
    "thread_local throw true try typedef typeid typename typeof union unsigned using virtual void "
    "volatile wchar_t while xor xor_eq"
)
_OWN = "mx main args threads team program programs rest tiles u v n memcpy int32_t int64_t uint16_t"


def taken(target: CpuTarget) -> frozenset[str]:
    """Keywords, macros of the headers as the target's compiler has them, and words of our own."""
    return target.macros.union(_KEYWORDS.split(), _OWN.split())


def with_plain_names(plan: Plan, target: CpuTarget) -> Plan:
    """The plan with names that its C++ can have."""
    return names.with_plain_names(plan, taken(target))


__all__ = ["taken", "with_plain_names"]
