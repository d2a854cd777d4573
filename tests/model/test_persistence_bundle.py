"""The directory on disk: round trips, refusals, damage."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cfmvc_scvi.errors import CorruptModelError, ModelFileError, UnsafeFileError
from cfmvc_scvi.model.persistence import Bundle, read_bundle, write_bundle

FILES = ["adata.h5ad", "arrays.safetensors", "manifest.json", "model.json", "weights.safetensors"]


def make_bundle(number: int = 0) -> Bundle:
    return Bundle(
        class_name="Model",
        state_dict={"weight": torch.full((5, 4), float(number)), "n": torch.tensor(number)},
        attributes={"indices_": np.full(7, number), "history_": {"loss": [number, 0.5]}},
        var_names=np.array(["a", "b"], dtype=object),
        extras={"table": np.full((2, 2), number / 2)},
    )


def number_of(bundle: Bundle) -> int:
    """Number that `make_bundle` was called with; fails unless every part of the bundle agrees."""
    number = int(bundle.state_dict["n"])
    expected = make_bundle(number)
    assert all(torch.equal(bundle.state_dict[name], tensor) for name, tensor in expected.state_dict.items())
    np.testing.assert_array_equal(bundle.attributes["indices_"], expected.attributes["indices_"])
    np.testing.assert_array_equal(bundle.extras["table"], expected.extras["table"])
    assert bundle.attributes["history_"] == expected.attributes["history_"]
    return number


def write_bytes(path: Path) -> None:
    path.write_bytes(bytes(range(256)))


write_data = ("adata.h5ad", write_bytes)


def rewrite(directory: Path, name: str, data: bytes) -> None:
    """Replace a file and renew the sums, as an attacker would."""
    (directory / name).write_bytes(data)
    files = json.loads((directory / "manifest.json").read_text())["files"]
    files[name] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    listing = json.dumps(files, sort_keys=True)
    manifest = {"files": files, "sha256": hashlib.sha256(listing.encode()).hexdigest()}
    (directory / "manifest.json").write_text(json.dumps(manifest, sort_keys=True))


def change_header(directory: Path, **changes) -> None:
    header = json.loads((directory / "model.json").read_text())
    rewrite(directory, "model.json", json.dumps(header | changes).encode())


@pytest.fixture
def saved(tmp_path):
    write_bundle(tmp_path / "model", make_bundle(3), write_data=write_data)
    return tmp_path / "model"


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    path = tmp_path_factory.mktemp("bundles") / "model"
    write_bundle(path, make_bundle(3), write_data=write_data)
    return path


def test_round_trip(saved):
    back = read_bundle(saved)
    assert number_of(back) == 3
    assert back.class_name == "Model"
    assert back.var_names.tolist() == ["a", "b"]
    assert back.data_file == saved / "adata.h5ad"
    assert set(back.versions) == {"cfmvc-scvi", "scvi-tools", "anndata", "torch", "numpy", "pandas"}
    assert back.versions["torch"] == torch.__version__
    assert sorted(os.listdir(saved)) == FILES
    assert os.listdir(saved.parent) == ["model"]


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float16, torch.bfloat16, torch.float64])
def test_dtypes_of_tensors(tmp_path, dtype):
    tensor = torch.arange(6).reshape(2, 3).to(dtype)
    write_bundle(tmp_path / "m", Bundle("Model", {"x": tensor, "scalar": tensor[1, 1]}, {}, []))
    back = read_bundle(tmp_path / "m").state_dict
    assert back["x"].dtype == back["scalar"].dtype == dtype
    assert torch.equal(back["x"], tensor)
    assert torch.equal(back["scalar"], tensor[1, 1])


def test_shared_strided_and_special_tensors(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    state = {
        "base": base,
        "same": base,
        "transposed": base.T,
        "column": base[:, 1],
        "expanded": torch.tensor(1.0).expand(2, 2),
        "empty": torch.zeros(0, 3),
        "nan": torch.tensor([float("nan"), float("-inf"), -0.0]),
        "parameter": torch.nn.Parameter(base.clone()),
    }
    write_bundle(tmp_path / "m", Bundle("Model", state, {}, []))
    back = read_bundle(tmp_path / "m").state_dict
    assert set(back) == set(state)
    for name, tensor in state.items():
        assert back[name].shape == tensor.shape
        assert back[name].numpy().tobytes() == tensor.detach().contiguous().numpy().tobytes()
    assert back["base"].data_ptr() != back["same"].data_ptr()


@pytest.mark.parametrize("value", [torch.eye(2).to_sparse(), {"params": {}}], ids=["sparse", "dict"])
def test_what_is_no_dense_tensor_is_refused(tmp_path, value):
    with pytest.raises(ModelFileError, match=r"state_dict\['odd'\]"):
        write_bundle(tmp_path / "m", Bundle("Model", {"odd": value}, {}, []))
    assert os.listdir(tmp_path) == []


def test_an_attribute_that_cannot_be_encoded_leaves_the_old_model(saved):
    with pytest.raises(ModelFileError, match=r"attributes\['bad_'\]"):
        write_bundle(saved, Bundle("Model", {}, {"bad_": {1, 2}}, []), overwrite=True)
    assert number_of(read_bundle(saved)) == 3


def test_an_error_while_writing_data_leaves_the_old_model(saved):
    def fail(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_bundle(saved, make_bundle(4), overwrite=True, write_data=("adata.h5ad", fail))
    assert number_of(read_bundle(saved)) == 3
    assert os.listdir(saved.parent) == ["model"]


def test_overwrite_replaces_the_whole_directory(saved):
    with pytest.raises(ModelFileError, match="overwrite=True"):
        write_bundle(saved, make_bundle(4))
    write_bundle(saved, make_bundle(4), overwrite=True)
    back = read_bundle(saved)
    assert number_of(back) == 4
    assert back.data_file is None
    assert sorted(os.listdir(saved)) == [name for name in FILES if name != "adata.h5ad"]
    assert os.listdir(saved.parent) == ["model"]


def test_an_empty_directory_a_missing_parent_and_a_link(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelFileError, match="already exists"):
        write_bundle(tmp_path / "empty", make_bundle(1))
    write_bundle(tmp_path / "empty", make_bundle(1), overwrite=True)
    write_bundle(tmp_path / "a" / "b", make_bundle(2))
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    write_bundle(tmp_path / "link", make_bundle(5), overwrite=True)
    assert number_of(read_bundle(tmp_path / "empty")) == number_of(read_bundle(tmp_path / "link")) == 5
    assert number_of(read_bundle(tmp_path / "a" / "b")) == 2
    assert (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("prepare", ["other", "extra", "data", "file", "damaged"])
def test_files_of_others_are_never_deleted(tmp_path, prepare):
    path = tmp_path / "model"
    if prepare == "other":
        path.mkdir()
        keep = path / "model.pt"
    elif prepare == "file":
        keep = path
    else:
        write_bundle(path, make_bundle(1))
        keep = path / ("adata.h5ad" if prepare != "extra" else "notes.txt")
    keep.write_text("mine")
    if prepare == "damaged":  # whose data file it is cannot be told any more
        (path / "manifest.json").write_text("{}")
    with pytest.raises(ModelFileError, match=r"not a saved model|no save has written|is a file"):
        write_bundle(path, make_bundle(2), overwrite=True)
    assert keep.read_text() == "mine"


def test_a_damaged_model_may_be_overwritten(tmp_path):
    write_bundle(tmp_path / "model", make_bundle(1))
    (tmp_path / "model" / "manifest.json").write_text("{}")
    write_bundle(tmp_path / "model", make_bundle(2), overwrite=True)
    assert number_of(read_bundle(tmp_path / "model")) == 2


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(FILES), place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_every_flipped_bit_is_found(shared, name, place, bit):
    good = (shared / name).read_bytes()
    bad = bytearray(good)
    bad[int(place * len(bad))] ^= 1 << bit
    try:
        (shared / name).write_bytes(bad)
        with pytest.raises(CorruptModelError, match=name):
            read_bundle(shared)
    finally:
        (shared / name).write_bytes(good)
    assert number_of(read_bundle(shared)) == 3


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(FILES), place=st.floats(0, 1, exclude_max=True))
def test_every_truncation_is_found(shared, name, place):
    good = (shared / name).read_bytes()
    try:
        (shared / name).write_bytes(good[: int(place * len(good))])
        with pytest.raises(CorruptModelError, match=name):
            read_bundle(shared)
    finally:
        (shared / name).write_bytes(good)


@pytest.mark.parametrize("name", FILES)
def test_missing_files_are_named(saved, name):
    (saved / name).unlink()
    with pytest.raises(CorruptModelError, match=f"{name}.* missing"):
        read_bundle(saved, trust_pickle=True)


def test_swapped_files_are_found(saved, tmp_path):
    write_bundle(tmp_path / "other", make_bundle(4))
    os.replace(tmp_path / "other" / "weights.safetensors", saved / "weights.safetensors")
    with pytest.raises(CorruptModelError, match="weights.safetensors"):
        read_bundle(saved)


def test_no_model(tmp_path):
    with pytest.raises(ModelFileError, match="no saved model"):
        read_bundle(tmp_path / "nowhere")
    with pytest.raises(ModelFileError, match="no saved model"):
        read_bundle(tmp_path)


def test_a_newer_format_is_refused(saved):
    change_header(saved, format_version=2, novelty=1)
    with pytest.raises(ModelFileError, match="format version 2.*upgrade"):
        read_bundle(saved)


def test_unknown_entries_are_refused(saved):
    change_header(saved, hooks=["x"])
    with pytest.raises(ModelFileError, match="1 unknown entries: hooks"):
        read_bundle(saved)


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "other"},
        {"format_version": "x"},
        {"attributes": {"$type": "exec"}},
        {"attributes": {"$type": "objects", "string": False, "shape": [9], "items": []}},
        {"extras": {"$type": "scalar", "dtype": "int8", "value": 10**9}},
        {"versions": None, "attributes": {"$type": "array", "name": "nowhere"}},
    ],
)
def test_contents_that_no_save_writes(saved, changes):
    change_header(saved, **changes)
    with pytest.raises(CorruptModelError, match="not as a save writes it"):
        read_bundle(saved)


@pytest.mark.parametrize("content", [b"", b"[", b"[" * 100_000, b"null", b"\xff"])
def test_broken_contents_with_renewed_sums(saved, content):
    rewrite(saved, "model.json", content)
    with pytest.raises(CorruptModelError):
        read_bundle(saved)
    change = saved / "manifest.json"
    change.write_bytes(content)
    with pytest.raises(CorruptModelError, match="manifest.json"):
        read_bundle(saved)


def test_a_manifest_cannot_point_elsewhere(saved):
    files = {"../secret": {"sha256": "0", "size": 1}}
    digest = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
    (saved / "manifest.json").write_text(json.dumps({"files": files, "sha256": digest}, sort_keys=True))
    with pytest.raises(CorruptModelError, match="outside"):
        read_bundle(saved)


class Canary:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_no_pickle_is_read_unless_trusted(tmp_path):
    directory, canary = tmp_path / "model", tmp_path / "ran"
    directory.mkdir()
    torch.save({"model_state_dict": Canary(canary)}, directory / "model.pt")
    with pytest.raises(UnsafeFileError, match="model.pt.*trust_pickle=True"):
        read_bundle(directory)
    assert not canary.exists()
    with pytest.raises(CorruptModelError, match="model.pt"):
        read_bundle(directory, trust_pickle=True)
    assert canary.exists()  # so the absence above means something


def test_a_damaged_model_never_falls_back_to_a_pickle(saved, tmp_path):
    canary = tmp_path / "ran"
    torch.save({"model_state_dict": Canary(canary)}, saved / "model.pt")
    assert number_of(read_bundle(saved, trust_pickle=True)) == 3
    (saved / "manifest.json").unlink()
    with pytest.raises(CorruptModelError, match="manifest.json"):
        read_bundle(saved, trust_pickle=True)
    assert not canary.exists()
