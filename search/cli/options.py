"""click's options, made from the fields that they fill. Imports no heavy library: --help is quick.

    @main.command()
    @options_of_run("search")
    def search(config: Config, out: str, resume: bool, quiet: bool) -> None: ...

Names of tasks, searchers and so on are checked where they are used, with the nearest legal name
in the error.
"""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable, Iterable
from typing import Any

import click
from click.core import ParameterSource

from policies.options import Declared, options_of
from search.studies.config import Config, read_options
from search.studies.kinds import KINDS, MOVABLE, default_text, options_of_kind
from search.studies.settings import Prices

AS_IT_WAS = "as it was"


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


class ManyValuesGroup(ManyValues, click.Group):
    """A command that has commands below it."""


class JsonObject(click.ParamType):
    """A JSON object, e.g. '{"shared_epochs": 40}'."""

    name = "JSON"

    def convert(self, value: Any, param: Any, ctx: Any) -> dict:
        if isinstance(value, dict):
            return value
        try:
            result = json.loads(value)
        except (ValueError, RecursionError) as error:
            self.fail(f"must be JSON, but got {value!r:.80} ({error}); e.g. '{{\"lr\": 0.05}}'")
        if not isinstance(result, dict):
            self.fail(f"must be a JSON object, but got {value!r:.80}; e.g. '{{\"lr\": 0.05}}'")
        return result


def option(*names: str, **settings: Any) -> Callable:
    """click.option that shows its default."""
    return click.option(*names, **{"show_default": settings.get("default") is not None, **settings})


def _declared(declared: Declared, help: str, default: str) -> Callable:
    """The click option of a field; its value counts only when the user gives it (`_given`)."""
    help += f": {', '.join(declared.choices)}" if declared.choices else ""
    note = "[required]" if declared.required and default != AS_IT_WAS else f"[default: {default}]"
    name = "--" + declared.name.replace("_", "-")
    return click.option(
        name + (f"/--no-{name[2:]}" if declared.type is bool else ""),
        declared.name,
        type=JsonObject() if declared.type is dict else declared.type,
        multiple=declared.many,
        default=() if declared.many else None,
        metavar=declared.option.unit or None,
        help=f"{help[0].upper()}{help[1:]}. {note}",
    )


def _lower_voice(ctx: click.Context, param: click.Parameter, quiet: bool) -> bool:
    if quiet:
        logging.getLogger("search").setLevel(logging.WARNING)
    return quiet


out_option = option(
    "--out",
    required=True,
    metavar="DIR",
    help="Run folder to begin, or with --resume to go on with.",
)
resume_option = option(
    "--resume",
    is_flag=True,
    help="Go on with the run in --out, if there is one; what decides it must be as it was or have "
    "grown. `augsearch resume DIR` needs no other option.",
)
retry_option = option(
    "--retry-failed", is_flag=True, help="When resuming, make evaluations again that failed."
)
quiet_option = option(
    "--quiet", is_flag=True, callback=_lower_voice, help="No progress, only results and errors."
)
config_option = option(
    "--config",
    "file",
    metavar="FILE",
    help="Options from a file: TOML, or JSON such as a run's config.json. Options given here win. "
    "[default: none]",
)


def options_of_run(kind: str, make: Callable[..., Any] = Config.of) -> Callable:
    """The options of a kind of run, collected into a `config` that the command is called with.

    A kind that goes on from another run has that run's folder as its argument. make: what makes
    the config of the kind and the options given.
    """

    def decorate(function: Callable) -> Callable:
        declared = [each for _, each in options_of_kind(kind)]
        like = KINDS[kind].like

        @functools.wraps(function)
        @click.pass_context
        def command(ctx: click.Context, /, **values: Any) -> Any:
            given = _given(ctx, values, declared)
            if like:
                given[like] = values.pop(like)
            file = values.pop("file")
            if file is not None:
                given = {**read_options(file, kind), **given}
            return function(config=make(kind, **given), **values)

        wrapped: Callable = command
        for each in reversed(declared):
            wrapped = _declared(each, each.option.help, default_text(each))(wrapped)
        if like:
            wrapped = click.argument(like)(wrapped)
        return config_option(wrapped)

    return decorate


def options_of_data(function: Callable) -> Callable:
    """What decides the images of a search, as the `drawn` options that the user gave, by name."""
    declared = [
        each for section, each in options_of_kind("search")
        if section == "task" or each.name == "preset"
    ]  # fmt: skip

    @functools.wraps(function)
    @click.pass_context
    def command(ctx: click.Context, /, **values: Any) -> Any:
        return function(drawn=_given(ctx, values, declared), **values)

    wrapped: Callable = command
    for each in reversed(declared):
        wrapped = _declared(each, each.option.help, default_text(each))(wrapped)
    return wrapped


def options_of_prices(function: Callable) -> Callable:
    """How an estimate is made, collected into `prices`."""
    declared = list(options_of(Prices))

    @functools.wraps(function)
    @click.pass_context
    def command(ctx: click.Context, /, **values: Any) -> Any:
        return function(prices=Prices(**_given(ctx, values, declared)), **values)

    wrapped: Callable = command
    for each in reversed(declared):
        wrapped = _declared(each, each.option.help, default_text(each))(wrapped)
    return wrapped


def options_for_resuming(function: Callable) -> Callable:
    """The pool's options, the place of the data and what may grow, as `changes` by name."""
    found: dict[str, tuple[Declared, list[str]]] = {}
    for kind, about in KINDS.items():
        for section, declared in options_of_kind(kind):
            if section == "pool" or declared.name == MOVABLE:
                found.setdefault(declared.name, (declared, []))
            elif declared.name in about.grows:
                found.setdefault(declared.name, (declared, []))[1].append(kind)

    @functools.wraps(function)
    @click.pass_context
    def command(ctx: click.Context, /, **values: Any) -> Any:
        changes = _given(ctx, values, [declared for declared, _ in found.values()])
        return function(changes=changes, **values)

    wrapped: Callable = command
    for declared, kinds in reversed(found.values()):
        help = declared.option.help + (f"; may grow ({', '.join(kinds)})" if kinds else "")
        wrapped = _declared(declared, help, AS_IT_WAS)(wrapped)
    return wrapped


def _given(
    ctx: click.Context, values: dict[str, Any], declared: Iterable[Declared]
) -> dict[str, Any]:
    """Take the values that the user gave out of `values`."""
    given = {}
    for each in declared:
        value = values.pop(each.name)
        if ctx.get_parameter_source(each.name) is ParameterSource.COMMANDLINE:
            given[each.name] = value
    return given
