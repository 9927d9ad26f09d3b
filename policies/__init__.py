"""What an augmentation policy is, and how it is applied.

A ``Policy`` is data; ``PolicyTransform`` applies it to PIL images and uint8 tensors, bit-exact with
Pillow. Nothing here knows of training or search.
"""

from .errors import InputError
from .ops import CONVENTIONS, OPS, PAPER_OPS, Convention, Op, Scale, get_convention
from .policy import Operation, Policy, PolicyFile, load_policy, load_policy_file, save_policy
from .published import CIFAR10, IMAGENET, PUBLISHED, SVHN
from .transforms import PolicyTransform, RandAugment, Transform, TrivialAugmentWide, UniformAugment

__all__ = [
    "CIFAR10",
    "CONVENTIONS",
    "IMAGENET",
    "OPS",
    "PAPER_OPS",
    "PUBLISHED",
    "SVHN",
    "Convention",
    "InputError",
    "Op",
    "Operation",
    "Policy",
    "PolicyFile",
    "PolicyTransform",
    "RandAugment",
    "Scale",
    "Transform",
    "TrivialAugmentWide",
    "UniformAugment",
    "get_convention",
    "load_policy",
    "load_policy_file",
    "save_policy",
]
