"""The root of every error that mixc raises on purpose."""

from __future__ import annotations


class MixcError(Exception):
    """An error for the user: where, what was found, what is allowed, what to do next."""


class SpecError(MixcError):
    """A spec that the language does not admit; its text names file, line and column."""

    def __init__(
        self,
        message: str,
        *,
        path: str | None = None,
        line: int | None = None,
        column: int | None = None,
    ) -> None:
        super().__init__(message)
        self.path, self.line, self.column = path, line, column


class ArgumentError(MixcError):
    """A call of a mixer with tensors or parameters that the spec does not admit."""


class UnsupportedError(MixcError):
    """A spec that the language admits and a backend cannot lower; the text names the term.

    ``line`` and ``column`` are its place in the spec's text, once known; one-based.
    """

    line: int | None = None
    column: int | None = None

    def located(self, path: str | None, text: str) -> UnsupportedError:
        """The error with its place and the spec's line under it, where both are known."""
        lines = text.splitlines()
        if self.line is None or self.column is None or self.line > len(lines):
            return self
        shown = lines[self.line - 1]
        caret = " " * (self.column - 1) + "^"
        place = f"{path or '<text>'}:{self.line}:{self.column}"
        return type(self)(f"{place}: {self}\n  {shown}\n  {caret}")


class VerificationError(MixcError):
    """An IR value that breaks a rule of its level; always a defect of mixc itself."""


class PromiseError(VerificationError):
    """Blocks or lengths for which a program was not made: it would leave its memory."""


class MixcWarning(UserWarning):
    """What a user should know of a call that is right, and slower than it could be."""


class DefectError(UnsupportedError):
    """A kernel that a compiler refuses: a defect of mixc, though a caller may go on without it."""
