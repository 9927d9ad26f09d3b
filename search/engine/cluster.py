"""Starting Ray on this machine, or joining a cluster. Ray is imported here and nowhere earlier."""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import os
import socket
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from policies.errors import InputError
from search.errors import WorkerError

if TYPE_CHECKING:
    from .resources import PoolConfig

log = logging.getLogger("search")

# Set while Ray starts, unless the user has set them.
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
}
# Workers are started when they are needed, not one per CPU in advance.
_LEAN = {"RAY_prestart_worker_first_driver": "0", "RAY_enable_worker_prestart": "0"}
_MULTI_NODE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
LOOPBACK = "127.0.0.1"
START_ATTEMPTS = 3
_keeping = False  # Ray is one for the whole process, and so is this


@contextlib.contextmanager
def _starting(loopback: bool) -> Iterator[Any]:
    """The ray module, in surroundings for starting it; they are as before afterwards.

    Ray replaces a loopback address by the machine's public one and then listens on every
    interface, unless multi-node clusters are off; the switch is named after the systems where
    that is the default, and works on all. Other programs that this process starts, or Ray started
    by them, must not inherit it.
    """
    defaults = {**_QUIET, **(_LEAN if loopback else {})}
    changes = {name: value for name, value in defaults.items() if name not in os.environ}
    changes[_MULTI_NODE] = "0" if loopback else "1"
    before = {name: os.environ.get(name) for name in changes}
    # In a notebook it would tell everybody to install ipywidgets.
    widgets = logging.getLogger("ray.widgets")
    level = widgets.level
    widgets.setLevel(logging.WARNING)
    import ray
    from ray._private import node, ray_constants

    widgets.setLevel(level)
    kind: Any = node.Node
    # This process has read the switch when it imported Ray; those it starts read the environment.
    multi_node = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = not loopback
    start_dashboard = kind.start_api_server
    if loopback:
        kind.start_api_server = _start_no_dashboard
    os.environ.update(changes)
    try:
        yield ray
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = multi_node
        kind.start_api_server = start_dashboard
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _start_no_dashboard(node: Any, **_: Any) -> None:
    """Ray starts its process even where no dashboard is wanted, and waits until it is up."""
    node._webui_url = ""


@contextlib.contextmanager
def keep_ray() -> Iterator[None]:
    """While this lasts, Ray stays up once a pool has started it: for studies of many short runs."""
    global _keeping
    if _keeping:  # who began first ends it
        yield
        return
    before, _keeping = running(), True
    try:
        yield
    finally:
        _keeping = False
        if running() and not before:
            disconnect()


def running() -> bool:
    """Whether this process uses Ray."""
    return "ray" in sys.modules and sys.modules["ray"].is_initialized()


def connect(pool: PoolConfig) -> bool:
    """Make Ray usable; True when the caller has to `disconnect` it (not so where it is `kept`).

    Without an address: a private Ray on the loopback interface, without dashboard, with as many
    virtual CPUs as the workers ask for, be there fewer cores. With an address: that cluster. A
    Ray that the calling program has already initialised is used as it is.

    Raises InputError for an unreachable address or for GPUs that are not there.
    """
    if running():
        return False
    quiet = {"logging_level": logging.ERROR, "log_to_driver": False}
    if pool.address is not None:
        _check_address(pool.address)
    with _starting(loopback=pool.address is None) as ray:
        if pool.address is None:
            cpus = max(os.cpu_count() or 1, math.ceil(pool.workers * pool.cpus))
            _start_local(ray, num_cpus=cpus, **quiet)
        else:
            try:
                ray.init(address=pool.address, **quiet)
            except (RuntimeError, OSError, ValueError) as error:
                raise _no_cluster(pool.address, first_line(error)) from error
    _silence_driver()
    try:
        _check_gpus(pool, ray.cluster_resources().get("GPU", 0.0))
    except BaseException:
        ray.shutdown()
        raise
    return not _keeping


def _start_local(ray: Any, **options: Any) -> None:
    """Start a private Ray; on a busy machine it may not be up in the time Ray allows, so again."""
    for attempt in range(START_ATTEMPTS):
        try:
            ray.init(address="local", include_dashboard=False, _node_ip_address=LOOPBACK, **options)
            return
        except Exception as error:  # Ray has no narrower class for "timed out during startup"
            ray.shutdown()
            if attempt + 1 == START_ATTEMPTS:
                raise WorkerError(
                    f"Ray does not start on this machine ({START_ATTEMPTS} attempts): "
                    f"{first_line(error)}"
                ) from error
            log.warning("Ray did not start (%s); trying again", first_line(error))


def _check_address(address: str) -> None:
    """Somebody must listen there: Ray itself would try for minutes before it gives up."""
    if address == "auto":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        raise _no_cluster(address, "not HOST:PORT")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise _no_cluster(address, str(error)) from error


def _no_cluster(address: str, reason: str) -> InputError:
    return InputError(
        "address",
        "must be that of a running Ray cluster (HOST:PORT)",
        address,
        f"start one with `ray start --head` there, or pass local ({reason})",
    )


def _silence_driver() -> None:
    """Send to our log what Ray prints on stdout when a worker dies: the pool tells of it itself."""
    from ray._private import worker

    def note(message: dict, **_: object) -> None:
        log.debug("ray: %s", "\n".join(message["lines"]))

    private: Any = worker
    private.print_to_stdstream = note


def ended() -> str | None:
    """The name of a process that Ray on this machine cannot do without and that has ended."""
    from ray._private import worker

    node = worker._global_node
    processes: dict[str, list[Any]] = {} if node is None else node.all_processes
    for name in ("raylet", "gcs_server"):
        if any(info.process.poll() is not None for info in processes.get(name, ())):
            return name
    return None


def disconnect() -> None:
    """Leave Ray, and end it where this process has started it, at once.

    The workers are gone, so nothing is lost: a raylet that is asked to end does so after a second
    or more.
    """
    import ray
    from ray._private import worker

    node: Any = worker._global_node
    if node is not None:
        node.kill_all_processes = functools.partial(_end, node.kill_all_processes)
    ray.shutdown()


def _end(kill: Any, *, allow_graceful: bool = False, **options: Any) -> None:
    kill(allow_graceful=False, **options)


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _check_gpus(pool: PoolConfig, available: float) -> None:
    if pool.gpus == 0:
        return
    if available == 0:
        raise InputError(
            "gpus", "needs a GPU that Ray can see", pool.gpus, "set it to 0 to run on CPUs"
        )
    if pool.address is None and pool.workers * pool.gpus > available:
        raise InputError(
            "gpus",
            f"workers x gpus must be at most the {available:g} GPUs of this machine",
            f"{pool.workers} x {pool.gpus:g}",
            "use fewer workers or a smaller fraction",
        )
