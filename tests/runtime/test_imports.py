"""What an exported model needs, and what it does not."""

import subprocess
import sys

import scvi

from cfmvc_scvi._keys import CFMVC_REGISTRY_KEYS

HEAVY = ("torch", "scvi", "anndata", "pandas", "mudata", "scanpy", "lightning", "sklearn", "matplotlib")


def test_the_runtime_imports_nothing_heavy() -> None:
    code = f"import sys, cfmvc_scvi.runtime; print(*(set({HEAVY}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_keys_that_are_written_down_here_are_those_of_scvi() -> None:
    for name in ("X_KEY", "BATCH_KEY", "LABELS_KEY", "CAT_COVS_KEY", "CONT_COVS_KEY"):
        assert getattr(CFMVC_REGISTRY_KEYS, name) == getattr(scvi.REGISTRY_KEYS, name)
