"""A bundle predicts what the model predicts, whatever is asked: what follows the networks is the same code."""

import inspect
from collections.abc import Callable

import anndata as ad
import numpy as np
import pytest

from cfmvc_scvi import CFMVC
from cfmvc_scvi.errors import DataError, UnsupportedError
from cfmvc_scvi.runtime import Bundle, Cells, Question


def as_cells(data: ad.AnnData) -> Cells:
    return Cells(data.X, {name: data.obs[name].tolist() for name in data.obs}, data.obs_names, data.var_names)


def test_counterfactuals_are_those_of_the_model(
    served: CFMVC, torch_bundle: Bundle, few: ad.AnnData, asked: dict, assert_same: Callable[..., None]
) -> None:
    expected = served.predict_counterfactual(few, **asked, seed=5)
    answer = torch_bundle.counterfactual(as_cells(few), **asked, seed=5)
    assert_same(answer, expected)


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


REFUSED = {"trust": True, "key_added": "x", "indices": [1], "batch_size": 3, "out": "x.h5ad"}


@pytest.mark.parametrize("option", [{name: value} for name, value in REFUSED.items()], ids=str)
def test_what_is_not_supported_is_refused_by_name(torch_bundle: Bundle, few: ad.AnnData, option: dict) -> None:
    with pytest.raises(UnsupportedError, match=f"support {next(iter(option))}"):
        torch_bundle.counterfactual(few, perturbation="A", **option)


def test_every_option_of_the_model_is_supported_or_refused(all_asked: dict[str, dict]) -> None:
    theirs = set(inspect.signature(CFMVC.predict_counterfactual).parameters) - {"self", "adata"}
    mine = set(inspect.signature(Bundle.counterfactual).parameters) - {"self", "cells", "pad_missing", "unsupported"}
    assert theirs - mine == set(REFUSED) and mine <= theirs
    assert mine == {*(name for asked in all_asked.values() for name in asked), "seed"}


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"perturbation": ["A", "A"]}, "each once"),
        ({"perturbation": []}, "at least one"),
        ({"perturbation": ["A", "B"], "n_samples": 2}, "one perturbation"),
        ({"perturbation": "A", "n_samples": 0}, "n_samples is 0"),
        ({"perturbation": "A", "output": "rate", "n_samples": 2}, "output='counts'"),
        ({"perturbation": "A", "strength": 1.6}, "strength is 1.6"),
        ({"batch": "batch_1", "strength": 0.5}, "nothing lies between two batches"),
        ({"perturbation": "A", "heterogeneity": 1.1}, "heterogeneity is 1.1"),
        ({"perturbation": "A", "guidance_scale": -1.0}, "guidance_scale is -1"),
        ({"perturbation": "A", "dose": -1.0}, "dose is -1"),
        ({"perturbation": "A", "output": "mean"}, "output is 'mean'"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused_as_by_the_model(
    served: CFMVC, torch_bundle: Bundle, few: ad.AnnData, option: dict, words: str
) -> None:
    for ask in (served.predict_counterfactual, torch_bundle.counterfactual):
        with pytest.raises(DataError, match=words):
            ask(few, **option)


def test_several_perturbations_are_not_answered_with_one(torch_bundle: Bundle, few: ad.AnnData) -> None:
    asked = [torch_bundle.ask(few, Question(perturbation, seed=0)) for perturbation in (["A", "B"], "A")]
    with pytest.raises(DataError, match="names of answers"):
        torch_bundle.answer(asked)


def test_cells_encoded_together_get_what_they_get_alone(torch_bundle: Bundle, few: ad.AnnData) -> None:
    parts = [few[:5].copy(), few[3:4, ::-1].copy(), few[7:].copy()]
    together = torch_bundle.moments([torch_bundle.take(part) for part in parts])
    assert len(together) == len(parts)
    for (mean, sd), part in zip(together, parts, strict=True):
        alone = torch_bundle.encode(part)
        np.testing.assert_allclose(mean, alone[0], atol=1e-6)
        np.testing.assert_allclose(sd, alone[1], atol=1e-6)
