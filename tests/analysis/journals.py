"""Journal lines as the engine writes them, with planted numbers."""

from __future__ import annotations

from pathlib import Path

from analysis import report_of, write_report


def reported(directory: Path) -> Path:
    """The Markdown file of the report of a run folder."""
    return write_report(report_of(directory))


def journal_line(batch: int, slot: int, accuracy: float | None = 0.5, **changes) -> dict:
    """One line of trials.jsonl; `accuracy` None makes a failed one."""
    evaluation = None
    if accuracy is not None:
        evaluation = {
            "reward": accuracy,
            "stderr": 0.01,
            "seconds": 2.0,
            "image_passes": 1000,
            "diverged": False,
            "part": changes.get("part", "validation"),
            "details": {},
            "metrics": {
                "accuracy": accuracy,
                "log_likelihood": -1.0,
                "calibrated_log_likelihood": -0.9,
                "temperature": 1.1,
            },
        }
    line = {
        "batch": batch,
        "slot": slot,
        "label": "",
        "scorer": "main",
        "part": "validation",
        "seed": 10 * batch + slot,
        "augmentation": [[["Rotate", 0.5, 3], ["Invert", 0.2, None]]],
        "status": "failed" if accuracy is None else "ok",
        "attempts": 1,
        "evaluation": evaluation,
        "error": "RuntimeError: planted" if accuracy is None else None,
        "duplicate_of": None,
        "started": 100.0 + batch,
        "finished": 102.0 + batch,
        "worker": "0",
        "parent": None,
        "artifact": None,
    }
    return {**line, **changes}
