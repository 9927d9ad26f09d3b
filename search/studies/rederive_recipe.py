"""What the paper did to find its ImageNet policy, what is done here, and why: one table.

    for line in recipe_text(recipe_of(Config.of("rederive", data="imagenet"))): print(line)

A re-derivation prints it when it begins and keeps it for its report; `augsearch estimate rederive`
prints it beforehand. The paper is arXiv 1805.09501; sections are named as in its version 3. Its
text was not at hand when this was written: values marked * are as later papers and the authors'
code quote them, the others are from memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from policies.ops import PAPER_OPS
from proxy_tasks.presets import Preset, get_preset
from proxy_tasks.recipe import Recipe
from proxy_tasks.run_format import STAGED
from proxy_tasks.tasks import TASKS

from .config import Config
from .rederive_settings import NO_CHILD

OURS = "not in the paper: our choice"


class RecipeRow(NamedTuple):
    """One line: what the paper says and where, what this run does, and why."""

    what: str
    paper: str
    source: str
    ours: str
    why: str


def _images(config: Config) -> str:
    task, counts = config.task, TASKS[config.task.name].counts
    train = task.train_images or get_preset(config.evaluator.preset, task.name).train_images
    validation = task.validation_images or counts[1]
    return f"120 classes, {train or counts[0]:,} to train on, {validation:,} to validate"


def _child(config: Config) -> str:
    preset = _preset(config)
    return f"{config.evaluator.options.get('model', preset.model)}, {_epochs(config)} epochs"


def _epochs(config: Config) -> int:
    return config.evaluator.epochs or _preset(config).epochs


def _preset(config: Config) -> Preset:
    preset = get_preset(config.evaluator.preset, config.task.name)
    return Recipe.of(config.evaluator.options.get("recipe") or {}, config.kind).applied(preset)


def _schedule(config: Config) -> str:
    preset = _preset(config)
    return (
        f"{preset.schedule}, peak {preset.lr:g}, weight decay {preset.weight_decay:g}, batch "
        f"{preset.batch_size}"
    )


def _candidates(config: Config) -> str:
    own = config.settings
    if own.budget is None:
        return f"{own.evaluations:,} a search"
    return f"as many as cost {own.budget} children a search, cheap ones first"


def _searcher(config: Config) -> str:
    if config.settings.budget is None:
        return f"the same, settings {config.evaluator.preset}"
    return f"the same controller, as proposer of a {STAGED} search, settings cpu"


def _final(config: Config) -> str:
    if config.settings.budget is None:
        return "the same"
    return "the best of several such policies by new children, a fifth of the budget"


def _repeats(config: Config) -> str:
    own = config.settings
    return f"{own.searches}, and {own.random_searches} by random search at the same cost"


def _judged(config: Config) -> str:
    own = config.settings
    if not own.seeds:
        return "not at all"
    child = "" if own.other_child == NO_CHILD else f", and there by {own.other_child}"
    return f"{own.seeds} children of the search's kind, on its images and on another draw{child}"


# (what, the paper's, where it says so, ours, why). "*": see above.
_ROWS: tuple[tuple[str, str, str, Callable[[Config], str], str], ...] = (
    ("images", "120 classes drawn at random, 6,000 images", "section 4.2*", _images,
     "how many it validated on is not said: as many here; fewer to train on are cheaper, and "
     "augmentation matters more"),
    ("resolution", "not said", OURS, lambda config: f"{config.task.resolution} pixels",
     "Wide-ResNet-40-2 is made for 32; the cost falls with the square"),
    ("beside the policy", "random crop and mirror", "section 4.2, as usual for ImageNet",
     lambda config: f"after it crop, of {_preset(config).pad} pixels of zero padding, and mirror",
     "images are drawn at their final size, so crops of random size are not possible"),
    ("child", "Wide-ResNet-40-2, 200 epochs", "section 4.2", _child,
     "the preset cpu has one that a core trains in seconds"),
    ("its schedule", "cosine, learning rate 0.1, weight decay 1e-5; batch not said",
     "section 4.2; batch: the authors' CIFAR code*", _schedule,
     "the preset cpu has a schedule of its own, in which augmentation helps"),
    ("reward", "validation accuracy", "section 3*",
     lambda config: config.evaluator.reward.replace("_", " "),
     "a likelihood ranks policies of small children with fewer of them"),
    ("space", "5 sub-policies of 2 of 16 operations, 10 magnitudes, 11 probabilities",
     "section 3*", lambda config: (
         f"{config.settings.subpolicies} of {config.settings.operations} of "
         f"{len(config.settings.ops or PAPER_OPS)} operations, 10 and 11"
     ), "the same; directions of Solarize and Posterize, which it does not tell, as torchvision"),
    ("controller", "LSTM of 100 units, PPO, learning rate 0.00035, entropy weight 0.00001, moving "
     "average of rewards as baseline", "section 3*", _searcher,
     "clip, steps and policies a batch are not in the paper: 0.2, 4 and 20 (search/searchers/"
     "ppo.py); with hundreds of candidates its settings hardly learn"),
    ("candidates", "about 15,000", "section 3", _candidates,
     "the preset cpu has an hour on two cores for a search"),
    ("final policy", "sub-policies of the best 5 candidates, 25", "section 3*", _final,
     "the best of many noisy rewards flatter; with hundreds of candidates the choice matters"),
    ("searches", "one", "none is said to be repeated", _repeats,
     "where independent searches here have nothing in common, they have no answer to compare"),
    ("how policies are judged", "ResNet-50 and -200 on all of ImageNet", "section 4.2",
     _judged, "the full data cost days a policy; a comparison on other images and with another "
     "child does not favour what was found on these"),
    ("best RandAugment", "none: it came later (arXiv 1909.13719)", OURS,
     lambda config: f"a halved grid of {config.settings.grid} children" if config.settings.grid
     else "left out", "the rival that needs no search, at its best"),
    ("cost", "15,000 hours of Tesla P100", "table 1*, 'GPU hours' for ImageNet",
     lambda config: "augsearch estimate rederive says", "the machine at hand decides"),
)  # fmt: skip


def recipe_of(config: Config) -> list[RecipeRow]:
    """The table for a re-derivation with this configuration."""
    return [RecipeRow(what, paper, source, ours(config), why)
            for what, paper, source, ours, why in _ROWS]  # fmt: skip


def recipe_text(rows: list[RecipeRow]) -> list[str]:
    """The table in lines of text."""
    lines = ["What the paper did (arXiv 1805.09501), what is done here, and why:"]
    for row in rows:
        lines += [
            f"  {row.what}",
            f"    paper: {row.paper} ({row.source})",
            f"    ours:  {row.ours}",
            f"    why:   {row.why}",
        ]
    return [*lines, "  * as quoted by later papers and the authors' code; the rest is from memory"]
