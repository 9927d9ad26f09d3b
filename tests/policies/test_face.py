"""What the package's face loads."""

from __future__ import annotations

import subprocess
import sys


def test_what_is_only_data_needs_neither_torch_nor_numpy():
    code = (
        "import sys, policies, policies.errors\n"
        "policies.OPS, policies.PUBLISHED, policies.Policy\n"
        "policies.get_convention('timm').parameter('Rotate', 3, False, 32, 32)\n"
        "loaded = {'torch', 'numpy', 'numba', 'ray', 'PIL'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
