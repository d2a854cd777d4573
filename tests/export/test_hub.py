"""A model on scvi-hub: its card, what is uploaded, and what is loaded again, without a network."""

from __future__ import annotations

import json
import re
import shutil
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest

from cfmvc_scvi import CFMVC
from cfmvc_scvi.errors import DataError, MissingExtraError, ModelFileError, NotTrainedError, UnsupportedError
from cfmvc_scvi.export import from_hub, to_hub

KEYS = {"batch_key": "batch", "labels_key": "cell_type", "perturbation_key": "perturbation"}
QUIET = {"accelerator": "cpu", "enable_progress_bar": False}


@pytest.fixture
def untrained(tiny_adata: ad.AnnData) -> CFMVC:
    CFMVC.setup_anndata(tiny_adata, **KEYS)
    return CFMVC(tiny_adata, n_intrinsic=4, n_technical=2, n_hidden=16, flow_kwargs={"n_hidden": 16})


@pytest.fixture
def model(untrained: CFMVC) -> CFMVC:
    untrained.train({"representation": 1, "flow": 1}, **QUIET, pair_kwargs={"batch_size": 32, "steps_per_epoch": 2})
    return untrained


class Hub:
    """Stands for huggingface.co: what was uploaded, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.created = folder, []

    def upload_folder(self, *, repo_id: str, folder_path: str, allow_patterns: list[str], **kwargs: Any) -> None:
        for path in Path(folder_path).iterdir():
            if any(fnmatch(path.name, pattern) for pattern in allow_patterns):
                (self.folder / repo_id).mkdir(parents=True, exist_ok=True)
                shutil.copy(path, self.folder / repo_id / path.name)

    def create_repo(self, name: str, **kwargs: Any) -> None:
        self.created.append((name, kwargs))

    def snapshot_download(
        self, repo_id: str, *, ignore_patterns: list[str] | None, cache_dir: str | None, **kwargs: Any
    ) -> str:
        target = Path(cache_dir or self.folder / "cache") / "snapshot"
        shutil.copytree(self.folder / repo_id, target, ignore=shutil.ignore_patterns(*(ignore_patterns or [])))
        return str(target)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    huggingface_hub = pytest.importorskip("huggingface_hub")
    hub = Hub(tmp_path / "huggingface.co")
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda token=None: hub)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub.snapshot_download)
    return hub


@pytest.mark.extra
@pytest.mark.parametrize("with_data", [False, True])
def test_pushed_and_pulled_it_predicts_the_same(with_data: bool, model: CFMVC, hub: Hub, tmp_path: Path) -> None:
    shared = to_hub(
        model, tmp_path / "mine", license_info="cc-by-4.0", tissues=["blood"], description="Of blood.",
        references="Nobody 2026", save_anndata=with_data,
    )  # fmt: skip
    (tmp_path / "mine" / "notes.txt").write_text("not for others")
    shared.push_to_huggingface_hub("lab/model", repo_create=True, repo_create_kwargs={"private": True})
    assert hub.created == [("lab/model", {"exist_ok": True, "private": True})]
    there = {path.name for path in (hub.folder / "lab" / "model").iterdir()}
    assert "notes.txt" not in there and ("adata.h5ad" in there) == with_data
    pulled = from_hub("lab/model", revision="main", cache_dir=str(tmp_path / "cache"))
    loaded = pulled.model
    assert (loaded.adata is not None) == with_data
    cells = model.adata[:40].copy()
    known, again = (each.predict_counterfactual(cells, perturbation="A", seed=0).X for each in (model, loaded))
    assert (known != again).nnz == 0
    card = pulled.model_card.content
    for words in ("license: cc-by-4.0", "tissue:blood", "model_cls_name:CFMVC", "Of blood.", "Nobody 2026", "A, B"):
        assert words in card
    kept = len(model._reference.panel.names)
    assert f"the counts of {kept} training cells" in card and ("and the data themselves" in card) == with_data
    metadata = json.loads((tmp_path / "mine" / "_scvi_required_metadata.json").read_text())
    assert metadata["model_cls_name"] == "CFMVC" and metadata["model_parent_module"] == "cfmvc_scvi"


@pytest.mark.extra
def test_scvi_tools_reads_it_too(model: CFMVC, hub: Hub, tmp_path: Path) -> None:
    from scvi.hub import HubModel

    to_hub(model, tmp_path / "mine", license_info="mit", save_anndata=True)
    plain = HubModel(str(tmp_path / "mine")).model
    np.testing.assert_array_equal(plain.get_latent_representation(), model.get_latent_representation())


@pytest.mark.extra
def test_it_is_replaced_only_when_asked(model: CFMVC, hub: Hub, tmp_path: Path) -> None:
    to_hub(model, tmp_path / "mine", license_info="mit", description="first")
    with pytest.raises(ModelFileError):
        to_hub(model, tmp_path / "mine", license_info="mit")
    assert "first" in (tmp_path / "mine" / "README.md").read_text()
    again = to_hub(model, tmp_path / "mine", license_info="mit", description="second", overwrite=True)
    assert "second" in again.model_card.content and "second" in (tmp_path / "mine" / "README.md").read_text()


@pytest.mark.extra
def test_the_example_of_the_documentation(
    model: CFMVC, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = Path(__file__).parents[2] / "docs" / "howto" / "save.md"
    (code,) = re.findall(r"^```\{code-block\} python\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
    monkeypatch.chdir(tmp_path)
    names = {"model": model, "control": model.adata[(model.adata.obs["perturbation"] == "control").to_numpy()].copy()}
    exec(compile(code, page.name, "exec"), names)
    assert "Blood under interferon." in capsys.readouterr().out and names["treated"].n_obs == names["control"].n_obs


@pytest.mark.extra
def test_what_is_refused(untrained: CFMVC, hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(NotTrainedError, match="representation"):
        to_hub(untrained, tmp_path / "mine", license_info="mit")
    untrained.train({"representation": 1}, stage="representation", **QUIET)
    for asked, words in [
        ({"license_info": " "}, "license_info is empty"),
        ({"license_info": "mit", "training_data_url": "my disk"}, "training_data_url is 'my disk'"),
        ({"license_info": "mit", "training_code_url": "ftp://x"}, "training_code_url"),
    ]:
        with pytest.raises(DataError, match=words):
            to_hub(untrained, tmp_path / "mine", **asked)
    assert not (tmp_path / "mine").exists()
    shared = to_hub(untrained, tmp_path / "mine", license_info="mit", save_anndata=True)
    with pytest.raises(UnsupportedError, match=r"adata\.h5ad.*save_anndata=False"):
        shared.push_to_huggingface_hub("lab/model", push_anndata=False)
    with pytest.raises(UnsupportedError, match="collection_name"):
        shared.push_to_huggingface_hub("lab/model", collection_name="test")
    for call in (shared.push_to_s3, shared.pull_from_s3):
        with pytest.raises(UnsupportedError, match="S3"):
            call("bucket", "path")
    (hub.folder / "lab" / "other").mkdir(parents=True)
    (hub.folder / "lab" / "other" / "model.pt").write_bytes(b"")
    with pytest.raises(ModelFileError, match="lab/other.*lacks"):
        from_hub("lab/other", cache_dir=str(tmp_path / "cache"))


def test_without_the_extra_it_is_named(untrained: CFMVC, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=r"cfmvc-scvi\[hub\]"):
        to_hub(untrained, tmp_path / "mine", license_info="mit")
