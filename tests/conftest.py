"""What every test shares: where real photographs are, and one setting of hypothesis."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Other processes of the machine must not decide a test: no deadline per example.
settings.register_profile("project", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("project")


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Folder of real photographs (cifar-10/, imagenet-64/, photos/), or a skip without one."""
    folder = os.environ.get("AUGSEARCH_TEST_DATA")
    if not folder:
        pytest.skip("AUGSEARCH_TEST_DATA names no folder of photographs")
    return Path(folder)


@pytest.fixture(scope="session")
def small_run(tmp_path_factory) -> Path:
    """A finished search of 30 synthetic evaluations; copy it before changing anything in it."""
    from click.testing import CliRunner

    from search.cli.main import main

    out = tmp_path_factory.mktemp("small") / "search"
    arguments = "search --searcher random --evaluations 30 --workers 1 --evaluator synthetic"
    result = CliRunner().invoke(main, [*arguments.split(), "--quiet", "--out", str(out)])
    assert result.exit_code == 0, result.output
    return out
