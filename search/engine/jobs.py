"""What the pool keeps of an evaluation on its way, and of a worker."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from policies.errors import InputError
from search.trial import Candidate


@dataclass
class Job:
    """A candidate on its way; `attempt` counts from 1. alone: let no other wait behind it.

    artifact: what its parent's evaluation left, for a candidate that has one.
    """

    candidate: Candidate
    attempt: int = 1
    alone: bool = False
    artifact: bytes | None = None


@dataclass(frozen=True)
class Outcome:
    """How one attempt ended. kind: "ok", "error" (raised), "crash" (process gone), "timeout".

    mistake: the error when the user is to blame for it, so that it need not be tried again.
    """

    job: Job
    kind: str
    evaluation: dict[str, Any] | None
    error: str | None
    detail: str
    started: float
    finished: float
    worker: str
    artifact: bytes | None = None
    mistake: InputError | None = None

    @classmethod
    def of(cls, job: Job, answer: dict[str, Any], worker: str) -> Outcome:
        """What `worker.Worker.evaluate` answered."""
        return cls(
            job,
            "ok" if "evaluation" in answer else "error",
            answer.get("evaluation"),
            answer.get("error"),
            answer.get("detail", ""),
            answer["started"],
            answer["finished"],
            worker,
            artifact=answer.get("artifact"),
            mistake=answer.get("mistake"),
        )


@dataclass(eq=False)
class Slot:
    """The driver's view of one worker."""

    actor: Any
    ready: Any  # reference to the answer of setup or receive; None once the worker is ready
    spawned: float
    worker: str = "starting"
    placed: Any = None  # reference that is answered as soon as there is a place for it
    unprepared: tuple[str, ...] = ()
    # What it was given; evaluations made at once have the same reference.
    queue: deque[tuple[Any, Job]] = field(default_factory=deque)
    head_since: float = 0.0

    @property
    def calls(self) -> int:
        return len({ref for ref, _ in self.queue})
