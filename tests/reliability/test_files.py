"""Files of models that were damaged on their way, or made by somebody with bad intentions."""

from __future__ import annotations

import json
import os
import pickle
import random
import subprocess
import sys

import h5py
import numpy as np
import pytest
import torch

from cfmvc_scvi import CFMVC
from cfmvc_scvi.errors import CFMVCError, CorruptModelError, UnsafeFileError
from cfmvc_scvi.model.persistence import read_bundle
from cfmvc_scvi.model.persistence.manifest import write_manifest

pytestmark = pytest.mark.reliability
FLIPS, TRUNCATIONS = 2000, 500
MAIN = "from cfmvc_scvi.cli import main; main()"


@pytest.fixture(scope="module")
def saved(_counts_adata, make_model, quick, tmp_path_factory):
    """The checkpoint of a finished training: weights, reference cells, optimizer-free state, all in one directory."""
    path = tmp_path_factory.mktemp("files") / "run"
    make_model(_counts_adata.copy()).train(checkpoint_dir=path, **quick)
    return path


def positions(path, rng, n):
    """`n` places in the files, so that each file is hit, large ones more often."""
    sizes = {file: file.stat().st_size for file in sorted(path.iterdir())}
    places = [(file, rng.randrange(size)) for file, size in sizes.items() for _ in range(n // 10)]
    files = rng.choices(list(sizes), weights=list(sizes.values()), k=n - len(places))
    return places + [(file, rng.randrange(sizes[file])) for file in files]


def assert_refused(path, file):
    with pytest.raises(CorruptModelError) as error:
        read_bundle(path)
    assert file.name in str(error.value) or "manifest" in str(error.value)


def test_every_flipped_bit_is_found(saved, tried):
    rng = random.Random(0)
    for file, place in positions(saved, rng, FLIPS):
        with file.open("r+b") as handle:
            handle.seek(place)
            byte = handle.read(1)[0]
            handle.seek(place)
            handle.write(bytes([byte ^ 1 << rng.randrange(8)]))
        try:
            assert_refused(saved, file)
        finally:
            with file.open("r+b") as handle:
                handle.seek(place)
                handle.write(bytes([byte]))
        tried("bit flips in a saved model", caught=1)
    assert read_bundle(saved).class_name == "CFMVC"


def test_every_truncation_is_found(saved, tried):
    rng = random.Random(1)
    for file, place in positions(saved, rng, TRUNCATIONS):
        whole = file.read_bytes()
        os.truncate(file, place)
        try:
            assert_refused(saved, file)
        finally:
            file.write_bytes(whole)
        tried("truncated files of a saved model", caught=1)
    assert read_bundle(saved).class_name == "CFMVC"


class Canary:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def renewed(path):
    (path / "manifest.json").unlink()
    write_manifest(path)


def test_no_file_of_an_attacker_runs_code(saved, tiny_adata, make_model, quick, tmp_path, tried):
    """With sums that fit, as an attacker would make them."""
    canary = tmp_path / "canary"
    make_model(tiny_adata).save(tmp_path / "model", save_anndata=True)
    bomb = pickle.dumps(Canary(canary))

    def with_file(path, name, content):
        (path / name).write_bytes(content)
        renewed(path)

    def with_setup_method(path, name):
        header = json.loads((path / "model.json").read_text())
        header["attributes"]["registry_"]["setup_method_name"] = name
        with_file(path, "model.json", json.dumps(header).encode())

    def with_type(path, tag):
        header = json.loads((path / "model.json").read_text())
        header["extras"]["reference"] = {"$type": tag, "value": f"__import__('os').mkdir({str(canary)!r})"}
        with_file(path, "model.json", json.dumps(header).encode())

    def with_link(path):
        with h5py.File(path / "adata.h5ad", "a") as file:
            file["obs/leak"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "/x")
        renewed(path)

    def as_pickle(path):
        for file in path.iterdir():
            file.unlink()
        torch.save({"model_state_dict": Canary(canary)}, path / "model.pt")

    parts, methods = ("weights.safetensors", "arrays.safetensors", "model.json"), ("__init__", "load", "to_device")
    attacks = [
        *(lambda path, name=name: with_file(path, name, bomb) for name in parts),
        lambda path: (path / "manifest.json").write_bytes(bomb),
        *(lambda path, name=name: with_setup_method(path, name) for name in methods),
        *(lambda path, tag=tag: with_type(path, tag) for tag in ("object", "builtins.eval", "os.system", "pickle")),
        with_link,
        as_pickle,
    ]
    for number, attack in enumerate(attacks):
        path = tmp_path / f"attack{number}"
        make_model(tiny_adata).save(path, save_anndata=True)
        attack(path)
        with pytest.raises(CFMVCError):
            CFMVC.load(path, accelerator="cpu")
        with pytest.raises(CFMVCError):
            make_model(tiny_adata).train(resume_from=path, **quick)
        assert not canary.exists()
        tried("malicious model files", refused_without_running_code=1)
    pickle.loads(bomb)
    assert canary.exists()  # so that its absence above means something


def test_commands_refuse_files_that_lead_to_other_files(tiny_adata, tmp_path, tried):
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["x"] = np.arange(5)
    tiny_adata.write_h5ad(tmp_path / "honest.h5ad")
    for command in (["train", "--out", "model"], ["benchmark", "--holdout", "cell_type", "--report", "out"]):
        path = tmp_path / "linked.h5ad"
        path.write_bytes((tmp_path / "honest.h5ad").read_bytes())
        with h5py.File(path, "a") as file:
            file["obs/leak"] = h5py.ExternalLink(str(secret), "/x")
        run = subprocess.run(
            [sys.executable, "-c", MAIN, command[0], str(path), *command[1:]],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            check=False,
        )
        assert run.returncode != 0
        assert "external link" in " ".join((run.stdout + run.stderr).split())
        assert "Traceback" not in run.stderr
        tried("h5ad files with external links, given to a command", refused=1)
    assert issubclass(UnsafeFileError, CFMVCError)
