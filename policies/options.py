"""Options declared once, on the field of a frozen dataclass that they fill.

    @dataclass(frozen=True)
    class SearchSettings(Configuration):
        evaluations: Annotated[int, Option("candidate policies to evaluate", least=1)] = 200

From that one line come the check (an InputError that names argument, rule, value and fix), the
command line's option, the key in configuration files and the row of the reference table: all read
`options_of(SearchSettings)`.

Why no library: tried were pydantic (2.14), tyro, jsonargparse and cattrs. tyro and jsonargparse
replace click, and with it our one-line errors, exit codes and `--m 0 5 10`. cattrs converts, but
knows neither ranges nor help texts. pydantic's dataclasses came closest, but its messages had to
be rewritten one and all, strictness has to be asked for on every scalar and refused on every
tuple, it takes no text with undecodable bytes (a data folder may be called so), and importing it
adds half again to the time of --help. What is needed of it is a check of five types and a range.
"""

from __future__ import annotations

import datetime
import functools
import inspect
import math
import operator
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from inspect import Parameter
from numbers import Real
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar, Union, get_args, get_origin

from .errors import InputError, check_choice

S = TypeVar("S")
P = ParamSpec("P")

_ONE = {
    int: "a whole number", float: "a number", str: "text", bool: "true or false",
    dict: "an object", object: "anything",
}  # fmt: skip
_MANY = {
    int: "whole numbers", float: "numbers", str: "names", bool: "each true or false",
    dict: "objects", object: "a list",
}  # fmt: skip


@dataclass(frozen=True)
class Option:
    """What stands beside a field's type in `Annotated`.

    Attributes:
        help: what it does, without a full stop.
        name: how users call it where several sections meet; default: the field's name.
        unit: of the value, or what it stands for: N, SECONDS, DIR.
        unset: what None means, where None is allowed.
        least, above, most, below: bounds; `least` and `most` are legal themselves.
        pattern: regular expression that a text must match whole.
        rule: what must hold, instead of the words made from type and bounds ("must be ...").
        example: a legal value, for the advice of an error; default: the field's default.
        shell: False for a field that users do not set themselves.
    """

    help: str
    name: str = ""
    unit: str = ""
    unset: str = ""
    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None
    pattern: str = ""
    rule: str = ""
    example: object = None
    shell: bool = True


@dataclass(frozen=True)
class Declared:
    """An option together with the field that it stands on.

    Attributes:
        field: name of the field. name: how users call it, with underscores.
        type: of one value: int, float, str, bool, dict, or object (anything).
        many: whether there are several.
        optional: whether None is allowed. choices: the legal values where they are few.
        default: of the field; None for a field that is `required`.
    """

    field: str
    option: Option
    type: type
    many: bool
    optional: bool
    choices: tuple[str, ...]
    default: Any
    required: bool = False

    @property
    def name(self) -> str:
        return self.option.name or self.field

    @property
    def rule(self) -> str:
        """What must hold, e.g. "a whole number, at least 1"."""
        option = self.option
        if option.rule:
            return option.rule
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        words = [_MANY[self.type] + ", at least one" if self.many else _ONE[self.type]]
        for word, bound in (
            ("at least", option.least),
            ("above", option.above),
            ("at most", option.most),
            ("below", option.below),
        ):
            if bound is not None:
                words.append(f"{word} {bound}")
        return ", ".join(words)

    def checked(self, value: Any) -> Any:
        """`value` as the field holds it (lists become tuples), or InputError."""
        if value is None and self.optional:
            return None
        if not self.many:
            return self._one(value, value)
        if isinstance(value, str | bytes | dict) or not isinstance(value, Iterable):
            raise self._error(value)
        values = tuple(value)
        if not values and not self.optional and self.default != ():
            raise self._error(values)
        return tuple(self._one(each, values) for each in values)

    def _one(self, value: Any, given: Any) -> Any:
        found = _as(self.type, value)
        if found is None:
            raise self._error(given)
        if self.choices:
            check_choice(self.name, found, self.choices)
        if isinstance(found, dict | list):
            _check_finite(self.name, found)
        option = self.option
        if option.pattern and not re.fullmatch(option.pattern, found):
            raise self._error(given)
        if not (
            (option.least is None or found >= option.least)
            and (option.above is None or found > option.above)
            and (option.most is None or found <= option.most)
            and (option.below is None or found < option.below)
        ):
            raise self._error(given)
        return found

    def _error(self, value: Any) -> InputError:
        example = self.default if self.option.example is None else self.option.example
        if isinstance(example, tuple | list):
            example = " ".join(map(str, example))
        fix = "leave it out" if example in (None, "") else f"pass for example {example}"
        return InputError(self.name, f"must be {self.rule}", value, fix)


def _check_finite(name: str, value: Any) -> None:
    """InputError that names what no JSON has, a NaN, an infinity or a date inside an object."""
    if isinstance(value, dict | list | tuple):
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            _check_finite(f"{name}.{key}", each)
    elif isinstance(value, float) and not math.isfinite(value):
        raise InputError(name, "must be a finite number", value, "give a number")
    elif isinstance(value, datetime.date | datetime.time):  # as TOML has them
        raise InputError(name, "must be text, a number, true, false or null", value, "quote it")


def _as(kind: type, value: Any) -> Any:
    """`value` as a `kind` without changing what it says, or None if it is none."""
    if isinstance(value, bool) or kind is bool:
        return value if kind is bool and isinstance(value, bool) else None
    if kind is int:
        try:
            return operator.index(value)
        except TypeError:
            return None
    if kind is float:
        try:
            number = isinstance(value, Real) and math.isfinite(value)
        except OverflowError:  # an integer beyond every float
            return None
        return float(value) if number else None
    return value if isinstance(value, kind) else None


@functools.cache
def options_of(cls: type) -> tuple[Declared, ...]:
    """The options declared on the fields of a dataclass, in order."""
    hints = typing.get_type_hints(cls, include_extras=True)
    found = []
    for field in fields(cls):
        hint = hints[field.name]
        options = [extra for extra in get_args(hint)[1:] if isinstance(extra, Option)]
        if get_origin(hint) is typing.Annotated and options:
            default = field.default
            if field.default_factory is not MISSING:
                default = field.default_factory()
            found.append(_declared(field.name, options[0], get_args(hint)[0], default))
    return tuple(found)


def keywords_of(make: Callable[..., Any]) -> tuple[Declared, ...]:
    """The options that keyword-only arguments of a class or function declare, in order.

    An argument may stand without an `Option`: its type is checked if it is one of those here.
    """
    function = inspect.getattr_static(make, "__init__") if isinstance(make, type) else make
    parameters = inspect.signature(function).parameters.values()
    named = {p.name: p for p in parameters if p.kind is p.KEYWORD_ONLY}
    if not named:
        return ()
    found = []
    for name in named:
        option, kind = Option(name), (hint := _hint(function, name))
        if get_origin(hint) is typing.Annotated:
            kind, *extras = get_args(hint)
            option = next((extra for extra in extras if isinstance(extra, Option)), option)
        default = named[name].default
        default = MISSING if default is Parameter.empty else default
        found.append(_declared(name, option, kind, default))
    return tuple(found)


def _hint(function: Callable[..., Any], name: str) -> Any:
    """The type of an argument; Any where it has none, or one that type checkers alone import."""
    function = inspect.unwrap(function)
    note = getattr(function, "__annotations__", {}).get(name, Any)
    part = types.SimpleNamespace(__annotations__={name: note})
    try:
        known = getattr(function, "__globals__", {})
        return typing.get_type_hints(part, known, None, include_extras=True)[name]
    except NameError:
        return Any


def checked_options(
    values: Mapping[str, Any], known: Iterable[Declared], where: str
) -> dict[str, Any]:
    """`values` as those options hold them.

    Raises InputError that names `where` and the option, also for one that must be given and is not.
    """
    options = {declared.name: declared for declared in known}
    checked = {}
    for name, value in values.items():
        if name not in options:
            raise unknown_option(str(name), options, f"option of {where}")
        try:
            checked[name] = options[name].checked(value)
        except InputError as error:
            argument = f"option {error.argument} of {where}"
            raise InputError(argument, error.rule, error.got, error.fix) from None
    for declared in options.values():
        if declared.required and declared.name not in checked:
            raise InputError(
                f"option {declared.name} of {where}", "must be given", None,
                f"it is: {declared.option.help}",
            )  # fmt: skip
    return checked


def checks_options(init: Callable[Concatenate[S, P], None]) -> Callable[Concatenate[S, P], None]:
    """For a constructor: the options that it declares are checked first, as `checked_options`."""

    @functools.wraps(init)
    def checking(self: S, /, *args: P.args, **given: P.kwargs) -> None:
        known = {declared.name: declared for declared in keywords_of(init)}
        options = {name: value for name, value in given.items() if name in known}
        given.update(checked_options(options, known.values(), type(self).__name__))
        init(self, *args, **given)

    return checking


def _declared(field: str, option: Option, kind: Any, default: Any) -> Declared:
    optional = get_origin(kind) in (Union, types.UnionType) and type(None) in get_args(kind)
    if optional:
        rest = [part for part in get_args(kind) if part is not type(None)]
        kind = rest[0] if len(rest) == 1 else Any
    many = get_origin(kind) is tuple
    if many:
        kind = get_args(kind)[0]
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    if not all(isinstance(each, str) for each in choices):
        choices = ()  # of other values nothing is checked here
    kind = str if choices else get_origin(kind) or kind
    kind = kind if kind in _ONE else object  # of which nothing is checked here
    required = default is MISSING
    return Declared(
        field, option, kind, many, optional, choices, None if required else default, required
    )


class Configuration:
    """Base of frozen dataclasses whose constructor checks every declared option."""

    def __post_init__(self) -> None:
        cls: type = type(self)
        for declared in options_of(cls):
            value = declared.checked(getattr(self, declared.field))
            object.__setattr__(self, declared.field, value)


def unknown_option(name: str, known: Iterable[str], where: str = "option") -> InputError:
    """The error for an option that does not exist, with the nearest name that does."""
    try:
        check_choice(where, name, tuple(known) or ("(none)",))
    except InputError as error:
        return error
    raise ValueError(f"{name} is a known option")


def to_json(value: Any) -> Any:
    """A configuration as plain JSON data: sections become objects, tuples lists."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple | list):
        return [to_json(each) for each in value]
    if isinstance(value, dict):
        return {key: to_json(each) for key, each in value.items()}
    return value
