"""Public questions to a trained model: counterfactuals of cells, new cells of a condition."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from anndata import AnnData
from numpy.typing import NDArray

from cfmvc_scvi.config import SolverConfig
from cfmvc_scvi.data import check_counts, check_names, check_obsm
from cfmvc_scvi.errors import DataError, UnsupportedError
from cfmvc_scvi.model._base import ModelPart
from cfmvc_scvi.model.answer import check_target, installed_versions, virtual_cells, write_back
from cfmvc_scvi.model.asked import Asked, minibatches, with_parts
from cfmvc_scvi.model.cells import Group
from cfmvc_scvi.model.engine import Engine
from cfmvc_scvi.model.kept import Kept
from cfmvc_scvi.model.plan import Observation
from cfmvc_scvi.model.prediction import Parts, answered, chosen_seed, gathered, provenance
from cfmvc_scvi.model.question import (
    Change,
    asked_contexts,
    asked_design,
    asked_indices,
    asked_perturbations,
    category_code,
    check_output,
    check_scales,
    level_of,
)
from cfmvc_scvi.model.store import ChunkStore
from cfmvc_scvi.model.virtual import VirtualCells
from cfmvc_scvi.observe import cell_choice

__all__ = ["CounterfactualMixin", "Output"]

Output: TypeAlias = Literal["counts", "rate", "normalized", "latent"]


class CounterfactualMixin(ModelPart):
    """`predict_counterfactual` and `sample_cells` of `CFMVC`."""

    _kept: Any = None  # a Kept, after the first prediction

    @torch.inference_mode()
    def predict_counterfactual(
        self,
        adata: AnnData | None = None,
        indices: Sequence[int] | NDArray[Any] | None = None,
        *,
        perturbation: str | Sequence[str] | None = None,
        dose: float | None = None,
        labels: str | None = None,
        batch: str | None = None,
        output: Output = "counts",
        n_samples: int = 1,
        seed: int | None = None,
        batch_size: int | None = None,
        key_added: str | None = None,
        strength: float = 1.0,
        guidance_scale: float = 1.0,
        heterogeneity: float = 1.0,
        solver: SolverConfig | None = None,
        trust: bool = False,
        out: str | PathLike[str] | None = None,
    ) -> AnnData:
        """Predict what these very cells would look like under another condition.

        Abduction: the latent of the cell, and the noise of its counts. Action: the condition asked for; what is not
        named stays as it is. Prediction: the flow moves the latent, and the cell's own counts are thinned or added
        to, so that the mean log1p CP10k of the context's reference cells meets the empirical-Bayes level of the
        condition. A cell asked for under its own condition comes back as it is, its counts bit for bit.

        Parameters
        ----------
        adata
            Cells to ask about, with the registered columns; None is the training data. Genes are matched by name.
        indices
            Positions of cells of `adata` to ask about, or a mask; None is all.
        perturbation
            Perturbation or combination (``'A+B'``), or the control category; None keeps each cell's own. Several are
            answered in one pass over the cells, which are read and encoded once.
        dose
            Dose of each part of the perturbation, in the unit of the data; None is 1, or each cell's own without
            `perturbation`.
        labels
            Cell type to turn the cells into.
        batch
            Batch to measure the cells in.
        output
            ``"counts"``: integer counts coupled to the cell's own; ``"rate"``: expected counts at the cell's depth;
            ``"normalized"``: expected counts per 10,000; ``"latent"``: only latents, X is None. Differences between
            the responses of cells are in full in counts, as between real cells; expected counts keep of them what the
            noise of the cells' counts leaves, which is the best guess for a single cell. Latents alone are computed in
            single precision, all else in double.
        n_samples
            Draws per cell of the observation noise; draws after the first have names ending in ``-1``, ``-2``, ...
        seed
            Seed of the observation noise; the same seed gives the same counts, whatever the order or subset of the
            cells (with `spatial_key` a cell's neighbours must stay in `adata`; choose by `indices`). None draws one,
            which the result records.
        batch_size
            Cells decoded at a time, and in a chunk of `out`; it changes nothing else. None is 1024.
        key_added
            Also write the result into the data given: `layers[key]`, `obsm["X_" + key]` and `uns[key]`; NaN (zero
            counts) for cells not asked about.
        strength
            Partial effect, in [0, 1.5]: how far each cell goes from what it is (0, the very cell) to its counterfactual
            (1), along the straight line in the latent and in the mean log1p CP10k; beyond 1 it goes further on. For
            partial knock-down or inhibition whose dose is not known; where doses were measured, ask for a `dose`.
        guidance_scale
            Factor of the effect in the velocity of the flow; 1 is off. Other than `strength` it leaves the expected
            effect of a context as it is, and changes how cells differ in it.
        heterogeneity
            Share, in [0, 1], of the flow's differences between the cells of a context that goes into their rates. 0
            is the empirical-Bayes mean and the coupling alone; 1 trusts the flow fully, best for single cells where
            responders and non-responders are expected.
        solver
            Method and steps of the ODE; None is five midpoint steps.
        trust
            Also say how far the expected effect can be relied on, which the first time takes a calibration.
        out
            File (``.h5ad``) or directory (``.zarr``) to write the answer to, chunk by chunk, so that no more than a
            chunk is in memory. Chunks stand in ``<out>.partial`` until all are there: the same call after a crash goes
            on where it was, with the seed it had, and ends in the same file.

        Returns
        -------
        The counterfactual cells, with the names of the cells asked about and the genes of the model. ``obs``: that of
        the source cells, ``source_condition``, ``target_condition``, ``source_context``, ``target_context``,
        with `trust` the ``trust`` in the expected effect (see `get_trust`; 1 under the cell's own condition), with
        `n_samples` > 1 also ``draw``. ``obsm``: ``X_cfmvc`` (observed) and ``X_cfmvc_counterfactual``, intrinsic
        latents. ``var``: that of the source. ``uns["cfmvc"]``: provenance, with the solver's status and how many of
        the groups asked for were never seen (``n_conditions_unseen``) or lie beyond the doses seen
        (``n_conditions_extrapolated``).

        Of several perturbations, each is a layer and a latent named after it, ``layers["A"]`` and ``obsm["X_A"]``,
        X is None, there is no ``target_condition``, and trust is in ``trust_A``. With `out`, what is returned lacks X,
        `layers` and `obsm`, which are in the file.

        Raises
        ------
        NotTrainedError
            If the flow is not trained.
        UnknownConditionError
            If a perturbation, cell type, batch or context is unknown, or a context has no control cells.
        DataError
            If an argument is out of range, or the cells cannot be used; the message says why.
        NonFiniteError
            If the ODE leaves the finite numbers.
        UnsupportedError
            If `out` is neither ``.h5ad`` nor ``.zarr``.
        """
        self._require_flow()
        check_output(output)
        check_scales(heterogeneity, guidance_scale, strength, batch)
        names, alone = asked_perturbations(perturbation), key_added is None and out is None and output == "counts"
        if n_samples < 1 or (n_samples > 1 and not (alone and None in names)):
            raise DataError(
                f"n_samples is {n_samples}; more than one draw goes with one perturbation and output='counts', without "
                "key_added and out."
            )
        if key_added is not None and (out is not None or None not in names):
            raise DataError("key_added goes with one perturbation, and without out; name one of them only.")
        if key_added is not None and adata is not None:
            check_target(self._rna(adata), self._var_names)  # before a view becomes a copy
        store = None if out is None else ChunkStore(out, [name for name in names if name is not None])
        data = self._query(adata)
        changes = {name: Change(self._known, asked, dose, labels, batch) for name, asked in names.items()}
        asked = Asked.of(self, data, asked_indices(indices, data.n_obs), changes, strength)
        seen = asked.levels(self)
        asked_of = {"perturbation": perturbation, "dose": dose, "labels": labels, "batch": batch, "output": output}
        scales = {"strength": strength, "guidance_scale": guidance_scale, "heterogeneity": heterogeneity}
        more: dict[str, Any] = {**scales, "n_samples": n_samples}
        engine = self._engine(guidance_scale, solver, strength, single=output == "latent")
        key = chosen_seed(seed)
        if store is not None:
            question = {**asked_of, **more, "seed": seed, "solver": engine.solver, "batch_size": batch_size}
            key = store.begin(question, key, self.module, asked)
        observations = [self._kept.observation(engine, heterogeneity, key, draw) for draw in range(n_samples)]
        numbers = None if store is None else store.missing
        found = (
            _in_order(cells, answered(cells_of, asked.groups_of(cells), observations, output))
            for cells, cells_of in minibatches(self, data, asked, numbers, batch_size)
        )
        parts = gathered(found) if store is None else store.add(found)
        result = with_parts(parts, asked.obs(self, data, trust), self._rna(data).var.copy())
        result.uns["cfmvc"] = provenance(
            engine.solver, engine.solved, seen.values(), installed_versions(), {**asked_of, **more, "seed": key}
        )
        if store is not None:
            store.finish(result)
        if key_added is not None:
            write_back(self._rna(data if adata is None else adata), result, asked.rows, key_added)
        return result

    @torch.inference_mode()
    def sample_cells(
        self,
        perturbation: str,
        *,
        n_cells: int,
        labels: str | None = None,
        sample: str | None = None,
        batch: str | None = None,
        dose: float | None = None,
        output: Output = "counts",
        seed: int | None = None,
    ) -> AnnData:
        r"""Draw new, virtual cells of a condition.

        Each has the depth, the batch and the technical latent of a random control cell of its context. Its intrinsic
        latent grows along the flow out of a posterior draw of that cell (``source="control"``) or out of Gaussian
        noise (``source="noise"``). Its counts are

        .. math:: x_{ig} \sim NB(l_i \, r_g K_{ig} / 10^4, \theta_g)

        with K the decoded share of gene g in the cell relative to the mean of the group, and gene rates r at which
        the mean log1p CP10k of such cells meets the empirical-Bayes level of the condition in the context. The noise
        of the genes is independent given the latent.

        Parameters
        ----------
        perturbation
            Perturbation, combination (``'A+B'``) or the control category.
        n_cells
            How many.
        labels, sample
            Cell type, and biological sample, of the cells; None draws contexts as frequent as among the control cells
            of training.
        batch
            Batch of the cells; None is that of each one's control cell.
        dose
            Dose of each part of the perturbation, in the unit of the data; None is 1.
        output
            ``"counts"``, ``"rate"`` (expected counts at the cell's depth), ``"normalized"`` (expected counts per
            10,000) or ``"latent"`` (X is None).
        seed
            The same seed gives the same cells; of a larger `n_cells`, the first are those of a smaller one. None draws
            one, which the result records.

        Returns
        -------
        The cells, named ``virtual_<seed>_<number>``, with the genes of the model. ``obs``: ``target_condition``,
        ``target_context``, ``reference_cell`` (whose depth and technical state it has), and the registered columns of
        perturbation, dose, label, sample and batch. ``obsm["X_cfmvc_counterfactual"]``: intrinsic latents.
        ``uns["cfmvc"]``: provenance as of `predict_counterfactual`.

        Raises
        ------
        NotTrainedError
            If the flow is not trained.
        UnknownConditionError
            If a perturbation, cell type, sample or batch is unknown, or has no control cells.
        DataError
            If an argument is out of range.
        NonFiniteError
            If the ODE leaves the finite numbers.
        """
        self._require_flow()
        check_output(output)
        if n_cells < 1:
            raise DataError(f"n_cells is {n_cells}; ask for at least one.")
        design = tuple(map(float, asked_design(self._known, perturbation, dose)))
        contexts = asked_contexts(self._known, labels, sample)
        code = -1 if batch is None else category_code("batch", self._known.batches, batch)
        groups = {int(context): Group(design, int(context), code) for context in contexts}
        seen = {group: level_of(self._known, group) for group in groups.values()}
        seed = chosen_seed(seed)
        engine = self._engine(1.0, None)
        names = np.array([f"virtual_{seed}_{number}" for number in range(n_cells)])
        frequency = [self._reference.bulk.n_cells[self._reference.group(0, context)] for context in groups]
        context = contexts[cell_choice(seed, names.tolist(), frequency, "context")]
        virtual = VirtualCells(Observation(engine, 1.0, seed))
        result = virtual_cells(self, virtual, names, [groups[int(number)] for number in context], output)
        arguments = {"perturbation": perturbation, "dose": dose, "labels": labels, "sample": sample, "batch": batch}
        more = {"n_cells": n_cells, "output": output, "seed": seed}
        result.uns["cfmvc"] = provenance(
            engine.solver, engine.solved, seen.values(), installed_versions(), {**arguments, **more}
        )
        return result

    def _require_flow(self) -> None:
        """Refuse models that cannot predict: without perturbations, untrained, or without counts."""
        if self.vocabulary is None:
            raise DataError("The model has no perturbations; pass perturbation_key= to setup_anndata and train again.")
        self._require("representation", "flow")
        if self.minified_data_type is not None:
            raise UnsupportedError("The counts of this model's data were minified away; predict with the full data.")

    def _engine(
        self, guidance_scale: float, solver: SolverConfig | None, strength: float = 1.0, *, single: bool = False
    ) -> Engine:
        if self._kept is None or not self._kept.fits(self.module, self._reference):
            self._kept = Kept(self.module, self._reference)
        return self._kept.engine(self.source_, solver or SolverConfig(), guidance_scale, strength, single=single)

    def _query(self, adata: AnnData | None) -> Any:
        """Return validated cells; those that training has not seen are checked as setup does."""
        if adata is None and self.adata is None:
            raise DataError("The model was loaded without data; pass the cells to ask about as adata=.")
        data = self._validate_anndata(adata)
        if adata is None or adata is self.adata:
            return data
        rna, layer = self._rna(data), self._setup_argument("layer") or self._setup_argument("rna_layer")
        check_names(rna)
        check_counts(rna, layer, training=False, allow_non_integer=bool(self._setup_argument("allow_non_integer")))
        if self._setup_argument("spatial_key") is not None:
            check_obsm(self._holder(data, "spatial_key"), self._setup_argument("spatial_key"))
        return data


def _in_order(cells: np.ndarray, parts: Parts) -> Parts:
    """Return the parts of a minibatch in the order in which its cells were asked about."""
    if (np.diff(cells) > 0).all():
        return parts
    order = np.argsort(cells, kind="stable")
    return {place: values[order] for place, values in parts.items()}
