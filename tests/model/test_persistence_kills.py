"""Processes killed during a save: what stands on disk is the old model or the new one, complete."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from cfmvc_scvi.errors import CFMVCWarning, ModelFileError
from cfmvc_scvi.model.persistence import Bundle, read_bundle, write_bundle


def make_bundle(number: int) -> Bundle:
    state = {"weight": torch.full((5, 4), float(number)), "n": torch.tensor(number)}
    return Bundle("Model", state, {"indices_": np.full(7, number)}, [], {"table": np.full((2, 2), number / 2)})


def number_of(bundle: Bundle) -> int:
    """Number that `make_bundle` was called with; fails unless every part of the bundle agrees."""
    number = int(bundle.state_dict["n"])
    expected = make_bundle(number)
    assert torch.equal(bundle.state_dict["weight"], expected.state_dict["weight"])
    np.testing.assert_array_equal(bundle.attributes["indices_"], expected.attributes["indices_"])
    np.testing.assert_array_equal(bundle.extras["table"], expected.extras["table"])
    return number


def write_bytes(path: Path) -> None:
    path.write_bytes(bytes(range(256)))


write_data = ("adata.h5ad", write_bytes)


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a forked process")
FORK = "ignore:.*multi-threaded, use of fork:DeprecationWarning"


def fork(target, *args) -> int:
    """Run a function in a copy of this process, which never returns here; its process id."""
    child = os.fork()
    if child == 0:
        try:
            target(*args)
        finally:
            os._exit(0 if sys.exc_info()[0] is None else 1)
    return child


def signal_of(child: int) -> int:
    """Wait for the end of a process: 0 if it ended by itself, else the signal that killed it."""
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def read_after_kill(path: Path) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CFMVCWarning)
        return number_of(read_bundle(path))


def save_and_die(path: Path, number: int, step: int) -> None:
    """Save, and kill this process just before the given step that touches the file system."""
    steps = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir"}
    count = 0

    def hook(event: str, args: tuple) -> None:
        nonlocal count
        if event in steps:
            count += 1
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    write_bundle(path, make_bundle(number), overwrite=True)


@needs_fork
@pytest.mark.filterwarnings(FORK)
def test_a_kill_at_any_step_leaves_the_old_or_the_new_model(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # matters to a power failure only, and takes long
    path = tmp_path / "model"
    write_bundle(path, make_bundle(0))
    seen, step, killed = set(), 0, True
    while killed:
        step += 1
        killed = signal_of(fork(save_and_die, path, 1, step)) == signal.SIGKILL
        seen.add(read_after_kill(path))
        write_bundle(path, make_bundle(0), overwrite=True)  # whatever the kill has left
        assert number_of(read_bundle(path)) == 0
        assert os.listdir(tmp_path) == ["model"]
    assert seen == {0, 1}
    assert step > 15


@needs_fork
@pytest.mark.filterwarnings(FORK)
def test_a_kill_during_the_first_save_leaves_nothing_or_the_model(tmp_path):
    path, outcomes = tmp_path / "model", set()
    for step in range(1, 15):
        assert signal_of(fork(save_and_die, path, 1, step)) == signal.SIGKILL
        outcomes.add(read_after_kill(path) if path.exists() else None)
        if path.exists():
            break
    assert None in outcomes
    write_bundle(path, make_bundle(2), overwrite=True)
    assert read_after_kill(path) == 2
    assert os.listdir(tmp_path) == ["model"]


def test_an_interrupted_swap_is_announced_and_repaired(tmp_path):
    path = tmp_path / "model"
    write_bundle(path, make_bundle(1), write_data=write_data)
    os.rename(path, tmp_path / ".model.previous")
    with pytest.warns(CFMVCWarning, match="interrupted"):
        assert number_of(read_bundle(path)) == 1
    with pytest.raises(ModelFileError, match="already exists"):
        write_bundle(path, make_bundle(2))
    assert number_of(read_bundle(path)) == 1  # put back by the attempt
    assert os.listdir(tmp_path) == ["model"]


def test_a_living_save_is_not_swept(tmp_path):
    path = tmp_path / "model"

    def save_meanwhile(data: Path) -> None:
        write_bundle(path, make_bundle(1))
        data.write_bytes(b"data")

    write_bundle(tmp_path / "sibling", make_bundle(0))
    with pytest.raises(ModelFileError, match="already exists"):  # the other save was faster
        write_bundle(path, make_bundle(2), write_data=("adata.h5ad", save_meanwhile))
    assert number_of(read_bundle(path)) == 1
    assert sorted(os.listdir(tmp_path)) == ["model", "sibling"]


def save_for_ever(path: Path) -> None:
    number = 0
    while True:
        number += 1
        write_bundle(path, make_bundle(number), overwrite=True, write_data=write_data)


def kill_at_random(tmp_path: Path, kills: int) -> None:
    path, rng = tmp_path / "model", random.Random(0)
    write_bundle(path, make_bundle(0))
    for _ in range(kills):
        child = fork(save_for_ever, path)
        time.sleep(rng.uniform(0.02, 0.2))
        os.kill(child, signal.SIGKILL)
        assert signal_of(child) == signal.SIGKILL
        assert read_after_kill(path) >= 0
    write_bundle(path, make_bundle(0), overwrite=True)
    assert os.listdir(tmp_path) == ["model"]


@needs_fork
@pytest.mark.filterwarnings(FORK)
def test_two_random_kills(tmp_path):
    kill_at_random(tmp_path, 2)


@needs_fork
@pytest.mark.reliability
@pytest.mark.filterwarnings(FORK)
def test_many_random_kills(tmp_path):
    kill_at_random(tmp_path, 20)
