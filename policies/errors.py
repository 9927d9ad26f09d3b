"""The one exception for mistakes of the user, anywhere in the toolkit; what raises it."""

from __future__ import annotations

import difflib
import operator
from collections.abc import Collection, Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """A value given by the user breaks a rule.

    Args:
        argument: what the user passed, e.g. ``"magnitude"`` or ``"policy[3][1].name"``.
        rule: what must hold, e.g. ``"must be an integer in 0..9"``.
        got: the offending value; shown with ``repr`` and shortened.
        fix: what to do about it.
    """

    def __init__(
        self, argument: str, rule: str | None = None, got: object = None, fix: str = ""
    ) -> None:
        self.argument, self.rule, self.got, self.fix = argument, rule or "", got, fix
        if rule is None:  # a DataLoader makes those of its workers again from their message alone
            super().__init__(argument)
            return
        shown = repr(got)
        if len(shown) > 120:
            shown = shown[:117] + "..."
        super().__init__(f"{argument}: {rule}, but got {shown}; {fix}")

    def __reduce__(self) -> tuple:
        # Exceptions rebuild themselves from ``args`` (the message); ours takes four arguments,
        # and it must survive the trip back from a worker process.
        return type(self), (self.argument, self.rule or None, self.got, self.fix)


def check_choice(argument: str, value: object, known: Collection[str]) -> None:
    """InputError, with the nearest legal name, unless ``value`` is one of ``known``."""
    if isinstance(value, str) and value in known:
        return
    close = difflib.get_close_matches(str(value)[:40], known, 1)
    names = ", ".join(known)
    fix = f"did you mean {close[0]!r}?" if close else "choose one of these"
    several = [each.strip() for each in str(value).split(",")]
    if len(several) > 1 and set(several) <= set(known):
        fix = f"separate them: {' '.join(several)}"
    raise InputError(argument, f"must be one of {names}", value, fix)


def check_integer(argument: str, value: object, low: int, high: int | None = None) -> int:
    """``value`` as int if it is an integer in low..high (inclusive; None: no end), else InputError.

    numpy's integers are integers, bool is not.
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is None or number < low or (high is not None and number > high):
        rule = f"must be an integer in {low}..{high}"
        if high is None:
            rule = f"must be at least {low}, an integer"
        raise InputError(argument, rule, value, "give a whole number in this range")
    return number


@contextmanager
def located(where: str) -> Iterator[None]:
    """InputErrors from within say ``where`` the value stands, e.g. a file's name, before its own
    argument."""
    try:
        yield
    except InputError as error:
        raise InputError(
            f"{where}: {error.argument}", error.rule, error.got, error.fix
        ) from None  # fmt: skip


@contextmanager
def as_written(where: str, rule: str, fix: str = "resume the run") -> Iterator[None]:
    """InputError for whatever reading plain data of another form raises; ``where``: their file."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise InputError(where, rule, repr(error), fix) from None
