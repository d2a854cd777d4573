"""A bundle predicts what the model predicts, whatever is asked: what follows the networks is the same code."""

import anndata as ad
import numpy as np
import pytest
from scipy import sparse

from cfmvc_scvi import CFMVC
from cfmvc_scvi.config import SolverConfig
from cfmvc_scvi.errors import UnsupportedError
from cfmvc_scvi.runtime import Bundle, Cells, Question

OPTIONS = {
    "seen": {"perturbation": "A", "dose": 2.0},
    "combination at an unseen dose": {"perturbation": "B+A", "dose": 1.0},
    "control": {"perturbation": "control"},
    "dose alone": {"dose": 0.5},
    "cell type": {"labels": "type_1"},
    "batch": {"batch": "batch_1"},
    "everything": {"perturbation": "B", "dose": 0.5, "labels": "type_0", "batch": "batch_0"},
    "nothing": {},
    "expected counts": {"perturbation": "A", "dose": 2.0, "output": "rate"},
    "normalized": {"perturbation": "A+B", "dose": 2.0, "output": "normalized"},
    "latent": {"perturbation": "A", "dose": 0.5, "output": "latent"},
    "draws": {"perturbation": "A", "dose": 2.0, "n_samples": 2},
    "a part of the effect": {"perturbation": "A", "dose": 2.0, "strength": 0.4},
    "beyond the effect": {"perturbation": "B", "dose": 0.5, "strength": 1.3, "output": "rate"},
    "no effect": {"perturbation": "B", "strength": 0.0},
    "guidance": {"perturbation": "A", "dose": 2.0, "guidance_scale": 1.7},
    "no heterogeneity": {"perturbation": "A", "dose": 2.0, "heterogeneity": 0.0},
    "some heterogeneity": {"perturbation": "A", "dose": 2.0, "heterogeneity": 0.4, "output": "rate"},
    "euler": {"perturbation": "A", "dose": 2.0, "solver": SolverConfig("euler", 7)},
    "heun": {"perturbation": "A", "dose": 2.0, "solver": SolverConfig("heun", 3)},
    "rk4": {"perturbation": "A", "dose": 2.0, "solver": SolverConfig("rk4", 1)},
    "midpoint": {"perturbation": "A", "dose": 2.0, "solver": SolverConfig("midpoint", 20)},
}


def as_cells(data: ad.AnnData) -> Cells:
    return Cells(data.X, {name: data.obs[name].tolist() for name in data.obs}, data.obs_names, data.var_names)


@pytest.mark.parametrize("asked", OPTIONS.values(), ids=OPTIONS)
def test_counterfactuals_are_those_of_the_model(
    served: CFMVC, torch_bundle: Bundle, few: ad.AnnData, asked: dict
) -> None:
    expected = served.predict_counterfactual(few, **asked, seed=5)
    answer = torch_bundle.counterfactual(as_cells(few), **asked, seed=5)
    assert_same(answer, expected)


def assert_same(answer, expected: ad.AnnData) -> None:
    """All that a prediction holds, to 1e-5 of log1p counts and of latents; names, conditions and provenance alike."""
    if expected.X is None:
        assert answer.X is None
    else:
        matrix = expected.X.toarray() if sparse.issparse(expected.X) else expected.X
        assert sparse.issparse(answer.X) == sparse.issparse(expected.X)
        np.testing.assert_allclose(np.log1p(answer.dense), np.log1p(matrix), atol=1e-5)
    for key in ("X_cfmvc", "X_cfmvc_counterfactual"):
        np.testing.assert_allclose(answer.obsm[key], expected.obsm[key], atol=1e-5)
    for column, values in answer.obs.items():
        assert list(values) == list(expected.obs[column]), column
    assert list(answer.obs_names) == list(expected.obs_names) and list(answer.var_names) == list(expected.var_names)
    left_out = {"versions", "created"}
    mine, theirs = answer.uns["cfmvc"], expected.uns["cfmvc"]
    assert {key: mine[key] for key in mine.keys() - left_out} == {key: theirs[key] for key in theirs.keys() - left_out}


@pytest.mark.parametrize("part", ["intrinsic", "technical", "both"])
def test_latents_are_those_of_the_model(served: CFMVC, torch_bundle: Bundle, few: ad.AnnData, part: str) -> None:
    expected = served.get_latent_representation(few, part=part)
    np.testing.assert_allclose(torch_bundle.latent(few, part), expected, atol=1e-5)


def test_encode_gives_the_moments_of_the_posterior(served: CFMVC, torch_bundle: Bundle, few: ad.AnnData) -> None:
    mean, variance = served.get_latent_representation(few, part="both", return_dist=True)
    own_mean, own_sd = torch_bundle.encode(few)
    np.testing.assert_allclose(own_mean, mean, atol=1e-5)
    np.testing.assert_allclose(own_sd**2, variance, atol=1e-5)


def test_an_anndata_is_as_good_as_cells(torch_bundle: Bundle, few: ad.AnnData) -> None:
    asked = {"perturbation": "A", "dose": 2.0, "seed": 1}
    first, second = (torch_bundle.counterfactual(cells, **asked) for cells in (few, as_cells(few)))
    assert (first.X != second.X).nnz == 0


def test_questions_answered_together_get_what_they_get_alone(torch_bundle: Bundle, few: ad.AnnData) -> None:
    parts = [(few[:5], "A", 2.0), (few[3:9], "A+B", 1.0), (few[5:6], "control", None), (few[9:], "B", 0.5)]
    questions = [(cells.copy(), Question(perturbation, dose, seed=3)) for cells, perturbation, dose in parts]
    together = torch_bundle.answer([torch_bundle.ask(*each) for each in questions])
    for answer, each in zip(together, questions, strict=True):
        (alone,) = torch_bundle.answer([torch_bundle.ask(*each)])
        assert (answer.X != alone.X).nnz == 0
        assert np.abs(answer.obsm["X_cfmvc_counterfactual"] - alone.obsm["X_cfmvc_counterfactual"]).max() < 1e-6
        assert list(answer.obs_names) == list(alone.obs_names)
        assert list(answer.obs["target_condition"]) == list(alone.obs["target_condition"])
        unseen = [x.uns["cfmvc"]["n_conditions_unseen"] for x in (answer, alone)]
        assert unseen[0] == unseen[1]


def test_many_kinds_of_questions_leave_no_more_behind_than_few(torch_bundle: Bundle, few: ad.AnnData) -> None:
    for seed in range(12):
        torch_bundle.counterfactual(few[:2].copy(), perturbation="A", dose=2.0, seed=seed, output="latent")
    assert len(torch_bundle._observations) <= 4


@pytest.mark.parametrize(
    "option", [{"trust": True}, {"key_added": "x"}, {"indices": [1]}, {"batch_size": 3}, {"out": "x.h5ad"}]
)
def test_what_is_not_supported_is_refused_by_name(torch_bundle: Bundle, few: ad.AnnData, option: dict) -> None:
    with pytest.raises(UnsupportedError, match=f"support {next(iter(option))}"):
        torch_bundle.counterfactual(few, perturbation="A", **option)


def test_one_perturbation_at_a_time(torch_bundle: Bundle, few: ad.AnnData) -> None:
    with pytest.raises(UnsupportedError, match="one perturbation at a time"):
        torch_bundle.counterfactual(few, perturbation=["A", "B"])  # type: ignore[arg-type]
