"""Public questions about tissues: a perturbed region, and what its neighbours make of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from anndata import AnnData
from numpy.typing import NDArray
from scvi import REGISTRY_KEYS

from cfmvc_scvi._keys import CFMVC_REGISTRY_KEYS
from cfmvc_scvi.data import condition_table
from cfmvc_scvi.errors import DataError
from cfmvc_scvi.model.asked import Asked, minibatches
from cfmvc_scvi.model.counterfactual import CounterfactualMixin
from cfmvc_scvi.model.niche import neighbour_weights
from cfmvc_scvi.model.plan import Observation
from cfmvc_scvi.model.question import Change, asked_design, asked_indices
from cfmvc_scvi.shift import NicheResponse, distance_to_region, fit_niche_response

__all__ = ["TissueMixin"]

Array = NDArray[np.float64]

_CELLS_AT_A_TIME = 1024


class TissueMixin(CounterfactualMixin):
    """`predict_tissue` and `get_niche_response` of `CFMVC`."""

    @torch.inference_mode()
    def get_niche_response(self, perturbation: str, adata: AnnData | None = None, *, seed: int = 0) -> NicheResponse:
        """Learn how the intrinsic latent of control cells follows perturbed cells around them.

        Neighbours are the 15 nearest cells of the same batch (slice); control cells are compared within their context
        and batch (`shift.fit_niche_response`).

        Parameters
        ----------
        perturbation
            A perturbation or combination that some cells of the tissue have, at any dose.
        adata
            Tissue to learn from, with the registered columns; None is the training data.
        seed
            Draws moves of the pattern of perturbed cells, which stand for chance.

        Returns
        -------
        In the flow's coordinates; its `found` is False where no response is told from chance.

        Raises
        ------
        NotTrainedError
            If the flow is not trained.
        UnknownConditionError
            If the perturbation is unknown.
        DataError
            If no coordinates are registered, or fewer than eight cells of the tissue are perturbed, or control.
        """
        wanted = asked_design(self._known, perturbation, None) > 0
        data, u = self._in_space(adata)
        get = self.get_anndata_manager(data, required=True).get_from_registry
        designs, code = condition_table(get(CFMVC_REGISTRY_KEYS.PERTURBATION_KEY))
        present = np.asarray(designs > 0)[code]
        held, control = (present == wanted).all(axis=1) & wanted.any(), ~present.any(axis=1)
        keys = [REGISTRY_KEYS.LABELS_KEY, REGISTRY_KEYS.BATCH_KEY]
        keys += [CFMVC_REGISTRY_KEYS.SAMPLE_KEY] if self._has_samples else []
        table = np.column_stack([np.asarray(get(key)).reshape(-1) for key in keys])
        groups = np.unique(table, axis=0, return_inverse=True)[1].reshape(-1)
        place, slices = self._places(data)
        pool, rng = neighbour_weights(place, slices), np.random.default_rng(seed)
        return fit_niche_response(u, held, control, pool, groups, place, slices, rng)

    @torch.inference_mode()
    def predict_tissue(
        self,
        adata: AnnData,
        region: Sequence[int] | NDArray[Any],
        *,
        perturbation: str,
        steps: int = 20,
        niche: NicheResponse | None = None,
        seed: int = 0,
        **kwargs: Any,
    ) -> AnnData:
        r"""Perturb a region of a tissue, and let its neighbours follow.

        The cells of the region are predicted under the perturbation. Then, round by round, the cells around take over a
        part of what their neighbours have, as far as `niche` says, and their counts follow the decoded change: with the
        ratio of a gene's decoded shares, they are thinned or added to as for any counterfactual. Cells that nothing
        reaches keep their counts bit for bit.

        Parameters
        ----------
        adata
            A tissue, with the registered columns and coordinates; all of its cells are passed on to, within a batch.
        region
            Positions of the perturbed cells, or a mask.
        perturbation
            Perturbation, combination or the control category.
        steps
            Rounds of passing on; 0 perturbs the region alone. Each reaches one neighbourhood further.
        niche
            How cells follow; None learns it from the training data (`get_niche_response`).
        seed
            Seed of the observation noise.
        **kwargs
            Passed to `predict_counterfactual`, for the region: ``dose``, ``strength``, ``heterogeneity`` and so on.

        Returns
        -------
        All cells with their predicted counts. ``obs``: that of the source and ``in_region``. ``obsm``: ``X_cfmvc`` and
        ``X_cfmvc_counterfactual``, intrinsic latents before and after. ``uns["cfmvc"]``: provenance, with the
        ``niche_gain`` and ``niche_length``.

        Raises
        ------
        NotTrainedError, UnknownConditionError, NonFiniteError
            As of `predict_counterfactual`.
        DataError
            If no coordinates are registered, the region is empty, or an argument cannot be used.
        """
        if steps < 0:
            raise DataError(f"steps is {steps}; pass 0 (the region alone) or more.")
        if taken := sorted({"output", "indices", "key_added", "n_samples", "labels", "batch", "trust"} & kwargs.keys()):
            raise DataError(f"{taken[0]}= has no meaning for a tissue; leave it out.")
        data, u = self._in_space(adata)
        rows = asked_indices(np.asarray(region), data.n_obs)
        niche = self.get_niche_response(perturbation) if niche is None else niche
        perturbed = self.predict_counterfactual(adata, rows, perturbation=perturbation, seed=seed, **kwargs)
        source = np.zeros_like(u)
        moved = torch.as_tensor(perturbed.obsm["X_cfmvc_counterfactual"], device=self.device)
        source[rows] = self.module.standardise(moved).cpu().numpy() - u[rows]
        held = np.isin(np.arange(len(u)), rows)
        place, slices = self._places(data)
        distance = distance_to_region(held, place, slices)
        followed = kwargs.get("strength", 1.0) * niche.spread(held, neighbour_weights(place, slices), distance, steps)
        scale = float(self.module.latent_scale)
        after_region = sp.csr_matrix(self._rna(data).X if self._layer is None else self._rna(data).layers[self._layer])
        after_region = _replaced(after_region, rows, perturbed.X)
        counts = self._following(data, after_region, followed * scale, seed)
        obs = adata.obs[[column for column in adata.obs if not str(column).startswith("_scvi")]]
        result = AnnData(counts.astype(np.float32), obs=obs.copy(), var=self._rna(data).var.copy())
        result.obs["in_region"] = held
        location = self.module.latent_location.cpu().numpy()
        result.obsm["X_cfmvc"] = (u * scale + location).astype(np.float32)
        result.obsm["X_cfmvc_counterfactual"] = ((u + source + followed) * scale + location).astype(np.float32)
        result.uns["cfmvc"] = {
            **perturbed.uns["cfmvc"],
            "niche_gain": niche.gain,
            "niche_length": niche.length,
            "steps": steps,
        }
        return result

    @property
    def _layer(self) -> str | None:
        return self._setup_argument("layer") or self._setup_argument("rna_layer")

    def _in_space(self, adata: AnnData | None) -> tuple[Any, Array]:
        """Return validated cells with coordinates, and their latents in the flow's coordinates."""
        self._require_flow()
        if self._setup_argument("spatial_key") is None:
            raise DataError("No coordinates are registered; pass spatial_key= to setup_anndata and train.")
        data = self._query(adata)
        mean = self.get_latent_representation(data, batch_size=_CELLS_AT_A_TIME)
        u = self.module.standardise(torch.as_tensor(mean, device=self.device))
        return data, u.cpu().numpy().astype(float)

    def _places(self, data: Any) -> tuple[Array, NDArray[Any]]:
        """Return the coordinates of each cell, and the code of its slice."""
        get = self.get_anndata_manager(data, required=True).get_from_registry
        return np.asarray(get(CFMVC_REGISTRY_KEYS.SPATIAL_KEY)), np.asarray(get(REGISTRY_KEYS.BATCH_KEY)).reshape(-1)

    def _following(self, data: Any, counts: sp.csr_matrix, followed: Array, seed: int) -> sp.csr_matrix:
        """Return counts of all cells after they followed their neighbours: `counts`, at latents moved by `followed`."""
        engine = self._engine(1.0, None)
        observation, same = Observation(engine, 1.0, seed), Change(self._known, None, None, None, None)
        asked, blocks = Asked.of(self, data, np.arange(len(followed)), {None: same}, 1.0), []
        for rows, cells in minibatches(self, data, asked):
            before = engine.encode(cells)
            after = before.copy()
            after[:, : self.module.n_intrinsic] += followed[rows]
            blocks.append(observation.followed(cells, counts[rows], before, after))
        return sp.vstack(blocks, format="csr")


def _replaced(counts: sp.csr_matrix, rows: NDArray[np.int64], block: Any) -> sp.csr_matrix:
    """Return a copy of `counts` with other rows."""
    others = np.setdiff1d(np.arange(counts.shape[0]), rows)
    stacked = sp.vstack([counts[others], sp.csr_matrix(block)], format="csr")
    return stacked[np.argsort(np.concatenate([others, rows]))]
