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

__all__ = [
    "MODELS",
    "PRESETS",
    "REWARDS",
    "TASKS",
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
