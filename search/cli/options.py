"""click's options, made from the fields that they fill. Imports no heavy library: --help is quick.

    @main.command()
    @options_of_run("search")
    def search(config: Config, out: str, resume: bool, quiet: bool) -> None: ...

Names of tasks, searchers and so on are checked where they are used, with the nearest legal name
in the error.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import click
from click.core import ParameterSource

from policies.files import parse_json
from policies.options import Declared, options_of
from search.studies.config import Config, overridden, read_options, with_recorded
from search.studies.kinds import KINDS, MOVABLE, default_text, described, options_of_kind
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
    """A JSON object of a declared option; what is none is refused with the option's rule."""

    name = "JSON"

    def __init__(self, rule: str) -> None:
        self.rule = rule

    def convert(self, value: Any, param: Any, ctx: Any) -> dict:
        if isinstance(value, dict):
            return value
        try:
            result = parse_json(value)
        except ValueError as error:
            self.fail(f"must be JSON: {self.rule}, but got {value!r:.80} ({error})")
        if not isinstance(result, dict):
            self.fail(f"must be JSON: {self.rule}, but got {value!r:.80}")
        return result


class Number(click.ParamType):
    """A number of a declared option; what is none is refused with the option's rule."""

    def __init__(self, declared: Declared) -> None:
        self.declared, self.name = declared, declared.option.unit or "N"

    def convert(self, value: Any, param: Any, ctx: Any) -> int | float:
        try:
            return self.declared.type(value)
        except ValueError:
            several = self.declared.many and "," in value
            fix = f"; separate values by blanks: {value.replace(',', ' ')}" if several else ""
            self.fail(f"must be {self.declared.rule}, but got {value!r:.80}{fix}")


def option(*names: str, **settings: Any) -> Callable:
    """click.option that shows its default."""
    return click.option(*names, **{"show_default": settings.get("default") is not None, **settings})


def _declared(declared: Declared, help: str, default: str) -> Callable:
    """The click option of a field; its value counts only when the user gives it (`_taking`)."""
    note = "[required]" if declared.required and default != AS_IT_WAS else f"[default: {default}]"
    name = "--" + declared.name.replace("_", "-")
    number = Number(declared)
    kinds: dict[type, Any] = {dict: JsonObject(declared.rule), int: number, float: number}
    return click.option(
        name + (f"/--no-{name[2:]}" if declared.type is bool else ""),
        declared.name,
        type=kinds.get(declared.type, declared.type),
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
    help="Options from a file: TOML, or JSON such as a run's config.json, whose policies are what "
    "they were. Options given here win. [default: none]",
)


def options_of_run(kind: str, make: Callable[..., Any] = Config.of) -> Callable:
    """The options of a kind of run, collected into a `config` that the command is called with.

    A kind that goes on from another run has that run's folder as its argument. make: what makes
    the config of the kind and the options given.
    """

    def decorate(function: Callable) -> Callable:
        like = KINDS[kind].like

        def call(given: dict[str, Any], values: dict[str, Any]) -> Any:
            if like:
                given[like] = values.pop(like)
            file = values.pop("file")
            options, held = ({}, {}) if file is None else read_options(file, kind)
            config = make(kind, **overridden(options, given))
            if held and isinstance(config, Config):
                config = with_recorded(config, held)
            return function(config=config, **values)

        wrapped = _taking(_as_declared(each for _, each in options_of_kind(kind)), function, call)
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
    return _taking(
        _as_declared(declared), function, lambda given, values: function(drawn=given, **values)
    )


def options_of_prices(function: Callable) -> Callable:
    """How an estimate is made, collected into `prices`."""
    return _taking(
        _as_declared(options_of(Prices)),
        function,
        lambda given, values: function(prices=Prices(**given), **values),
    )


def options_for_resuming(function: Callable) -> Callable:
    """The pool's options, the place of the data and what may grow, as `changes` by name."""
    found: dict[str, tuple[Declared, list[str]]] = {}
    for kind, about in KINDS.items():
        for section, declared in options_of_kind(kind):
            if section == "pool" or declared.name == MOVABLE:
                found.setdefault(declared.name, (declared, []))
            elif declared.name in about.grows:
                found.setdefault(declared.name, (declared, []))[1].append(kind)
    options = [
        (each, _of_growing(each, kinds) if kinds else described(each), AS_IT_WAS)
        for each, kinds in found.values()
    ]
    return _taking(options, function, lambda given, values: function(changes=given, **values))


def _as_declared(declared: Iterable[Declared]) -> list[tuple[Declared, str, str]]:
    return [(each, described(each), default_text(each)) for each in declared]


def _of_growing(declared: Declared, kinds: Sequence[str]) -> str:
    """What may grow; kinds that share a name mean different things by it."""
    what = declared.option.help if len(kinds) == 1 else "more of them"
    return f"{what}; may grow ({', '.join(kinds)})"


def _taking(
    options: Sequence[tuple[Declared, str, str]],
    function: Callable,
    call: Callable[[dict[str, Any], dict[str, Any]], Any],
) -> Callable:
    """The command `function` with these options: (declaration, help, default).

    call: what it does, with those that the user gave and with all other arguments, by name.
    """

    @functools.wraps(function)
    @click.pass_context
    def command(ctx: click.Context, /, **values: Any) -> Any:
        taken = {each.name: values.pop(each.name) for each, _, _ in options}
        told = ParameterSource.COMMANDLINE
        given = {n: v for n, v in taken.items() if ctx.get_parameter_source(n) is told}
        return call(given, values)

    wrapped: Callable = command
    for each in reversed(options):
        wrapped = _declared(*each)(wrapped)
    return wrapped
