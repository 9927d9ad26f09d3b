"""`augsearch train`: killed at any moment, it ends in the same weights, and they can be used."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from policies import InputError, files
from policies.policy_files import save_policy
from proxy_tasks import make_child
from proxy_tasks.learner import Learner
from proxy_tasks.trainer import Trainer
from search import run_train
from search.cli.main import main
from search.runs import blobs
from search.runs.blobs import read_blob
from search.studies import train as study
from search.studies.seeds import BLOCKS, training_seed
from search.studies.study import build_task
from search.studies.train_settings import TrainSettings
from tests.search.trainings import (
    EPOCHS,
    GOLDEN,
    HERE,
    Killed,
    arguments,
    config,
    die_after_two_epochs,
    kill,
    rows,
    weights,
)

# (place, call, after), and how many epochs are safe then.
MOMENTS = {
    "in the first epoch": (Learner, "step", 2, False, 0),
    "before the first checkpoint": (study, "write_blob", 1, False, 0),
    "between the first checkpoint and its line": (study, "write_blob", 1, True, 1),
    "after the first line": (study, "_write_log", 1, True, 1),
    "in the second epoch": (Learner, "step", 5, True, 1),
    "before the third checkpoint": (study, "write_blob", 3, False, 2),
    "between the third checkpoint and its line": (study, "write_blob", 3, True, 3),
    "between the last checkpoint and its line": (study, "write_blob", EPOCHS, True, EPOCHS),
    "before the test part is judged": (Trainer, "judge", 1, False, EPOCHS),
    "before the first weights": (study, "_write_weights", 1, False, EPOCHS),
    "between the two weights": (study, "_write_weights", 1, True, EPOCHS),
    "before the result": (study, "_write_weights", 2, True, EPOCHS),
}  # fmt: skip


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_training_killed_at_any_moment_ends_in_the_same_weights(
    undisturbed, tmp_path, monkeypatch, moment
):
    where, name, call, after, safe = MOMENTS[moment]
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        kill(patch, where, name, call, after)
        with pytest.raises(Killed):
            run_train(config(), out, progress=False)
    kept = out / study.CHECKPOINT_NAME
    assert (len(study._load(read_blob(kept))["rows"]) if kept.exists() else 0) == safe
    epochs = []
    real = Trainer.train_epoch
    monkeypatch.setattr(Trainer, "train_epoch", lambda self: epochs.append(1) or real(self))
    evaluation = run_train(config(), out, resume=True, progress=False)
    assert len(epochs) == EPOCHS - safe
    assert weights(out) == weights(undisturbed[0])
    assert rows(out) == rows(undisturbed[0]) and len(rows(out)) == EPOCHS
    assert evaluation.metrics == undisturbed[1].metrics


@pytest.mark.parametrize(
    "options",
    [
        {"model": "convnet", "kernels": "fused"},
        {"optimizer": "adamw", "optimizer_options": {"amsgrad": True}},
        {"optimizer": "torch.optim:RMSprop", "momentum": None},
        {"precision": "bfloat16", "schedule": "one-cycle"},
        {"policy": "randaugment:2,9", "loss": "binary-cross-entropy", "threshold": 0.2},
        {"model": "torchvision:shufflenet_v2_x0_5"},
    ],
    ids=lambda options: ",".join(map(str, options.values())),
)
@pytest.mark.long
def test_so_does_one_of_another_recipe(tmp_path, monkeypatch, options):
    run_train(config(**options), tmp_path / "whole", progress=False)
    with monkeypatch.context() as patch:
        kill(patch, study, "write_blob", 2, True)
        with pytest.raises(Killed):
            run_train(config(**options), tmp_path / "parts", progress=False)
    run_train(config(**options), tmp_path / "parts", resume=True, progress=False)
    assert weights(tmp_path / "parts") == weights(tmp_path / "whole")


@pytest.mark.long
def test_every_draw_matters(undisturbed, tmp_path):
    """The test above would pass without seeds per epoch, were nothing drawn."""
    found = {(undisturbed[0] / "last.pt").read_bytes()}
    changes = (
        {"seed": 1}, {"mixup": 0.0, "cutmix": 0.0}, {"erase": 0.0}, {"copies": 1}, {"ema": 0.0},
        {"policy": "none"}, {"smoothing": 0.0}, {"warmup": 0.0}, {"schedule": "step"},
    )  # fmt: skip
    for number, change in enumerate(changes):
        run_train(config(**change), tmp_path / str(number), progress=False)
        found.add((tmp_path / str(number) / "last.pt").read_bytes())
    assert len(found) == 1 + len(changes)


def test_what_a_killed_writer_left_is_removed(tmp_path, monkeypatch):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        kill(patch, study, "_write_log", 2, True)
        with pytest.raises(Killed):
            run_train(config(), out, progress=False)
    (out / ".checkpoint.pt.123.tmp").write_bytes(b"half")
    run_train(config(), out, resume=True, progress=False)
    assert not list(out.glob(".*.tmp"))


# The end ----------------------------------------------------------------------------------------


def test_a_finished_run_is_left_alone(undisturbed, monkeypatch):
    out, evaluation = undisturbed
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.iterdir()}
    monkeypatch.setattr(study, "_trainer", None)  # nothing is trained
    said = CliRunner().invoke(main, ["resume", str(out)])
    assert said.exit_code == 0 and "test accuracy" in said.output
    assert run_train(config(), out, resume=True) == evaluation
    after = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.iterdir()}
    assert after == before


@pytest.mark.parametrize("damage", [None, b"{}", b"\xff\x00", b'{"files": {}, "evaluation": {}}'])
def test_results_that_are_lost_or_damaged_are_made_anew(undisturbed, tmp_path, damage):
    out = Path(shutil.copytree(undisturbed[0], tmp_path / "run"))
    for name in (*weights(out), study.EPOCHS_NAME, study.RESULT_NAME):
        if damage is None:
            (out / name).unlink()
        else:
            (out / name).write_bytes(damage)
        assert run_train(config(), out, resume=True, progress=False).metrics
        assert weights(out) == weights(undisturbed[0])
        assert (out / study.EPOCHS_NAME).read_bytes() == (
            undisturbed[0] / study.EPOCHS_NAME
        ).read_bytes()  # fmt: skip
        assert (out / study.RESULT_NAME).exists()


def test_a_full_disk_is_told_in_one_line_and_costs_an_epoch_at_most(
    undisturbed, tmp_path, monkeypatch
):
    out = tmp_path / "run"
    calls = iter(range(100))

    def full(path, data):
        if path.parent == out and next(calls) == 4:  # the third checkpoint
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, data)

    write = files.write_atomically
    with monkeypatch.context() as patch:
        for where in (study, blobs):
            patch.setattr(where, "write_atomically", full)
        said = CliRunner().invoke(main, ["train", *arguments(), "--out", str(out), "--quiet"])
    assert said.exit_code == 1
    assert re.fullmatch(r"Error: cannot write .*No space left.*augsearch resume .*\n", said.output)
    assert len(study._load(read_blob(out / study.CHECKPOINT_NAME))["rows"]) == 2
    assert CliRunner().invoke(main, ["resume", str(out), "--quiet"]).exit_code == 0
    assert weights(out) == weights(undisturbed[0])


@pytest.mark.parametrize("name", ["best", "last"])
def test_the_weights_are_used_with_what_stands_beside_them(undisturbed, name):
    """With torch alone: normalise, load, and reach the accuracy that is stated."""
    out, _ = undisturbed
    about = json.loads((out / f"{name}.json").read_text())
    task = build_task(config().task, "cpu")
    assert about["class_names"] == list(task.class_names)
    assert about["resolution"] == [28, 28] and about["policy"]["name"] == "imagenet"
    network = make_child(
        about["model"], about["channels"], len(about["class_names"]), 0, torch.device("cpu")
    )
    network.load_state_dict(torch.load(out / f"{name}.pt", weights_only=True))
    images = torch.tensor(task.validation.images) / 255
    mean, std = (torch.tensor(about[key]).view(1, -1, 1, 1) for key in ("mean", "std"))
    found = network.eval()((images - mean) / std).argmax(1).numpy()
    assert (found == task.validation.labels).mean() == about["validation"]["accuracy"]


def test_the_result_says_which_file_and_which_seed_it_is_of(undisturbed):
    """A seed that no search, comparison or table trains children with."""
    out, _ = undisturbed
    for name in ("best", "last"):
        checksum = hashlib.sha256((out / f"{name}.pt").read_bytes()).hexdigest()
        assert json.loads((out / f"{name}.json").read_text())["sha256"] == checksum
    seed = json.loads((out / "result.json").read_text())["seed"]
    assert seed == training_seed("train", 0)
    assert seed not in {training_seed(block, 0) for block in BLOCKS if block != "train"}


def test_the_best_epoch_is_that_of_the_validation_part_and_judged_once(tmp_path, monkeypatch):
    validation = iter([0.3, 0.5, 0.5, 0.4])
    real = Trainer.validation_scores

    def scores(self, child, loss=0.0):
        found, why = real(self, child, loss)
        accuracy = next(validation, None)  # the last time, `judge` asks for the temperature
        metrics = {**found.metrics, "log_likelihood": -1.0}
        return (found if accuracy is None else replace(
            found, metrics={**metrics, "accuracy": accuracy})), why  # fmt: skip

    judged = []
    monkeypatch.setattr(Trainer, "validation_scores", scores)
    logits = study.Trainer.judge
    monkeypatch.setattr(Trainer, "judge", lambda self: judged.append(1) or logits(self))
    out = tmp_path / "run"
    evaluation = run_train(config(), out, progress=False)
    assert evaluation.details["best_epoch"] == 2  # the earlier of equals
    assert evaluation.part == "test" and judged == [1]
    assert json.loads((out / "best.json").read_text())["epoch"] == 2
    assert json.loads((out / "last.json").read_text())["epoch"] == 4


def test_a_network_that_diverges_ends_early_and_has_no_best_weights(tmp_path):
    out = tmp_path / "run"
    said = CliRunner().invoke(main, ["train", *arguments(lr=1e30, warmup=0.0), "--out", str(out)])
    assert said.exit_code == 1 and "it diverged: the training loss was" in said.stderr
    assert len(rows(out)) < EPOCHS and rows(out)[-1]["loss"] is None
    assert not (out / "best.pt").exists() and (out / "last.pt").exists()
    assert json.loads((out / "result.json").read_text())["evaluation"]["diverged"]


# Refusals ---------------------------------------------------------------------------------------


@pytest.fixture
def left(tmp_path):
    """A run that was killed after its second epoch."""
    die_after_two_epochs(tmp_path / "run")
    return tmp_path / "run"


def test_one_that_an_earlier_version_left_is_gone_on_with(tmp_path):
    out = Path(shutil.copytree(GOLDEN, tmp_path / "run"))
    before = rows(out)
    assert len(before) == 2
    said = CliRunner().invoke(main, ["resume", str(out), "--quiet"])
    assert said.exit_code == 0, said.output
    assert rows(out)[:2] == before and len(rows(out)) == EPOCHS
    assert json.loads((out / "last.json").read_text())["epoch"] == EPOCHS


@pytest.mark.parametrize("place", [0, 30, 0.3, 0.6, -1])
def test_a_flipped_bit_in_the_checkpoint_is_refused_in_one_line(left, undisturbed, place):
    path = left / study.CHECKPOINT_NAME
    content = bytearray(path.read_bytes())
    index = int(place * len(content)) if isinstance(place, float) else place
    content[index] ^= 4
    path.write_bytes(content)
    said = CliRunner().invoke(main, ["resume", str(left)])
    assert said.exit_code == 2
    assert re.fullmatch(rf"Error: {path}: must be as it was written.*\n", said.output)
    content[index] ^= 4
    path.write_bytes(content)
    assert CliRunner().invoke(main, ["resume", str(left), "--quiet"]).exit_code == 0
    assert weights(left) == weights(undisturbed[0])


def test_a_checkpoint_that_is_gone_or_of_another_training_is_refused(left, undisturbed):
    path = left / study.CHECKPOINT_NAME
    path.unlink()
    with pytest.raises(InputError, match="is missing"):
        run_train(config(), left, resume=True)
    other = left.parent / "other"
    run_train(config(model="convnet", epochs=1), other, progress=False)
    path.write_bytes((other / study.CHECKPOINT_NAME).read_bytes())
    with pytest.raises(InputError, match="checkpoint: must be of this training"):
        run_train(config(), left, resume=True)


def test_nothing_in_a_checkpoint_is_executed(left):
    import io
    import pickle

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(left / "executed"),)

    for content in (pickle.dumps(Evil()), None):
        buffer = io.BytesIO()
        torch.save(Evil(), buffer)
        study.write_blob(left / study.CHECKPOINT_NAME, content or buffer.getvalue())
        with pytest.raises(InputError, match="must be as it was written"):
            run_train(config(), left, resume=True)
    assert not (left / "executed").exists()


@pytest.mark.parametrize(
    "change", [{"lr": 0.06}, {"epochs": 5}, {"ema": 0.6}, {"model": "convnet"}, {"seed": 1}]
)
def test_changed_options_are_refused(left, change):
    (name,) = change
    with pytest.raises(InputError, match=f"must have the configuration.*{name} was"):
        run_train(config(**change), left, resume=True)


def test_a_policy_file_is_read_once(tmp_path, monkeypatch):
    file, out = tmp_path / "policy.json", tmp_path / "run"
    save_policy(file, [[("Rotate", 0.5, 3)]])
    with monkeypatch.context() as patch:
        kill(patch, study, "_write_log", 2, True)
        with pytest.raises(Killed):
            run_train(config(policy=str(file)), out, progress=False)
    save_policy(file, [[("Rotate", 0.5, 4)]])
    with pytest.raises(InputError, match="policy: must be what it was"):
        run_train(config(policy=str(file)), out, resume=True)
    file.unlink()
    assert CliRunner().invoke(main, ["resume", str(out), "--quiet"]).exit_code == 0
    assert json.loads((out / "best.json").read_text())["policy"]["members"] == [
        [[["Rotate", 0.5, 3]]]
    ]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"optimizer": f"{HERE}:Opaque"}, "optimizer: must keep tensors, numbers and text"),
        ({"model": "torchvision:resnet81"}, "did you mean 'torchvision:resnet18'"),
        ({"model": "torchvision:googlenet"}, "model: must turn 2 images into logits"),
        ({"model": "torchvision:alexnet"}, "model: must take images .* --resolution"),
        ({"momentum": 0.9, "optimizer": "adamw"}, "momentum: is a setting of sgd only"),
        ({"loss": "hinge", "smoothing": 0.0}, "loss: must be one of"),
        (
            {"loss": "tests.proxy_tasks.test_recipe:unreduced", "smoothing": 0.0},
            "loss: must make one",
        ),
        ({"policy": "two={0},{1}"}, "policy: must be one to train under"),
    ],
)
def test_what_cannot_be_trained_is_refused_and_leaves_nothing(tmp_path, options, message):
    files = [tmp_path / f"{name}.json" for name in ("Rotate", "Color")]
    for file in files:
        save_policy(file, [[(file.stem, 0.5, 4)]])
    if "policy" in options:
        options = {"policy": options["policy"].format(*files)}
    with pytest.raises(InputError, match=message):
        run_train(config(**options), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_an_average_that_stays_where_it_began_is_told(tmp_path):
    """12 steps: of 0.99 there are 89 % left of the first, of 0.5 nothing."""
    for ema, words in ((0.99, "ema 0.99: 89 % of the weights"), (0.5, None)):
        run_train(config(ema=ema), tmp_path / f"{ema}", progress=False)
        log = tmp_path / f"{ema}" / "run.log"
        said = log.read_text() if log.exists() else ""
        assert ("ema" in said) == (words is not None) and (words or "") in said


def test_the_recipe_is_the_preset_but_for_what_is_set():
    from proxy_tasks import get_preset

    preset = get_preset("paper", "reduced-cifar10")
    assert TrainSettings(policy="none").applied(preset) == preset
    changed = TrainSettings(policy="none", ema=0.9, lr=0.5, erase=0.0).applied(preset)
    assert changed == replace(preset, ema=0.9, lr=0.5)
