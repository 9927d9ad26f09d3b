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
