"""`augsearch watch --serve`: the page of a run on this machine's loopback, while it goes on."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from policies.errors import InputError

from .html import page
from .progress import Latest

LOOPBACK = "127.0.0.1"
SECONDS = 10  # after which a browser asks again


def server(directory: str | Path, port: int = 0) -> ThreadingHTTPServer:
    """A server of the run's page at http://127.0.0.1:PORT/, to be started by `serve_forever`.

    Only programs of this machine reach it, and of web pages only its own: a request under another
    name of this machine is refused. A browser that shows the page asks again by itself.

    Args:
        directory: a run folder. It is only read, nothing is locked.
        port: 0 for any that is free; see `server_port` of the result.

    Raises:
        InputError: for a folder that is no run, or a port that cannot be had.
    """
    latest = Latest(Path(directory), lambda run: page([run]).encode())

    class Handler(_Handler):
        content = staticmethod(latest)

    try:
        return ThreadingHTTPServer((LOOPBACK, port), Handler)
    except (OSError, OverflowError) as error:
        raise InputError(
            "serve", "must be a free port", port, f"choose another ({error})"
        ) from error


class _Handler(BaseHTTPRequestHandler):
    """Answers GET / with the page, and nothing else."""

    content: Callable[[], bytes]

    def do_GET(self) -> None:
        host = self.headers.get("Host", "").rpartition(":")[0] or self.headers.get("Host", "")
        if host not in (LOOPBACK, "localhost"):
            self.send_error(HTTPStatus.FORBIDDEN, "not this machine's loopback")
            return
        if self.path != "/":
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        try:
            body, status, kind = self.content(), HTTPStatus.OK, "text/html"
        except InputError as error:  # the run is gone, or was begun again
            body, status, kind = str(error).encode(), HTTPStatus.SERVICE_UNAVAILABLE, "text/plain"
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Refresh", str(SECONDS))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Requests are nobody's concern."""
