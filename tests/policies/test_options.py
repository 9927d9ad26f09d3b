"""Options declared on fields and arguments: what is checked, what errors say, what readers get."""

from __future__ import annotations

import dataclasses
import json
import math
import pickle
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.errors import InputError
from policies.options import (
    Configuration,
    Option,
    checked_options,
    checks_options,
    keywords_of,
    options_of,
    to_json,
)


@dataclass(frozen=True)
class Settings(Configuration):
    count: Annotated[int, Option("how many", unit="N", least=1, most=9)] = 3
    rate: Annotated[float, Option("how fast", name="lr", above=0, below=1)] = 0.5
    kind: Annotated[Literal["one", "other"], Option("which")] = "one"
    place: Annotated[str | None, Option("where", unset="here", pattern="[a-z]+")] = None
    values: Annotated[tuple[int, ...], Option("which ones", least=0)] = (1, 2)
    names: Annotated[tuple[str, ...], Option("whose")] = ()
    more: Annotated[dict, Option("further")] = field(default_factory=dict)
    flag: Annotated[bool, Option("whether")] = False
    plain: int = 0


GOOD = [
    {}, {"count": 9}, {"count": np.int64(4)}, {"rate": 0.25}, {"kind": "other"}, {"place": "x"},
    {"place": None}, {"values": [3]}, {"values": range(3)}, {"names": []}, {"names": ("a\udcff",)},
    {"more": {"a": 1}}, {"flag": True}, {"plain": "unchecked"},
]  # fmt: skip
BAD = [
    ({"count": 0}, "count: must be a whole number, at least 1, at most 9, but got 0"),
    ({"count": 10}, "at most 9"),
    ({"count": True}, "count: must be a whole number"),
    ({"count": 2.0}, "count: must be a whole number"),
    ({"count": "3"}, "count: must be a whole number"),
    ({"count": None}, "count: must be a whole number"),
    ({"rate": 0}, "lr: must be a number, above 0, below 1, but got 0; pass for example 0.5"),
    ({"rate": 1.0}, "lr: must be"),
    ({"rate": math.nan}, "lr: must be a number"),
    ({"rate": 10**400}, "lr: must be a number"),
    ({"kind": "oter"}, "kind: must be one of one, other, but got 'oter'; did you mean 'other'?"),
    ({"kind": 3}, "kind: must be"),
    ({"place": "A"}, "place: must be text, but got 'A'; leave it out"),
    ({"values": []}, "values: must be whole numbers, at least one"),
    ({"values": [1, -1]}, "values: must be whole numbers, at least one, at least 0"),
    ({"values": "12"}, "values: must be whole numbers"),
    ({"values": 3}, "values: must be whole numbers"),
    ({"names": [3]}, "names: must be names"),
    ({"more": [1]}, "more: must be an object"),
    ({"flag": 1}, "flag: must be true or false"),
]


@pytest.mark.parametrize("values", GOOD, ids=str)
def test_what_fits_is_taken(values):
    settings = Settings(**values)
    assert dataclasses.replace(settings) == settings == pickle.loads(pickle.dumps(settings))
    assert all(type(value) is tuple for value in (settings.values, settings.names))
    assert type(settings.rate) is float and type(settings.count) is int


@pytest.mark.parametrize(("values", "said"), BAD, ids=str)
def test_what_does_not_fit_is_named_with_rule_value_and_advice(values, said):
    with pytest.raises(InputError) as caught:
        Settings(**values)
    assert said in str(caught.value)
    with pytest.raises(InputError):
        dataclasses.replace(Settings(), **values)


def test_configurations_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().count = 4


@given(
    st.builds(
        Settings,
        count=st.integers(1, 9),
        rate=st.floats(0.001, 0.999),
        values=st.lists(st.integers(0, 2**70), min_size=1),
        names=st.lists(st.text()),
        more=st.dictionaries(st.text(), st.integers() | st.lists(st.booleans())),
    )
)
@pytest.mark.long
def test_json_and_back(settings):
    assert Settings(**json.loads(json.dumps(to_json(settings)))) == settings


def test_what_readers_get():
    count, rate, kind, place, values, names, more, flag = options_of(Settings)
    assert (count.field, count.name, count.option.unit, count.default) == ("count", "count", "N", 3)
    assert (rate.field, rate.name, rate.type) == ("rate", "lr", float)
    assert kind.choices == ("one", "other") and kind.type is str
    assert place.optional and place.option.unset == "here"
    assert values.many and values.type is int and values.default == (1, 2)
    assert (names.default, more.default, flag.type) == ((), {}, bool)


def test_a_field_without_a_default_is_required():
    @dataclass(frozen=True)
    class Needs(Configuration):
        run: Annotated[str, Option("which")]

    (declared,) = options_of(Needs)
    assert declared.required and declared.default is None


@dataclass(frozen=True)
class Unusual(Configuration):
    rates: Annotated[tuple[float, ...], Option("rates")] = (0.5,)
    flags: Annotated[tuple[bool, ...], Option("flags")] = (True,)
    more: Annotated[tuple[dict, ...], Option("more")] = ()
    size: Annotated[Literal[1, 2], Option("size")] = 1


def test_options_of_any_type_are_checked_or_let_through():
    assert Unusual(rates=[1, 0.5], flags=[False], size=2).rates == (1.0, 0.5)
    for values, said in (
        ({"rates": ["x"]}, "rates: must be numbers, at least one"),
        ({"flags": [3]}, "flags: must be each true or false"),
        ({"more": [3]}, "more: must be objects"),
        ({"more": [{"a": [{"b": math.nan}]}]}, "more.a.0.b: must be a finite number"),
    ):
        with pytest.raises(InputError, match=said):
            Unusual(**values)


# Keyword arguments ---------------------------------------------------------------------------


class Part:
    def __init__(
        self,
        task: object,
        *,
        epochs: Annotated[int, Option("how long", least=1)] = 8,
        lr: float = 0.1,
        model: str | type | None = None,
        needed: int,
    ) -> None: ...


def test_keyword_only_arguments_are_options():
    epochs, lr, model, needed = keywords_of(Part)
    assert (epochs.name, epochs.default, epochs.option.least) == ("epochs", 8, 1)
    assert lr.type is float and model.type is object and model.optional
    assert needed.required and not lr.required


def test_a_class_has_the_options_of_an_inherited_constructor():
    class Heir(Part):
        pass

    class Plain:
        pass

    assert keywords_of(Heir) == keywords_of(Part) and keywords_of(Plain) == ()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"epochs": 0}, "option epochs of part: must be a whole number, at least 1"),
        ({"lr": "fast"}, "option lr of part: must be a number"),
        ({"epoch": 3}, "option of part: must be one of epochs, lr, model, needed.*'epochs'"),
        ({"task": 3}, "option of part"),
        ({3: 3}, "option of part"),
        ({"lr": 1}, "option needed of part: must be given"),
    ],
)
def test_options_by_name_are_checked(values, said):
    with pytest.raises(InputError, match=said):
        checked_options(values, keywords_of(Part), "part")
    given = {"lr": 1, "model": Part, "needed": 3}
    checked = checked_options(given, keywords_of(Part), "part")
    assert checked == given and type(checked["lr"]) is float


class Checked:
    @checks_options
    def __init__(self, task: object, *, epochs: Annotated[int, Option("how long", least=1)] = 8):
        self.epochs = epochs


def test_a_constructor_checks_the_options_that_it_declares():
    assert type(Checked(task=1, epochs=np.int64(3)).epochs) is int and Checked(1).epochs == 8
    with pytest.raises(InputError, match="option epochs of Checked: must be a whole number"):
        Checked(1, epochs=0)
    with pytest.raises(TypeError, match="epoch"):
        Checked(1, epoch=3)
    assert [declared.name for declared in keywords_of(Checked)] == ["epochs"]


if TYPE_CHECKING:
    from pathlib import Path as Nowhere


def for_type_checkers(*, log: Nowhere | None = None, lr: float = 0.1) -> None: ...


def test_types_that_only_type_checkers_know_are_not_checked():
    known = keywords_of(for_type_checkers)
    assert [declared.name for declared in known] == ["log", "lr"]
    checked = checked_options({"log": 3, "lr": np.float32(0.5)}, known, "part")
    assert checked == {"log": 3, "lr": 0.5} and type(checked["lr"]) is float
    assert checked_options({"lr": np.int64(1)}, known, "part") == {"lr": 1.0}
    with pytest.raises(InputError, match="lr"):
        checked_options({"lr": np.float64("nan")}, known, "part")
