import pytest
import torch

from cfmvc_scvi.errors import DataError
from cfmvc_scvi.nn import ContextEncoder


@pytest.mark.parametrize("n_features", [1, 7])
def test_embeds_any_context_from_its_features(n_features: int) -> None:
    encoder = ContextEncoder(n_features, 16)
    assert encoder(torch.randn(5, n_features)).shape == (5, 16)
    assert not any(isinstance(layer, torch.nn.Embedding) for layer in encoder.modules())


def test_is_continuous_in_the_features() -> None:
    encoder = ContextEncoder(4, 32)
    context, direction = torch.randn(2, 10, 4)
    near, far = ((encoder(context + step * direction) - encoder(context)).norm() for step in (1e-3, 1.0))
    assert 0 < near < 0.02 * far


def test_a_far_context_has_no_longer_embedding() -> None:
    encoder = ContextEncoder(4, 32)
    context = torch.randn(10, 4)
    assert encoder(1e4 * context).norm(dim=1).max() < 1.1 * encoder(context).norm(dim=1).max()


def test_constant_features_have_a_finite_gradient() -> None:
    encoder = ContextEncoder(4, 8)
    encoder(torch.zeros(3, 4)).square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in encoder.parameters() if p.grad is not None)


def test_wrong_width_is_refused() -> None:
    with pytest.raises(DataError, match=r"context has shape \(3, 5\).*\(cells, 4\)"):
        ContextEncoder(4, 8)(torch.zeros(3, 5))
