"""A run looked at while it goes on: in a terminal, and as a page on loopback."""

from __future__ import annotations

import http.client
import io
import json
import threading

import pytest
from rich.console import Console

from analysis.progress import OPEN_ENDED, progress
from analysis.serve import server
from analysis.watch import STAGES, curve, view, watch
from policies import IMAGENET, InputError, save_policy
from search.runs.folder import forget_policy
from tests.analysis.journals import journal_line
from tests.golden.runs import FOLDER, copy

GOLDEN = sorted(path.name for path in FOLDER.iterdir() if (path / "config.json").exists())


def shown(directory, clock: float = 200.0, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(view(progress(directory), clock))
    return console.file.getvalue()


def append(directory, *lines: dict) -> None:
    with (directory / "trials.jsonl").open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


SEARCH = {"kind": "search", "settings": {"evaluations": 6}, "task": {"name": "folder"}}


class TestTerminal:
    def test_a_search_that_goes_on(self, write_run):
        lines = [journal_line(batch, 0, 0.4 + 0.1 * batch) for batch in range(3)]
        directory = write_run([*lines, journal_line(3, 0, None)], SEARCH)
        text = shown(directory, clock=105.0 + 3.0)
        assert "search on folder: unfinished" in text and "4 of 6 evaluations" in text
        assert "0.6000 ± 0.0100 (batch 2, slot 0; the largest of 3)" in text
        assert "0.5000, sd 0.1000" in text and "1 failed" in text and "planted" in text
        assert "6.0 s in evaluations, 3,000 image passes" in text
        # Results ended at 102, 103, 104 and 105: one a second, two to go.
        assert "3.0 s ago" in text and "about 2.0 s" in text

    def test_a_comparison_shows_its_arms_and_no_best(self, write_run):
        lines = [journal_line(0, 0, 0.5, label="none", part="test"),
                 journal_line(1, 0, 0.7, label="none", part="test"),
                 journal_line(0, 1, 0.9, label="mine", part="test")]  # fmt: skip
        settings = {"policy": ["none", "mine"], "seeds": 2}
        text = shown(write_run(lines, {"kind": "compare", "settings": settings}))
        assert "3 of 4 evaluations" in text and "best" not in text
        rows = [line.split() for line in text.splitlines() if line.startswith(("none", "mine"))]
        assert rows == [["none", "2", "0.6000", "0.1414"], ["mine", "1", "0.9000", "–"]]

    def test_evaluators_of_the_same_policy_are_told_apart(self, write_run):
        lines = [journal_line(0, 0, 0.5, label="none", scorer="from-scratch", part="test"),
                 journal_line(0, 1, 0.7, label="none", scorer="cheap"),
                 journal_line(0, 2, 0.9, label="mine", scorer="cheap")]  # fmt: skip
        text = shown(write_run(lines, {"kind": "fidelity"}))
        assert "mean accuracy" in text
        assert "none, from-scratch" in text and "none, cheap" in text and "mine, " not in text

    def test_rewards_of_a_search_with_two_evaluators_are_told_apart(self, write_run):
        lines = [journal_line(0, 0, 0.5), journal_line(1, 0, 0.9, scorer="cheap")]
        rows = [line.split()[:5] for line in shown(write_run(lines, SEARCH)).splitlines()]
        assert ["0,", "0", "0.5000", "2.0", "main"] in rows
        assert ["1,", "0", "0.9000", "2.0", "cheap"] in rows

    def test_rewards_of_every_sign_are_shown_whole(self, write_run):
        rewards = [-0.5912, -4.0345, 0.25]
        lines = [journal_line(batch, 0, reward) for batch, reward in enumerate(rewards)]
        text = shown(write_run(lines, SEARCH), width=40)
        assert all(f" {reward:.4f} " in text for reward in rewards)

    def test_of_many_stages_the_latest_are_shown(self):
        now = progress(FOLDER / "replicate")
        text = shown(FOLDER / "replicate")
        names = [stage.name for stage in now.stages]
        assert f"{len(names) - STAGES} earlier stages" in text
        assert [name in text for name in names] == [False] * (len(names) - STAGES) + [True] * STAGES

    def test_a_diverged_child_is_never_the_best(self, write_run):
        line = journal_line(1, 0, 0.9)
        line["evaluation"] |= {"diverged": True, "reward": 0.9}
        text = shown(write_run([journal_line(0, 0, 0.5), line], SEARCH))
        assert "0.5000 ± 0.0100" in text and "1 diverged" in text

    @pytest.mark.parametrize("name", GOLDEN)
    def test_recorded_runs_are_complete_and_fit_80_columns(self, name):
        text = shown(FOLDER / name)
        now = progress(FOLDER / name)
        known = now.run.kind not in OPEN_ENDED
        assert now.complete == known
        assert (": complete" in text) == known and "unfinished" not in text
        assert not known or "ago" not in text
        assert max(map(len, text.splitlines())) <= 80

    def test_nothing_yet(self, write_run):
        assert "0 of 6 evaluations" in shown(write_run([], SEARCH))

    def test_a_line_being_written_is_left_out(self, write_run):
        directory = write_run([journal_line(0, 0)], SEARCH)
        with (directory / "trials.jsonl").open("a") as file:
            file.write(json.dumps(journal_line(1, 0))[:50])
        assert "1 of 6 evaluations" in shown(directory)

    def test_a_writer_is_never_in_the_way(self, write_run):
        """Every look while lines come in small pieces sees whole ones, and never fewer."""
        directory = write_run([], SEARCH)
        done = threading.Event()

        def write() -> None:
            with (directory / "trials.jsonl").open("a", buffering=1) as file:
                for batch in range(60):
                    line = json.dumps(journal_line(batch, 0)) + "\n"
                    for start in range(0, len(line), 50):
                        file.write(line[start : start + 50])
                        file.flush()
            done.set()

        writer = threading.Thread(target=write)
        writer.start()
        counts = []
        while not done.is_set():
            counts.append(progress(directory).stages[0].done)
        writer.join()
        assert counts == sorted(counts)
        assert progress(directory).stages[0].done == 60

    def test_names_do_not_command_the_terminal(self, write_run):
        label = "\x1b[2J\x1b]0;owned\x07[bold]x"
        text = shown(write_run([journal_line(0, 0, label=label)], SEARCH))
        assert "\x1b" not in text and "\x07" not in text and "[bold]x" in text

    def test_shows_once_where_there_is_no_terminal(self, write_run):
        directory = write_run([journal_line(0, 0)], SEARCH)
        console = Console(file=io.StringIO(), width=80)
        watch(directory, console=console)
        assert console.file.getvalue().count("1 of 6 evaluations") == 1

    def test_ends_when_the_run_does(self, write_run, monkeypatch):
        directory = write_run([journal_line(0, 0)], SEARCH)

        def finish(seconds: float) -> None:
            append(directory, *(journal_line(batch, 0) for batch in range(1, 6)))

        monkeypatch.setattr("analysis.progress.time.sleep", finish)
        console = Console(file=io.StringIO(), width=80, force_terminal=True)
        watch(directory, console=console)
        assert "6 of 6 evaluations" in console.file.getvalue()

    def test_a_grid_ends_when_its_best_cells_are_evaluated_again(self, tmp_path):
        run = copy("randaugment", tmp_path / "run")
        forget_policy(run)
        assert progress(run).complete
        config = json.loads((run / "config.json").read_text())
        config["settings"]["again"] = 3
        (run / "config.json").write_text(json.dumps(config))
        assert not progress(run).complete

    def test_a_selection_ends_with_its_policy(self, write_run):
        directory = write_run([], {"kind": "select"})
        (directory / "final").mkdir()
        (directory / "trials.jsonl").rename(directory / "final" / "trials.jsonl")
        assert not progress(directory).complete
        save_policy(directory / "policy.json", IMAGENET)
        assert progress(directory).complete

    def test_the_curve(self):
        import pandas as pd

        assert curve(pd.Series([0.0, 7.0, 3.5])) == "▁█▅"
        assert curve(pd.Series([1.0, 1.0])) == "▁▁"
        assert len(curve(pd.Series(range(1000)))) == 60

    def test_no_run(self, tmp_path):
        with pytest.raises(InputError, match="run: must"):
            watch(tmp_path / "none")


class TestPage:
    @pytest.fixture
    def served(self, write_run):
        directory = write_run([journal_line(0, 0)], SEARCH)
        with server(directory) as serving:
            thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.05})
            thread.start()
            yield directory, serving
            serving.shutdown()
            thread.join()

    @staticmethod
    def get(serving, path: str = "/", host: str | None = None):
        connection = http.client.HTTPConnection("127.0.0.1", serving.server_port, timeout=60)
        connection.request("GET", path, headers={"Host": host} if host else {})
        answer = connection.getresponse()
        return answer, answer.read().decode()

    @pytest.mark.long
    def test_is_the_report_and_grows_with_the_run(self, served):
        directory, serving = served
        answer, text = self.get(serving)
        assert answer.status == 200 and answer.headers["Refresh"]
        assert "Unfinished: 1 of 6 evaluations" in text
        append(directory, journal_line(1, 0))
        assert "Unfinished: 2 of 6 evaluations" in self.get(serving)[1]

    def test_is_on_loopback_alone(self, served):
        _, serving = served
        assert serving.server_address[0] == "127.0.0.1"

    @pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example"])
    def test_other_names_of_this_machine_are_refused(self, served, host):
        """A page elsewhere whose name resolves to 127.0.0.1 must not read the run."""
        assert self.get(served[1], host=host)[0].status == 403

    def test_no_file_is_served(self, served):
        for path in ("/trials.jsonl", "/../trials.jsonl", "//etc/passwd"):
            answer, text = self.get(served[1], path)
            assert answer.status == 404 and "root" not in text

    def test_a_run_that_is_gone_is_told(self, served):
        directory, serving = served
        directory.rename(directory.with_name("elsewhere"))
        answer, text = self.get(serving)
        assert answer.status == 503 and "must be a run folder" in text

    @pytest.mark.long
    def test_a_port_in_use_is_a_mistake_of_the_user(self, served):
        directory, serving = served
        with pytest.raises(InputError, match="must be a free port"):
            server(directory, serving.server_port)
