import pytest
import torch

from cfmvc_scvi.errors import DataError
from cfmvc_scvi.nn import PerturbationEncoder


def test_alpha_has_one_column_per_basis_field() -> None:
    assert PerturbationEncoder(3, 8, 5)(torch.eye(3), torch.randn(3, 8)).shape == (3, 5)


def test_perturbations_and_contexts_are_told_apart() -> None:
    encoder = PerturbationEncoder(3, 8, 5)
    context = torch.randn(1, 8)
    alpha = encoder(torch.eye(3), context.expand(3, 8))
    assert torch.nn.functional.pdist(alpha).min() > 1e-2
    assert (encoder(torch.eye(3), torch.randn(1, 8).expand(3, 8)) - alpha).abs().max() > 1e-3


def test_a_single_perturbation_has_an_effect_that_grows_with_the_dose() -> None:
    encoder = PerturbationEncoder(1, 8, 5)
    doses = torch.tensor([[0.0], [0.1], [1.0], [3.0]])
    size = encoder(doses, torch.randn(1, 8).expand(4, 8)).norm(dim=1)
    assert size[0] == 0
    assert (size.diff() > 0).all()


def test_a_small_dose_acts_in_proportion() -> None:
    encoder = PerturbationEncoder(2, 8, 5).double()
    context = torch.randn(1, 8, dtype=torch.float64)
    one, half = (encoder(torch.tensor([[dose, 0.0]], dtype=torch.float64), context) for dose in (1e-5, 0.5e-5))
    torch.testing.assert_close(half / one, torch.full_like(one, 0.5), rtol=1e-3, atol=0)


def test_combinations_add_up_only_without_the_gate() -> None:
    encoder = PerturbationEncoder(2, 8, 5)
    context = torch.randn(1, 8).expand(3, 8)
    design = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    first, second, combination = encoder(design, context)
    assert (combination - first - second).abs().max() > 1e-3
    with torch.no_grad():
        for parameter in encoder.gate.parameters():
            parameter.zero_()
    first, second, combination = encoder(design, context)
    torch.testing.assert_close(combination, first + second)
    torch.testing.assert_close(first, encoder.out(encoder.embedding[0]))


def test_two_perturbations_with_one_embedding_are_the_same_perturbation() -> None:
    encoder = PerturbationEncoder(2, 8, 5)
    with torch.no_grad():
        encoder.embedding[1] = encoder.embedding[0]
    alpha = encoder(torch.eye(2), torch.randn(1, 8).expand(2, 8))
    torch.testing.assert_close(alpha[0], alpha[1])


def test_wrong_width_is_refused() -> None:
    with pytest.raises(DataError, match=r"design has shape \(3, 2\).*\(cells, 4\)"):
        PerturbationEncoder(4, 8, 5)(torch.zeros(3, 2), torch.zeros(3, 8))
