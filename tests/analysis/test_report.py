"""Every kind of run has a report, finished or not."""

from __future__ import annotations

import json
import re

import pytest

from analysis import report_of
from analysis.report import REPORTS
from policies import IMAGENET, InputError, Policy, Schedule, save_policy, save_schedule
from search.studies.config import KINDS
from tests.analysis.journals import journal_line, reported

EMPTY = {
    "search": "it is written when the search is complete",
    "select": "no policy is chosen yet",
    "randaugment": "No cell was evaluated yet",
    "compare": "No child was tested yet",
    "fidelity": "Too few for a correlation",
    "rederive": "No search has exported a policy yet",
    "pba": "there is no schedule yet",
    "tabulate": "Nothing is measured yet",
    "train": "not trained yet",
    "race": "no search is done yet",
    "replicate": "No draw is judged yet",
}


def test_every_kind_of_run_has_a_report():
    assert set(REPORTS) == set(KINDS) - {"estimate"}  # which keeps no folder


@pytest.mark.parametrize("kind", REPORTS)
@pytest.mark.parametrize("rows", [[], [journal_line(0, 0, None)]])
def test_a_run_without_results_has_a_report_that_says_so(write_run, kind, rows):
    text = reported(write_run(rows, {"kind": kind})).read_text()
    assert EMPTY[kind] in text and "Unfinished" in text
    assert f"augsearch {kind}" in text  # the command that makes it


def test_a_report_says_what_it_was_made_with(write_run):
    """What an earlier version did not write is left out."""
    run = write_run([], {"kind": "search"})
    for environment, rows in (({"source": "0123456789abcdef"}, 1), ({"packages": {}}, 0)):
        (run / "environment.json").write_text(json.dumps(environment))
        text = reported(run).read_text()
        assert text.count("toolkit's source") == text.count("0123456789abcdef") == rows


def test_what_evaluations_share_is_said_not_to_be_counted(write_run):
    run = write_run([journal_line(0, 0, 0.5)], {"kind": "search"})
    said = "image passes, without the one-off training that evaluations share"
    assert said not in reported(run).read_text()
    (run / "prepared.json").write_text('{"main": "0123"}')
    assert said in reported(run).read_text()


def test_what_was_warned_of_stands_in_the_report(write_run):
    run = write_run([journal_line(0, 0, label="none", part="test")], {"kind": "compare"})
    assert "## Warnings" not in reported(run).read_text()
    warned = [f"2026-11-29 08:00:00 WARNING {each} was seen\n" for each in (*range(14), 3)]
    log = ["2026-11-29 08:00:00 INFO none of it\n", *warned, "    WARNING in a traceback\n"]
    (run / "run.log").write_text("".join(log))
    text = reported(run).read_text().split("## Warnings")[1].split("##")[0]
    assert text.count("was seen") == 12 and text.count("3 was seen") == 1
    assert "2 more in run.log" in text and "none of it" not in text and "trace" not in text


@pytest.mark.parametrize(
    ("kind", "line", "name"),
    [
        ("search", journal_line(0, 0), "report.md"),
        ("compare", journal_line(0, 0, label="none", part="test"), "compare.md"),
        ("randaugment", journal_line(0, 0, label="N=1 M=5"), "grid.md"),
        ("fidelity", journal_line(0, 0, scorer="cheap"), "fidelity.md"),
    ],
)
def test_the_kind_of_run_decides_on_the_report(write_run, kind, line, name):
    directory = write_run([line], {"kind": kind})
    assert reported(directory) == directory / name
    assert (directory / name).stat().st_size > 0


def test_a_kind_without_a_report_is_refused(write_run):
    with pytest.raises(InputError, match="must be of a kind"):
        report_of(write_run([], {"kind": "estimate"}))


def test_a_training_tells_its_accuracy_with_its_error(write_run):
    directory = write_run([], {"kind": "train"})
    evaluation = journal_line(0, 0, 0.625, part="test")["evaluation"]
    evaluation["details"] = {"stderrs": {"accuracy": 0.01}, "epochs": 4}
    arm = {"name": "imagenet", "members": [IMAGENET.to_json()]}
    (directory / "result.json").write_text(json.dumps({"arm": arm, "evaluation": evaluation}))
    text = reported(directory).read_text()
    assert "Test accuracy 62.50 % ± 1.00" in text
    assert '("Posterize", 0.4, 8)' in text


def epoch_line(number: int, loss: float | None, why: str = "") -> str:
    row = {"epoch": number, "lr": 0.1, "loss": loss, "accuracy": 0.5, "log_likelihood": -1.0}
    return json.dumps({**row, "divergence": why, "seconds": 1.0}) + "\n"


def test_a_training_shows_its_epochs_finished_or_not(write_run):
    directory = write_run([], {"kind": "train"})
    lines = [epoch_line(1, 2.5), epoch_line(2, None, "the training loss was nan")]
    (directory / "epochs.jsonl").write_text("".join(lines))
    text = reported(directory).read_text()
    assert "(epochs.png)" in text and (directory / "epochs.png").stat().st_size > 1000
    assert "Diverged in 1 epochs, last in 2: the training loss was nan." in text


@pytest.mark.parametrize(
    "line", ["{", "[]\n", "{}\n", epoch_line(None, 1.0), epoch_line("x", 1.0), epoch_line(1, {})]
)
def test_a_broken_line_of_the_epochs_is_named(write_run, line):
    directory = write_run([], {"kind": "train"})
    (directory / "epochs.jsonl").write_text(epoch_line(1, 2.5) + line)
    with pytest.raises(InputError, match="epochs.jsonl, line 2: must be as a training wrote it"):
        report_of(directory)


def test_a_schedule_is_told_by_what_it_applies(write_run):
    rows = [
        journal_line(generation, member, 0.4 + 0.1 * generation + 0.01 * member)
        for generation in range(2)
        for member in range(4)
    ]
    settings = {"population": 4, "interval": 2, "seed": 0}
    directory = write_run(rows, {"kind": "pba", "settings": settings})
    nothing = Policy([[("Rotate", 0.0, 3)]])
    much = Policy([[("Rotate", 0.5, 3)], [("Color", 1.0, 3)]])
    schedule = Schedule([(0, nothing), (2, much)], 4)
    save_schedule(directory / "schedule.json", schedule, {"reward": 0.53})
    text = reported(directory).read_text()
    assert "2 policies over 4 epochs" in text and "0.5300" in text
    assert "Color 0.50, Rotate 0.25" in text  # of the images, half draw either sub-policy
    for picture in ("schedule.png", "population.png"):
        assert (directory / picture).read_bytes()[:4] == b"\x89PNG"


def test_a_schedule_of_nothing_says_so(write_run):
    directory = write_run([], {"kind": "pba"})
    save_schedule(directory / "schedule.json", Schedule([(0, Policy([[("Rotate", 0.0, 3)]]))], 4))
    assert "Every probability is 0" in reported(directory).read_text()


class TestSelect:
    def write(self, write_run, evaluator):
        """Two proposals with three seeds, and four candidates measured again."""
        directory = write_run([], {"kind": "select", "evaluator": {"kind": "synthetic"}})
        (directory / "searched.json").write_text(json.dumps({"evaluator": {"kind": evaluator}}))
        policies = [[[["Color", 0.5, m]]] for m in range(4)]
        stages = {
            "searched.jsonl": [
                journal_line(0, m, 0.6 - 0.05 * m, augmentation=policies[m]) for m in range(4)
            ],
            "rescore/trials.jsonl": [
                journal_line(0, m, 0.5, label=f"rank {m + 1}", augmentation=policies[m], seed=100)
                for m in range(4)
            ],
            "final/trials.jsonl": [
                journal_line(seed, slot, value + noise * (slot + 1), label=name, seed=seed)
                for slot, (name, value) in enumerate({"best-5": 0.4, "one-by-one": 0.5}.items())
                for seed, noise in enumerate((0.001, -0.002, 0.001))
            ],
        }
        for name, lines in stages.items():
            (directory / name).parent.mkdir(exist_ok=True)
            (directory / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
        save_policy(directory / "policy.json", IMAGENET, provenance={"selection": "one-by-one"})
        return reported(directory).read_text()

    @pytest.mark.long
    def test_proposals_are_ranked_with_paired_differences(self, write_run):
        text = self.write(write_run, "synthetic")
        assert "Complete. Chosen: one-by-one." in text
        lines = [line for line in text.splitlines() if line.startswith(("| one-by", "| best-5"))]
        assert "0.5000" in lines[0] and "0.4000" in lines[1] and "-0.1000" in lines[1]
        assert "for the best too, whichever that is" in text

    @pytest.mark.long
    @pytest.mark.parametrize("broken", [{"diverged": True}, None])
    def test_what_the_choice_left_out_is_named_and_not_ranked(self, write_run, tmp_path, broken):
        """Though the mean of its other children is the best of all."""
        self.write(write_run, "synthetic")
        directory = tmp_path / "run"
        lucky = [journal_line(seed, 2, 0.9, label="best-9", seed=seed) for seed in range(3)]
        if broken:
            lucky[0]["evaluation"] |= broken
        else:
            lucky[0] |= {"status": "failed", "evaluation": None, "error": "no"}
        with open(directory / "final" / "trials.jsonl", "a") as journal:
            journal.write("".join(json.dumps(line) + "\n" for line in lucky))
        text = reported(directory).read_text()
        assert "a child that failed or diverged: best-9." in text and "| best-9" not in text
        assert "minus one-by-one" in text

    @pytest.mark.long
    def test_the_cost_is_that_of_all_stages(self, write_run):
        text = self.write(write_run, "synthetic")
        assert re.search(r"evaluations that were computed\s*\|\s*10\s", text)

    @pytest.mark.long
    def test_the_best_of_many_stands_beside_its_value_measured_again(self, write_run):
        text = self.write(write_run, "synthetic")
        assert (
            "The best had 0.6000 in the search and 0.5000 measured again. It lost +0.1000" in text
        )
        assert "more than the 3 others on average, whom the new seeds shift alike." in text

    @pytest.mark.long
    def test_rewards_of_different_evaluators_are_not_subtracted(self, write_run):
        assert "other scales" in self.write(write_run, "weight-sharing")
