"""What a command prints: names in no known encoding, and a stdout that takes nothing."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest
from click.testing import CliRunner

from policies import IMAGENET, save_policy
from search.cli.main import main
from search.engine import loop
from tests.search.commands import PLANTED, answer
from tests.search.fakes import FakePool

pytestmark = pytest.mark.long

LATIN = os.fsdecode(b"caf\xe9")

# Command -> what looks at its run afterwards.
COMMANDS = {
    f"randaugment --n 1 2 --m 0 10 --seeds 2 {PLANTED}": ("optuna",),
    f"compare {PLANTED} --policy none {LATIN}.json {LATIN}={LATIN}.json --seeds 2": (
        "report", "watch",
    ),
}  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: words.split()[0])
@pytest.mark.long
def test_names_in_no_known_encoding_go_through_to_the_end(tmp_path, monkeypatch, command):
    """Of run folders and policy files; the runner's stdout is as strict as a terminal's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loop, "WorkerPool", FakePool(answer=answer))
    save_policy(tmp_path / f"{LATIN}.json", IMAGENET)
    out = f"run-{LATIN}"
    views = [[view, out] for view in COMMANDS[command]]
    for words in ([*command.split(), "--out", out], ["resume", out], *views):
        result = CliRunner().invoke(main, words)
        assert result.exit_code == 0, (words[0], result.output, result.exc_info)
        assert words[0] == "watch" or r"run-caf\udce9" in result.stdout


# stdout of the process, and what is said of it.
DEAF = {
    "full": ("> /dev/full", errno.ENOSPC),
    "closed": (">&-", errno.EBADF),
    "gone": ("| (exec <&-; sleep 0)", errno.EPIPE),
}


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(("stdout", "number"), DEAF.values(), ids=DEAF)
def test_a_stdout_that_takes_nothing_is_one_line_and_1(tmp_path, stdout, number, unbuffered):
    script = f"{sys.executable} -c 'import time; from search.cli.main import main; "
    script += f"time.sleep(0.1); main()' --help {stdout}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert done.stderr == f"Error: standard output: {os.strerror(number)}\n"


CLOSED = """
import os, sys
from search.cli.main import main
try:
    main(["--help"])
except SystemExit:
    pass
with open(sys.argv[1], "w") as file:
    file.write(str(file.fileno()))
"""


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-"])
def test_no_file_gets_the_number_of_a_closed_stream(tmp_path, closed):
    """Else what others print, Ray's workers say, would be written into it."""
    script = tmp_path / "closed.py"
    script.write_text(CLOSED, encoding="utf-8")
    subprocess.run(["bash", "-c", f"{sys.executable} {script} {tmp_path / 'n'} {closed}"])
    assert int((tmp_path / "n").read_text(encoding="utf-8")) > 2
