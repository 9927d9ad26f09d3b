"""Which training seeds belong to whom: one table, disjoint by construction.

An arm must not be judged on the children that chose it: were a search, a grid, a selection and a
comparison to train under the same seeds, their luck would count twice. A search draws its
evaluation seeds from all of 0 .. 2**32 - 1. Everything else gets a block of its own above:
`training_seed(block, seed, index)` is seed + index, moved to the block. Within one study all arms
share their seeds, as paired differences need.
"""

from __future__ import annotations

from typing import Final

# The order is part of the format: add at the end, never reorder. At most 15.
BLOCKS = (
    "randaugment", "select rescore", "select final", "compare", "fidelity", "fidelity cheap",
    "pba", "train", "tabulate", "tabulate cheap", "randaugment again",
    "search final",
)  # fmt: skip
# Seeds that users give; with the index added they stay inside a block.
LARGEST_SEED = 200_000_000
# Seeds that one part of a study may use of a block: those of two parts (draws of a replication,
# comparisons of a re-derivation, final choices of its searches) never meet.
MOST_SEEDS: Final = 10_000
_ROOM = 2**28


def training_seed(block: str, seed: int, index: int = 0) -> int:
    """The `index`-th training seed of a study that was given `seed`, 2**32 or above.

    Both halves of the number carry the block, since torch's CPU generator takes the lower 32 bits
    of a seed alone.
    """
    number = seed + index
    if not 0 <= number < _ROOM:
        raise ValueError(f"seed + index must be below {_ROOM}, but is {number}")
    place = 1 + BLOCKS.index(block)
    return (place << 32) + place * _ROOM + number


def training_seeds(block: str, seed: int, count: int) -> list[int]:
    """The first `count` training seeds."""
    return [training_seed(block, seed, index) for index in range(count)]
