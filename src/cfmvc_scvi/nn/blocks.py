"""Building blocks of the networks: a multi-layer perceptron, an embedding of path time, small initial weights."""

from __future__ import annotations

__all__ = ["MLP", "TimeEmbedding", "require_width", "shrink_"]

import torch
from torch import Tensor, nn

from cfmvc_scvi.errors import DataError


class MLP(nn.Module):
    """Linear layers with SiLU between them; smooth, as a solver of high order needs it.

    Each of the `n_layers` hidden layers is linear, then layer norm if asked for, then SiLU; a linear layer follows.

    Parameters
    ----------
    n_in
        Number of input features.
    n_hidden
        Width of the hidden layers.
    n_out
        Number of output features.
    n_layers
        Number of hidden layers; 0 leaves a linear map.
    layer_norm
        Whether to normalise each hidden layer over its features, cell by cell.
    """

    def __init__(self, n_in: int, n_hidden: int, n_out: int, *, n_layers: int = 1, layer_norm: bool = False) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = n_in
        for _ in range(n_layers):
            layers.append(nn.Linear(width, n_hidden))
            if layer_norm:
                layers.append(nn.LayerNorm(n_hidden))
            layers.append(nn.SiLU())
            width = n_hidden
        self.layers = nn.Sequential(*layers, nn.Linear(width, n_out))

    def forward(self, x: Tensor) -> Tensor:
        """Map features (cells, n_in) to (cells, n_out)."""
        return self.layers(x)


class TimeEmbedding(nn.Module):
    """Fourier features of path time: cos(pi k t) and sin(pi k t), k = 1 ... n_features / 2.

    Low whole frequencies suffice for the slowly varying velocity of straight paths, and keep the field smooth enough in
    time for a handful of solver steps.

    Parameters
    ----------
    n_features
        Number of features, even.

    Raises
    ------
    DataError
        If `n_features` is odd or not positive.

    References
    ----------
    Vaswani et al., Attention is all you need, 2017, section 3.5, with linear instead of geometric frequencies.
    """

    frequencies: Tensor

    def __init__(self, n_features: int) -> None:
        super().__init__()
        if n_features < 2 or n_features % 2:
            raise DataError(f"n_features is {n_features}; pass an even number, one cosine and one sine per frequency")
        self.register_buffer("frequencies", torch.pi * torch.arange(1, n_features // 2 + 1), persistent=False)

    def forward(self, t: Tensor) -> Tensor:
        """Embed times of shape () or (cells,) as features of shape (1, n_features) or (cells, n_features)."""
        angle = t.reshape(-1, 1) * self.frequencies
        return torch.cat([angle.cos(), angle.sin()], dim=1)


def shrink_(layer: nn.Linear, factor: float) -> nn.Linear:
    """Scale the initial weights of a last layer, and empty its bias, so that training starts near zero output.

    Not to zero: that would cut the gradient to every layer before it at the first step.

    Parameters
    ----------
    layer
        Layer to change in place.
    factor
        Positive factor of the weights.

    Returns
    -------
    The layer itself.
    """
    with torch.no_grad():
        layer.weight.mul_(factor)
        if layer.bias is not None:
            layer.bias.zero_()
    return layer


def require_width(name: str, tensor: Tensor, width: int) -> None:
    """Raise DataError unless the tensor is a matrix (cells, width); the message carries `name`."""
    if tensor.ndim != 2 or tensor.shape[1] != width:
        raise DataError(f"{name} has shape {tuple(tensor.shape)}; this network was built for (cells, {width})")
