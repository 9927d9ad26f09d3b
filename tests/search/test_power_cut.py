"""No fsync is missing: a run goes on from what a power cut leaves, wherever it strikes."""

from __future__ import annotations

import pytest

from proxy_tasks.evaluators.config import EvaluatorConfig
from proxy_tasks.trials import read_journal
from search import run_train
from search.engine import loop
from search.engine.jobs import Outcome
from search.engine.resources import PoolConfig
from search.runs.blobs import Blobs, DamagedBlob, read_blob, write_blob
from search.runs.journal import Journal
from search.searchers.population import PopulationSearcher
from tests.search import trainings
from tests.search.fakes import FakePool, good, trial
from tests.search.power import Disk
from tests.search.running import lines

pytestmark = pytest.mark.long


def test_the_disk_forgets_what_was_not_synced(tmp_path):
    """The instrument itself: names and contents are lost apart from each other."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "old").write_text("old")
    with Disk(root) as disk:
        (root / "old").write_text("new")
        (root / "unsynced").write_text("x")
        write_blob(root / "sub" / "kept.bin", b"content")
        (root / "sub" / "lost").write_text("x")
        left = disk.after_power_cut(tmp_path / "left")
    # The folder was synced for `sub`, and with it the name of a file whose content was not.
    assert {path.name for path in left.iterdir()} == {"old", "unsynced", "sub"}
    assert (left / "unsynced").read_text() == "" and (left / "old").read_text() == "old"
    assert [path.name for path in (left / "sub").iterdir()] == ["kept.bin"]
    assert read_blob(left / "sub" / "kept.bin") == b"content"


def test_a_search_goes_on_from_every_power_cut(fake, config, tmp_path):
    fake(config)
    whole = tmp_path / "run"
    place = tmp_path / "disk"
    place.mkdir()
    cuts = []

    def cut():
        cuts.append(disk.after_power_cut(tmp_path / "cuts" / str(len(cuts))))

    with Disk(place, cut) as disk:
        fake(config, out=place / "runs" / "run")
        cut()
    assert len(cuts) > 20
    # What was said to be complete is there, without any resuming.
    assert lines(cuts[-1] / "runs" / "run") == lines(whole)
    for left in cuts:
        fake(config, out=left / "runs" / "run", resume=True)
        assert lines(left / "runs" / "run") == lines(whole)
        assert (left / "runs" / "run" / "policy.txt").read_bytes() == (
            whole / "policy.txt"
        ).read_bytes()
        assert (left / "runs" / "run" / "policy.json").read_bytes() == (
            whole / "policy.json"
        ).read_bytes()


def leaving(job) -> Outcome:
    """Each member leaves what it inherited and its own key."""
    outcome = good(job)
    left = (job.artifact or b"") + f"{job.candidate.key}".encode()
    return Outcome(job, "ok", outcome.evaluation, None, "", 1.0, 2.0, "host:1", artifact=left)


def population(folder, monkeypatch):
    monkeypatch.setattr(loop, "WorkerPool", FakePool(answer=leaving))
    return loop.run(
        PopulationSearcher(4, 4), {"main": EvaluatorConfig(kind="population")}, None, folder,
        pool=PoolConfig(workers=2), progress=False, resume=True,
    )  # fmt: skip


@pytest.mark.long
def test_a_population_goes_on_from_every_power_cut(tmp_path, monkeypatch):
    """An artifact is on the disk before the trial that names it."""
    population(tmp_path / "whole", monkeypatch)
    place = tmp_path / "disk"
    (place / "run").mkdir(parents=True)
    cuts = []

    def cut():
        cuts.append(disk.after_power_cut(tmp_path / "cuts" / str(len(cuts))))

    with Disk(place, cut) as disk:
        population(place / "run", monkeypatch)
        cut()
    assert len(cuts) > 20
    for left in cuts:
        population(left / "run", monkeypatch)
        assert lines(left / "run") == lines(tmp_path / "whole")


@pytest.mark.long
def test_a_training_goes_on_from_every_power_cut(undisturbed, tmp_path):
    whole, _ = undisturbed
    place = tmp_path / "disk"
    place.mkdir()
    cuts = []

    def cut():
        cuts.append(disk.after_power_cut(tmp_path / "cuts" / str(len(cuts))))

    with Disk(place, cut) as disk:
        run_train(trainings.config(), place / "runs" / "run", progress=False)
        cut()
    assert len(cuts) > 20
    assert trainings.weights(cuts[-1] / "runs" / "run") == trainings.weights(whole)
    for left in cuts:
        run_train(trainings.config(), left / "runs" / "run", resume=True, progress=False)
        assert trainings.weights(left / "runs" / "run") == trainings.weights(whole)
        assert trainings.rows(left / "runs" / "run") == trainings.rows(whole)


def test_what_another_run_left_is_not_gone_on_from(tmp_path):
    """Undamaged, but not what this run's journal names."""
    blobs = Blobs(tmp_path, pytest.fail)
    blobs.keep_artifact((0, 1), b"of another run")
    with pytest.raises(DamagedBlob, match="of another run"):
        read_blob(tmp_path / "artifacts" / "0-1.bin", "0" * 64)


def test_what_comes_after_lines_were_left_out_is_not_lost_with_the_old_file(tmp_path):
    """The new journal has another inode: its name must be on the disk before anything is added."""
    path = tmp_path / "disk" / "trials.jsonl"
    path.parent.mkdir()
    with Journal(path) as journal:
        journal.append(trial(0, 0), trial(0, 1))
    with Disk(path.parent) as disk, Journal(path) as journal:
        journal.keep_only(lambda made: made.slot == 1)
        journal.append(trial(0, 2))
        left = disk.after_power_cut(tmp_path / "left")
    assert [made.slot for made in read_journal(left / path.name)] == [1, 2]
