"""A question to an exported model: the condition that cells shall have, and how it is answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

from cfmvc_scvi.config import SolverConfig
from cfmvc_scvi.errors import DataError, UnsupportedError
from cfmvc_scvi.model.prediction import chosen_seed
from cfmvc_scvi.model.question import asked_perturbations, check_output, check_scales

__all__ = ["Output", "Question", "Settings"]

Output: TypeAlias = Literal["counts", "rate", "normalized", "latent"]


@dataclass(frozen=True)
class Settings:
    """What questions must share to be answered together; attributes as arguments of `predict_counterfactual`."""

    output: Output
    n_samples: int
    seed: int
    strength: float
    guidance_scale: float
    heterogeneity: float
    solver: SolverConfig


@dataclass(frozen=True)
class Question:
    """The condition that cells shall have, and how it is answered.

    Attributes
    ----------
    perturbation, dose, labels, batch, output, n_samples, seed, strength, guidance_scale, heterogeneity, solver
        As the arguments of `CFMVC.predict_counterfactual`.
    """

    perturbation: str | Sequence[str] | None = None
    dose: float | None = None
    labels: str | None = None
    batch: str | None = None
    output: Output = "counts"
    n_samples: int = 1
    seed: int | None = None
    strength: float = 1.0
    guidance_scale: float = 1.0
    heterogeneity: float = 1.0
    solver: SolverConfig = field(default_factory=SolverConfig)

    def settings(self, solvers: list[str]) -> Settings:
        """Return how the question is answered, a seed being drawn where none is given.

        Parameters
        ----------
        solvers
            Methods of the ODE that the model was exported with.

        Raises
        ------
        DataError
            If an argument is out of range.
        UnsupportedError
            If the method of the ODE was not exported.
        """
        check_output(self.output)
        check_scales(self.heterogeneity, self.guidance_scale, self.strength, self.batch)
        alone = self.output == "counts" and None in asked_perturbations(self.perturbation)
        if self.n_samples < 1 or (self.n_samples > 1 and not alone):
            raise DataError(
                f"n_samples is {self.n_samples}; more than one draw goes with one perturbation and output='counts'."
            )
        if self.solver.n_steps < 1:
            raise DataError(f"n_steps is {self.solver.n_steps}; pass at least 1 (5 is usual)")
        if self.solver.method not in solvers:
            raise UnsupportedError(
                f"solver method {self.solver.method!r} was not exported; this model has {', '.join(solvers)}. Export "
                "it again with that method"
            )
        return Settings(
            self.output,
            self.n_samples,
            chosen_seed(self.seed),
            float(self.strength),
            float(self.guidance_scale),
            float(self.heterogeneity),
            self.solver,
        )

    def arguments(self, settings: Settings) -> dict[str, Any]:
        """Return the arguments as they stand in the provenance of a prediction."""
        values = {**asdict(self), **asdict(settings)}
        del values["solver"]
        return values
