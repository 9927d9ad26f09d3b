"""Reduced data sets, child models, and evaluators: augmentation policy -> reward.

Names are imported when they are first used, so that `import proxy_tasks` needs neither torch nor
numpy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from policies.augmentations import Augmentation

    from .data import ImageSet, ProxyTask, get_task
    from .evaluators.base import Evaluator
    from .evaluators.config import REWARDS, EvaluatorConfig
    from .evaluators.density_matching import DensityMatching
    from .evaluators.evaluation import Evaluation
    from .evaluators.from_scratch import FromScratch
    from .evaluators.planted import PlantedLandscape
    from .evaluators.registry import make_evaluator
    from .evaluators.repeat import Repeat
    from .evaluators.shared_child import WeightSharing
    from .models import MODELS, make_child
    from .presets import PRESETS, Preset, get_preset
    from .tables import Table, load_table
    from .tasks import TASKS
    from .trainer import Trainer

_MODULE_OF = {
    "Augmentation": "policies.augmentations",
    "DensityMatching": "proxy_tasks.evaluators.density_matching",
    "Evaluation": "proxy_tasks.evaluators.evaluation",
    "Evaluator": "proxy_tasks.evaluators.base",
    "EvaluatorConfig": "proxy_tasks.evaluators.config",
    "FromScratch": "proxy_tasks.evaluators.from_scratch",
    "ImageSet": "proxy_tasks.data",
    "MODELS": "proxy_tasks.models",
    "PRESETS": "proxy_tasks.presets",
    "PlantedLandscape": "proxy_tasks.evaluators.planted",
    "Preset": "proxy_tasks.presets",
    "ProxyTask": "proxy_tasks.data",
    "REWARDS": "proxy_tasks.evaluators.config",
    "Repeat": "proxy_tasks.evaluators.repeat",
    "TASKS": "proxy_tasks.tasks",
    "Trainer": "proxy_tasks.trainer",
    "Table": "proxy_tasks.tables",
    "WeightSharing": "proxy_tasks.evaluators.shared_child",
    "get_preset": "proxy_tasks.presets",
    "get_task": "proxy_tasks.data",
    "load_table": "proxy_tasks.tables",
    "make_child": "proxy_tasks.models",
    "make_evaluator": "proxy_tasks.evaluators.registry",
}

__all__ = [
    "MODELS",
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
    "Table",
    "Trainer",
    "WeightSharing",
    "get_preset",
    "get_task",
    "load_table",
    "make_child",
    "make_evaluator",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'proxy_tasks' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value  # the next use finds it without coming here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
