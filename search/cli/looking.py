"""Commands that look at what is there: report, watch, optuna, show, export, estimate, doctor."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from search.studies.config import Config, of_presets
from search.studies.settings import LARGEST_SEED, POLICIES, Prices

from .options import (
    ManyValues,
    ManyValuesGroup,
    option,
    options_of_data,
    options_of_prices,
    options_of_run,
)

if TYPE_CHECKING:
    from policies.policy_files import PolicyFile

PORT = 8765  # where the page of a run is served
POSITIVE, SEED = click.IntRange(1), click.IntRange(0, LARGEST_SEED)


@click.command(cls=ManyValues)
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@option(
    "--out",
    metavar="HTML",
    help="Page to write. [default: report.html in RUN, of several in the folder around them]",
)
def report(runs: tuple[str, ...], out: str | None) -> None:
    """Write the report of run folders, finished or not, from their journals.

    Of each a Markdown file with its pictures and tables, and of all together one HTML page that
    needs no other file and no network.
    """
    import analysis

    for path in analysis.write_reports(runs, out):
        click.echo(path)


@click.command(cls=ManyValues)
@click.argument("run")
@option("--once", is_flag=True, help="Show it once.")
@option(
    "--serve",
    type=click.IntRange(0, 65535),
    is_flag=False,
    flag_value=PORT,
    metavar="[PORT]",
    help=f"Serve the report's page to browsers of this machine instead, at PORT ({PORT} when none "
    "is given, 0 for any that is free). [default: off]",
)
@option(
    "--tensorboard",
    metavar="DIR",
    help="Write the run's events for TensorBoard into DIR/NAME-OF-RUN instead, until it is "
    "complete or Ctrl-C. [default: off]",
)
def watch(run: str, once: bool, serve: int | None, tensorboard: str | None) -> None:
    """Show how far a running or finished run is, from its journal; changes nothing.

    In a terminal until the run is complete or Ctrl-C; elsewhere once.
    """
    if tensorboard is not None:
        from analysis.board import watch_events

        click.echo(watch_events(run, tensorboard, once))
        return
    if serve is None:
        from analysis.watch import watch as show_run

        show_run(run, once)
        return
    from analysis.serve import server

    with server(run, serve) as serving:
        click.echo(f"http://127.0.0.1:{serving.server_port}/ (Ctrl-C to end)")
        try:
            serving.serve_forever()
        except KeyboardInterrupt:
            return  # this is how it ends


@click.command(cls=ManyValues)
@click.argument("run")
@option("--out", metavar="FILE", help="SQLite file to write. [default: RUN/optuna.db]")
def optuna(run: str, out: str | None) -> None:
    """Write a run as an Optuna study, for optuna-dashboard, or bring the study up to date."""
    from search.runs.optuna_view import write_optuna

    click.echo(write_optuna(run, out))


@click.command(cls=ManyValues)
@option("--policy", required=True, metavar="POLICY", help=f"{POLICIES}.")
@option(
    "--images",
    metavar="DIR",
    help="Folder of example images, or of folders of them. [default: embedded images]",
)
@option("--out", required=True, metavar="PNG", help="Picture to write.")
@option("--count", default=8, type=POSITIVE, help="Example images.")
@option(
    "--rows",
    default=40,
    type=POSITIVE,
    help="Sub-policies to draw at most, from the first.",
)
@option("--certain", is_flag=True, help="Apply every operation, whatever its probability.")
@option(
    "--seed",
    default=0,
    type=SEED,
    help="Seed of the examples and of the draws.",
)
def show(
    policy: str, images: str | None, out: str, count: int, rows: int, certain: bool, seed: int
) -> None:
    """Draw what each sub-policy does to example images."""
    import analysis
    from policies import Policy, PolicyTransform
    from policies.errors import InputError
    from search.studies.arms import file_named

    target = _new_file(out, ".png")
    file = file_named(policy)
    if not isinstance(file.augmentation, Policy | PolicyTransform):
        raise InputError(
            "policy", "must be a policy file, or published, with sub-policies to draw", policy,
            "docs/operations.md shows what single operations do; analysis.policy_sheet draws the "
            "as_policy() of RandAugment and TrivialAugment, with their convention",
        )  # fmt: skip
    examples = analysis.example_images(images, count, seed)
    drawn = (
        file.policy
        if len(file.policy) <= rows
        else type(file.policy)(file.policy[:rows], bins=file.policy.bins)
    )
    title = f"{policy}: {len(drawn)} of {len(file.policy)} sub-policies"
    analysis.policy_sheet(
        drawn, examples, target, convention=file.convention, certain=certain, seed=seed,
        title=title, fill=getattr(file.augmentation, "fill", 0),
    )  # fmt: skip
    click.echo(target)


@click.command(cls=ManyValues)
@option("--policy", required=True, metavar="POLICY", help=f"{POLICIES}.")
@option(
    "--format",
    "form",
    default="text",
    metavar="NAME",
    help="text (tuple list), json, or a Python module for torchvision, timm, kornia or "
    "albumentations.",
)
@option(
    "--from",
    "source",
    metavar="NAME",
    help="The policy is a file with a table of another library: torchvision, timm, "
    "fast-autoaugment or dada. [default: a policy of this toolkit]",
)
@option("--nearest", is_flag=True, help="With --from: take the nearest magnitude, and say so.")
@option("--drop", is_flag=True, help="Leave operations out that cannot be carried, and say so.")
@option("--out", metavar="FILE", help="File to write. [default: print]")
def export(
    policy: str, form: str, source: str | None, nearest: bool, out: str | None, drop: bool
) -> None:
    """Convert a policy to another format or library, or from one."""
    from policies.files import write_atomically
    from policies.formats import convert
    from search.studies.arms import file_named

    if source is None:
        file = file_named(policy)
    else:
        file = _foreign(policy, source, nearest=nearest, drop=drop)
    text, left_out = convert(file, form, drop=drop)
    _say_left_out(form, left_out)
    if out is None:
        click.echo(text, nl=False)
        return
    target = _new_file(out)
    write_atomically(target, text)
    click.echo(target)


@click.group(cls=ManyValuesGroup, invoke_without_command=True)
@options_of_run("estimate")
def estimate(config: Config) -> None:
    """Measure a few evaluations here and say what a search would cost.

    `estimate rederive` and `estimate replicate` say it of all that these commands evaluate.
    """
    ctx = click.get_current_context()
    if ctx.invoked_subcommand is not None:
        for name in ctx.params:
            if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
                raise click.UsageError(
                    f"options must stand behind {ctx.invoked_subcommand}, which they are for: "
                    f"augsearch estimate {ctx.invoked_subcommand} --{name.replace('_', '-')} ..."
                )
        return
    from search.studies.estimate import run_estimate

    for line in run_estimate(config).lines():
        click.echo(line)


def _priced(kind: str, help: str) -> None:
    """`augsearch estimate KIND`: the options of the kind, and prices."""

    @options_of_run(kind, of_presets)
    @options_of_prices
    def command(config: list[Config], prices: Prices) -> None:
        from search.studies.pricing import price

        for each in config:
            for line in price(each, prices):
                click.echo(line)

    estimate.add_command(click.command(kind, cls=ManyValues, help=help)(command))


_priced(
    "rederive",
    "Price a re-derivation here, with either preset unless one is given, and the paper's own "
    "search; and print what the paper did, what is done here, and why.",
)
_priced("replicate", "Price a replication here.")


@click.command(cls=ManyValues)
@options_of_data
@option("--out", default=".", metavar="DIR", help="Folder that runs will be created in.")
@click.pass_context
def doctor(ctx: click.Context, drawn: dict[str, Any], out: str) -> None:
    """Check the installation and the device, and draw the images; changes nothing.

    With --task the images are drawn as `augsearch search` draws them with the same options; with
    --data alone it is only seen whether an image there can be read.
    """
    from .doctor import doctor as examine

    checks = examine(drawn, out)
    for check in checks:
        click.echo(f"{'ok  ' if check.ok else 'FAIL'} {check.name:9} {check.detail}")
    ctx.exit(0 if all(check.ok for check in checks) else 1)


def _foreign(path: str, source: str, *, nearest: bool, drop: bool) -> PolicyFile:
    """The policy in another library's table."""
    from policies.files import read_text
    from policies.foreign import read_table
    from policies.policy import MAX_TEXT_BYTES

    read = read_table(read_text(Path(path), "table", MAX_TEXT_BYTES), source, nearest=nearest,
                      drop=drop)  # fmt: skip
    _say_left_out("this toolkit", read.left_out)
    if read.rounded:
        click.echo(
            f"Magnitudes made the nearest: {read.rounded}, by {100 * read.furthest:.1f} % of their "
            "range at most",
            err=True,
        )
    return read.file


def _say_left_out(where: str, left_out: Mapping[str, int]) -> None:
    if left_out:
        counts = ", ".join(f"{count} {name}" for name, count in sorted(left_out.items()))
        click.echo(f"Left out, as {where} lacks it: {counts}", err=True)


def _new_file(text: str, suffix: str = "") -> Path:
    """The path of a file to be written; InputError when it exists or its folder does not."""
    from policies.errors import InputError

    path = Path(text)
    if suffix and path.suffix.lower() != suffix:
        raise InputError(
            "out", f"must be a name ending in {suffix}", text, f"use {path.with_suffix(suffix)}"
        )
    if path.exists():
        raise InputError("out", "must be a new file", text, "choose another name")
    if not path.parent.is_dir():
        raise InputError("out", "must lie in an existing folder", text, "create the folder first")
    return path


COMMANDS = (report, watch, optuna, show, export, estimate, doctor)
