"""Processes that are killed without warning, while they save and while they train."""

from __future__ import annotations

import itertools
import os
import random
import signal
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from cfmvc_scvi import CFMVC
from cfmvc_scvi.errors import CFMVCWarning, ModelFileError
from cfmvc_scvi.model.persistence import read_bundle

pytestmark = [
    pytest.mark.reliability,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a forked process"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:a save to .* was interrupted"),
]
KILLS = 20
STAGES = ["representation", "flow", "joint"]


def fork(target) -> int:
    """Run a function in a copy of this process, which never returns here; its process id."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            silence = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silence, 1)
            os.dup2(silence, 2)
            target()
            code = 0
        finally:
            os._exit(code)
    return child


def killed(child: int, after: float) -> bool:
    """Kill a process some time after its start; False if it ended well before."""
    time.sleep(after)
    os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def fill(model: CFMVC, number: int) -> CFMVC:
    with torch.no_grad():
        for parameter in model.module.parameters():
            parameter.fill_(float(number))
    return model


def test_a_save_leaves_the_old_or_the_new_model(tiny_adata, make_model, quick, tmp_path, tried):
    model, path, rng = make_model(tiny_adata), tmp_path / "model", random.Random(0)
    model.train(**quick)
    start = time.monotonic()
    fill(model, 0).save(path)
    length = time.monotonic() - start

    def save_for_ever() -> None:
        for number in itertools.count(1):
            fill(model, number).save(path, overwrite=True)

    names = [name for name, _ in model.module.named_parameters()]
    seen = set()
    for _ in range(KILLS):
        assert killed(fork(save_for_ever), rng.uniform(0.2, 4.0) * length)
        weights = read_bundle(path).state_dict
        values = {float(value) for name in names for value in weights[name].unique()}
        assert len(values) == 1, "a mixture of two models"
        assert CFMVC.load(path, adata=tiny_adata, accelerator="cpu").trained_stages_ == ["representation", "flow"]
        seen |= values
        tried("SIGKILL while a model is saved", survived=1)
    assert len(seen) > 1, "no kill came after a save"
    model.save(path, overwrite=True)
    assert os.listdir(tmp_path) == ["model"]


@pytest.mark.usefixtures("seeded")
def test_a_training_survives_any_number_of_kills(tiny_adata, make_model, tmp_path, tried):
    """Killed at random, resumed and killed again: in the end it is the training that nothing interrupted."""
    pairs = {"batch_size": 64, "steps_per_epoch": 5}
    options = {"stage": STAGES, "max_epochs": 8, "batch_size": 100, "pair_kwargs": pairs}
    place = {"accelerator": "cpu", "enable_progress_bar": False}

    def fresh() -> CFMVC:
        torch.manual_seed(3)
        model = make_model(tiny_adata.copy())
        torch.manual_seed(4)
        return model

    whole = fresh()
    start = time.monotonic()
    whole.train(**options, **place)
    length = time.monotonic() - start
    rng, n_kills, positions, n_finished = random.Random(1), 0, set(), 0
    while n_kills < KILLS or positions != set(STAGES):
        run = tmp_path / f"run{n_finished}"
        if position(run) == len(STAGES):
            assert_same(resumed(fresh(), run, place), whole)
            n_finished += 1
            continue

        def train(run=run, seed=n_kills) -> None:
            model = fresh()
            if position(run) is None:
                model.train(**options, **place, checkpoint_dir=run)
            else:
                torch.manual_seed(seed)
                model.train(resume_from=run, **place)

        if killed(fork(train), rng.uniform(0.02, 0.5) * length):
            n_kills += 1
            place_of_kill = position(run)
            if place_of_kill is not None and place_of_kill < len(STAGES):
                positions.add(STAGES[place_of_kill])
                tried("SIGKILL in training", **{f"survived_in_stage_{STAGES[place_of_kill]}": 1})
        assert n_kills < 10 * KILLS
    assert_same(resumed(fresh(), run, place), whole)
    tried("SIGKILL in training", trainings_that_ended_bit_equal=n_finished + 1)


def resumed(model: CFMVC, run: Path, place: dict) -> CFMVC:
    model.train(resume_from=run, **place)
    return model


def position(run: Path) -> int | None:
    """Number of stages that are over, None without a checkpoint."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CFMVCWarning)
        try:
            return read_bundle(run).extras["training"]["position"]
        except ModelFileError:
            return None


def assert_same(a: CFMVC, b: CFMVC) -> None:
    for name, value in a.module.state_dict().items():
        assert torch.equal(value, b.module.state_dict()[name]), name
    assert a.history.keys() == b.history.keys()
    for name, frame in a.history.items():
        pd.testing.assert_frame_equal(frame, b.history[name])
    one, other = (m.predict_counterfactual(indices=range(5), perturbation="A", seed=0).X.toarray() for m in (a, b))
    np.testing.assert_array_equal(one, other)
