"""Parts by import path: what is found, and what each mistake is told."""

from __future__ import annotations

import collections
import subprocess
import sys

import pytest

from policies.errors import InputError
from policies.imports import import_path, is_import_path, resolve


class Outer:
    class Inner:
        pass


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder; modules imported from it are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_found():
    assert resolve("part", "collections:OrderedDict") is collections.OrderedDict
    assert resolve("part", "collections:OrderedDict.fromkeys")("a") == {"a": None}
    assert resolve("part", len) is len


def test_the_current_folder_is_looked_in_but_hides_nothing(here):
    (here / "own_part.py").write_text("from own_helper import value\ndef make(): return value\n")
    (here / "own_helper.py").write_text("value = 7\n")
    (here / "json.py").write_text("raise RuntimeError('hides the real one')\n")
    (here / "policies.py").write_text("raise RuntimeError('hides the real one')\n")
    assert resolve("part", "own_part:make")() == 7
    assert resolve("part", "json:dumps")([1]) == "[1]"
    assert resolve("part", "policies.policy:Policy").__name__ == "Policy"


@pytest.mark.parametrize(
    "text", ["", "x", "a.b.c", "a:", ":b", "a b:c", "a:b:c", "a..b:c", "1a:b", "a:b()", "a-b:c"]
)
def test_other_forms_are_refused_unread(text):
    assert not is_import_path(text)
    with pytest.raises(InputError, match="^model: must be an import path"):
        resolve("model", text)


def test_each_mistake_is_named(here):
    (here / "broken.py").write_text("1 / 0\n")
    (here / "lacking.py").write_text("import no_such_package_at_all\n")
    (here / "wrong.py").write_text("def (\n")
    (here / "number.py").write_text("answer = 42\n")
    (here / "exits.py").write_text("class Network: pass\n")
    for named, words in {
        "no_such_module_at_all:x": "that Python finds, here or in .*check the spelling",
        "number.sub:x": "that Python finds",
        "broken:x": "ZeroDivisionError: division by zero.*python -c 'import broken'",
        "wrong:x": "SyntaxError",
        "lacking:x": "it lacks no_such_package_at_all.*install no_such_package_at_all",
        "number:answer": "a class or a function, but got 'number:answer, a int'",
        "exits:Netwrok": "did you mean 'Network'",
        "exits:zzz": "define zzz there",
    }.items():
        with pytest.raises(InputError, match=words):
            resolve("loss", named)


def test_a_path_and_back():
    for part in (collections.OrderedDict, Outer.Inner, is_import_path):
        assert resolve("part", import_path("part", part)) is part
    assert import_path("part", "a.b:c") == "a.b:c"


@pytest.mark.parametrize("part", [lambda: 0, Outer(), [].append], ids=["lambda", "object", "bound"])
def test_what_others_cannot_find_has_no_path(part):
    with pytest.raises(InputError, match="top level of a module"):
        import_path("part", part)


def test_a_part_of_a_running_script_is_named_after_its_file(tmp_path):
    (tmp_path / "my_script.py").write_text(
        "from policies.imports import import_path\n"
        "class Net: pass\n"
        "if __name__ == '__main__': print(import_path('model', Net))\n"
    )
    for how in (["my_script.py"], ["-m", "my_script"]):
        done = subprocess.run([sys.executable, *how], cwd=tmp_path, capture_output=True, text=True)
        assert done.stdout == "my_script:Net\n", done.stderr
    (tmp_path / "my_script.py").rename(tmp_path / "my-script.py")
    done = subprocess.run(
        [sys.executable, "my-script.py"], cwd=tmp_path, capture_output=True, text=True
    )
    assert "rename it, for example to my_script.py" in done.stderr
    session = "class Net: pass\nfrom policies.imports import import_path\nimport_path('model', Net)"
    done = subprocess.run([sys.executable, "-c", session], capture_output=True, text=True)
    assert "interactive session or notebook" in done.stderr


def test_a_module_that_ends_the_program_or_cannot_give_its_parts_is_named(here):
    (here / "leaves.py").write_text("import sys\nsys.exit('bye')\n")
    (here / "lazy.py").write_text("def __getattr__(name):\n    raise ImportError(name)\n")
    with pytest.raises(InputError, match="must name a module that can be imported.*bye"):
        resolve("model", "leaves:net")
    with pytest.raises(InputError, match="must name something in lazy"):
        resolve("model", "lazy:net")
