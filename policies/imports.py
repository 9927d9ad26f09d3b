"""Parts that users bring themselves, named by import path: `package.module:name`."""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from .errors import InputError

_FORM = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


def is_import_path(text: object) -> bool:
    """Whether ``text`` looks like ``package.module:name``; nothing is imported."""
    return isinstance(text, str) and _FORM.fullmatch(text) is not None


def resolve(argument: str, named: str | Callable) -> Callable:
    """The callable that ``named`` names: ``package.module:name``, or the callable itself.

    A dotted name reaches into classes. Modules are looked for as Python does it, and then in the
    current folder, so that a file beside the user's own scripts works without being installed, and
    never hides an installed module. Call it where the part is used, in a worker for instance:
    what a module does when it is imported happens in that process.

    Args:
        argument: what errors call the part, e.g. ``"model"``.
        named: the import path, or a callable, which is returned as it is.

    Raises:
        InputError: for text of another form, a module that is not found or cannot be imported, a
            name that the module does not have, and something that cannot be called.
    """
    if callable(named):
        return named
    if not is_import_path(named):
        raise InputError(
            argument, "must be an import path package.module:name", named,
            "e.g. my_models:SmallNet for the class SmallNet in my_models.py",
        )  # fmt: skip
    module_name, _, name = named.partition(":")
    found: object = _import(argument, module_name, named)
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except (AttributeError, ImportError):  # of a module that imports its parts when asked
            names = [n for n in dir(found) if not n.startswith("_")]
            close = difflib.get_close_matches(part, names, 1)
            raise InputError(
                argument, f"must name something in {module_name}", named,
                f"did you mean {close[0]!r}?" if close else f"define {part} there",
            ) from None  # fmt: skip
    if not callable(found):
        raise InputError(
            argument, "must name a class or a function", f"{named}, a {type(found).__name__}",
            "name what makes the part",
        )  # fmt: skip
    return found


def check_call(
    argument: str, named: object, make: Callable, *given: Any, rule: str, fix: str, **by_name: Any
) -> None:
    """InputError unless ``make`` can be called so; it is not called.

    Args:
        argument: what errors call the part, as in :func:`resolve`.
        named: how the user named it.
        given, by_name: stand for the arguments; only their number and names count.
    """
    try:
        inspect.signature(make).bind(*given, **by_name)
    except TypeError as error:
        raise InputError(argument, rule, f"{named} ({error})", fix) from None
    except ValueError:  # some that are written in C have no signature
        pass


def import_path(argument: str, part: str | Callable) -> str:
    """The import path of a callable, for files and other processes; inverse to :func:`resolve`.

    A class or function of a script that is being run is named after the script's file: another
    process imports that file as a module, so the script needs ``if __name__ == "__main__":``.

    Raises:
        InputError: when the callable cannot be found under a name (a lambda, a nested function, an
            instance).
    """
    if isinstance(part, str):
        return part
    name = getattr(part, "__qualname__", None)
    module_name = getattr(part, "__module__", None)
    module = sys.modules.get(module_name) if isinstance(module_name, str) else None
    found: object = module
    for piece in name.split(".") if isinstance(name, str) else ["<nameless>"]:
        found = getattr(found, piece, None)
    if module is None or found is not part:
        raise InputError(
            argument, "must be defined at the top level of a module, to be found by others", part,
            "give it a name with def or class, outside of any function",
        )  # fmt: skip
    if module_name == "__main__":
        module_name = _script(argument, module, part)
    return f"{module_name}:{name}"


def _script(argument: str, main: ModuleType, part: Callable) -> str:
    """What a running script is called as a module."""
    spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    if spec is not None:
        return spec.name
    if file is None:
        raise InputError(
            argument, "must be defined in a file, to be found by other processes", part,
            "move it from the interactive session or notebook into a module",
        )  # fmt: skip
    name = os.path.splitext(os.path.basename(file))[0]
    if not name.isidentifier():
        raise InputError(
            argument, "must be defined in a file whose name can be imported", file,
            f"rename it, for example to {re.sub(r'[^0-9a-zA-Z]+', '_', name)}.py",
        )  # fmt: skip
    return name


def _import(argument: str, name: str, named: str) -> ModuleType:
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing == name or name.startswith(f"{missing}."):
            raise InputError(
                argument, f"must name a module that Python finds, here or in {here}", named,
                "check the spelling, install the package, or add its folder to PYTHONPATH",
            ) from None  # fmt: skip
        raise InputError(
            argument, f"must name a module whose own imports work (it lacks {missing})", named,
            f"install {missing}",
        ) from error  # fmt: skip
    except (Exception, SystemExit) as error:
        raise InputError(
            argument, "must name a module that can be imported",
            f"{named} ({type(error).__name__}: {error})", f"mend it: python -c 'import {name}'",
        ) from error  # fmt: skip
