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
OPTIMISER = """
import torch
from proxy_tasks.lean import without_compiler
without_compiler()
weight = torch.nn.Parameter(torch.ones(2))
made = torch.optim.SGD([weight], lr=0.5)
weight.sum().backward()
made.step()
made.zero_grad(set_to_none=True)
made.load_state_dict(made.state_dict())
assert weight.tolist() == [0.5, 0.5] and weight.grad is None
"""


@pytest.mark.parametrize("code, spared", [
    # Two seconds of processor time for every worker that imports torch, a half for numba.
    (WORKER, {"torch", "numba", "sklearn", "pandas", "ray"}),
    # A second for every process that trains something.
    (OPTIMISER, {"torch._dynamo", "sympy"}),
], ids=["planted rewards", "an optimiser"])  # fmt: skip
def test_nothing_is_imported_in_vain(code, spared):
    code += f"\nimport sys\nprint(sorted({spared!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
