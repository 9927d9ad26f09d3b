"""Which module imports which, read from the source: for tests/test_architecture.py.

Imports inside functions count; those for type checkers alone (`if TYPE_CHECKING:`) do not. A name
taken from a package's face (`from policies import Policy`) counts for the module it comes from.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

Graph = dict[str, set[str]]


class Imports:
    """The imports of all modules below some packages of a folder."""

    def __init__(self, root: Path, packages: Iterable[str]) -> None:
        self.root = root
        self.files = {
            _module(path.relative_to(root)): path
            for package in packages
            for path in sorted((root / package).rglob("*.py"))
        }
        self._trees = {
            name: ast.parse(path.read_text(encoding="utf-8")) for name, path in self.files.items()
        }
        self._faces = {
            name: dict(self._offered(name, path.with_suffix(".pyi")))
            for name, path in self.files.items()
            if path.name == "__init__.py"
        }

    def graph(self) -> Graph:
        """Every module with those of these packages that it imports."""
        found = {name: self.imported(name) for name in self.files}
        return {
            name: {n for n in names if n in self.files} - {name} for name, names in found.items()
        }

    def imported(self, module: str) -> set[str]:
        """Full names of all that a module imports, of other libraries too."""
        found: set[str] = set()
        for node in _at_run_time(self._trees[module]):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                origin = self._origin(module, node)
                found |= {self._resolve(origin, alias.name) for alias in node.names}
        return found

    def public(self, package: str) -> set[str]:
        """The names that a package's face offers."""
        return set(self._faces[package])

    def _resolve(self, origin: str, name: str) -> str:
        if f"{origin}.{name}" in self.files:
            return f"{origin}.{name}"
        return self._faces.get(origin, {}).get(name, origin)

    def _offered(self, package: str, stub: Path) -> Iterator[tuple[str, str]]:
        """Names of the face and where they come from, as its stub says, or else as it imports."""
        tree = (
            ast.parse(stub.read_text(encoding="utf-8")) if stub.exists() else self._trees[package]
        )
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                origin = self._origin(package, node)
                if origin in self.files:
                    yield from ((alias.asname or alias.name, origin) for alias in node.names)

    def _origin(self, module: str, node: ast.ImportFrom) -> str:
        if node.level == 0:
            return node.module or ""
        parts = module.split(".")
        if self.files[module].name != "__init__.py":
            parts = parts[:-1]
        parts = parts[: len(parts) - node.level + 1]
        return ".".join([*parts, node.module] if node.module else parts)


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    """Some way round through the graph that comes back to its start; empty without one."""
    done: set[str] = set()

    def walk(node: str, way: list[str]) -> list[str]:
        if node in way:
            return [*way[way.index(node) :], node]
        if node in done:
            return []
        for following in sorted(graph.get(node, ())):
            if found := walk(following, [*way, node]):
                return found
        done.add(node)
        return []

    return next((found for node in sorted(graph) if (found := walk(node, []))), [])


def reachable(graph: Mapping[str, set[str]], start: str) -> set[str]:
    found: set[str] = set()
    waiting = [start]
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += graph.get(node, ())
    return found


def rooms(graph: Mapping[str, set[str]], package: str) -> Graph:
    """The graph of a package's folders and lone files: search.engine, search.spaces, ..."""
    found: Graph = {}
    for module, imported in graph.items():
        if module.startswith(f"{package}."):
            ours = found.setdefault(_room(module), set())
            ours |= {_room(name) for name in imported if name.startswith(f"{package}.")}
            ours.discard(_room(module))
    return found


def _room(module: str) -> str:
    return ".".join(module.split(".")[:2])


def _module(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _at_run_time(tree: ast.AST) -> Iterator[ast.AST]:
    """All statements but those under `if TYPE_CHECKING:`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.expr):
            continue  # holds no statement
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            for other in node.orelse:
                yield other
                yield from _at_run_time(other)
            continue
        yield node
        yield from _at_run_time(node)
