"""Commands that judge: compare, replicate, fidelity, tabulate, train, and races of searchers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from search.studies.config import Config

from .searching import run_command, tell_report


@run_command("compare")
def compare(config: Config, out: str, **how: Any) -> None:
    """Train children under each arm; test accuracy with intervals and paired differences.

    Tables and a picture: DIR/compare.md, compare.csv, pairs.csv, compare.png.
    """
    from search.studies.compare import run_compare

    tell_report(out, run_compare(config, out, **how))


@run_command("replicate")
def replicate(config: Config, out: str, **how: Any) -> None:
    """Compare methods, not single searches: each searches anew on every draw of the images.

    At the same cost; searchers choose their final policy alike, the grid by halving. Judged by
    children from scratch on the draw, which decides, and on another one. DIR/draw-N holds the runs
    of a draw, DIR/plan.json what was planned before the first evaluation. Tables and a picture:
    DIR/replicate.md, methods.csv, pairs.csv, rewarded.csv, replicate.png. More --draws extend it.
    """
    from search.studies.replicate import run_replicate

    tell_report(out, run_replicate(config, out, **how))


@run_command("fidelity")
def fidelity(config: Config, out: str, **how: Any) -> None:
    """Measure how well cheap evaluators rank policies: fidelity against cost.

    Tables and a picture: DIR/fidelity.md, fidelity.csv, regions.csv, reference.csv, fidelity.png.
    """
    from search.studies.fidelity import run_fidelity

    tell_report(out, run_fidelity(config, out, **how))


@run_command("tabulate")
def tabulate(config: Config, out: str, **how: Any) -> None:
    """Measure many policies at several fidelities: a table on which searchers race in seconds.

    From scratch with the test accuracy of the same children, by two kinds of weight sharing, and
    with a quarter of the epochs. DIR/table.parquet, and its figures in DIR/tabulate.md.
    """
    from search.studies.tabulate import run_tabulate

    tell_report(out, run_tabulate(config, out, **how))


@run_command("race")
def race(config: Config, out: str, **how: Any) -> None:
    """Race searchers on a table of measured policies: seconds instead of days.

    Every searcher has the same evaluations and the same final selection; what is compared is the
    true test accuracy of what it selects. Tables and a picture: DIR/race.md, race.csv, pairs.csv,
    anytime.csv, race.png.
    """
    from search.studies.race import run_race

    run_race(config, out, **how)
    tell_report(out)


@run_command("train")
def train(config: Config, out: str, **how: Any) -> None:
    """Train a model under a policy, epoch by epoch; keep its weights, tell its test accuracy.

    After every epoch DIR/checkpoint.pt holds all that `augsearch resume DIR` needs to go on, and
    DIR/epochs.jsonl a line about it. In the end DIR/best.pt and DIR/last.pt hold weights (a
    state_dict, read with weights_only; beside each a .json about classes, normalisation and
    policy), and DIR/result.json the accuracy of the best, chosen on the validation part, on the
    test part. Several GPUs: torchrun --nproc-per-node N -m search.cli.main train ...
    """
    from search.errors import NothingFound
    from search.studies.train import run_train

    evaluation = run_train(config, out, **how)
    if evaluation is None:
        return  # process 0 says it
    best = evaluation.details.get("best_epoch")
    if best is None:
        raise NothingFound(
            f"it diverged: {evaluation.details['divergence']}; see {Path(out)}/epochs.jsonl, and "
            "lower the learning rate, or check the images"
        )
    click.echo(
        f"test accuracy {100 * evaluation.metrics['accuracy']:.2f} % after the best epoch, {best} "
        f"of {evaluation.details['epochs']} ({evaluation.seconds:.0f} s); weights in "
        f"{Path(out) / 'best.pt'}"
    )


COMMANDS = (compare, replicate, fidelity, tabulate, race, train)
