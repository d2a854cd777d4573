"""A model saved with one version of anndata and pandas is read, and answers the same, with another."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest

import cfmvc_scvi

pytestmark = [
    pytest.mark.exchange,
    pytest.mark.skipif(sys.version_info < (3, 12), reason="anndata 0.13, which pandas 3 goes with, needs Python 3.12"),
]

SCRIPT = Path(__file__).with_name("round_trip.py")
VERSIONS = {"old": ("anndata==0.12.*", "pandas==2.*"), "new": ("anndata==0.13.*", "pandas==3.*")}


@pytest.fixture(scope="session")
def pythons(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One Python for each pair of versions, laid over the one that runs the tests."""
    made = {}
    for name, requirements in VERSIONS.items():
        folder = tmp_path_factory.mktemp(name)
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        made[name] = python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        where = subprocess.run(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            check=True, capture_output=True, text=True,
        ).stdout.strip()  # fmt: skip
        below = f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})"
        (Path(where) / "below.pth").write_text(below)
        subprocess.run([sys.executable, "-m", "pip", "--python", python, "install", "-q", *requirements], check=True)
    return made


@pytest.fixture(scope="session")
def answers(pythons: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], dict]:
    """(saved by, read by) -> what was answered."""
    found = {}
    environment = os.environ | {"PYTHONPATH": str(Path(cfmvc_scvi.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    for saver, python in pythons.items():
        folder = tmp_path_factory.mktemp(f"saved_by_{saver}")
        for reader, other in {saver: python, **pythons}.items():
            path = folder / f"{reader}.npz"
            action = "save" if reader == saver else "load"
            subprocess.run([other, SCRIPT, action, folder, path], check=True, env=environment, timeout=600)
            found[saver, reader] = dict(np.load(path))
    return found


def test_versions_are_those_meant(answers):
    for (_, reader), found in answers.items():
        for wanted, installed in zip(VERSIONS[reader], found["versions"], strict=True):
            assert str(installed).startswith(wanted.partition("==")[2].removesuffix("*"))


@pytest.mark.parametrize(("saver", "reader"), [("old", "new"), ("new", "old")])
def test_a_model_answers_the_same_elsewhere(answers, saver, reader):
    here, there = answers[saver, saver], answers[saver, reader]
    for name in ("counts", "read", "names", "contexts", "own_contexts", "genes"):
        np.testing.assert_array_equal(there[name], here[name], err_msg=name)
    np.testing.assert_allclose(there["delta"], here["delta"], rtol=1e-6, atol=1e-9)
    np.testing.assert_array_equal(there["read"], there["counts"])
