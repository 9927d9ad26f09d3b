"""Every kind of bad input: one clear line, exit code 2, and nothing on the disk changed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from policies import CIFAR10, save_policy
from search.cli.main import main
from tests.golden.runs import copy

SYNTHETIC = ["--evaluator", "synthetic", "--quiet"]
pytestmark = pytest.mark.usefixtures("any_versions")

FINISHED = "search-random"  # of 24 evaluations
A_TENTH = '{"kind": "synthetic", "options": {"passes": 1}}'


@pytest.fixture
def place(tmp_path) -> Path:
    """A folder with everything that the cases below name."""
    tree(tmp_path / "tree", {"cat": 12, "dog": 12})
    tree(tmp_path / "few", {"cat": 12, "dog": 2})
    tree(tmp_path / "one", {"cat": 12})
    tree(tmp_path / "broken", {"cat": 12, "dog": 12})
    for name in ("00.png", "01.png"):
        path = tmp_path / "broken/train/cat" / name
        path.write_bytes(path.read_bytes()[:60])
    tree(tmp_path / "float", {"cat": 12, "dog": 12})
    for path in (tmp_path / "float/train/cat").iterdir():
        Image.fromarray(np.random.default_rng(0).random((32, 32), dtype=np.float32)).save(
            path.with_suffix(".tiff")
        )
        path.unlink()
    for name in ("empty", "classless/train", "imageless/train/cat", "imageless/train/dog"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "imageless/train/cat/notes.txt").write_text("no image")
    (tmp_path / "file.txt").write_text("keep me")
    copy(FINISHED, tmp_path / "run")
    for name, change in {
        "otherkind": {"format": "something"},
        "newer": {"version": 99},
        "extra": {"colour": 1},
    }.items():
        copy(FINISHED, tmp_path / name)
        config = tmp_path / name / "config.json"
        config.write_text(json.dumps({**json.loads(config.read_text()), **change}))
    copy(FINISHED, tmp_path / "nojson")
    (tmp_path / "nojson/config.json").write_text("{")
    copy(FINISHED, tmp_path / "torn")
    (tmp_path / "torn/.augsearch.lock").touch()  # as a run leaves it
    journal = tmp_path / "torn/trials.jsonl"
    journal.write_text("{torn\n" + journal.read_text())
    copy(FINISHED, tmp_path / "rotat")
    journal = tmp_path / "rotat/trials.jsonl"
    first, *others = journal.read_text().splitlines(keepends=True)
    others[0] = re.sub(r'\[\["\w+"', '[["Rotat"', others[0])
    journal.write_text("".join((first, *others)))
    policies(tmp_path)
    return tmp_path


def tree(root: Path, classes: dict[str, int]) -> None:
    rng = np.random.default_rng(0)
    for name, count in classes.items():
        folder = root / "train" / name
        folder.mkdir(parents=True)
        for index in range(count):
            pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{index:02}.png")


def policies(folder: Path) -> None:
    """Policy files, each wrong in its own way."""
    save_policy(folder / "good.json", CIFAR10)
    document = json.loads((folder / "good.json").read_text())

    def variant(name: str, **changes) -> None:
        (folder / name).write_text(json.dumps({**document, **changes}))

    variant("format.json", format="another")
    variant("version.json", version=3)
    variant("unknown-op.json", policy=[[["Rotat", 0.5, 3]]])
    variant("magnitude.json", policy=[[["Rotate", 0.5, 10]]])
    variant("probability.json", policy=[[["Rotate", 1.5, 3]]])
    variant("convention.json", convention="mine")
    variant("bins.json", bins=31)
    variant("empty.json", policy=[])
    variant("field.json", colour="blue")
    variant("many.json", provenance={"evaluations": {"finished": "many"}})
    variant("null.json", provenance={"cost": {"image_passes": None}})
    (folder / "options.toml").write_text("[task]\ntrain_image = 3\n")
    os.mkfifo(folder / "pipe.toml")
    (folder / "torn.toml").write_text("[task\n")
    (folder / "flat.toml").write_text("train-images = 3\n")
    (folder / "arms.toml").write_text('[settings]\npolicy = ["none", "cifar10"]\narms = ["none"]\n')
    (folder / "arm.toml").write_text('[settings]\npolicy = "none"\narm = "none"\n')
    (folder / "methods.toml").write_text('[settings]\nmethod = ["none", "random"]\narms = [{}]\n')
    (folder / "searches.toml").write_text('[settings]\noptimised = ["x"]\n')
    (folder / "date.toml").write_text("[evaluator]\noptions = {lr = 2026-11-30}\n")
    own = json.loads((folder / "run" / "config.json").read_text())
    (folder / "run77.json").write_text(json.dumps({**own, "version": 77}))
    (folder / "stranger.json").write_text(json.dumps({**own, "format": "other"}))
    (folder / "truncated.json").write_text((folder / "good.json").read_text()[:200])
    about = {"format": "augsearch-schedule", "version": 1, "epochs": 4, "provenance": None}
    (folder / "ranges.json").write_text(json.dumps({**about, "ranges": [1]}))
    (folder / "schedule2.json").write_text(json.dumps({**about, "version": 2, "ranges": []}))
    (folder / "deep.json").write_text("[" * 100_000)
    (folder / "code.txt").write_text('__import__("os").system("touch /tmp/augsearch-was-here")')
    (folder / "binary.json").write_bytes(bytes(range(256)))
    (folder / "clash").mkdir()
    shutil.copy(folder / "good.json", folder / "clash/good.json")


def search(*options: str) -> list[str]:
    return ["search", *SYNTHETIC, "--out", "new", *options]


def folder(name: str, *options: str) -> list[str]:
    return search("--task", "folder", "--data", name, "--train-images", "16", *options)


def resume(name: str, *options: str) -> list[str]:
    arguments = ["search", "--task", "synthetic", "--searcher", "random", "--evaluations", "24"]
    return [*arguments, *SYNTHETIC, "--out", name, "--resume", *options]


def compare(*arms: str) -> list[str]:
    return ["compare", *SYNTHETIC, "--out", "new", "--policy", *arms]


# id: (arguments, what the line must say). Paths are relative to `place`.
CASES: dict[str, tuple[list[str], str]] = {
    "no such command": (["serch"], "No such command 'serch'"),
    "no such option": (search("--evaluatons", "3"), "No such option.*--evaluations"),
    "a word for a number": (
        search("--evaluations", "many"), "must be a whole number, at least 1, but got 'many'"),
    "numbers with commas between": (
        ["randaugment", "--n", "1,2", "--out", "new"], "separate values by blanks: 1 2"),
    "names with commas between": (search("--ops", "Rotate,Color"), "separate them: Rotate Color"),
    "a table that is none": (
        ["race", "--table", "plated", "--out", "new"], "did you mean 'planted'"),
    "a fidelity that landscapes have not": (
        ["race", "--table", "planted", "--dear", "sratch", "--out", "new"], "dear: .*scratch"),
    "random policies to export": (
        ["export", "--policy", "random:5"], "must be a policy or sched.* or randaugment:N,M, but"),
    "nothing to export": (["export", "--policy", "none"], "name one that augments"),
    **{
        f"a sheet of {option} {value}": (
            ["show", "--policy", "svhn", "--out", "p.png", option, value], f"'{option}': {value}")
        for option, value in (
            ("--rows", "-1"), ("--rows", "0"), ("--count", "0"), ("--seed", "-1"),
            ("--seed", "99999999999999999999"))
    },
    "a picture of another kind": (
        ["show", "--policy", "imagenet", "--out", "p.jpg"], "out: .*use p.png"),
    "no out": (["search", "--task", "folder"], "Missing option '--out'"),
    # names
    "task": (search("--task", "reduced-fashon"), "did you mean 'reduced-fashion'"),
    "searcher": (search("--searcher", "genetic"), "searcher: must be one of.*genetic"),
    "evaluator": (search("--evaluator", "oracle"), "evaluator: must be one of.*oracle"),
    "reward": (search("--reward", "accurracy"), "did you mean 'accuracy'"),
    "preset": (search("--preset", "gpu"), "preset: must be one of.*gpu"),
    "device": (search("--device", "gpu"), "device: must be auto, cpu, cuda or cuda:N.*gpu"),
    "precision": (search("--precision", "int8"), "precision: must be one of.*int8"),
    # numbers
    "evaluations": (search("--evaluations", "0"), "evaluations: .*at least 1.*got 0"),
    "workers": (search("--workers", "0"), "workers: .*at least 1"),
    "cpus": (search("--cpus", "0"), "cpus: .*above 0"),
    "negative gpus": (search("--gpus", "-1"), "gpus: .*at least 0"),
    "one and a half gpus": (search("--gpus", "1.5"), "gpus: must be whole above 1"),
    "time limit": (search("--time-limit", "0"), "time_limit: .*above 0"),
    "retries": (search("--retries", "-1"), "retries: .*at least 0"),
    "seed": (search("--seed", "-1"), "seed: .*at least 0"),
    "task seed": (search("--task-seed", "-1"), "task_seed: .*at least 0"),
    "threads": (search("--threads", "0"), "threads: .*at least 1"),
    "repeats": (search("--repeats", "0"), "repeats: .*at least 1"),
    "epochs": (search("--epochs", "0"), "epochs: .*at least 1"),
    "sub-policies": (search("--subpolicies", "0"), "subpolicies: .*at least 1"),
    "operations": (search("--operations", "0"), "operations: .*at least 1"),
    "top": (search("--top", "0"), "top: .*at least 1"),
    "top above evaluations": (
        search("--top", "500", "--evaluations", "200"), "top: must be at most the 200 evaluations"),
    "evaluations and a budget": (
        search("--evaluations", "20", "--budget", "9"), "budget: must not be given with evaluat"),
    "a budget that pays for nothing": (
        search("--evaluator-options", '{"passes": 10}', "--cheap", A_TENTH, "--budget", "1"),
        "budget: must be at least"),
    "a cheap evaluator for a plain searcher": (
        search("--searcher", "ppo", "--cheap", '{"kind": "synthetic"}'), "cheap: needs a searcher"),
    "a field that no evaluator has": (
        search("--cheap", '{"kinds": "synthetic"}'), "cheap: .*kind"),
    "a policy too large to export": (
        search("--subpolicies", "200", "--top", "100"), "subpolicies: must give a policy of at"),
    "a billion sub-policies": (search("--subpolicies", "1000000000"), "subpolicies: .*1000"),
    "a huge seed": (search("--seed", str(2**64)), "seed: .*at most"),
    "a huge seed of a child": (
        ["train", "--policy", "none", "--seed", str(2**64), "--out", "new"], "seed: .*at most"),
    "an unknown operation to use": (search("--ops", "Rotat"), "did you mean 'Rotate'"),
    "an unknown operation to leave out": (search("--without", "Cutot"), "did you mean 'Cutout'"),
    "no operation left": (
        search("--ops", "Cutout", "--without", "Cutout"), "without: must leave at least one"),
    "no such device": (search("--device", "cuda:7"), "device: "),
    "no such option of another command": (
        ["compare", "--config", "options.toml", "--out", "new"], "did you mean 'train_images'"),
    "a configuration file of another kind": (
        ["compare", "--config", "run/config.json", "--out", "new"], "kind: must be compare"),
    "no configuration file": (search("--config", "nowhere.toml"), "must be an existing file"),
    "a pipe as the configuration file": (search("--config", "pipe.toml"), "must be an ordinary"),
    "a folder as the configuration file": (search("--config", "tree"), "must be an ordinary"),
    "a configuration file that is neither": (search("--config", "file.txt"), "in .toml"),
    "an option outside its section": (
        search("--config", "flat.toml"), "must stand in its section.*as task.train_images"),
    "a configuration file that is no TOML": (search("--config", "torn.toml"), "must be TOML"),
    "arms of another form": (
        ["compare", "--config", "arms.toml", "--out", "new"], "arms: must be objects with a"),
    "an arm of another form": (
        ["train", "--config", "arm.toml", "--out", "new"], "arm: must be objects with a 'text'"),
    "methods of another form": (
        ["replicate", "--config", "methods.toml", "--out", "new"], "arms: must be objects"),
    "searches of another form": (
        ["tabulate", "--config", "searches.toml", "--out", "new"], "optimised: must be objects"),
    "a date as an option": (search("--config", "date.toml"), "lr: must be text, a number"),
    "a run's file of another version": (search("--config", "run77.json"), "version 77"),
    "a run's file of another program": (
        search("--config", "stranger.json"), "configuration of a run"),
    "resume nothing": (["resume", "nowhere"], "run: must be a run folder"),
    "resume with less": (["resume", "run", "--evaluations", "20"], "was 24 and is 20"),
    "resume with what may not change": (["resume", "run", "--seeds", "3"], "must not change"),
    "a provenance of a wrong type": (compare("many.json"), "finished: must be a whole.*many"),
    "a provenance of another": (compare("null.json"), "image_passes: must be a whole number.*None"),
    "train below a file": (
        ["train", "--policy", "none", "--out", "file.txt/a/b"], "must be a folder that can be"),
    "no images": (search("--train-images", "0"), "train_images: must be a whole.*at least 1"),
    "more images than there are": (search("--train-images", "99999"), "train_images: needs"),
    "resolution": (search("--resolution", "4"), "resolution: must be an integer in 8..1024"),
    # JSON options
    "no JSON": (search("--searcher-options", "{"), "must be JSON"),
    "no object": (
        search("--searcher-options", "[1]"), 'must be JSON: an object, e.g. {"batch_size": 10}'),
    "searcher option": (search("--searcher-options", '{"warp": 1}'), "option of the search.*warp"),
    "evaluator option": (search("--evaluator-options", '{"warp": 1}'), "option of synthetic.*warp"),
    "another's option of the searcher": (
        search("--searcher-options", '{"evaluator": "x"}'), "must be one of .*'evaluator'"),
    "the seed as an option of the searcher": (
        search("--searcher-options", '{"seed": 3}'), "must be one of .*'seed'"),
    **{
        f"a batch size of {value}": (
            search("--searcher-options", f'{{"batch_size": {value}}}'),
            "option batch_size of the searcher staged: must be a whole number")
        for value in ('"20"', "2.5", "true", "null", "0", "[20]")
    },
    "a number that is none": (
        search("--searcher-options", '{"batch_size": 1e400}'), "must be JSON.*1e400 is too large"),
    "a negative noise": (search("--evaluator-options", '{"noise": -1}'), "option noise of synth"),
    "no epochs of the shared child": (
        ["search", "--evaluator", "weight-sharing", "--evaluator-options", '{"shared_epochs": 0}',
         "--out", "new"], "option shared_epochs of weight-sharing: must be"),
    "a population that is never replaced": (
        ["pba", "--epochs", "3", "--interval", "3", "--out", "new"], "interval: must be less than"),
    "select by a configuration that is none": (
        ["select", "nojson", "--out", "new"], "config.json: must be valid JSON"),
    "select by a journal with an operation that is none": (
        ["select", "rotat", "--out", "new"], r"trials.jsonl, line 2: .*\[0\]\[0\]\.name: must be"),
    "a whole tree of policies": (search("--top", "100", "--subpolicies", "999"), "subpolicies: "),
    # data
    "no data": (search("--task", "folder"), "data: is needed by folder"),
    "data for the embedded task": (search("--data", "tree"), "data: is not used"),
    "no such path": (folder("nowhere"), "data: must be an existing folder.*nowhere"),
    "a file for a folder": (folder("file.txt"), "data: must be an existing folder"),
    "an empty folder": (folder("empty"), "data: must be a folder with train/"),
    "no classes": (folder("classless"), "must hold one folder per class"),
    "no images in it": (folder("imageless"), "must hold images"),
    "one class": (folder("one"), "at least 2 classes"),
    "too few of a class": (folder("few"), "images of class 'dog'"),
    "broken images": (folder("broken"), r"at most 1 ?% of the drawn images.*\d\d\.png"),
    "float images": (folder("float"), r"at most 1 ?% of the drawn images.*not 8 bits"),
    "an ImageNet tree without val": (
        search("--task", "reduced-imagenet", "--data", "tree"), "train/<wnid>/ and val/<wnid>/"),
    "CIFAR-10 not there": (
        search("--task", "reduced-cifar10", "--data", "empty"), "torchvision root holding CIFAR10"),
    # output folders and resuming
    "an existing run": (search("--out", "run"), "out: must be a new folder.*--resume"),
    "a folder with other things": (search("--out", "tree"), "out: must be a new folder"),
    "out is a file": (search("--out", "file.txt"), "out: must be a new folder"),
    "out below a file": (search("--out", "file.txt/run"), "out: "),
    "no run to resume": (resume("tree"), "out: must be a new folder"),
    "another seed": (resume("run", "--seed", "1"), "resume: .*seed was 0 and is 1"),
    "fewer evaluations": (resume("run", "--evaluations", "20"), "evaluations was 24 and is 20"),
    "another task size": (resume("run", "--train-images", "500"), "train_images was None"),
    "a configuration of another kind": (resume("otherkind"), "config.json: must be the config"),
    "a newer configuration": (resume("newer"), "must be a run folder of version 2.*99"),
    "an unknown field": (resume("extra"), "config.json, section: .*colour"),
    "a configuration that is no JSON": (resume("nojson"), "config.json: must be valid JSON"),
    "a broken journal": (resume("torn"), "trials.jsonl, line 1"),
    # policies
    "no arm": (["compare", "--out", "new"], "policy: must be given"),
    "an unknown arm": (compare("none", "imagnet"), "policy: must be a policy or schedule file"),
    "an arm twice": (compare("none", "none"), "policy: must not name an arm twice"),
    "two files of one name": (compare("good.json", "clash/good.json"), "arm twice.*good.json"),
    "a missing file": (compare("none", "missing.json"), "must be an existing file.*missing.json"),
    "RandAugment without M": (compare("randaugment:2"), "must be randaugment:N,M"),
    "RandAugment with words": (compare("randaugment:a,b"), "must be randaugment:N,M"),
    "RandAugment too strong": (
        compare("randaugment:2,31"), "policy randaugment:2,31: m: must be an integer in 0..30"),
    "the folder of a policy": (compare("run"), "name run/policy.json"),
    "no random sub-policy": (compare("random:0"), "random:K"),
    "no seeds": (compare("none", "--seeds", "0"), "seeds: must be a whole number, at least 1"),
    "a test part too large": (compare("none", "--test-images", "99999"), "test_images: needs"),
    "another format": (compare("format.json"), "format.json: format: must be 'augsearch-policy'"),
    "a newer policy": (compare("version.json"), "version.json: version: must be at most 2"),
    "an unknown operation": (compare("unknown-op.json"), r"policy\[0\]\[0\].name.*'Rotate'"),
    "magnitude": (compare("magnitude.json"), r"policy\[0\]\[0\].magnitude: .*0..9.*got 10"),
    "probability": (compare("probability.json"), r"policy\[0\]\[0\].probability: .*0..1"),
    "convention": (compare("convention.json"), "convention: must be one of.*mine"),
    "bins": (compare("bins.json"), "policy.bins: must be 10"),
    "an empty policy": (compare("empty.json"), "policy: must have 1 to"),
    "an unknown policy field": (compare("field.json"), "field.json: field.*colour"),
    "a truncated policy": (compare("truncated.json"), "truncated.json: must be valid JSON"),
    "a nested bomb": (compare("deep.json"), "deep.json: must be valid JSON"),
    "code for a policy": (compare("code.txt"), "policy text: must be a list of tuples"),
    "bytes for a policy": (compare("binary.json"), "binary.json: must be.*UTF-8"),
    # the other commands
    "N too large": (["randaugment", "--n", "17", "--out", "new"], "n: .*at most 16"),
    "M too large": (["randaugment", "--m", "31", "--out", "new"], "m: must be whole numbers"),
    "too few policies": (
        ["fidelity", "--policies", "3", "--out", "new"], "policies: .*at least 8"),
    "an evaluator field": (
        ["fidelity", "--evaluators", '{"a": {"kin": 1}}', "--out", "new"], "did you mean 'kind'"),
    "a table from nothing": (
        ["tabulate", "--policies-from", "nowhere", "--out", "new"], "run: must be a run folder"),
    "a table by a cheap evaluator": (
        ["tabulate", "--evaluator", "weight-sharing", "--out", "new"],
        "evaluator: must be one of from-scratch, synthetic"),
    "a population's evaluator": (
        ["search", "--evaluator", "population", "--out", "new"],
        "evaluator: must judge a candidate by itself.*augsearch pba"),
    "a price of no GPU": (
        ["estimate", "--gpu-price", "2"], "gpu_price: must be for workers that have GPUs"),
    "evaluations and a budget to estimate": (
        ["estimate", "--evaluations", "9", "--budget", "9"],
        "budget: must not be given with evaluations"),
    "a small population": (["pba", "--population", "2", "--out", "new"], "population: .*4"),
    "pba into a folder": (["pba", "--out", "tree"], "out: must be a new folder"),
    "a schedule without ranges": (compare("ranges.json"), "ranges: must list objects"),
    "a newer schedule": (compare("schedule2.json"), "schedule2.json: version: must be at most 1"),
    "select from nothing": (["select", "nowhere", "--out", "new"], "run: must be a run folder"),
    "select into a folder": (["select", "run", "--out", "tree"], "out: must be a new folder"),
    "rederive into a folder": (
        ["rederive", "--data", "tree", "--out", "tree"], "out: must be a new folder"),
    "rederive without ImageNet": (
        ["rederive", "--data", "tree", "--out", "new"], "data: must be the top of an ImageNet"),
    "report of nothing": (["report", "nowhere"], "run: must be a run folder"),
    "report of no run": (["report", "tree"], "run: must .*config.json"),
    "show without images": (
        ["show", "--policy", "imagenet", "--images", "empty", "--out", "a.png"], "at least 8 im"),
    "show a broken image": (
        ["show", "--policy", "imagenet", "--images", "broken", "--count", "24", "--out", "a.png"],
        "images: must be readable.*png"),
    "show to another type": (
        ["show", "--policy", "imagenet", "--out", "a.jpg"], "out: must be a name ending in"),
    "show a transform": (
        ["show", "--policy", "trivialaugment", "--out", "a.png"], "policy: must be a policy fi"),
    "show over a file": (
        ["show", "--policy", "imagenet", "--out", "tree/train/cat/00.png"], "must be a new file"),
    "export format": (
        ["export", "--policy", "imagenet", "--format", "yaml"], "format: must be one of.*yaml"),
    "export over a file": (
        ["export", "--policy", "imagenet", "--out", "file.txt"], "out: must be a new file"),
    "train into a folder": (["train", "--policy", "none", "--out", "tree"], "out: must be a new f"),
}  # fmt: skip


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.mark.parametrize(("arguments", "said"), CASES.values(), ids=CASES.keys())
def test_bad_input(place: Path, monkeypatch, arguments: list[str], said: str) -> None:
    monkeypatch.chdir(place)
    before = contents(place)
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2, (result.output, result.exception)
    assert re.search(said, result.stderr), result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("Error: "), result.stderr
    assert contents(place) == before
    assert not Path("/tmp/augsearch-was-here").exists()


def test_there_are_at_least_forty_kinds() -> None:
    assert len(CASES) >= 40


def test_a_good_call_passes_where_the_bad_ones_fail(place: Path, monkeypatch) -> None:
    """The cases fail for what is wrong in them, not for something that all of them share."""
    monkeypatch.chdir(place)
    run: Callable = CliRunner().invoke
    assert run(main, resume("run")).exit_code == 0
    assert run(main, ["export", "--policy", "good.json"]).exit_code == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.long
def test_a_stderr_that_takes_nothing_changes_no_exit_code(tmp_path):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", "from search.cli.main import main; main()",
             "search", "--task", "nope", "--out", str(tmp_path / "x")],
            stderr=full, cwd=Path(__file__).parent.parent, check=False,
        )  # fmt: skip
    assert done.returncode == 2
