"""A call of `train` as something that can be taken up again: its checkpoint, and what must agree when it is."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from lightning.pytorch.utilities import rank_zero_only
from scvi import REGISTRY_KEYS, settings

from cfmvc_scvi.errors import DataError, ModelFileError
from cfmvc_scvi.model.persistence import Bundle, read_bundle, write_bundle
from cfmvc_scvi.train import EpochState, GivenIO, Stage, merged_history, rng_state, set_rng_state

__all__ = ["TrainingRun", "agreed_options", "given_options", "plain_options", "read_checkpoint"]

_EXTRA = "training"
_SPLITS = {"train_indices_": "train", "validation_indices_": "val", "test_indices_": "test"}
# arguments of train that change where and how loudly it runs, but not what is learnt
_FREE = frozenset(
    "accelerator devices num_nodes strategy callbacks logger plugins profiler enable_progress_bar simple_progress_bar "
    "progress_bar_refresh_rate enable_model_summary enable_checkpointing checkpointing_monitor log_every_n_steps "
    "log_save_dir default_root_dir benchmark deterministic detect_anomaly num_sanity_val_steps".split()
)
_OBJECT = "$object"


@dataclass
class TrainingRun:
    """One call of `train`: its stages, and, with a directory, the checkpoint from which it can be resumed.

    The checkpoint is a saved model as it is at that moment, which `load` reads, with the state of the training beside
    it. It is replaced as a whole: before the first epoch, after each epoch and after each stage.

    Attributes
    ----------
    model
        The model, a `CFMVC`.
    stages
        Stages in the order in which they run.
    seed
        Seed of pairs and of the cells that are remembered; that of scvi-tools, or drawn once.
    options
        Arguments of `train` that shape what is learnt, as plain values.
    directory
        The checkpoint; None writes none.
    position
        Number of stages that are over.
    state
        State of lightning within the stage at `position`; None at its beginning.
    fitted
        History of that stage, if its last epoch is over but not what follows it.
    latents
        `Latents` that the representation left, for the flow that follows it; None where the weights have moved on.
    """

    model: Any
    stages: Sequence[Stage]
    options: dict[str, Any]
    directory: Path | None
    seed: int = field(default_factory=lambda: settings.seed if settings.seed is not None else _any_seed())
    position: int = 0
    state: dict[str, Any] | None = None
    fitted: dict[str, Any] | None = None
    latents: Any = None
    _before: dict[str, Any] = field(default_factory=dict)
    _cells: dict[str, Any] = field(default_factory=dict)

    def start(self) -> None:
        """Write the first checkpoint; raise ModelFileError if something stands in its place."""
        if self.directory is None:
            return
        if self.directory.exists() and (not self.directory.is_dir() or any(self.directory.iterdir())):
            raise ModelFileError(
                f"checkpoint_dir '{self.directory}' is not empty. To go on with the training that is stored there, "
                "pass resume_from with the same name; for a new training choose another directory"
            )
        self._cells = _fingerprint(self.model)
        self._keep_before()
        self.write()

    def resume(self, path: Path, bundle: Bundle) -> None:
        """Bring model, position and random numbers to where the checkpoint at `path` was written."""
        record = bundle.extras[_EXTRA]
        self._cells = _fingerprint(self.model)
        _check_same_cells(self._cells, record["cells"])
        _check_same_model(self.model.init_params_, bundle.attributes["init_params_"])
        self.model._adopt(bundle)
        self.model.module.eval()  # as every stage leaves it
        for name, value in record["before"].items():
            setattr(self.model, name, value)
        self.position, self.seed = record["position"], record["seed"]
        self.state, self.fitted = record["state"], record["fitted"]
        set_rng_state(record["rng"])
        if self.directory is not None and self.directory.resolve() != path.resolve():
            self._keep_before()
            self.write(self.state)

    def remaining(self) -> Iterator[Stage]:
        """Yield the stages that are still to be run; each is over when the next is asked for."""
        while self.position < len(self.stages):
            self._keep_before()
            yield self.stages[self.position]
            self.position += 1
            self.state = self.fitted = None
            self._keep_before()
            self.write()

    def fit(self, fit: Callable[[], None]) -> None:
        """Run the epochs of a stage that something else follows, unless they are over already."""
        if self.fitted is None:
            fit()
            self.fitted = dict(self.model.history_ or {})
            self.write()
        else:
            self.model.history_, self.model.is_trained_ = dict(self.fitted), True

    def trainer_options(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options of the trainer, with what writes the checkpoint and what reads it."""
        if self.directory is None:
            return dict(options)
        hooks = [*(options.get("callbacks") or []), EpochState(self.directory)]
        files = GivenIO(self.directory, self.write, self.state)
        plugins = options.get("plugins") or []
        plugins = [*(plugins if isinstance(plugins, list) else [plugins]), files]
        start = {} if self.state is None else {"ckpt_path": str(self.directory)}
        return {**options, **start, "callbacks": hooks, "plugins": plugins}

    def _keep_before(self) -> None:
        model = self.model
        self._before = {name: getattr(model, name) for name in ("history_", "is_trained_", "trained_stages_")}

    @rank_zero_only
    def write(self, state: dict[str, Any] | None = None) -> None:
        """Replace the checkpoint by one of this moment, with the given state of lightning."""
        if self.directory is None:
            return
        bundle = self.model._bundle()
        record = {
            "options": self.options,
            "cells": self._cells,
            "before": self._before,
            "position": self.position,
            "seed": self.seed,
            "state": state,
            "fitted": self.fitted,
            "rng": rng_state(),
        }
        attributes = dict(bundle.attributes)
        if state is not None or self.fitted is not None:
            history = self.fitted if state is None else state["cfmvc"]["history"]
            stage = self.stages[self.position]
            attributes["history_"] = merged_history(self._before["history_"] or {}, history or {}, stage)
            attributes["is_trained_"] = True
        if state is not None:
            attributes |= {name: state["cfmvc"]["splits"][part] for name, part in _SPLITS.items()}
        extras = {**bundle.extras, _EXTRA: record}
        write_bundle(self.directory, replace(bundle, attributes=attributes, extras=extras), overwrite=True)


def read_checkpoint(path: Path) -> Bundle:
    """Read a checkpoint; raise ModelFileError if there is none, or a model without the state of a training."""
    bundle = read_bundle(path)
    if _EXTRA not in bundle.extras:
        raise ModelFileError(
            f"'{path}' is a saved model, not the checkpoint of a training (train(checkpoint_dir=...) writes those). To "
            "train it further, load it with load() and call train()"
        )
    return bundle


def given_options(options: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `train` that shape what is learnt, where they differ from their defaults."""
    return {
        name: value
        for name, value in options.items()
        if name not in _FREE and (name not in defaults or value is not defaults[name])
    }


def agreed_options(given: Mapping[str, Any], stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of an interrupted training, after checking that those given now are the same.

    Raises
    ------
    DataError
        If one differs, or cannot be stored in a file (a function) and was not given again.
    """
    for name, value in given.items():
        if name not in stored or not _same(_plain(value), stored[name]):
            then = f"{name}={stored[name]!r}" if name in stored else f"no {name}"
            raise DataError(
                f"The training is resumed with {name}={value!r}, but was begun with {then}. Leave the argument out, or "
                "begin a new training."
            )
    for name, value in stored.items():
        if name not in given and _has_object(value):
            raise DataError(
                f"The training was begun with {name}={value!r}, which no file can hold: pass the same {name} again."
            )
    return {**stored, **given}


def plain_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options as values that can be written, with the names of functions in their places."""
    return {name: _plain(value) for name, value in options.items()}


def _any_seed() -> int:
    return int(np.random.default_rng().integers(2**31))


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str | np.generic):
        return value
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    kind = value if hasattr(value, "__qualname__") else type(value)
    return {_OBJECT: f"{kind.__module__}.{kind.__qualname__}"}


def _has_object(value: Any) -> bool:
    if isinstance(value, Mapping):
        return _OBJECT in value or any(_has_object(item) for item in value.values())
    return isinstance(value, list) and any(_has_object(item) for item in value)


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(np.array_equal(a, b))


def _fingerprint(model: Any) -> dict[str, Any]:
    """Return the numbers of cells and genes, and a sum over names, registered columns and depths."""
    adata, manager = model._rna(model._training_cells), model._training_manager
    digest = hashlib.sha256()
    for names in (adata.obs_names, adata.var_names):
        digest.update("\0".join(map(str, names)).encode())
    for key in sorted(set(manager.data_registry) - {REGISTRY_KEYS.X_KEY}):
        digest.update(np.ascontiguousarray(manager.get_from_registry(key)).tobytes())
    counts = model._training_counts
    if sp.issparse(counts) or isinstance(counts, np.ndarray):  # on disk they are not read for this
        digest.update(np.asarray(counts.sum(axis=1), dtype=np.float64).tobytes())
    return {"n_cells": adata.n_obs, "n_genes": adata.n_vars, "sha256": digest.hexdigest()}


def _check_same_cells(now: Mapping[str, Any], then: Mapping[str, Any]) -> None:
    if now["sha256"] == then["sha256"]:
        return
    sizes = [f"{cells['n_cells']:,} cells x {cells['n_genes']:,} genes" for cells in (then, now)]
    what = f"{sizes[0]}, these data have {sizes[1]}" if sizes[0] != sizes[1] else "the same size, but other contents"
    raise DataError(
        f"The training was interrupted on data with {what}. Names, order, counts and registered columns of cells and "
        "genes must be those it was begun with."
    )


def _check_same_model(now: Mapping[str, Any], then: Mapping[str, Any]) -> None:
    def flat(params: Mapping[str, Any]) -> dict[str, Any]:
        merged = dict(params.get("non_kwargs", {}))
        for value in params.get("kwargs", {}).values():
            merged |= value
        return merged

    here, there = flat(now), flat(then)
    for name in sorted(here.keys() | there.keys()):
        if not _same(_plain(here.get(name)), _plain(there.get(name))):
            raise DataError(
                f"This model was made with {name}={here.get(name)!r}, the one whose training was interrupted with "
                f"{name}={there.get(name)!r}. Make the model as it was made then."
            )
