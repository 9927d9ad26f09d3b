"""What is killed: a command of each kind, small, and what it must leave whatever hit it."""

from __future__ import annotations

from dataclasses import dataclass

# A run's folder is RUN in a folder of its own, in which it is started. Beside that one lie the
# images (120 classes, see `tests.golden.runs.tree`) and the folder of an earlier run.
RUN, IMAGES, BEFORE = "run", "images", "before"
PLANTED = "--task synthetic --evaluator synthetic"
CHILDREN = (
    "--task reduced-fashion --train-images 20 --validation-images 20 --epochs 2 --precision float32"
)


@dataclass(frozen=True)
class Command:
    """A run to be killed.

    Attributes:
        words: the `augsearch` words, without --out. sleep: planted seconds of an evaluation more.
        results: globs of the files that must be byte for byte those of the undisturbed run. All
            that a run leaves is named, but for its journals, what tells of times and places
            (environment.json, run.log), pictures, and views of the journal.
        before: words of the earlier run.
        kills: how many runs a soak makes and kills.
    """

    words: str
    results: tuple[str, ...]
    sleep: float = 0.1
    before: str = ""
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
        f"""fidelity {CHILDREN} --test-images 20 --policies 8 --seeds 2 --evaluation-seeds 1
        --evaluators '{{"planted": {{"kind": "synthetic"}}, "shared": {{"kind": "weight-sharing",
        "options": {{"shared_epochs": 2, "finetune_epochs": 1}}}}}}'""",
        ("fidelity.md", "fidelity.csv", "reference.csv"),
    ),
    "select": Command(
        f"select ../{BEFORE}/{RUN} --rescore 6 --rescore-seeds 2 --seeds 4",
        ("policy.txt", "policy.json", "proposals/*.json", "searched.json", "searched.jsonl"),
        before=f"search {PLANTED} --searcher random --evaluations 30",
    ),
    "rederive": Command(
        f"""rederive --data ../{IMAGES} --evaluator synthetic --preset cpu --evaluations 20
        --train-images 120 --validation-images 120 --seeds 6 --resolution 8""",
        ("search/policy.*", "rederive.md", "compare/compare.md", "compare/*.csv"),
    ),
    "pba": Command(f"pba --population 6 --interval 1 {CHILDREN}", ("schedule.json",)),
}
