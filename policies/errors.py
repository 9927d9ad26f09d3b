"""The one exception for mistakes of the user, anywhere in the toolkit."""

from __future__ import annotations


class InputError(ValueError):
    """A value given by the user breaks a rule.

    Args:
        argument: what the user passed, e.g. ``"magnitude"`` or ``"policy[3][1].name"``.
        rule: what must hold, e.g. ``"must be an integer in 0..9"``.
        got: the offending value; shown with ``repr`` and shortened.
        fix: what to do about it.
    """

    def __init__(self, argument: str, rule: str, got: object, fix: str) -> None:
        shown = repr(got)
        if len(shown) > 120:
            shown = shown[:117] + "..."
        super().__init__(f"{argument}: {rule}, but got {shown}; {fix}")
        self.argument, self.rule, self.got, self.fix = argument, rule, got, fix

    def __reduce__(self) -> tuple:
        # Exceptions rebuild themselves from ``args`` (the message); ours takes four arguments,
        # and it must survive the trip back from a worker process.
        return type(self), (self.argument, self.rule, self.got, self.fix)
