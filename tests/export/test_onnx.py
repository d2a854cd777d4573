"""ONNX Runtime and torch predict the same, and the files stand on their own (needs the extra ``onnx``)."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pytest

from cfmvc_scvi import CFMVC
from cfmvc_scvi.cli import app
from cfmvc_scvi.config import SolverConfig
from cfmvc_scvi.errors import CorruptModelError, DataError, ModelFileError, NonFiniteError, UnsupportedError
from cfmvc_scvi.model.torch_networks import TorchNetworks
from cfmvc_scvi.runtime import Bundle
from cfmvc_scvi.runtime.files import packed

pytestmark = pytest.mark.serving

ASKED = {"perturbation": "A", "dose": 2.0}


def test_every_option_is_answered_as_by_the_model(
    served: CFMVC, onnx_bundle: Bundle, few: ad.AnnData, asked: dict, assert_same: Callable[..., None]
) -> None:
    expected = served.predict_counterfactual(few, **asked, seed=5)
    assert_same(onnx_bundle.counterfactual(few, **asked, seed=5), expected)


@pytest.mark.parametrize(
    "options",
    [
        {"source": "noise"},
        {"n_technical": 0},
        {"n_layers": 2, "use_layer_norm": "both", "use_batch_norm": "none"},
        {"batch_representation": "embedding"},
        {"gene_likelihood": "zinb", "dispersion": "gene-batch"},
        {"gene_likelihood": "poisson", "log_variational": False},
        {"flow_kwargs": {"n_hidden": 8, "n_layers": 1, "n_basis": 2}},
    ],
    ids=str,
)
def test_every_architecture_is_answered_as_by_the_model(
    variant: Callable[..., tuple[CFMVC, Bundle]], few: ad.AnnData, options: dict, assert_same: Callable[..., None]
) -> None:
    model, bundle = variant({"batch_key": "batch", "perturbation_key": "perturbation"}, **options)
    asked = {"perturbation": "A", "batch": "batch_1", "seed": 5}
    assert_same(bundle.counterfactual(few, **asked), model.predict_counterfactual(few, **asked))


@pytest.mark.parametrize("n_cells", [0, 1, 7, 10_000])
def test_any_number_of_cells(served: CFMVC, onnx_bundle: Bundle, n_cells: int) -> None:
    reference, rng = onnx_bundle.known.reference, np.random.default_rng(0)
    rows = rng.integers(0, len(reference.panel.names), n_cells)
    panel, torch_networks = reference.panel.take(rows), TorchNetworks(served.module)
    for mine, theirs in zip(
        onnx_bundle.networks.posterior(panel.counts, panel.tensors),
        torch_networks.posterior(panel.counts, panel.tensors),
        strict=True,
    ):
        assert mine.shape == (n_cells, 7)
        np.testing.assert_allclose(mine, theirs, atol=1e-5)
    z = theirs * rng.standard_normal(theirs.shape)
    shares = [networks.fractions(z, panel.tensors) for networks in (onnx_bundle.networks, torch_networks)]
    np.testing.assert_allclose(*shares, atol=1e-5)
    state, context = rng.standard_normal((2, n_cells, 5))
    design = rng.random((n_cells, 2))
    for backwards, n_steps in [(False, 5), (True, 20), (False, 50)]:
        options = {"backwards": backwards, "solver": SolverConfig("midpoint", n_steps), "guidance_scale": 0.5}
        ends = [each.solve(state, design, context, **options) for each in (onnx_bundle.networks, torch_networks)]
        np.testing.assert_allclose(ends[0].state, ends[1].state, atol=1e-5)
        assert ends[0].n_evaluations == 2 * n_steps == ends[1].n_evaluations


def test_a_flow_that_leaves_the_finite_numbers_is_told(onnx_bundle: Bundle) -> None:
    state = np.full((3, 5), np.nan)
    solver = SolverConfig("rk4", 2)
    with pytest.raises(NonFiniteError, match=r"3 of 3 cells, first row 0.*rk4|rk4.*3 of 3 cells"):
        onnx_bundle.networks.solve(
            state, np.ones((3, 2)), np.ones((3, 5)), backwards=False, solver=solver, guidance_scale=1.0
        )


def test_it_answers_its_own_question_and_notices_when_it_does_not(onnx_bundle: Bundle, exported: Path) -> None:
    assert onnx_bundle.check() < 1e-8
    wrong = Bundle.load(exported)
    wrong._golden["answers"]["counts"][0, 0] += 1
    with pytest.raises(CorruptModelError, match=r"answers its own question wrongly.*off by 0\.\d"):
        wrong.check()


def test_expected_levels_are_not_estimated_again(onnx_bundle: Bundle, served: CFMVC) -> None:
    assert set(onnx_bundle.known.reference._goals) == set(range(1, len(served._reference.designs)))


def test_only_what_was_exported_can_be_asked(
    variant: Callable[..., tuple[CFMVC, Bundle]], few: ad.AnnData, tmp_path: Path
) -> None:
    model, bundle = variant({"perturbation_key": "perturbation"})
    with pytest.raises(UnsupportedError, match="'rk4' was not exported; this model has midpoint"):
        bundle.counterfactual(few, perturbation="A", solver=SolverConfig("rk4", 2))
    from cfmvc_scvi.export import to_onnx

    with pytest.raises(DataError, match="choose one or more of euler, midpoint"):
        to_onnx(model, tmp_path / "none", solvers=["dopri5"])  # type: ignore[list-item]
    with pytest.raises(ModelFileError, match="already exists"):
        to_onnx(model, tmp_path / "variant", solvers=["midpoint"])


def test_no_path_of_the_machine_is_in_the_files(exported: Path) -> None:
    import onnx

    for file in exported.glob("*.onnx"):
        model = onnx.load(file)
        onnx.checker.check_model(model)
        assert b".py" not in file.read_bytes() and b"site-packages" not in file.read_bytes(), file.name
    assert any(node.op_type == "Loop" for node in onnx.load(exported / "field_rk4.onnx").graph.node)


def test_the_command_exports(served: CFMVC, tmp_path: Path, few: ad.AnnData, assert_same: Callable[..., None]) -> None:
    from typer.testing import CliRunner

    served.save(tmp_path / "model")
    words = ["export", str(tmp_path / "model"), "--out", str(tmp_path / "out"), "--solver", "midpoint"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert f"to {tmp_path / 'out'}" in result.stderr.replace("\n", "")
    assert json.loads((tmp_path / "out" / "card.json").read_text())["solvers"] == ["midpoint"]
    answer = Bundle.load(tmp_path / "out").counterfactual(few, **ASKED, seed=5)
    assert_same(answer, served.predict_counterfactual(few, **ASKED, seed=5))
    assert CliRunner().invoke(app, words).exit_code == 2


BARE = """
import sys
import numpy as np
from cfmvc_scvi.runtime import Bundle, Cells
from cfmvc_scvi.runtime.files import unpacked

bundle = Bundle.load(sys.argv[1])
bundle.check()
given = unpacked(open(sys.argv[2], "rb").read())
cells = Cells(given["X"], given["obs"], given["obs_names"], given["var_names"])
answer = bundle.counterfactual(cells, perturbation="A", dose=2.0, seed=5)
assert (answer.dense == given["expected"]).all()
for name in ("torch", "scvi", "anndata", "pandas"):
    try:
        __import__(name)
    except ModuleNotFoundError:
        continue
    raise SystemExit(f"{name} is installed")
print("predicted", len(answer.dense))
"""


def test_it_predicts_where_torch_is_not_installed(
    served: CFMVC, exported: Path, few: ad.AnnData, tmp_path: Path
) -> None:
    """A virtual environment with numpy, scipy and onnxruntime alone, linked from this one."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    python = tmp_path / "bare" / "bin" / "python"
    place = Path(
        subprocess.run(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    )
    import cfmvc_scvi

    _link(place, ["numpy", "scipy", "onnxruntime"])
    source = Path(cfmvc_scvi.__file__).parent
    shutil.copytree(source, place / "cfmvc_scvi", ignore=shutil.ignore_patterns("__pycache__"))
    metadata = place / f"cfmvc_scvi-{cfmvc_scvi.__version__}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: cfmvc-scvi\nVersion: {cfmvc_scvi.__version__}\n")
    expected = served.predict_counterfactual(few, **ASKED, seed=5).X.toarray()
    obs = {name: few.obs[name].tolist() for name in few.obs}
    given = {"X": few.X.toarray(), "obs": obs, "obs_names": list(few.obs_names), "var_names": list(few.var_names)}
    (tmp_path / "given.npz").write_bytes(packed({**given, "expected": expected}))
    (tmp_path / "bare.py").write_text(BARE)
    words = [python, tmp_path / "bare.py", exported, tmp_path / "given.npz"]
    done = subprocess.run(words, capture_output=True, text=True, env={}, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["predicted", "16"]


QUIET = """
import sys
from pathlib import Path
from cfmvc_scvi.runtime import Bundle

Bundle.load(sys.argv[1]).check()
opened = [str(file.readlink()) for file in Path("/proc/self/fd").iterdir() if file.is_symlink() and file.exists()]
print([name for name in opened if "socket" in name or "onnxruntime" in name])
"""


def test_it_reports_nothing_to_anybody(exported: Path, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    words = [sys.executable, "-c", QUIET, exported]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment | home)
    assert done.stdout.strip() == "[]"
    assert not [file for file in tmp_path.rglob("*") if "onnxruntime" in str(file) or "Microsoft" in str(file)]


def _link(place: Path, packages: list[str]) -> None:
    """Link installed packages, and the folders of shared libraries beside them, into an environment."""
    import importlib.util

    for package in packages:
        spec = importlib.util.find_spec(package)
        assert spec is not None and spec.origin is not None
        folder = Path(spec.origin).parent
        for found in (folder, folder.with_name(f"{package}.libs")):
            if found.is_dir():
                (place / found.name).symlink_to(found)
