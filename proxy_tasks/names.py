"""Names of parts, and of ways to spread them over classes. Without numpy or torch."""

from __future__ import annotations

PARTS = ("train", "validation", "test")
# How a part's images are spread over the classes.
SHARES = {
    "equal": "the same number of each class",
    "proportional": "in proportion to the classes, at least one of each",
    "capped": "the same number of each class, and of smaller classes all that can be spared",
}
