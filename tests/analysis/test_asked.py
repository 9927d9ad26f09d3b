"""How long a run will be."""

import json

import pytest

from analysis.asked import evaluations
from analysis.runs import load_run
from tests.golden.runs import FOLDER, copy


@pytest.mark.parametrize("halving, asked", [(False, 12), (True, 0)])
def test_a_halved_grid_may_need_fewer(tmp_path, halving, asked):
    config = json.loads((FOLDER / "randaugment" / "config.json").read_text())
    config["settings"] |= {"n": [1, 2], "m": [0, 9], "seeds": 3, "halving": halving}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert evaluations(load_run(tmp_path)) == asked


@pytest.mark.parametrize("run, changes, asked", [
    ("fidelity", {"evaluators": None, "policies": 10, "policy": [], "seeds": 2,
                  "evaluation_seeds": 3}, 10 * (2 + 5 * 3)),
    ("search-ppo", {"evaluations": 500}, 24),  # its searcher ended, with a policy
])  # fmt: skip
def test_what_a_run_asks_for(tmp_path, run, changes, asked):
    whole = copy(run, tmp_path / "run")
    config = json.loads((whole / "config.json").read_text())
    config["settings"] |= changes
    (whole / "config.json").write_text(json.dumps(config))
    assert evaluations(load_run(whole)) == asked
