"""The package's face: every public name, imported when it is used, visible to type checkers."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import policies


def test_every_public_name_can_be_had():
    for name in policies.__all__:
        assert getattr(policies, name) is not None
        assert name in dir(policies)
    assert sorted(policies.__all__) == sorted(policies._MODULE_OF)


def test_type_checkers_see_what_is_imported():
    tree = ast.parse(Path(policies.__file__).read_text())
    guarded = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.name: node.module
        for node in guarded.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == policies._MODULE_OF


def test_what_is_only_data_needs_neither_torch_nor_numpy():
    code = (
        "import sys, policies, policies.errors\n"
        "policies.OPS, policies.PUBLISHED, policies.Policy\n"
        "policies.get_convention('timm').parameter('Rotate', 3, False, 32, 32)\n"
        "loaded = {'torch', 'numpy', 'numba', 'ray', 'PIL'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_name_is_an_attribute_error():
    assert not hasattr(policies, "PolicyTransfrom")
