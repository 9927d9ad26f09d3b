"""The actor that Ray starts. It finds our packages whatever else lies where the user works.

Ray puts the user's current folder, and that of the script, in front of everything that a worker
imports: a file search.py there, or statistics.py, would be taken for ours, or for Python's. So this
class, which Ray carries over by value, must need no import of ours until it has put things right.
"""

import os
import sys
from typing import Any


class WorkerActor:
    """`search.engine.worker.Worker` in a process of Ray.

    Args:
        environment: variables to be set before anything that counts threads is imported. (Ray's
            own `runtime_env` would do it through a further process, which everybody would wait for
            where a machine is busy.)
        root: folder that holds our packages where the run was started, if it does here.
        last: folders that are to be searched last.
    """

    def __init__(self, environment: dict[str, str], root: str, last: list[str]) -> None:
        os.environ.update(environment)
        others = [path for path in sys.path if path == root or path not in last]
        sys.path[:] = [root, *others]
        import policies  # noqa: F401  (once imported, a package stays what it is)
        import proxy_tasks  # noqa: F401
        import search  # noqa: F401
        from search.engine.worker import Worker

        sys.path[:] = [*others, *(path for path in last if path not in others)]
        self._worker = Worker()

    def where(self) -> str:
        return self._worker.where()

    def setup(self, *arguments: Any) -> dict[str, Any]:
        return self._worker.setup(*arguments)

    def receive(self, *arguments: Any) -> dict[str, Any]:
        return self._worker.receive(*arguments)

    def prepare(self, *arguments: Any) -> dict[str, Any]:
        return self._worker.prepare(*arguments)

    def evaluate(self, *arguments: Any) -> list[dict[str, Any]]:
        return self._worker.evaluate(*arguments)
