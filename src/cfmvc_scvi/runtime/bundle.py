"""An exported model: latents and counterfactuals of cells, without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from cfmvc_scvi._bounded import BoundedDict
from cfmvc_scvi.config import SolverConfig
from cfmvc_scvi.data import Vocabulary
from cfmvc_scvi.errors import CorruptModelError, DataError, UnsupportedError
from cfmvc_scvi.model.cells import CellBatch, Group, Groups
from cfmvc_scvi.model.engine import Engine
from cfmvc_scvi.model.level import Level
from cfmvc_scvi.model.networks import Networks
from cfmvc_scvi.model.plan import Observation
from cfmvc_scvi.model.prediction import answered, gathered
from cfmvc_scvi.model.question import Change, Known, asked_groups, asked_perturbations, levels
from cfmvc_scvi.model.reference import Reference
from cfmvc_scvi.runtime.asked import Asked, named_groups, prediction_of
from cfmvc_scvi.runtime.card import Card
from cfmvc_scvi.runtime.cells import Cells, Prediction, Taken, encoded
from cfmvc_scvi.runtime.files import read_export
from cfmvc_scvi.runtime.onnx_networks import OnnxNetworks
from cfmvc_scvi.runtime.question import Output, Question, Settings

__all__ = ["Bundle"]

Array = NDArray[np.float64]

_CELLS_AT_A_TIME = 1024
_KEPT_LEVELS = 64
_KEPT = 4  # kinds of question whose intermediate results are kept for the next of their kind
_TOLERANCE = 1e-5


class Bundle:
    """An exported model, which predicts as the `CFMVC` that it was made of, to 1e-5 and better.

    It needs numpy, scipy and ONNX Runtime; neither torch nor scvi-tools nor anndata.

    Parameters
    ----------
    card
        What the model is.
    reference
        What it remembers of its training data.
    networks
        What runs it.
    golden
        A question with its answer, for `check`.

    Examples
    --------
    >>> bundle = Bundle.load("exported")  # doctest: +SKIP
    >>> answer = bundle.counterfactual(cells, perturbation="IFNb", seed=0)  # doctest: +SKIP
    """

    def __init__(
        self, card: Card, reference: Reference, networks: Networks, golden: dict[str, Any] | None = None
    ) -> None:
        self.card, self.networks = card, networks
        vocabulary = Vocabulary.from_dict(card.vocabulary)
        samples = None if card.samples is None else tuple(card.samples)
        has_doses = card.columns.dose is not None
        self.known = Known(vocabulary, reference, tuple(card.labels), tuple(card.batches), samples, has_doses)
        self._golden = golden
        self._levels: BoundedDict[Group, Level] = BoundedDict(_KEPT_LEVELS)
        self._observations: BoundedDict[Settings, list[Observation]] = BoundedDict(_KEPT)

    @classmethod
    def load(cls, directory: str | Path, *, n_threads: int = 1) -> Self:
        """Load what `export.to_onnx` has written.

        Parameters
        ----------
        directory
            Of the exported model.
        n_threads
            Threads that one network uses.

        Raises
        ------
        ModelFileError
            If there is no exported model, or one of a newer format.
        CorruptModelError
            If a file is missing, truncated or altered.
        MissingExtraError
            If ONNX Runtime is not installed.
        """
        return cls.of(*read_export(Path(directory)), n_threads=n_threads)

    @classmethod
    def of(
        cls,
        card: Card,
        reference: dict[str, Any],
        golden: dict[str, Any],
        graphs: Mapping[str, bytes],
        *,
        n_threads: int = 1,
    ) -> Self:
        """Make a bundle of its parts, as `files.read_export` returns them."""
        return cls(card, Reference.from_state(reference), OnnxNetworks(card, graphs, n_threads), golden)

    @property
    def default_solver(self) -> SolverConfig:
        """The default of `CFMVC.predict_counterfactual`, or the first that was exported where that one was not."""
        default = SolverConfig()
        return default if default.method in self.card.solvers else SolverConfig(self.card.solvers[0])  # type: ignore[arg-type]

    @property
    def genes(self) -> list[str]:
        """Names of the genes, in the order of predictions."""
        return self.card.genes

    @property
    def perturbations(self) -> list[str]:
        """Names of the single perturbations; combinations are written with the separator of the vocabulary."""
        return list(self.known.vocabulary.perturbations)

    @cached_property
    def contexts(self) -> list[str]:
        """Names of the contexts that have control cells, of which predictions can be made."""
        return [self.known.contexts.names[code] for code in self.known.reference.control_contexts]

    def encode(self, cells: Any, *, pad_missing: bool = False) -> tuple[Array, Array]:
        """Return mean and standard deviation of the latent, `(cells, n_intrinsic + n_technical)` each.

        Parameters
        ----------
        cells
            `Cells`, or an AnnData, with the columns of `card.columns`; genes are matched by name.
        pad_missing
            Count genes of the model that the cells lack as zero.

        Raises
        ------
        DataError
            If counts, doses or covariates cannot be used, or genes or labels are missing.
        UnknownConditionError
            If a column or a category is unknown.
        """
        return self.moments([self.take(cells, pad_missing=pad_missing)])[0]

    def take(self, cells: Any, *, pad_missing: bool = False) -> Taken:
        """Check cells and return their counts and codes, for `moments`; arguments and errors as of `encode`."""
        return encoded(self.card, cells, pad_missing)

    def moments(self, taken: Sequence[Taken]) -> list[tuple[Array, Array]]:
        """Encode several sets of cells together: each gets the mean and standard deviation that it would get alone.

        Parameters
        ----------
        taken
            What `take` returned of each, at least one.
        """
        counts = sp.vstack([each for each, _ in taken], format="csr")
        inputs = {key: np.concatenate([each[key] for _, each in taken]) for key in taken[0][1]}
        blocks = [
            self.networks.posterior(counts[rows], {key: value[rows] for key, value in inputs.items()})
            for rows in _slices(counts.shape[0])
        ]
        mean, sd = (np.concatenate(part) for part in zip(*blocks, strict=True))
        return [(mean[rows], sd[rows]) for rows in _rows_of([each.shape[0] for each, _ in taken])]

    def latent(
        self, cells: Any, part: Literal["intrinsic", "technical", "both"] = "intrinsic", *, pad_missing: bool = False
    ) -> Array:
        """Return the posterior mean of the latent, as `CFMVC.get_latent_representation`; other arguments of `encode`.

        Parameters
        ----------
        cells
            As of `encode`.
        part
            ``"intrinsic"``, ``"technical"`` or ``"both"``.
        pad_missing
            As of `encode`.

        Raises
        ------
        DataError, UnknownConditionError
            As `encode`; DataError also if there is no such part.
        """
        n = self.card.n_intrinsic
        blocks = {"intrinsic": slice(0, n), "technical": slice(n, None), "both": slice(None)}
        if part not in blocks:
            raise DataError(f"part is {part!r}; choose one of {', '.join(blocks)}.")
        return self.encode(cells, pad_missing=pad_missing)[0][:, blocks[part]]

    def counterfactual(
        self,
        cells: Any,
        *,
        perturbation: str | Sequence[str] | None = None,
        dose: float | None = None,
        labels: str | None = None,
        batch: str | None = None,
        output: Output = "counts",
        n_samples: int = 1,
        seed: int | None = None,
        strength: float = 1.0,
        guidance_scale: float = 1.0,
        heterogeneity: float = 1.0,
        solver: SolverConfig | None = None,
        pad_missing: bool = False,
        **unsupported: Any,
    ) -> Prediction:
        """Predict what these very cells would look like under another condition.

        Parameters
        ----------
        cells, pad_missing
            As of `encode`.
        perturbation, dose, labels, batch, output, n_samples, seed, strength, guidance_scale, heterogeneity, solver
            As of `CFMVC.predict_counterfactual`.
        **unsupported
            Its other options, which are refused unless they are None or False.

        Raises
        ------
        UnsupportedError
            If an option is not supported, or the method of the solver was not exported.
        DataError, UnknownConditionError, NonFiniteError
            As `CFMVC.predict_counterfactual`.
        """
        if refused := sorted(name for name, value in unsupported.items() if value is not None and value is not False):
            raise UnsupportedError(
                f"an exported model does not support {', '.join(refused)}; leave it out, or use the model itself"
            )
        question = Question(
            perturbation,
            dose,
            labels,
            batch,
            output,
            n_samples,
            seed,
            strength,
            guidance_scale,
            heterogeneity,
            solver or self.default_solver,
        )
        return self.answer([self.ask(cells, question, pad_missing=pad_missing)])[0]

    def ask(self, cells: Any, question: Question, *, pad_missing: bool = False) -> Asked:
        """Check cells and what is asked of them; arguments and errors as of `counterfactual`."""
        settings = question.settings(self.card.solvers)
        changes = {
            name: Change(self.known, perturbation, question.dose, question.labels, question.batch)
            for name, perturbation in asked_perturbations(question.perturbation).items()
        }
        counts, inputs = self.take(cells, pad_missing=pad_missing)
        names = np.array([str(name) for name in cells.obs_names], dtype=object)
        own = next(iter(changes.values())).own(inputs)
        wanted = {name: change.wanted(own) for name, change in changes.items()}
        taken_to = {name: asked_groups(self.known, own, each, settings.strength) for name, each in wanted.items()}
        known: dict[Group, Level] = {}
        for each in wanted.values():
            known |= levels(self.known, own, each, self._levels)
        batch = CellBatch(inputs, counts, names, own, next(iter(taken_to.values())))
        return Asked(batch, wanted, taken_to, known, question, settings)

    def answer(self, asked: Sequence[Asked]) -> list[Prediction]:
        """Answer questions of the same settings together: each gets what it would get alone.

        Parameters
        ----------
        asked
            Questions, at least one.

        Raises
        ------
        DataError
            If their settings differ, or the names of their answers where several perturbations are asked for.
        NonFiniteError
            If the ODE leaves the finite numbers; of one, for all.
        """
        settings = asked[0].settings
        if any(each.settings != settings or each.taken_to.keys() != asked[0].taken_to.keys() for each in asked):
            raise DataError("questions that are answered together must have the same settings and names of answers.")
        observations = self._observations_of(settings)
        engine = observations[0].engine
        before = engine.solved
        together = asked[0].cells if len(asked) == 1 else CellBatch.concatenate([each.cells for each in asked])
        wanted, taken_to = (
            {name: Groups.concatenate([getattr(each, place)[name] for each in asked]) for name in asked[0].wanted}
            for place in ("wanted", "taken_to")
        )
        parts = (np.arange(len(together.names))[part] for part in _slices(len(together.names)))
        everything = gathered(
            answered(
                together.take(rows),
                {name: groups.take(rows) for name, groups in taken_to.items()},
                observations,
                settings.output,
            )
            for rows in parts
        ) | named_groups(self.known, together.own, wanted)
        solved = engine.solved[0] - before[0], engine.solved[1] - before[1]
        return [
            prediction_of(self.card, each, {place: values[rows] for place, values in everything.items()}, solved)
            for each, rows in zip(asked, _rows_of([len(each.cells.names) for each in asked]), strict=True)
        ]

    def check(self) -> float:
        """Ask the question that the model was exported with, and return the largest difference to its answer then.

        Raises
        ------
        CorruptModelError
            If it is more than 1e-5, of latents and of log1p counts; or there is no such question.
        """
        if self._golden is None:
            raise CorruptModelError("the exported model has no question to check it with; export it again")
        given, expected = self._golden["cells"], self._golden["answers"]
        cells = Cells(given["X"], given["obs"], given["obs_names"], self.card.genes)
        mean, sd = self.encode(cells)
        differences = [np.abs(mean - expected["mean"]).max(), np.abs(sd - expected["sd"]).max()]
        for output in ("counts", "normalized"):
            answer = self.counterfactual(cells, **self._golden["question"], output=output, solver=self.default_solver)
            differences.append(np.abs(np.log1p(answer.dense) - np.log1p(expected[output])).max())
            differences.append(np.abs(answer.obsm["X_cfmvc_counterfactual"] - expected["latent"]).max())
        largest = float(np.max(differences))
        if not largest <= _TOLERANCE:
            raise CorruptModelError(
                f"the exported model answers its own question wrongly here: off by {largest:.2g}, more than "
                f"{_TOLERANCE}. Export it again, or use the ONNX Runtime that it was exported with"
            )
        return largest

    def _observations_of(self, settings: Settings) -> list[Observation]:
        """Return what realises latents in counts, one per draw, with what earlier questions left in their caches."""
        if settings not in self._observations:
            engine = Engine(
                self.networks,
                self.known.reference,
                self.card.source,
                settings.solver,
                settings.guidance_scale,
                settings.strength,
            )
            draws = range(settings.n_samples)
            self._observations[settings] = [
                Observation(engine, settings.heterogeneity, settings.seed, draw) for draw in draws
            ]
        return self._observations[settings]


def _rows_of(lengths: Sequence[int]) -> list[slice]:
    """Return the rows of each of several tables of these lengths below each other."""
    ends = np.cumsum(lengths)
    return [slice(end - length, end) for length, end in zip(lengths, ends, strict=True)]


def _slices(n_cells: int, most: int = _CELLS_AT_A_TIME) -> list[slice]:
    """Return the rows of minibatches; one, empty, where there are no cells."""
    return [slice(start, min(start + most, n_cells)) for start in range(0, max(n_cells, 1), most)]
