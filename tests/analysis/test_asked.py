"""How long a run will be."""

import json
from pathlib import Path

import pytest

from analysis.asked import evaluations
from analysis.runs import load_run

RUNS = Path(__file__).parents[1] / "golden" / "runs"


@pytest.mark.parametrize("halving, asked", [(False, 12), (True, 0)])
def test_a_halved_grid_may_need_fewer(tmp_path, halving, asked):
    config = json.loads((RUNS / "randaugment" / "config.json").read_text())
    config["settings"] |= {"n": [1, 2], "m": [0, 9], "seeds": 3, "halving": halving}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert evaluations(load_run(tmp_path)) == asked
