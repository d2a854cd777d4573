"""Latents of the training cells, encoded once, and the coupled pairs that the flow is fitted to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from numpy.random import Generator
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cfmvc_scvi.config import PairConfig
from cfmvc_scvi.errors import DataError
from cfmvc_scvi.flow import optimal_coupling, random_coupling
from cfmvc_scvi.metrics import median_bandwidths

__all__ = ["LatentDataModule", "LatentTable", "PairSampler", "evenly_chosen", "principal_axes"]

_BANDWIDTH_CELLS = 200
_ENOUGH = 2**18  # cells that say where latents lie
_COUPLINGS = {"optimal": optimal_coupling, "random": random_coupling}


@dataclass(frozen=True)
class LatentTable:
    """What stage 2 sees of the cells: no counts.

    Attributes
    ----------
    mean, variance
        `(cells, dims)` posterior in the flow's coordinates u.
    condition, context
        `(cells,)` codes; condition 0 is control; -1 is a condition or context that training knows nothing of.
    designs
        `(conditions, perturbations)`; row 0 is zero.
    context_features
        `(contexts, features)`: mean control latent of each context.
    offsets
        `(conditions, contexts, dims)`: the moving frame (zero for control with `source="control"`; the centre of the
        condition with `source="noise"`). NaN where a condition cannot occur in training.
    niche
        `(cells, features)` pooled latents of the spatial neighbours, or None.
    """

    mean: np.ndarray
    variance: np.ndarray
    condition: np.ndarray
    context: np.ndarray
    designs: np.ndarray
    context_features: np.ndarray
    offsets: np.ndarray
    niche: np.ndarray | None = None

    def features(self, cells: np.ndarray) -> np.ndarray:
        """Return the context features of these cells, `(cells, features)`."""
        own = self.context_features[self.context[cells]]
        return own if self.niche is None else np.hstack([own, self.niche[cells]])


class PairSampler:
    """Couples sources and targets of each (condition, context) group; without any pair it has length 0 and draws none.

    Parameters
    ----------
    table
        Latents and codes.
    cells
        Indices of the cells that may be used; those of unknown conditions and contexts are left out.
    source
        ``"control"``: control cells of the same context by transport, of all batches: a field that met those of some
        batches only would be asked for the others too;
        ``"noise"``: standard Gaussian noise.
    config
        Sizes and kind of coupling.
    observed
        Also draw observed cells for each pair, for `module.mmd_loss`.
    """

    def __init__(
        self, table: LatentTable, cells: np.ndarray, source: str, config: PairConfig, *, observed: bool = False
    ) -> None:
        cells = np.asarray(cells, dtype=int)
        known = (table.condition[cells] >= 0) & (table.context[cells] >= 0)
        if source == "noise":  # the centre of a condition is not known in contexts without control cells
            known &= np.isfinite(table.offsets[table.condition[cells], table.context[cells]]).all(axis=1)
        self.table, self.cells, self.source, self.config, self.observed = table, cells[known], source, config, observed
        condition, context = table.condition[self.cells], table.context[self.cells]
        self.axes = principal_axes(table.mean, self.cells, config.coupling_dims)
        self.controls = self.cells[condition == 0]
        self.groups: list[tuple[np.ndarray, np.ndarray]] = []  # (control cells, perturbed cells)
        for code in np.unique(context[condition > 0]):
            control = self.controls[table.context[self.controls] == code]
            for kind in np.unique(condition[(context == code) & (condition > 0)]):
                perturbed = self.cells[(context == code) & (condition == kind)]
                if len(control):
                    self.groups.append((control, perturbed))

    def __len__(self) -> int:
        """Return the number of target cells that have a source."""
        return len(self.cells) if self.source == "noise" else sum(len(perturbed) for _, perturbed in self.groups)

    def pairs(self, n_pairs: int, rng: Generator) -> dict[str, Tensor]:
        """Draw `n_pairs` coupled pairs.

        Returns
        -------
        ``z_0``, ``z_1`` `(pairs, dims)`, ``design`` `(pairs, perturbations)` and ``context`` `(pairs, features)`. With
        observed cells also ``observed`` `(pairs, dims)`, ``group``, ``source_cell`` and ``observed_cell`` `(pairs,)`;
        the pairs are the same as without.
        """
        draw = self._noise_pairs if self.source == "noise" else self._control_pairs
        (extra,) = rng.spawn(1) if self.observed else (None,)
        z_0, z_1, cells, condition = draw(n_pairs, rng)
        arrays = {
            "z_0": z_0,
            "z_1": z_1,
            "design": self.table.designs[condition],
            "context": self.table.features(cells),
        }
        result = {key: np.ascontiguousarray(value, dtype=np.float32) for key, value in arrays.items()}
        if extra is not None:
            result |= self._observed(cells, condition, extra)
        return {key: torch.from_numpy(value) for key, value in result.items()}

    def _observed(self, cells: np.ndarray, condition: np.ndarray, rng: Generator) -> dict[str, np.ndarray]:
        """Draw a cell of the (condition, context) of each pair, in an order that knows nothing of the pairs."""
        table = self.table
        context = table.context[cells]
        wanted = np.column_stack([condition, context])
        group, drawn = np.full(len(cells), -1), cells.copy()
        own = np.column_stack([table.condition[self.cells], table.context[self.cells]])
        for number, kind in enumerate(np.unique(wanted, axis=0)):
            if kind[0] == 0 and self.source == "control":  # control cells that stay where they are
                continue
            rows = np.flatnonzero((wanted == kind).all(axis=1))
            there = self.cells[(own == kind).all(axis=1)]
            group[rows], drawn[rows] = number, rng.permutation(np.resize(rng.permutation(there), len(rows)))
        latents = table.mean[drawn]
        if self.source == "noise" or self.config.posterior_noise:
            latents = latents + np.sqrt(table.variance[drawn]) * rng.standard_normal(latents.shape)
        if self.source == "noise":
            latents = latents - table.offsets[condition, context]
        source = np.arange(len(cells)) if self.source == "noise" else cells
        return {
            "observed": np.ascontiguousarray(latents, dtype=np.float32),
            "group": group,
            "source_cell": source,
            "observed_cell": drawn,
        }

    def _noise_pairs(self, n_pairs: int, rng: Generator) -> tuple[np.ndarray, ...]:
        table, cells = self.table, rng.choice(self.cells, n_pairs)
        noise = rng.standard_normal((2, n_pairs, table.mean.shape[1])).astype(np.float32)
        z_1 = table.mean[cells] + np.sqrt(table.variance[cells]) * noise[1]
        condition = table.condition[cells]
        return noise[0], z_1 - table.offsets[condition, table.context[cells]], cells, condition

    def _control_pairs(self, n_pairs: int, rng: Generator) -> tuple[np.ndarray, ...]:
        table, config = self.table, self.config
        n_identity = round(n_pairs * config.identity_share)
        sizes = np.array([len(perturbed) for _, perturbed in self.groups], dtype=float)
        wanted = rng.multinomial(n_pairs - n_identity, sizes / sizes.sum())
        sources, targets = [rng.choice(self.controls, n_identity)], []
        targets.append(sources[0])
        for (control, perturbed), n_wanted in zip(self.groups, wanted, strict=True):
            if n_wanted:
                source, target = self._couple(control, perturbed, n_wanted, rng)
                sources.append(source)
                targets.append(target)
        source, target = np.concatenate(sources), np.concatenate(targets)
        condition = table.condition[target]
        z_0, z_1 = table.mean[source], table.mean[target]
        if config.posterior_noise:
            noise = rng.standard_normal((2, *z_0.shape)).astype(np.float32)
            noise[1, :n_identity] = noise[0, :n_identity]  # an identity pair is one cell
            z_0 = z_0 + np.sqrt(table.variance[source]) * noise[0]
            z_1 = z_1 + np.sqrt(table.variance[target]) * noise[1]
        z_0 = z_0 + table.offsets[condition, table.context[source]]
        order = rng.permutation(n_pairs)
        return z_0[order], z_1[order], source[order], condition[order]

    def _couple(
        self, control: np.ndarray, perturbed: np.ndarray, n_pairs: int, rng: Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw pairs of a group; each perturbed cell appears as often as any other, give or take one."""
        table, config = self.table, self.config
        # an epoch needs only so many pairs of a group: bounds the cost on large data
        n_most = 4 * config.max_coupling_cells
        control, perturbed = (rng.permutation(cells)[:n_most] for cells in (control, perturbed))
        offset = table.offsets[table.condition[perturbed[0]], table.context[perturbed[0]]]
        start, end = (table.mean[control] + offset) @ self.axes, table.mean[perturbed] @ self.axes
        n_rounds = -(-n_pairs // len(perturbed))
        couple = _COUPLINGS[config.coupling]
        source, target = couple(start, end, rng, max_cells=config.max_coupling_cells, n_rounds=n_rounds)
        # `perturbed` is in random order, so that the last round is cut at random
        return control[source[:n_pairs]], perturbed[target[:n_pairs]]


def _bandwidths(sampler: PairSampler, rng: Generator) -> np.ndarray:
    """Return half, one and two times the median over groups of the median distance of their cells."""
    table, cells = sampler.table, sampler.cells
    groups = np.unique(np.column_stack([table.condition[cells], table.context[cells]]), axis=0, return_inverse=True)[1]
    found = []
    for number in range(groups.max() + 1):
        chosen = rng.permutation(cells[groups.ravel() == number])[:_BANDWIDTH_CELLS]
        if len(chosen) > 1:
            noise = np.sqrt(table.variance[chosen]) * rng.standard_normal((len(chosen), table.mean.shape[1]))
            found.append(float(median_bandwidths(table.mean[chosen] + noise, (1.0,))[0]))
    return np.median(found) * np.array([0.5, 1.0, 2.0])


def evenly_chosen(cells: np.ndarray) -> np.ndarray:
    """Return as many cells as say where all lie: each, or of very many evenly chosen ones."""
    return cells[:: max(1, -(-len(cells) // _ENOUGH))]


def principal_axes(values: np.ndarray, cells: np.ndarray, n_axes: int) -> np.ndarray:
    """Return the leading principal axes of `values` `(all cells, dims)`, `(dims, n_axes)`, in these of the cells.

    Of very many cells, evenly chosen ones say it (`evenly_chosen`).
    """
    some = values[evenly_chosen(cells)]
    centred = some - some.mean(axis=0) if len(some) else some
    return np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, :n_axes]


class _Epoch:
    """Minibatches of one epoch, coupled anew each time they are iterated; lightning takes any iterable."""

    def __init__(self, sampler: PairSampler, seed: int) -> None:
        self.sampler, self.seed, self.epoch = sampler, seed, 0

    def __len__(self) -> int:
        return self.sampler.config.steps_per_epoch

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
        rng = np.random.default_rng([self.seed, rank, self.epoch])
        self.epoch += 1
        size = self.sampler.config.batch_size
        pairs = self.sampler.pairs(size * len(self), rng)
        for start in range(0, size * len(self), size):
            yield {key: value[start : start + size] for key, value in pairs.items()}


class _Single(Dataset):
    """A data set of one minibatch."""

    def __init__(self, minibatch: dict[str, Tensor]) -> None:
        self.minibatch = minibatch

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self.minibatch


class LatentDataModule(LightningDataModule):
    """Feeds the flow with coupled latents of the training cells, and a fixed set of pairs of the validation cells.

    Parameters
    ----------
    table
        Latents and codes of all cells.
    splits
        Indices of training, validation and test cells, as stage 1 used them.
    source, config
        See `PairSampler`.
    seed
        Seed of the pairs; each process and each epoch derives its own stream from it.
    observed
        Also draw observed cells for each pair, for `module.mmd_loss`.

    Raises
    ------
    DataError
        If the training cells hold no pair.
    """

    def __init__(
        self,
        table: LatentTable,
        splits: tuple[np.ndarray, np.ndarray, np.ndarray],
        *,
        source: str,
        config: PairConfig,
        seed: int,
        observed: bool = False,
    ) -> None:
        super().__init__()
        self.table, self.source, self.config, self.seed = table, source, config, seed
        self.train_idx, self.val_idx, self.test_idx = splits
        self.n_train, self.n_val = len(self.train_idx), len(self.val_idx)
        self.data_loader_kwargs: dict = {}  # read by scvi's mlflow logger
        sampler = PairSampler(table, self.train_idx, source, config, observed=observed)
        if len(sampler) == 0:
            raise DataError(
                "No context has both control and perturbed cells among the training cells, so there is no effect to "
                "learn; add cells, or use coarser labels."
            )
        self._train = _Epoch(sampler, seed)
        self.validation_sampler = PairSampler(table, self.val_idx, source, config, observed=observed)

    def bandwidths(self) -> Tensor:
        """Return lengths of the kernel of `module.mmd_loss`, from the distances of training cells within groups."""
        return torch.tensor(_bandwidths(self._train.sampler, np.random.default_rng(self.seed)), dtype=torch.float32)

    def train_dataloader(self) -> Iterable[dict[str, Tensor]]:
        """Return the minibatches of one epoch."""
        return self._train

    def state_dict(self) -> dict[str, int]:
        """Return where the streams of pairs are: their seed, and the epochs that were drawn."""
        return {"seed": self.seed, "epoch": self._train.epoch}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Go on where `state_dict` was taken."""
        self.seed = self._train.seed = state_dict["seed"]
        self._train.epoch = state_dict["epoch"]

    def val_dataloader(self) -> DataLoader | list:
        """Return one fixed minibatch of validation pairs; none where the validation cells hold no pair."""
        if len(self.validation_sampler) == 0:
            return []
        n_pairs = min(4 * len(self.validation_sampler), 4096)
        pairs = self.validation_sampler.pairs(n_pairs, np.random.default_rng(self.seed))
        return DataLoader(_Single(pairs), batch_size=None)
