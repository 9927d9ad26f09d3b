"""What is killed: a command of each kind, small, and what it must leave whatever hit it."""

from __future__ import annotations

from dataclasses import dataclass

from search.trial import JOURNAL_NAME

ALONE = ("driver", "group", "SIGTERM", "SIGINT")
WITH_RAY = ("driver", "worker", "node", "group", "SIGTERM", "SIGINT")
# A run's folder is RUN in a folder of its own, in which it is started. Beside that one lie the
# images (120 classes, see `tests.golden.runs.tree`) and the folder of an earlier run.
RUN, IMAGES, BEFORE = "run", "images", "before"
WORKERS = 2
POOL = f"--workers {WORKERS} --retries 5"
PLANTED = f"--task synthetic --evaluator synthetic {POOL}"
CHILDREN = (
    "--task reduced-fashion --train-images 20 --validation-images 20 --epochs 2 --precision float32"
)


@dataclass(frozen=True)
class Command:
    """A run to be killed.

    Attributes:
        words: the `augsearch` words, without --out. sleep: planted seconds of an evaluation more.
        log: name of the files that grow by a line of JSON for each result: the run's progress.
        results: globs of the files that must be byte for byte those of the undisturbed run. All
            that a run leaves is named, but for its journals, what tells of times and places
            (environment.json, run.log), pictures, and views of the journal.
        before: words of the earlier run.
        victims: what is hit, by turns. kills: how many runs a soak makes and kills.
    """

    words: str
    results: tuple[str, ...]
    sleep: float = 0.1
    log: str = JOURNAL_NAME
    before: str = ""
    victims: tuple[str, ...] = WITH_RAY
    kills: int = 10


COMMANDS = {
    "search": Command(
        f"search {PLANTED} --searcher ppo --evaluations 200",
        ("policy.txt", "policy.json"),
        sleep=0.04,
        kills=30,
    ),
    "randaugment": Command(
        f"randaugment {PLANTED} --n 1 2 3 4 --m 0 5 10 --seeds 3",
        ("policy.json",),
    ),
    "compare": Command(
        f"compare {PLANTED} --policy none imagenet randaugment:3,10 random:3 --seeds 10",
        ("compare.md", "compare.csv", "pairs.csv"),
    ),
    # One evaluator has work to be done once, and shared.
    "fidelity": Command(
        f"""fidelity {CHILDREN} {POOL} --test-images 20 --policies 8 --seeds 2 --evaluation-seeds 1
        --evaluators '{{"planted": {{"kind": "synthetic"}}, "shared": {{"kind": "weight-sharing",
        "options": {{"shared_epochs": 2, "finetune_epochs": 1}}}}}}'""",
        ("fidelity.csv", "reference.csv"),  # the report says in tables what took how long
    ),
    "select": Command(
        f"select ../{BEFORE}/{RUN} {POOL} --rescore 6 --rescore-seeds 2 --seeds 4",
        ("policy.txt", "policy.json", "proposals/*.json", "searched.json", "searched.jsonl"),
        before=f"search {PLANTED} --searcher random --evaluations 30",
    ),
    "rederive": Command(
        f"""rederive --data ../{IMAGES} --evaluator synthetic --preset cpu --budget 20 {POOL}
        --train-images 120 --validation-images 120 --seeds 2 --searches 1 --random-searches 1
        --grid 24 --other-child none --resolution 8""",
        ("*/policy.*", "rederive.md", "compare*/compare.md", "compare*/*.csv"),
    ),
    "replicate": Command(
        f"""replicate {PLANTED} --method random randaugment-grid none --draws 2 --budget 24
        --seeds 2""",
        ("replicate.md", "*.csv", "plan.json", "draw-*/*/*/policy.*", "draw-*/*/*.csv"),
    ),
    "pba": Command(f"pba --population 6 --interval 1 {CHILDREN} {POOL}", ("schedule.json",)),
    "tabulate": Command(
        f"tabulate {PLANTED} --policies 12 --policies-from ../{BEFORE}/{RUN} --late 3",
        ("correlations.csv", "noise.csv"),
        before=f"search {PLANTED} --searcher random --evaluations 30",
    ),
    # No journal and no workers: the epochs are what may be lost.
    "train": Command(
        f"train --policy imagenet {CHILDREN.replace('epochs 2', 'epochs 30')} --test-images 20",
        ("best.pt", "best.json", "last.pt", "last.json"),
        log="epochs.jsonl",
        victims=ALONE,
    ),
}
