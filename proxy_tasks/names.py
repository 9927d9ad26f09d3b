"""Names of parts, of ways to spread them over classes, of run folders. Without numpy or torch."""

from __future__ import annotations

# What config.json of a run folder says it is: whoever reads a run asks for exactly this.
RUN_FORMAT = "augsearch-run"
RUN_VERSION = 2

PARTS = ("train", "validation", "test")
# How a part's images are spread over the classes.
SHARES = {
    "equal": "the same number of each class",
    "proportional": "in proportion to the classes, at least one of each",
    "capped": "the same number of each class, and of smaller classes all that can be spared",
}
