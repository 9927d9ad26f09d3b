"""What processes need not wait for."""

from __future__ import annotations

import subprocess
import sys

import pytest

WORKER = """
from search.engine.worker import Worker
from proxy_tasks.evaluators.config import EvaluatorConfig
from policies.policy import Policy
worker = Worker()
info = worker.setup({"main": EvaluatorConfig(kind="synthetic")}, None, {}, 1, None, 1)
assert "error" not in info, info
policy = Policy([[("Rotate", 0.5, 3), ("Invert", 0.1, None)]])
(answer,) = worker.evaluate("main", "validation", [(policy, 3, None)])
assert 0 < answer["evaluation"]["reward"] < 1, answer
"""
CONTROLLER = """
from search import PolicySpace, make_searcher
searcher = make_searcher("ppo", PolicySpace())
assert searcher.ask().augmentation
"""


@pytest.mark.long
@pytest.mark.parametrize("code, spared", [
    # Two seconds of processor time for every worker that imports torch, a half for numba.
    (WORKER, {"torch", "numba", "sklearn", "pandas", "ray"}),
    # A second for a controller that has learnt nothing yet.
    (CONTROLLER, {"torch._dynamo", "sympy"}),
], ids=["planted rewards", "a controller"])  # fmt: skip
def test_nothing_is_imported_in_vain(code, spared):
    code += f"\nimport sys\nprint(sorted({spared!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
