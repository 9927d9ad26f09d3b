"""The command line, `augsearch`: thin over functions.

Exit codes: 0 when what was asked for is complete, 1 when it is not (failed evaluations, a full
disk), 2 for a mistake of the user, 130 and 143 after SIGINT and SIGTERM.
"""

from __future__ import annotations

import io
import logging
import os
import sys
import warnings
from typing import Any, NoReturn

import click

from . import comparing, looking, searching
from .options import ManyValues

# Everything else is imported where it is used: torch alone takes longer than --help may.
INTERRUPTED = 130


class Commands(click.Group):
    """Turns the project's own errors into one line and an exit code; anything else is a bug."""

    command_class = ManyValues

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def main(self, *args: Any, **settings: Any) -> NoReturn:
        """Run a command and exit."""
        _settle_output()
        sys.exit(self._code(*args, **settings))

    def _code(self, *args: Any, **settings: Any) -> int:
        try:
            code = super().main(*args, **{**settings, "standalone_mode": False})
            return code if isinstance(code, int) else 0
        except click.UsageError as error:
            command = error.ctx.command_path if error.ctx else "augsearch"
            _say(f"Error: {error.format_message()} (see {command} --help)")
            return error.exit_code
        except (KeyboardInterrupt, click.Abort):  # before or outside of what can be resumed
            _say("Error: stopped by SIGINT")
            return INTERRUPTED
        except (ValueError, RuntimeError, OSError) as error:
            known = _exit_code(error)
            if known is None:
                raise
            _say(f"Error: {_one_line(error)}")
            return known


def _exit_code(error: Exception) -> int | None:
    """The exit code of an error that needs no traceback, None for a bug."""
    from policies import InputError
    from search.errors import SearchError

    if isinstance(error, InputError):
        return 2
    if isinstance(error, SearchError):
        return error.exit_code
    if isinstance(error, OSError) and error.filename is not None:
        return 1
    return None


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split())


def _show_warning(message: Warning | str, category: type, *_: object, **__: object) -> None:
    _say(f"Warning: {message}")


def _say(text: str) -> None:
    """A line on stderr, whatever that is at the time: a run outlives its terminal."""
    try:
        click.echo(text, err=True)
    except OSError:  # full, or closed
        _leave_stderr()


def _leave_stderr() -> None:
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115  (what is buffered would fail again)


class _Stdout(io.FileIO):
    """Standard output: full, closed or gone, it ends the command as every error does.

    Unbuffered, so that nothing is left that would fail again when Python ends.
    """

    def write(self, data: Any) -> int:
        from policies.files import write_all
        from search.errors import OutputError

        try:
            write_all(self.fileno(), data)
        except OSError as error:  # not passed on: click would end without a word on some
            raise OutputError(f"standard output: {error.strerror}") from error
        return len(data)


def _settle_output() -> None:
    """Streams that take every name of a file, and an error where stdout does not take it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # Closed: the next file opened, say a journal, would get its number, and with it all
            # that others print. This one takes nothing either.
            os.open(os.devnull, os.O_RDONLY)
    if sys.stdout is sys.__stdout__:  # where it was closed there is none
        encoding = "utf-8" if sys.stdout is None else sys.stdout.encoding
        sys.stdout = io.TextIOWrapper(_Stdout(1, "w", closefd=False), encoding, write_through=True)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class _Stderr(logging.Handler):
    """The log on stderr; run.log has it too."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        try:
            with tqdm.external_write_mode(sys.stderr):  # above a bar, not in it
                _say(self.format(record))
        except OSError:  # from the bar
            _leave_stderr()


@click.group(
    cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name="augsearch", prog_name="augsearch")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Search image-augmentation policies on small proxy tasks, and compare what was found."""
    log = logging.getLogger("search")
    log.handlers, log.propagate = [_Stderr()], False
    log.setLevel(logging.INFO)
    ctx.with_resource(warnings.catch_warnings())
    warnings.showwarning = _show_warning


for command in (*searching.COMMANDS, *comparing.COMMANDS, *looking.COMMANDS):
    main.add_command(command)

if __name__ == "__main__":  # as torchrun starts it
    main()
