import math

import pytest
import torch

from cfmvc_scvi.errors import DataError
from cfmvc_scvi.nn import MLP, TimeEmbedding
from cfmvc_scvi.nn.blocks import require_width, shrink_


@pytest.mark.parametrize("n_layers", [0, 1, 3])
@pytest.mark.parametrize("layer_norm", [False, True])
def test_mlp_has_the_layers_asked_for(n_layers: int, layer_norm: bool) -> None:
    mlp = MLP(3, 5, 2, n_layers=n_layers, layer_norm=layer_norm)
    kinds = [type(layer).__name__ for layer in mlp.layers]
    hidden = ["Linear", "LayerNorm", "SiLU"] if layer_norm else ["Linear", "SiLU"]
    assert kinds == hidden * n_layers + ["Linear"]
    assert mlp(torch.randn(4, 3)).shape == (4, 2)


def test_mlp_without_hidden_layers_is_linear() -> None:
    mlp = MLP(3, 5, 2, n_layers=0)
    x, y = torch.randn(2, 4, 3)
    torch.testing.assert_close(mlp(x) + mlp(y), mlp(x + y) + mlp(torch.zeros(4, 3)))


def test_layer_norm_bounds_the_hidden_layer() -> None:
    plain, normed = (MLP(3, 8, 2, layer_norm=layer_norm) for layer_norm in (False, True))
    far = 1e4 * torch.randn(6, 3)
    assert normed(far).abs().max() < 20 < plain(far).abs().max()


@pytest.mark.parametrize("n_features", [2, 8])
def test_time_embedding_by_hand(n_features: int) -> None:
    t = torch.tensor([0.0, 0.3, 1.0])
    k = range(1, n_features // 2 + 1)
    expected = [[math.cos(math.pi * j * s) for j in k] + [math.sin(math.pi * j * s) for j in k] for s in t.tolist()]
    torch.testing.assert_close(TimeEmbedding(n_features)(t), torch.tensor(expected), rtol=0, atol=1e-6)


def test_time_embedding_of_a_scalar_is_one_row() -> None:
    embed = TimeEmbedding(6)
    assert torch.equal(embed(torch.tensor(0.4)), embed(torch.tensor([0.4])))


def test_time_embedding_tells_times_apart() -> None:
    features = TimeEmbedding(2)(torch.linspace(0, 1, 50))
    assert torch.nn.functional.pdist(features).min() > 0.05


@pytest.mark.parametrize("n_features", [0, 3, -2])
def test_odd_time_features_are_refused(n_features: int) -> None:
    with pytest.raises(DataError, match=f"n_features is {n_features}"):
        TimeEmbedding(n_features)


@pytest.mark.parametrize("bias", [False, True])
def test_shrink_scales_weights_and_empties_the_bias(bias: bool) -> None:
    layer = torch.nn.Linear(4, 3, bias=bias)
    before = layer.weight.detach().clone()
    assert shrink_(layer, 0.25) is layer
    assert torch.equal(layer.weight, 0.25 * before)
    assert layer.weight.requires_grad
    assert (layer.bias is None) != bias
    if bias:
        assert torch.equal(layer.bias, torch.zeros(3))


@pytest.mark.parametrize("shape", [(4, 2), (3,), (2, 4, 3)])
def test_require_width_names_tensor_and_shapes(shape: tuple[int, ...]) -> None:
    require_width("context", torch.zeros(4, 3), 3)
    with pytest.raises(DataError, match=r"context has shape \(.*built for \(cells, 3\)"):
        require_width("context", torch.zeros(shape), 3)
