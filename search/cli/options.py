"""Options of the command line that several commands share. Imports click alone: --help is quick.

Names of tasks, searchers and so on are checked where they are used, with the nearest legal name
in the error; the lists below are for reading, and a test keeps them equal to the registries.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from typing import Any

import click

TASKS = (
    "reduced-fashion",
    "reduced-cifar10",
    "reduced-svhn",
    "reduced-imagenet",
    "folder",
    "synthetic",
)
SEARCHERS = ("random", "ppo", "tpe")
EVALUATORS = ("from-scratch", "weight-sharing", "density-matching", "synthetic")
REWARDS = ("accuracy", "log_likelihood", "calibrated_log_likelihood")
ARMS = (
    "FILE, none, imagenet, cifar10, svhn, randaugment:N,M, trivialaugment, uniform, random:K or "
    "NAME=FILE,FILE"
)


class ManyValues(click.Command):
    """A command whose repeatable options also take several values: `--m 0 5 10`.

    click itself wants `--m 0 --m 5 --m 10`; both are accepted. Values end at the next word that
    starts with a dash.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        many = {
            name
            for option in self.params
            if getattr(option, "multiple", False)
            for name in option.opts
        }
        spread: list[str] = []
        current = None
        taken = False
        for word in args:
            if word.startswith("-") and not _is_number(word):
                name, equals, _ = word.partition("=")
                current, taken = (name if name in many else None), bool(equals)
                spread.append(word)
            elif current is not None and taken:
                spread += [current, word]
            else:
                taken = True
                spread.append(word)
        return super().parse_args(ctx, spread)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


class JsonObject(click.ParamType):
    """A JSON object, e.g. '{"shared_epochs": 40}'."""

    name = "JSON"

    def convert(self, value: Any, param: Any, ctx: Any) -> dict:
        if isinstance(value, dict):
            return value
        try:
            result = json.loads(value)
        except ValueError as error:
            self.fail(f"must be JSON, but got {value!r} ({error}); e.g. '{{\"lr\": 0.05}}'")
        if not isinstance(result, dict):
            self.fail(f"must be a JSON object, but got {value!r}; e.g. '{{\"lr\": 0.05}}'")
        return result


def _group(*options: Callable) -> Callable:
    def decorate(function: Callable) -> Callable:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def option(*names: str, **settings: Any) -> Callable:
    """click.option that shows its default."""
    return click.option(*names, **{"show_default": settings.get("default") is not None, **settings})


out_option = option(
    "--out",
    required=True,
    metavar="DIR",
    help="Run folder to create; with --resume, to go on with.",
)
resume_option = option(
    "--resume",
    is_flag=True,
    help="Go on with the run in --out. All other options must be as they were.",
)


def _lower_voice(ctx: click.Context, param: click.Parameter, quiet: bool) -> bool:
    if quiet:
        logging.getLogger("search").setLevel(logging.WARNING)
    return quiet


quiet_option = option(
    "--quiet", is_flag=True, callback=_lower_voice, help="No progress, only results and errors."
)

task_options = _group(
    option(
        "--task",
        default="reduced-fashion",
        metavar="NAME",
        help=f"Proxy task: {', '.join(TASKS)}.",
    ),
    option(
        "--data",
        metavar="PATH",
        help="Where the images are: an ImageNet tree, a torchvision root, or a folder "
        "train/<class>/ [val|test]/<class>/. [default: none, reduced-fashion needs none]",
    ),
    option("--task-seed", default=0, help="Seed of the draw of images."),
    option(
        "--train-images",
        type=int,
        metavar="N",
        help="Training images, over all classes. [default: the preset's, else the task's]",
    ),
    option(
        "--validation-images",
        type=int,
        metavar="N",
        help="Validation images, over all classes. [default: the preset's, else the task's]",
    ),
    option(
        "--resolution",
        type=int,
        metavar="PIXELS",
        help="Side of the images in pixels. [default: the task's, 32 or 28]",
    ),
    option("--preset", default="cpu", metavar="NAME", help="Child model and schedule: cpu, paper."),
)
test_images_option = option(
    "--test-images",
    type=int,
    metavar="N",
    help="Test images, over all classes. [default: the task's]",
)
evaluation_options = _group(
    option(
        "--epochs",
        type=int,
        metavar="N",
        help="Training epochs of an evaluation. [default: the preset's]",
    ),
    option("--threads", default=1, help="CPU threads of one evaluation; part of the result."),
    option(
        "--device",
        default="auto",
        metavar="NAME",
        help="auto (CUDA when there is one), cpu, cuda, cuda:N.",
    ),
    option("--precision", default="auto", metavar="NAME", help="auto, float32, bfloat16."),
)
evaluator_options = _group(
    option(
        "--evaluator",
        metavar="NAME",
        help=f"How a policy is evaluated: {', '.join(EVALUATORS)} (planted rewards, for trials). "
        "[default: as measured for the task: from-scratch for reduced-fashion and the preset "
        "paper, else weight-sharing]",
    ),
    option(
        "--evaluator-options",
        type=JsonObject(),
        default={},
        show_default="none",
        help="Further arguments of the evaluator as JSON, e.g. '{\"finetune_epochs\": 8}'.",
    ),
    option(
        "--reward",
        metavar="NAME",
        help=f"What is maximised on validation images: {', '.join(REWARDS)}. [default: as measured "
        "for the evaluator: log_likelihood for weight-sharing, calibrated_log_likelihood from "
        "scratch]",
    ),
    option("--repeats", default=1, help="Training seeds averaged in one evaluation."),
)
pool_options = _group(
    option(
        "--workers",
        type=int,
        default=os.cpu_count() or 1,
        show_default="the number of CPU cores",
        metavar="N",
        help="Evaluations at the same time. Does not change results.",
    ),
    option("--cpus", default=1.0, help="CPU cores reserved per worker, may be a fraction."),
    option("--gpus", default=0.0, help="GPUs reserved per worker, may be a fraction."),
    option(
        "--address",
        metavar="HOST:PORT",
        help="Ray cluster to run on. [default: this machine only]",
    ),
    option(
        "--time-limit",
        type=float,
        metavar="SECONDS",
        help="Kill an evaluation after so many seconds. [default: no limit]",
    ),
    option("--retries", default=2, help="Further attempts after a failed evaluation."),
    option("--max-failures", default=10, help="Stop after so many failed candidates in a row."),
)
