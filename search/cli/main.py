"""The command line, `augsearch`: thin over functions, and the one module that may import all.

Exit codes: 0 when what was asked for is complete, 1 when it is not (failed evaluations, a full
disk), 2 for a mistake of the user, 130 and 143 after SIGINT and SIGTERM.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from search.cli import options

from .options import ManyValues, option

# Everything else is imported where it is used: torch alone takes longer than --help may.
if TYPE_CHECKING:
    from proxy_tasks import EvaluatorConfig
    from search.engine.loop import RunResult
    from search.engine.pool import PoolConfig
    from search.studies.study import TaskConfig


class Commands(click.Group):
    """Turns the project's own errors into one line and an exit code; anything else is a bug."""

    command_class = ManyValues

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            command = error.ctx.command_path if error.ctx else "augsearch"
            click.echo(f"Error: {error.format_message()} (see {command} --help)", err=True)
            ctx.exit(error.exit_code)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except (ValueError, RuntimeError, OSError) as error:
            code = _exit_code(error)
            if code is None:
                raise
            click.echo(f"Error: {_one_line(error)}", err=True)
            ctx.exit(code)


def _exit_code(error: Exception) -> int | None:
    """The exit code of an error that needs no traceback, None for a bug."""
    from policies import InputError
    from search.errors import SearchError

    if isinstance(error, InputError):
        return 2
    if isinstance(error, SearchError):
        return error.exit_code
    if isinstance(error, OSError) and error.filename is not None:
        return 1
    return None


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split())


def _show_warning(message: Warning | str, category: type, *_: object, **__: object) -> None:
    click.echo(f"Warning: {message}", err=True)


class _Stderr(logging.Handler):
    """The log on whatever stderr is at the time."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(self.format(record), err=True)


@click.group(
    cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name="augsearch", prog_name="augsearch")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Search image-augmentation policies on small proxy tasks, and compare what was found."""
    log = logging.getLogger("search")
    log.handlers, log.propagate = [_Stderr()], False
    log.setLevel(logging.INFO)
    ctx.with_resource(warnings.catch_warnings())
    warnings.showwarning = _show_warning


# --- searching -----------------------------------------------------------------------------------


@main.command()
@options.task_options
@option(
    "--searcher",
    default="ppo",
    metavar="NAME",
    help=f"Search algorithm: {', '.join(options.SEARCHERS)}.",
)
@option(
    "--searcher-options",
    type=options.JsonObject(),
    default={},
    show_default="none",
    help="Further arguments of the searcher as JSON.",
)
@option("--evaluations", default=200, help="Candidate policies to evaluate.")
@option("--seed", default=0, help="Seed of the search.")
@option("--subpolicies", default=5, help="Sub-policies of a candidate.")
@option("--operations", default=2, help="Operations of a sub-policy.")
@option("--top", default=5, help="Best candidates whose sub-policies form the exported policy.")
@options.evaluator_options
@options.evaluation_options
@options.pool_options
@options.out_option
@options.resume_option
@options.quiet_option
def search(resume: bool, quiet: bool, **values: Any) -> None:
    """Search a policy and export it to DIR/policy.json and DIR/policy.txt."""
    from search.studies.search import RunConfig, run_search

    config = RunConfig(pool=_pool(values), **values)
    result = run_search(config, resume=resume, progress=not quiet)
    best = f", best reward {result.best[0].evaluation.reward:.4f}" if result.best else ""
    click.echo(
        f"{result.finished} evaluations ({result.failed} failed, {result.duplicates} repeats)"
        f"{best}; {len(result.policy)} sub-policies in {result.directory / 'policy.json'}"
    )


@main.command()
@click.argument("run")
@option(
    "--rescore",
    default=60,
    help="Candidates to evaluate again: the best, and as many of the rest; 0: none.",
)
@option("--rescore-seeds", default=1, help="New seeds of each of them.")
@option("--seeds", default=5, help="Seeds by which the final policies are told apart.")
@option(
    "--evaluator",
    metavar="NAME",
    help="How the new evaluations are made, e.g. from-scratch. [default: as the search did]",
)
@option(
    "--reward",
    metavar="NAME",
    help=f"What decides: {', '.join(options.REWARDS)}. [default: as in the search, or what suits "
    "--evaluator]",
)
@options.pool_options
@options.out_option
@options.resume_option
@options.quiet_option
def select(
    run: str,
    rescore: int,
    rescore_seeds: int,
    seeds: int,
    evaluator: str | None,
    reward: str | None,
    out: str,
    resume: bool,
    quiet: bool,
    **values: Any,
) -> None:
    """Choose the final policy of the search in the folder RUN by new evaluations.

    The paper's way (sub-policies of the best 5 candidates) is one of the proposals; others take
    re-scored candidates, or many different sub-policies one by one. DIR/policy.json is the best of
    them.
    """
    from search.studies.select import run_select

    changes = {"kind": evaluator, "reward": reward}
    selected = run_select(
        run,
        out,
        rescore=rescore,
        rescore_seeds=rescore_seeds,
        seeds=seeds,
        evaluator={name: value for name, value in changes.items() if value is not None},
        pool=_pool(values),
        resume=resume,
        progress=not quiet,
    )
    for name, score in selected.ranking:
        click.echo(f"{score:10.4f}  {name}")
    click.echo(f"{selected.name}: {len(selected.policy)} sub-policies in {Path(out)}/policy.json")


@main.command()
@options.task_options
@option("--n", "ns", multiple=True, type=int, default=(1, 2, 3), help="Values of N (operations).")
@option(
    "--m",
    "ms",
    multiple=True,
    type=int,
    default=(0, 4, 8, 12, 16, 20, 24, 28),
    help="Values of M (magnitudes, 0 to 30).",
)
@option("--seeds", default=2, help="Training seeds of every cell.")
@option("--seed", default=0, help="The first of them.")
@options.evaluator_options
@options.evaluation_options
@options.pool_options
@options.out_option
@options.resume_option
@options.quiet_option
def randaugment(
    ns: tuple[int, ...],
    ms: tuple[int, ...],
    seeds: int,
    seed: int,
    out: str,
    resume: bool,
    quiet: bool,
    **values: Any,
) -> None:
    """Evaluate RandAugment on a grid of N and M and recommend a cell.

    The grid is an Optuna study, DIR/optuna.db; every cell is evaluated once with every seed.
    """
    import analysis
    from search.studies.randaugment import export_best, run_grid

    pool, task = _pool(values), _task(values)
    result = run_grid(
        ns,
        ms,
        out,
        task=task,
        seeds=seeds,
        seed=seed,
        evaluator=_evaluator(values, task),
        pool=pool,
        resume=resume,
        progress=not quiet,
    )
    _check_complete(result)
    grid = analysis.write_grid(out)
    export_best(Path(out), grid.best, result)
    for sentence in grid.recommendation():
        click.echo(sentence)
    click.echo(f"heat map {Path(out) / 'grid.png'}, policy {Path(out) / 'policy.json'}")


@main.command()
@option("--data", required=True, metavar="PATH", help="Top of an ImageNet tree: train/, val/.")
@option("--evaluations", default=15_000, help="Candidate policies to evaluate; the paper's number.")
@option("--seed", default=0, help="Seed of the search.")
@option("--task-seed", default=0, help="Seed of the draw of classes and images.")
@option(
    "--preset",
    default="paper",
    metavar="NAME",
    help="Child model, schedule and controller: paper (needs GPUs), cpu.",
)
@option(
    "--evaluator",
    default="from-scratch",
    metavar="NAME",
    help=f"How a policy is evaluated: {', '.join(options.EVALUATORS)}.",
)
@option("--reward", default="accuracy", metavar="NAME", help=", ".join(options.REWARDS) + ".")
@option("--epochs", type=int, metavar="N", help="Training epochs. [default: the preset's]")
@option(
    "--train-images",
    type=int,
    metavar="N",
    help="Training images. [default: 6000, 120 classes x 50]",
)
@option("--validation-images", type=int, metavar="N", help="Validation images. [default: 6000]")
@option("--test-images", type=int, metavar="N", help="Test images. [default: all of the classes]")
@option("--resolution", default=32, help="Side of the images in pixels.")
@option("--seeds", default=5, help="Training seeds of the comparison; 0 leaves it out.")
@options.pool_options
@options.out_option
@options.resume_option
@options.quiet_option
def rederive(seeds: int, out: str, resume: bool, quiet: bool, **values: Any) -> None:
    """Search anew for the ImageNet policy and compare it with the published one.

    DIR/search is the search on reduced-imagenet, DIR/compare trains children under no
    augmentation, the published and the found policy, DIR/rederive.md sets them side by side.
    """
    import analysis
    from search.studies.rederive import run_rederive

    pool = _pool(values)
    result = run_rederive(out, seeds=seeds, pool=pool, resume=resume, progress=not quiet, **values)
    if result is not None:
        _check_complete(result)
        analysis.write_comparison(Path(out) / "compare")
    click.echo(analysis.write_rederivation(out))


@main.command()
@options.task_options
@option("--population", default=8, help="Children trained side by side.")
@option("--epochs", type=int, metavar="N", help="Epochs of every child. [default: the preset's]")
@option("--interval", default=3, help="Epochs between replacements of the worse children.")
@option("--seed", default=0, help="Seed of the search.")
@option("--threads", default=1, help="CPU threads of one child; part of the result.")
@option("--device", default="auto", metavar="NAME", help="auto, cpu, cuda, cuda:N.")
@option("--reward", default="accuracy", metavar="NAME", help=", ".join(options.REWARDS) + ".")
@options.pool_options
@options.out_option
@options.resume_option
@options.quiet_option
def pba(
    population: int, interval: int, seed: int, out: str, resume: bool, quiet: bool, **values: Any
) -> None:
    """Search a schedule of policies by Population Based Augmentation on Ray Tune.

    DIR/schedule.json is an arm of `augsearch compare` like any policy.
    """
    from search.studies.pba import PBAConfig, run_pba

    pool, task = _pool(values), _task(values)
    schedule = run_pba(
        task.build(),
        out,
        PBAConfig(population, interval, seed),
        evaluator=_evaluator(values, task),
        pool=pool,
        resume=resume,
    )
    click.echo(
        f"{len(schedule)} policies over {schedule.epochs} epochs in {Path(out) / 'schedule.json'}"
    )


# --- comparing -----------------------------------------------------------------------------------


@main.command()
@options.task_options
@options.test_images_option
@option(
    "--policy",
    "policies",
    multiple=True,
    required=True,
    metavar="ARM...",
    help=f"Arms, the first is the one to beat: {options.ARMS} (K random sub-policies, new ones "
    "for every seed; several files of one method by turns).",
)
@option("--seeds", default=5, help="Children per arm, each with its own seed.")
@option("--seed", default=0, help="The first of these seeds.")
@option(
    "--evaluator",
    default="from-scratch",
    metavar="NAME",
    help="How a child is trained: from-scratch, or weight-sharing for a quick look.",
)
@options.evaluation_options
@options.pool_options
@options.out_option
@options.resume_option
@options.quiet_option
def compare(
    policies: tuple[str, ...],
    seeds: int,
    seed: int,
    out: str,
    resume: bool,
    quiet: bool,
    **values: Any,
) -> None:
    """Train children under each arm; test accuracy with intervals and paired differences.

    Tables and a picture: DIR/compare.md, compare.csv, pairs.csv, compare.png.
    """
    import analysis
    from search.studies.compare import run_compare

    pool, task = _pool(values), _task(values)
    result = run_compare(
        policies,
        out,
        task=task,
        seeds=seeds,
        seed=seed,
        evaluator=_evaluator(values, task),
        pool=pool,
        resume=resume,
        progress=not quiet,
    )
    if result.failed < result.finished:
        comparison = analysis.write_comparison(out)
        click.echo(analysis.compare.readable(comparison).to_string(index=False))
        for sentence in comparison.sentences:
            click.echo(sentence)
        click.echo(f"tables and picture in {Path(out) / 'compare.md'}")
    _check_complete(result)


@main.command()
@options.task_options
@options.test_images_option
@option("--policies", default=29, help="Policies to rank, at least 24 for a useful interval.")
@option("--seeds", default=4, help="From-scratch children per policy.")
@option("--evaluation-seeds", default=2, help="Evaluations of a policy by each cheap evaluator.")
@option("--seed", default=0, help="Seed of the random policies and first of the training seeds.")
@option(
    "--evaluators",
    "evaluators",
    metavar="JSON",
    type=options.JsonObject(),
    default=None,
    help='Cheap evaluators by name, e.g. \'{"ws-40-8": {"kind": "weight-sharing"}}\' with the '
    "fields of EvaluatorConfig. [default: a selection]",
)
@option("--threads", default=1, help="CPU threads of one evaluation; part of the result.")
@option("--epochs", type=int, metavar="N", help="Epochs from scratch. [default: the preset's]")
@option("--device", default="auto", metavar="NAME", help="auto, cpu, cuda, cuda:N.")
@options.pool_options
@options.out_option
@options.resume_option
@options.quiet_option
def fidelity(
    policies: int,
    seeds: int,
    evaluation_seeds: int,
    seed: int,
    evaluators: dict | None,
    threads: int,
    epochs: int | None,
    device: str,
    out: str,
    resume: bool,
    quiet: bool,
    **values: Any,
) -> None:
    """Measure how well cheap evaluators rank policies: fidelity against cost.

    Tables and a picture: DIR/fidelity.md, fidelity.csv, reference.csv, fidelity.png.
    """
    import analysis
    from search.studies.fidelity import run_fidelity

    pool, task = _pool(values), _task(values)
    result = run_fidelity(
        out,
        task=task,
        policies=policies,
        seeds=seeds,
        evaluation_seeds=evaluation_seeds,
        seed=seed,
        evaluators=evaluators,
        threads=threads,
        epochs=epochs,
        device=device,
        pool=pool,
        resume=resume,
        progress=not quiet,
    )
    _check_complete(result)
    study = analysis.write_fidelity(out)
    click.echo(analysis.fidelity.readable(study).to_string(index=False))
    for sentence in study.sentences:
        click.echo(sentence)
    click.echo(f"tables and picture in {Path(out) / 'fidelity.md'}")


@main.command()
@options.task_options
@options.test_images_option
@option("--policy", required=True, metavar="ARM", help=options.ARMS + ".")
@option("--seed", default=0, help="Seed of the child's weights, image order and augmentation.")
@options.evaluation_options
@option("--out", required=True, metavar="DIR", help="Folder to create.")
def train(policy: str, seed: int, out: str, **values: Any) -> None:
    """Train the task's child under a policy, save its weights and report its test accuracy.

    DIR/child.pt holds the weights (a state_dict, read with weights_only), DIR/result.json the
    numbers. To train a model of your own, use PolicyTransform in your data loader.
    """
    from search.studies.train import train_child

    task = _task(values)
    evaluation = train_child(policy, out, task=task, evaluator=_evaluator(values, task), seed=seed)
    click.echo(
        f"test accuracy {100 * evaluation.metrics['accuracy']:.2f} % "
        f"({evaluation.seconds:.0f} s); weights in {Path(out) / 'child.pt'}"
    )


# --- looking -------------------------------------------------------------------------------------


@main.command()
@click.argument("run")
def report(run: str) -> None:
    """Write the report of a run folder: tables and pictures, from the journal."""
    import analysis

    click.echo(analysis.write_any(run))


@main.command()
@option("--policy", required=True, metavar="FILE", help="Policy file, or imagenet, cifar10, svhn.")
@option(
    "--images",
    metavar="DIR",
    help="Folder of example images, or of folders of them. [default: embedded images]",
)
@option("--out", required=True, metavar="PNG", help="Picture to write.")
@option("--count", default=8, help="Example images.")
@option("--rows", default=40, help="Sub-policies to draw at most, from the first.")
@option("--certain", is_flag=True, help="Apply every operation, whatever its probability.")
@option("--seed", default=0, help="Seed of the examples and of the draws.")
def show(
    policy: str, images: str | None, out: str, count: int, rows: int, certain: bool, seed: int
) -> None:
    """Draw what each sub-policy does to example images."""
    import analysis

    from .looking import file_named, new_file

    target = new_file(out, ".png")
    file = file_named(policy)
    examples = analysis.example_images(images, count, seed)
    drawn = (
        file.policy
        if len(file.policy) <= rows
        else type(file.policy)(file.policy[:rows], bins=file.policy.bins)
    )
    title = f"{policy}: {len(drawn)} of {len(file.policy)} sub-policies"
    analysis.policy_sheet(
        drawn, examples, target, convention=file.convention, certain=certain, seed=seed, title=title
    )
    click.echo(target)


@main.command()
@option("--policy", required=True, metavar="FILE", help="Policy file, or imagenet, cifar10, svhn.")
@option(
    "--format",
    "form",
    default="text",
    metavar="NAME",
    help="text (tuple list), json, torchvision or timm (Python modules).",
)
@option("--drop", is_flag=True, help="Leave operations out that the format lacks, and say so.")
@option("--out", metavar="FILE", help="File to write. [default: print]")
def export(policy: str, form: str, out: str | None, drop: bool) -> None:
    """Convert a policy to another format or library."""
    from policies.formats import convert

    from .looking import file_named, new_file

    text, left_out = convert(file_named(policy), form, drop=drop)
    if left_out:
        counts = ", ".join(f"{count} {name}" for name, count in sorted(left_out.items()))
        click.echo(f"Left out, as {form} lacks it: {counts}", err=True)
    if out is None:
        click.echo(text, nl=False)
        return
    target = new_file(out)
    target.write_text(text, encoding="utf-8")
    click.echo(target)


@main.command()
@options.task_options
@option("--evaluations", default=200, help="Candidate policies of the search.")
@option("--subpolicies", default=5, help="Sub-policies of a candidate.")
@option("--operations", default=2, help="Operations of a sub-policy.")
@options.evaluator_options
@options.evaluation_options
@options.pool_options
@option("--price", type=float, metavar="MONEY", help="Price of a core-hour. [default: no price]")
@option("--samples", default=2, help="Evaluations measured per worker.")
def estimate(price: float | None, samples: int, **values: Any) -> None:
    """Measure a few evaluations here and say what a search would cost."""
    from search.studies.estimate import estimate as measure
    from search.studies.search import RunConfig

    # The folder is never made: nothing is kept of an estimate.
    config = RunConfig(out="estimate", pool=_pool(values), **values)
    for line in measure(config, price=price, samples=samples).lines():
        click.echo(line)


@main.command()
@option("--task", metavar="NAME", help="Proxy task to draw as a search would. [default: none]")
@option("--data", metavar="PATH", help="Where its images are, or any images. [default: none]")
@option("--out", default=".", metavar="DIR", help="Folder that runs will be created in.")
@click.pass_context
def doctor(ctx: click.Context, task: str | None, data: str | None, out: str) -> None:
    """Check the installation, the device and the data; changes nothing."""
    from .doctor import doctor as examine

    checks = examine(task=task, data=data, out=out)
    for check in checks:
        click.echo(f"{'ok  ' if check.ok else 'FAIL'} {check.name:9} {check.detail}")
    ctx.exit(0 if all(check.ok for check in checks) else 1)


# --- helpers -------------------------------------------------------------------------------------


def _pool(values: dict[str, Any]) -> PoolConfig:
    """Take the pool's options out of `values`."""
    from search.engine.pool import PoolConfig

    names = ("workers", "cpus", "gpus", "address", "time_limit", "retries")
    taken = {name: values.pop(name) for name in names}
    return PoolConfig(**taken, max_consecutive_failures=values.pop("max_failures"))


def _task(values: dict[str, Any]) -> TaskConfig:
    """Take the task's options out of `values`."""
    from dataclasses import fields

    from search.studies.study import TaskConfig

    names = [field.name for field in fields(TaskConfig) if field.name in values]
    return TaskConfig(**{name: values.pop(name) for name in names})


def _evaluator(values: dict[str, Any], task: TaskConfig) -> EvaluatorConfig:
    """The evaluator of what is left in `values` once pool and task were taken out."""
    from proxy_tasks import EvaluatorConfig
    from proxy_tasks.evaluators.config import resolve
    from proxy_tasks.evaluators.registry import check_config

    values = dict(values)
    kind = values.pop("evaluator", "from-scratch")
    extra = values.pop("evaluator_options", {})
    if "reward" in values:
        kind, values["reward"] = resolve(kind, values["reward"], task.preset, task.task)
    config = EvaluatorConfig(kind=kind, preset=task.preset, options=extra, **values)
    check_config(config)
    return config


def _check_complete(result: RunResult) -> None:
    """A study with failed evaluations is not what was asked for."""
    if result.failed:
        from search.errors import WorkerError

        raise WorkerError(
            f"{result.failed} of {result.finished} evaluations failed after all retries; see "
            f"{result.directory / 'run.log'}"
        )
