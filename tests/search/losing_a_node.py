"""A search on a cluster of two nodes, one of which is lost.

    python -m tests.search.losing_a_node OUT

A program of its own, since Ray can be started in one way per process only. Prints what happened as
one line of JSON.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path

from ray.cluster_utils import Cluster

from search import Config, run_search

EVALUATIONS = 80


def configuration(**pool: object) -> Config:
    return Config.of(
        "search",
        task="synthetic",
        evaluator="synthetic",
        evaluator_options={"sleep": 0.05},
        searcher="ppo",
        searcher_options={"batch_size": 10},
        evaluations=EVALUATIONS,
        **pool,
    )


def main(out: str) -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    node = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    lost_at: list[int] = []

    def workers_seen() -> list[str]:
        path = Path(out) / "trials.jsonl"
        rows = path.read_text().splitlines() if path.exists() else []
        return [json.loads(row)["worker"] for row in rows if row.endswith("}")]

    def lose() -> None:
        """Once both nodes have evaluated something."""
        while len(set(workers_seen())) < 2:
            time.sleep(0.05)
        lost_at.append(len(workers_seen()))
        cluster.remove_node(node, allow_graceful=False)

    thread = threading.Thread(target=lose, daemon=True)
    thread.start()
    config = configuration(workers=2, address=cluster.address)
    try:
        result = run_search(config, out, progress=False)
    finally:
        cluster.shutdown()
    thread.join(30)
    print(
        json.dumps(
            {
                "lost_at": lost_at,
                "finished": result.finished,
                "failed": result.failed,
                "restarts": result.restarts,
                "workers": sorted(set(workers_seen())),
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1])
