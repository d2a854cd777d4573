"""What requests and answers look like in JSON."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "CounterfactualAnswer",
    "CounterfactualHeader",
    "CounterfactualRequest",
    "EncodeAnswer",
    "EncodeHeader",
    "EncodeRequest",
    "Health",
    "ModelCard",
    "Problem",
    "Solver",
]

Number = Annotated[float, Field(allow_inf_nan=False)]
Name = Annotated[str, Field(max_length=1000)]
Value = Name | int | Number | bool


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class EncodeHeader(_Strict):
    """Cells without their counts, as the header of npz and Arrow has them."""

    genes: list[Name] = Field(min_length=1, description="Names of the genes, in the order of the counts.")
    obs: dict[Name, list[Value]] = Field(
        default_factory=dict, description="Columns of the cells that the model reads; see `columns` of /v1/model."
    )
    names: list[Name] | None = Field(
        None, description="Names of the cells, which key their noise; numbers if not given."
    )
    pad_missing: bool = Field(False, description="Count genes of the model that the cells lack as zero.")


class Solver(_Strict):
    """Method and steps of the ODE."""

    method: Literal["euler", "midpoint", "heun", "rk4"] = "midpoint"
    n_steps: int = Field(5, ge=1, le=1000)


class CounterfactualHeader(EncodeHeader):
    """Cells without their counts, and the condition that they shall have; what is not named stays as it is."""

    perturbation: Name | None = None
    dose: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    labels: Name | None = None
    batch: Name | None = None
    output: Literal["counts", "rate", "normalized", "latent"] = "counts"
    n_samples: int = Field(1, ge=1, le=1000)
    seed: int = Field(0, ge=0, lt=2**63)
    strength: float = Field(1.0, ge=0, le=1.5)
    guidance_scale: float = Field(1.0, ge=0, allow_inf_nan=False)
    heterogeneity: float = Field(1.0, ge=0, le=1)
    solver: Solver | None = None


class _Counts(BaseModel):
    counts: list[list[Number]] = Field(min_length=1, description="Raw UMI counts, a list of genes for each cell.")


class EncodeRequest(EncodeHeader, _Counts):
    """Cells to encode."""


class CounterfactualRequest(CounterfactualHeader, _Counts):
    """Cells, and the condition that they shall have."""


class EncodeAnswer(BaseModel):
    """Mean and standard deviation of the latent of each cell; the first `n_intrinsic` columns are the cell's state."""

    names: list[str]
    n_intrinsic: int
    mean: list[list[float]]
    sd: list[list[float]]


class CounterfactualAnswer(BaseModel):
    """Counterfactual cells."""

    names: list[str]
    genes: list[str]
    obs: dict[str, list[str | int]]
    counts: list[list[float]] | None = Field(description="Counts, or expected counts; null for latents alone.")
    latent: list[list[float]]
    counterfactual_latent: list[list[float]]
    provenance: dict[str, Any]


class ModelCard(BaseModel):
    """What the model knows, and what a request may cost."""

    genes: list[str]
    perturbations: list[str]
    control: str
    separator: str
    contexts: list[str]
    columns: dict[str, Any]
    labels: list[str]
    batches: list[str]
    samples: list[str] | None
    solvers: list[str]
    n_intrinsic: int
    n_technical: int
    versions: dict[str, str]
    limits: dict[str, float]


class Health(BaseModel):
    """The service is there, and its model answers."""

    status: Literal["ok"]


class Problem(BaseModel):
    """Why a request was not answered."""

    error: str
    request_id: str
