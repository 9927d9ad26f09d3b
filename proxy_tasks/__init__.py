"""Reduced data sets, child models, and evaluators: augmentation policy -> reward."""

from proxy_tasks.evaluators.config import REWARDS, EvaluatorConfig
from proxy_tasks.evaluators.evaluation import Evaluation
from proxy_tasks.evaluators.registry import (
    Augmentation,
    DensityMatching,
    Evaluator,
    FromScratch,
    PlantedLandscape,
    Repeat,
    WeightSharing,
    make_evaluator,
)

from .data import ImageSet, ProxyTask, get_task
from .presets import PRESETS, Preset, get_preset
from .tasks import TASKS

__all__ = [
    "PRESETS",
    "REWARDS",
    "TASKS",
    "Augmentation",
    "DensityMatching",
    "Evaluation",
    "Evaluator",
    "EvaluatorConfig",
    "FromScratch",
    "ImageSet",
    "PlantedLandscape",
    "Preset",
    "ProxyTask",
    "Repeat",
    "WeightSharing",
    "get_preset",
    "get_task",
    "make_evaluator",
]
