"""Augmentations as data: what journals, policy files and configurations hold for each kind.

``encode_augmentation`` and ``decode_augmentation`` are inverse to each other, exactly:

============================================  ====================================================
augmentation                                  data
============================================  ====================================================
``None`` (no augmentation)                    ``null``
``Policy`` of 10 bins (paper convention)      rows ``[[["Rotate", 0.6, 9], ...], ...]``
``RandAugment(3, 10)``                        ``{"transform": "RandAugment", "n": 3, "m": 10}``
``TrivialAugmentWide()``                      ``{"transform": "TrivialAugmentWide"}``
``UniformAugment()``                          ``{"transform": "UniformAugment"}``
``SampleAware()``                             ``{"transform": "SampleAware"}``
``PolicyTransform(policy, "timm")``           ``{"transform": "PolicyTransform",
                                              "convention": "timm", "bins": 10, "policy": rows}``
``OwnPipeline("my_parts:pipeline")``           ``{"transform": "OwnPipeline",
                                              "pipeline": "my_parts:pipeline"}``
``ScheduleTransform(schedule)``               ``{"transform": "Schedule", "epochs": 40, "ranges":
                                              [{"first_epoch": 0, "policy": rows}, ...]}``
============================================  ====================================================

A transform whose ``fill`` is not 0 has the field ``fill`` too. ``threads`` is no part of it, since
it changes no byte.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from .errors import InputError, check_choice, located
from .own import OwnPipeline
from .policy import Policy
from .schedule import Schedule, ScheduleTransform
from .transforms import (
    PolicyTransform,
    RandAugment,
    SampleAware,
    Transform,
    TrivialAugmentWide,
    UniformAugment,
)

Augmentation = Policy | Transform | ScheduleTransform | None
"""What an evaluator takes: a policy in the paper's convention, a transform, a schedule's transform,
or None for no augmentation."""

T = TypeVar("T")

_PARAMETRIC: dict[
    str,
    type[RandAugment] | type[TrivialAugmentWide] | type[UniformAugment] | type[SampleAware],
] = {
    "RandAugment": RandAugment,
    "TrivialAugmentWide": TrivialAugmentWide,
    "UniformAugment": UniformAugment,
    "SampleAware": SampleAware,
}
_NAMES = ("PolicyTransform", *_PARAMETRIC, "Schedule", "OwnPipeline")


def as_transform(augmentation: Policy | T) -> PolicyTransform | T:
    """A Policy as its transform (paper convention); anything else as it is."""
    return PolicyTransform(augmentation) if isinstance(augmentation, Policy) else augmentation


def encode_augmentation(augmentation: Augmentation) -> list[Any] | dict[str, Any] | None:
    """``augmentation`` as plain JSON data, in the form that the module's docstring shows.

    Raises:
        InputError: for a policy of other than 10 bins on its own, since nothing says which
            convention it is in; for a transform with a generator, whose state is no description;
            for any other kind of object, a subclass of these transforms included.
    """
    if augmentation is None:
        return None
    if isinstance(augmentation, Policy):
        if augmentation.bins != 10:
            raise InputError(
                "augmentation", "must be a policy of 10 bins, the paper's convention",
                f"{augmentation.bins} bins",
                "name the convention: PolicyTransform(policy, convention=...)",
            )  # fmt: skip
        return augmentation.to_json()
    kind = type(augmentation)
    known = (PolicyTransform, *_PARAMETRIC.values(), ScheduleTransform, OwnPipeline)
    if kind not in known:
        raise InputError(
            "augmentation",
            "must be None, a Policy or one of "
            f"{', '.join(each.__name__ for each in known)}, which can be written as data",
            augmentation, "use one of these",
        )  # fmt: skip
    if augmentation.generator is not None:
        raise InputError(
            "augmentation", "must have no generator of its own to be written as data",
            augmentation, "pass augmentation.with_generator(None)",
        )  # fmt: skip
    if isinstance(augmentation, ScheduleTransform):
        return {"transform": "Schedule", **augmentation.schedule.to_json()}
    if isinstance(augmentation, PolicyTransform):
        policy = augmentation.policy
        data = {"transform": "PolicyTransform", "convention": augmentation.convention,
                "bins": policy.bins, "policy": policy.to_json()}  # fmt: skip
    else:
        data = {"transform": kind.__name__, **augmentation.arguments()}
    fill = augmentation.fill
    return data if fill == 0 else {**data, "fill": list(fill) if isinstance(fill, tuple) else fill}


def decode_augmentation(data: object, where: str = "augmentation") -> Augmentation:
    """What ``encode_augmentation`` wrote.

    Args:
        data: parsed JSON.
        where: what errors call it, e.g. a file's name.

    Raises:
        InputError: naming the field, for anything but such data.
    """
    with located(where):
        return _decode(data)


def _decode(data: object) -> Augmentation:
    if data is None:
        return None
    if isinstance(data, list):
        return Policy(data)
    if not isinstance(data, dict):
        raise InputError(
            "data", "must be null, a list of sub-policies or an object with the field transform",
            data, 'e.g. {"transform": "RandAugment", "n": 2, "m": 9}',
        )  # fmt: skip
    name: Any = data.get("transform")
    check_choice("transform", name, _NAMES)
    if name == "Schedule":
        check_fields(data, name, ("transform", "epochs", "ranges"))
        return ScheduleTransform(Schedule.from_json(data))
    if name == "OwnPipeline":
        check_fields(data, name, ("transform", "pipeline"))
        return OwnPipeline(data["pipeline"])
    if name == "PolicyTransform":
        check_fields(data, name, ("transform", "convention", "bins", "policy"), ("fill",))
        policy = Policy(data["policy"], data["bins"])
        return PolicyTransform(policy, data["convention"], data.get("fill", 0))
    kind = _PARAMETRIC[name]
    check_fields(data, name, ("transform", *kind().arguments()), ("fill",))
    return kind(**{field: data[field] for field in data if field != "transform"})


def check_fields(
    data: Mapping[str, Any], what: str, needed: Collection[str], optional: Collection[str] = ()
) -> None:
    """InputError unless ``data`` has all fields ``needed``, and no other but ``optional`` ones."""
    for field in data:
        check_choice(f"field of {what}", field, (*needed, *optional))
    for field in needed:
        if field not in data:
            raise InputError(
                field, f"must be given for {what}", "no such field",
                f"it has the fields {', '.join((*needed, *optional))}",
            )  # fmt: skip
