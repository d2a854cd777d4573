"""What a model remembers of its training data: levels of each group of cells, and a small panel of real cells."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.random import Generator
from numpy.typing import NDArray

from cfmvc_scvi._bounded import BoundedDict
from cfmvc_scvi.config import EffectConfig, ReferenceConfig
from cfmvc_scvi.data import Contexts
from cfmvc_scvi.errors import NotTrainedError, UnknownConditionError
from cfmvc_scvi.model.decoded import DecodedShifts, borrowed_pairs, decode_shifts
from cfmvc_scvi.model.goals import Goals
from cfmvc_scvi.model.interactions import Interactions, seen_interaction
from cfmvc_scvi.model.level import Level
from cfmvc_scvi.model.networks import Networks
from cfmvc_scvi.model.panel import Panel
from cfmvc_scvi.model.relatives import Embeddings, Relatives, UnseenShift
from cfmvc_scvi.shift import (
    EffectGoal,
    PseudoBulk,
    additive_goal,
    interpolate_dose,
    latent_shift,
    monotone_effects,
    pseudo_bulk,
)

__all__ = ["Panel", "Reference"]

Array = NDArray[np.float64]

_KEPT = 256  # perturbations without cells, at a dose
_NEGLIGIBLE = 1e-3  # share of a partner condition below which its cells are not borrowed


@dataclass
class Reference:
    """Levels of the groups seen in training and everything that is estimated from them without a network.

    Attributes
    ----------
    contexts
        The (label x sample) contexts.
    designs
        `(conditions, perturbations)` of the conditions seen; row 0 is control.
    groups
        `(groups, 2)` condition and context code of each occupied group.
    bulk
        Pseudo-bulk of those groups.
    panel
        Real cells.
    latent_means
        `(groups, dims)` mean intrinsic latent, once the VAE is trained.
    embeddings
        Features of perturbations, if there are any.
    decoded
        What the decoder makes of expected latent shifts, once the VAE is trained.
    """

    contexts: Contexts
    designs: NDArray[np.float32]
    groups: NDArray[np.int64]
    bulk: PseudoBulk
    panel: Panel
    latent_means: Array | None = None
    config: EffectConfig = field(default_factory=EffectConfig)
    embeddings: Embeddings | None = None
    decoded: DecodedShifts | None = None
    _goals: dict[int, EffectGoal] = field(default_factory=dict, repr=False)
    _unseen_shifts: BoundedDict[tuple[int, float], UnseenShift] = field(
        default_factory=lambda: BoundedDict(_KEPT), repr=False
    )

    @classmethod
    def build(
        cls,
        panel_of_all: Panel,
        designs: NDArray[np.float32],
        contexts: Contexts,
        config: ReferenceConfig,
        rng: Generator,
        embeddings: Embeddings | None = None,
    ) -> Reference:
        """Summarise all training cells and keep a bounded panel of them.

        Parameters
        ----------
        panel_of_all
            All training cells (not copied).
        designs
            `(conditions, perturbations)`; row 0 is control.
        contexts
            Names of the contexts.
        config
            Sizes of the panel.
        rng
            Draws the panel.
        embeddings
            Features of perturbations, if there are any.
        """
        pairs = np.column_stack([panel_of_all.condition, panel_of_all.context])
        groups, code = np.unique(pairs, axis=0, return_inverse=True)
        code = code.reshape(-1)
        most = int(np.clip(config.n_panel_cells // len(groups), config.min_group_cells, config.max_group_cells))
        kept = [rng.permutation(np.flatnonzero(code == group))[:most] for group in range(len(groups))]
        bulk = pseudo_bulk(panel_of_all.counts, code, len(groups))
        panel = panel_of_all.take(np.sort(np.concatenate(kept)))
        return cls(contexts, designs, groups, bulk, panel, embeddings=embeddings)

    @cached_property
    def relatives(self) -> Relatives:
        """What perturbations tell of each other."""
        return Relatives(self.designs, self.groups, self.bulk, self.embeddings)

    @cached_property
    def goals(self) -> Goals:
        """Expected levels of the conditions seen."""
        bulks = self.relatives.expected, self.bulk_over_contexts
        return Goals(self.designs, self.groups, self.control_contexts, *bulks, self.config, self.decoded, self._goals)

    @cached_property
    def interactions(self) -> Interactions:
        """What combinations do beyond the sum of their parts."""
        return Interactions(self.designs, lambda code: seen_interaction(self, code))

    def group(self, condition: int, context: int) -> int:
        """Return the number of a group, -1 where it was not seen."""
        found = np.flatnonzero((self.groups == (condition, context)).all(axis=1))
        return int(found[0]) if len(found) else -1

    def condition(self, design: NDArray[np.float32]) -> int:
        """Return the code of a design row, -1 where it was not seen."""
        return self.relatives.condition(design)

    def level(self, design: NDArray[np.float32], context: int) -> Level:
        """Return the expected level of a condition in a context.

        Seen conditions: empirical Bayes over contexts, around what the other perturbations share, the doses of a
        perturbation by itself monotone as far as noise explains that they are not; combinations around the sum of their
        parts and around control, the mean of both (`shift.averaged_goal`). Unseen dose of a seen perturbation:
        interpolation. Unseen perturbation: from features. Unseen combination: sum of the effects of its parts, and the
        interaction that other combinations of these parts lead to expect (`Interactions`).

        Raises
        ------
        UnknownConditionError
            If the context has no control cells.
        """
        control = self.control_level(context)
        code = self.condition(design)
        if code == 0:
            return control
        if code > 0:
            goal, row = self.goals.of(code), self._row(context)
            change = float(self.relatives.depth_changes[code, row])
            return Level(self._mean(code, row), goal.sd[row], bool(goal.observed[row]), (code,), depth_change=change)
        parts = np.flatnonzero(design)
        levels = [self._dose_level(int(part), float(design[part]), context) for part in parts]
        if len(levels) == 1:
            return levels[0]
        row = self._row(context)
        together, error = (term[row] for term in self.interactions.of(design) or np.zeros((2, row + 1, 1)))
        mean = additive_goal(control.mean, [*(level.mean - control.mean for level in levels), together])
        sd = np.sqrt(sum(level.sd**2 for level in levels) + error**2)
        partners, shares = zip(*(pair for level in levels for pair in level.partners), strict=True)
        far, change = any(level.extrapolated for level in levels), sum(level.depth_change for level in levels)
        return Level(mean, sd, False, partners, far, shares, change)

    def _mean(self, code: int, row: int) -> Array:
        """Return the mean log1p CP10k `(genes,)` of a seen condition in a context, in the light of its other doses."""
        parts = np.flatnonzero(self.designs[code])
        codes = self.relatives.alone(int(parts[0])) if len(parts) == 1 else np.array([code])
        goals = [self.goals.of(int(kind)) for kind in codes]
        if len(goals) == 1:
            return goals[0].goal[row]
        deltas = np.stack([goal.goal[row] - goal.control[row] for goal in goals])
        sd = np.stack([goal.sd[row] for goal in goals])
        curve = monotone_effects(self.designs[codes, parts[0]], deltas, sd)
        mean: Array = goals[0].control[row] + curve[np.flatnonzero(codes == code)[0]]
        return np.maximum(mean, 0.0)

    def _dose_level(self, part: int, dose: float, context: int) -> Level:
        single = np.zeros(self.designs.shape[1], dtype=np.float32)
        single[part] = dose
        if self.condition(single) > 0:
            return self.level(single, context)
        codes = self.relatives.alone(part)
        if not len(codes):
            return self._unseen_level(part, dose, context)
        control = self.control_level(context)
        levels = [self.level(self.designs[code], context) for code in codes]
        doses = self.designs[codes, part].astype(float)
        deltas = np.stack([np.append(level.mean - control.mean, level.depth_change) for level in levels])
        delta, extrapolated = interpolate_dose(doses, deltas, dose)
        nearest = int(np.argmin(np.abs(np.log1p(doses) - np.log1p(dose))))
        mean = np.maximum(control.mean + delta[:-1], 0.0)
        lenders, change = (int(codes[nearest]),), float(delta[-1])
        return Level(mean, levels[nearest].sd, False, lenders, extrapolated, depth_change=change)

    def _unseen_level(self, part: int, dose: float, context: int) -> Level:
        shift, row = self._unseen(part, dose), self._row(context)
        positive = np.maximum(shift.weights, 0.0)
        positive = np.where(positive > _NEGLIGIBLE, positive, 0.0)
        # what nobody lends, cells that do not change lend
        partners = {0: 1 - float(positive.sum())} | dict(zip(shift.conditions.tolist(), positive.tolist(), strict=True))
        lenders = {code: share for code, share in partners.items() if share > 0}
        mean = np.maximum(self.control_level(context).mean + shift.mean[row], 0.0)
        depth_change = sum(share * self.relatives.depth_changes[code, row] for code, share in lenders.items())
        return Level(mean, shift.sd[row], False, tuple(lenders), False, tuple(lenders.values()), float(depth_change))

    def _unseen(self, part: int, dose: float) -> UnseenShift:
        if (part, dose) not in self._unseen_shifts:
            self._unseen_shifts[part, dose] = self.relatives.unseen(part, dose)
        return self._unseen_shifts[part, dose]

    def missing_parts(self, design: NDArray[np.float32]) -> list[int]:
        """Return the parts of an unseen condition that were never seen by themselves and have no features."""
        if self.condition(design) >= 0:
            return []
        parts = (int(part) for part in np.flatnonzero(design))
        known = self.relatives
        return [part for part in parts if not len(known.alone(part)) and not known.is_described(part)]

    def lent_design(self, design: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return a design `(perturbations,)` of seen perturbations that stands for any.

        Doses are cut at the largest seen, beyond which the effect is flat, as in the level. A perturbation that was
        never seen gives way to those that lend it their effects, by the same weights; control stays zero.
        """
        result = np.minimum(design, self.designs.max(axis=0))
        for part in np.flatnonzero(design):
            if self.designs[:, part].any():
                continue
            dose = float(design[part])
            result[self.relatives.lenders(dose)] += (dose * self._unseen(int(part), dose).weights).astype(np.float32)
        return result

    def control_level(self, context: int) -> Level:
        """Return the level of the control cells; UnknownConditionError if the context has none."""
        group = self.group(0, context)
        if group < 0:
            raise UnknownConditionError(
                f"Context '{self.contexts.names[context]}' has no control cells in training, so nothing can be said of "
                "its response. Train with its control cells, or ask for a context that has them."
            )
        return Level(self.bulk.log_mean[group], np.sqrt(self.bulk.log_noise[group]), True, (0,))

    @property
    def control_contexts(self) -> NDArray[np.int64]:
        """Codes of the contexts that have control cells."""
        return np.sort(self.groups[self.groups[:, 0] == 0, 1])

    def _row(self, context: int) -> int:
        return int(np.flatnonzero(self.control_contexts == context)[0])

    def alike(self, level: Level) -> PseudoBulk:
        """Return the pseudo-bulk of the groups whose conditions lend their noise to a level."""
        return self.bulk.take(np.isin(self.groups[:, 0], level.partner_conditions))

    def bulk_over_contexts(self, condition: int) -> PseudoBulk:
        """Return the pseudo-bulk of a condition over the contexts with control cells; unseen ones are empty groups."""
        chosen = np.array([self.group(condition, context) for context in self.control_contexts])
        empty = pseudo_bulk(sp.csr_matrix((0, self.bulk.n_genes)), np.empty(0, dtype=int), 1)
        seen = chosen >= 0
        both = PseudoBulk.concatenate([self.bulk.take(chosen[seen]), empty])
        return both.take(np.where(seen, np.cumsum(seen) - 1, seen.sum()))

    def partner_weights(self, condition: int, context: int) -> Array:
        """Return how much the cells of each context lend to a group, `(contexts,)` summing to 1.

        A group that was seen lends to itself; else the similarity weights of the effect.
        """
        weights = np.zeros(len(self.contexts.names))
        if self.group(condition, context) >= 0:
            weights[context] = 1.0
            return weights
        weights[self.control_contexts] = self.goals.weights(condition)[self._row(context)]
        return weights

    def with_latents(self, means: Array, niche: NDArray[np.float32] | None) -> Reference:
        """Return a copy that knows the mean latents `(groups, dims)` and the niche `(training cells, dims)`."""
        panel = self.panel if niche is None else replace(self.panel, niche=niche[self.panel.cell])
        return replace(self, latent_means=means, panel=panel)

    def with_decoded(self, networks: Networks) -> Reference:
        """Return a copy that knows what the decoder makes of shifts that other contexts lead to expect."""
        pairs = borrowed_pairs(self.groups, self.control_contexts)
        decoded = decode_shifts(networks, self.panel, pairs, lambda code: self.frame(self.designs[code]))
        return replace(self, decoded=decoded, _goals={})

    @property
    def _means(self) -> Array:
        if self.latent_means is None:
            raise NotTrainedError("The latents of the groups are not known yet; train the representation first.")
        return self.latent_means

    def context_features(self) -> NDArray[np.float32]:
        """Return the mean control latent of each context, `(contexts, dims)`; of all where a context has none."""
        control, means = self.groups[:, 0] == 0, self._means
        weights = self.bulk.n_cells[control]
        overall = np.average(means[control], axis=0, weights=weights)
        features = np.tile(overall, (len(self.contexts.names), 1))
        features[self.groups[control, 1]] = means[control]
        return features.astype(np.float32)

    def frame(self, design: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the moving frame of a condition, `(contexts, dims)`: expected latent shift, NaN without control cells.

        For a seen condition: what the other perturbations share in the context, and similarity-weighted shifts of the
        other contexts beyond that. Else as `level` composes it.
        """
        code = self.condition(design)
        shape = (len(self.contexts.names), self._means.shape[1])
        if code == 0:
            return np.zeros(shape, dtype=np.float32)
        if code > 0:
            return self._seen_frame(code, shape)
        total = np.zeros(shape, dtype=np.float32)
        for part in np.flatnonzero(design):
            codes, dose = self.relatives.alone(int(part)), float(design[part])
            if not len(codes):
                total += self._unseen_frame(int(part), dose, shape)
                continue
            doses = self.designs[codes, part].astype(float)
            frames = np.stack([self._seen_frame(int(kind), shape) for kind in codes])
            total += interpolate_dose(doses, frames.reshape(len(codes), -1), dose)[0].reshape(shape)
        return total

    def _unseen_frame(self, part: int, dose: float, shape: tuple[int, int]) -> NDArray[np.float32]:
        result = np.full(shape, np.nan, dtype=np.float32)
        result[self.control_contexts] = self.relatives.lent(self._unseen(part, dose), self._means, dose)
        return result

    def _seen_frame(self, condition: int, shape: tuple[int, int]) -> NDArray[np.float32]:
        rows = self.control_contexts
        control = self._means[[self.group(0, context) for context in rows]]
        seen = np.array([self.group(condition, context) for context in rows])
        perturbed = np.where(seen[:, None] < 0, np.nan, self._means[seen])
        expected = self.relatives.mixed(self.relatives.shared_weights(condition), self._means)
        result = np.full(shape, np.nan, dtype=np.float32)
        result[rows] = expected - control + latent_shift(expected, perturbed, self.goals.weights(condition))
        return result

    def state(self, *, with_goals: bool = False) -> dict[str, Any]:
        """Return everything as plain values and arrays, for saving.

        With `with_goals`, also what is estimated of each condition seen, so that nobody has to estimate it again.
        """
        panel, goals = self.panel, range(1, len(self.designs)) if with_goals else ()
        return {
            "goals": {str(code): asdict(self.goals.of(code)) for code in goals},
            "contexts": self.contexts.to_dict(),
            "designs": self.designs,
            "groups": self.groups,
            "bulk": asdict(self.bulk),
            "latent_means": self.latent_means,
            "decoded": None if self.decoded is None else asdict(self.decoded),
            "embeddings": None if self.embeddings is None else asdict(self.embeddings),
            "panel": {
                "data": panel.counts.data,
                "indices": panel.counts.indices,
                "indptr": panel.counts.indptr,
                "shape": list(panel.counts.shape),
                "tensors": panel.tensors,
                "names": [str(name) for name in panel.names],
                "condition": panel.condition,
                "context": panel.context,
                "cell": panel.cell,
                "niche": panel.niche,
            },
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Reference:
        """Rebuild from `state`."""
        stored = state["panel"]
        counts = sp.csr_matrix((stored["data"], stored["indices"], stored["indptr"]), shape=tuple(stored["shape"]))
        names = np.asarray(stored["names"], dtype=str)
        codes = (stored["condition"], stored["context"], stored["cell"])
        embeddings, decoded = state.get("embeddings"), state.get("decoded")
        panel = Panel(counts, stored["tensors"], names, *codes, stored["niche"])
        return cls(
            Contexts.from_dict(state["contexts"]),
            state["designs"],
            state["groups"],
            PseudoBulk(**state["bulk"]),
            panel,
            state["latent_means"],
            embeddings=None if embeddings is None else Embeddings(**embeddings),
            decoded=None if decoded is None else DecodedShifts(**decoded),
            _goals={int(code): EffectGoal(**goal) for code, goal in state.get("goals", {}).items()},
        )
