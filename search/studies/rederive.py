"""`augsearch rederive`: AutoAugment's ImageNet search again, and the comparison with its policy.

The paper (arXiv 1805.09501, section 4) searches on reduced ImageNet, 120 classes and 6,000 images,
by training Wide-ResNet-40-2 for 200 epochs per candidate, 15,000 candidates, and concatenates the
best 5. The defaults here are those; smaller settings are options.
"""

from __future__ import annotations

from pathlib import Path

from policies.errors import InputError
from proxy_tasks import EvaluatorConfig
from search.engine.loop import RunResult
from search.engine.pool import PoolConfig
from search.searchers.ppo import PPO_PRESETS

from .compare import run_compare
from .search import CONFIG_NAME, POLICY_NAME, RunConfig, check_new, run_search
from .study import TaskConfig

TASK = "reduced-imagenet"


def run_rederive(
    out: str,
    data: str,
    *,
    evaluations: int = 15_000,
    seed: int = 0,
    task_seed: int = 0,
    preset: str = "paper",
    evaluator: str = "from-scratch",
    evaluator_options: dict | None = None,
    reward: str = "accuracy",
    epochs: int | None = None,
    train_images: int | None = None,
    validation_images: int | None = None,
    test_images: int | None = None,
    resolution: int | None = None,
    seeds: int = 5,
    pool: PoolConfig | None = None,
    resume: bool = False,
    progress: bool = True,
) -> RunResult | None:
    """Search into `out`/search, then compare none, imagenet and the found policy in `out`/compare.

    data: top of an ImageNet tree. seeds: children per arm of the comparison; 0 leaves it out and
    returns None. resume: goes on wherever the first attempt stopped.
    Raises InputError for a user's mistake, and what `engine.run` raises.
    """
    if seeds < 0:
        raise InputError("seeds", "must be at least 0", seeds, "use 5")
    if not resume:
        check_new(Path(out))
    pool = pool or PoolConfig()
    found, compared = Path(out) / "search", Path(out) / "compare"
    config = RunConfig(
        out=str(found),
        task=TASK,
        data=data,
        task_seed=task_seed,
        train_images=train_images,
        validation_images=validation_images,
        resolution=resolution,
        searcher="ppo",
        # The controller's settings go with the child's: "paper" means both.
        searcher_options={"preset": preset if preset in PPO_PRESETS else "cpu"},
        evaluations=evaluations,
        seed=seed,
        evaluator=evaluator,
        evaluator_options=evaluator_options or {},
        preset=preset,
        reward=reward,
        epochs=epochs,
        pool=pool,
    )
    run_search(config, resume=resume, progress=progress)
    if seeds == 0:
        return None
    task = TaskConfig(
        TASK, data, task_seed, train_images, validation_images, test_images, resolution, preset
    )
    child = EvaluatorConfig(
        # A search by a cheap evaluator is still judged by training from scratch.
        kind="synthetic" if evaluator == "synthetic" else "from-scratch",
        preset=preset,
        epochs=epochs if evaluator == "from-scratch" else None,
    )
    return run_compare(
        ["none", "imagenet", str(found / POLICY_NAME)],
        str(compared),
        task=task,
        seeds=seeds,
        evaluator=child,
        pool=pool,
        resume=resume and (compared / CONFIG_NAME).exists(),
        progress=progress,
    )
