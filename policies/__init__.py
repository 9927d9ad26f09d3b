"""What an augmentation policy is, and how it is applied.

A ``Policy`` is data; ``PolicyTransform`` applies it to PIL images and uint8 tensors, bit-exact with
Pillow. Nothing here knows of training or search.

Names are imported when they are first used, so that ``import policies`` needs neither torch nor
numpy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .augmentations import Augmentation, decode_augmentation, encode_augmentation
    from .collate import PolicyCollate
    from .decoded import DecodedImages, decode_image
    from .errors import InputError
    from .foreign import SOURCES, Imported, read_table
    from .formats import FORMATS, Export, convert
    from .ops import CONVENTIONS, OPS, PAPER_OPS, Convention, Op, Scale, get_convention
    from .own import OwnPipeline
    from .policy import Operation, Policy
    from .policy_files import (
        PolicyFile,
        load_policy,
        load_policy_file,
        load_schedule,
        save_policy,
        save_schedule,
    )
    from .published import CIFAR10, IMAGENET, PUBLISHED, SVHN
    from .schedule import Schedule, ScheduleTransform
    from .transforms import (
        PolicyTransform,
        RandAugment,
        SampleAware,
        Transform,
        TrivialAugmentWide,
        UniformAugment,
    )

_NAMES = {
    "augmentations": ("Augmentation", "decode_augmentation", "encode_augmentation"),
    "collate": ("PolicyCollate",),
    "decoded": ("DecodedImages", "decode_image"),
    "errors": ("InputError",),
    "foreign": ("SOURCES", "Imported", "read_table"),
    "formats": ("FORMATS", "Export", "convert"),
    "ops": ("CONVENTIONS", "OPS", "PAPER_OPS", "Convention", "Op", "Scale", "get_convention"),
    "own": ("OwnPipeline",),
    "policy": ("Operation", "Policy"),
    "policy_files": (
        "PolicyFile", "load_policy", "load_policy_file", "load_schedule", "save_policy",
        "save_schedule",
    ),
    "published": ("CIFAR10", "IMAGENET", "PUBLISHED", "SVHN"),
    "schedule": ("Schedule", "ScheduleTransform"),
    "transforms": (
        "PolicyTransform", "RandAugment", "SampleAware", "Transform", "TrivialAugmentWide",
        "UniformAugment",
    ),
}  # fmt: skip
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names}

__all__ = [
    "CIFAR10",
    "CONVENTIONS",
    "FORMATS",
    "IMAGENET",
    "OPS",
    "PAPER_OPS",
    "PUBLISHED",
    "SOURCES",
    "SVHN",
    "Augmentation",
    "Convention",
    "DecodedImages",
    "Export",
    "Imported",
    "InputError",
    "Op",
    "Operation",
    "OwnPipeline",
    "Policy",
    "PolicyCollate",
    "PolicyFile",
    "PolicyTransform",
    "RandAugment",
    "SampleAware",
    "Scale",
    "Schedule",
    "ScheduleTransform",
    "Transform",
    "TrivialAugmentWide",
    "UniformAugment",
    "convert",
    "decode_augmentation",
    "decode_image",
    "encode_augmentation",
    "get_convention",
    "load_policy",
    "load_policy_file",
    "load_schedule",
    "read_table",
    "save_policy",
    "save_schedule",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'policies' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"policies.{_MODULE_OF[name]}"), name)
    globals()[name] = value  # the next use finds it without coming here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
