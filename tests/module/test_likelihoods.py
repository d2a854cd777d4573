"""Likelihoods of counts against mpmath, and their gradients over everything that training can meet."""

from __future__ import annotations

import math

import mpmath
import pytest
import torch
from scvi.distributions import NegativeBinomial, Poisson, ZeroInflatedNegativeBinomial

from cfmvc_scvi.module.cfmvc import _positive

MEANS = [0.0, *(10.0**power for power in range(-12, 9))]
DISPERSIONS = [10.0**power for power in range(-5, 7)]
COUNTS = [0.0, 1.0, 2.0, 30.0, 1e3, 1e6]
LOGITS = [-40.0, 0.0, 40.0]


def likelihood(name, mean, dispersion, logit):
    if name == "poisson":
        return _positive(Poisson(mean, scale=mean))
    if name == "nb":
        return NegativeBinomial(mu=mean, theta=dispersion)
    return ZeroInflatedNegativeBinomial(mu=mean, theta=dispersion, zi_logits=logit)


def exact(name, x, mean, dispersion, logit):
    x, mean, theta = mpmath.mpf(x), mpmath.mpf(mean), mpmath.mpf(dispersion)
    if name == "poisson":
        return x * mpmath.log(mean) - mean - mpmath.loggamma(x + 1)
    nb = (
        mpmath.loggamma(x + theta)
        - mpmath.loggamma(theta)
        - mpmath.loggamma(x + 1)
        + theta * mpmath.log(theta / (theta + mean))
        + x * mpmath.log(mean / (theta + mean))
    )
    if name == "nb":
        return nb
    dropout = 1 / (1 + mpmath.exp(-mpmath.mpf(logit)))
    return mpmath.log((dropout if x == 0 else 0) + (1 - dropout) * mpmath.exp(nb))


def near(x, mean, theta):
    """Whether a count is one that the distribution could give."""
    return abs(x - mean) <= 6 * math.sqrt(mean + mean**2 / theta) + 5


@pytest.mark.parametrize("name", ["nb", "zinb", "poisson"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_and_gradients_are_finite_everywhere(name, dtype):
    grid = [torch.tensor(values, dtype=dtype) for values in (MEANS, DISPERSIONS, LOGITS, COUNTS)]
    mean, theta, logit, x = (values.reshape(-1, 1).clone() for values in torch.meshgrid(*grid, indexing="ij"))
    parameters = [value.requires_grad_() for value in (mean, theta, logit)]
    value = likelihood(name, *parameters).log_prob(x)
    assert torch.isfinite(value).all()
    used = parameters[: {"poisson": 1, "nb": 2, "zinb": 3}[name]]
    for gradient in torch.autograd.grad(value.sum(), used):
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("name", ["nb", "zinb", "poisson"])
def test_double_precision_agrees_with_mpmath(name):
    with mpmath.workdps(60):
        for mean in (value for value in MEANS if value >= 1e-3):  # scvi adds 1e-8 inside the logarithms
            for theta in (value for value in DISPERSIONS if value <= 1e5):
                counts = [x for x in {*COUNTS, float(round(mean))} if near(x, mean, theta)]
                x = torch.tensor(counts, dtype=torch.float64)[:, None]
                tensors = (torch.full_like(x, value) for value in (mean, theta, 0.5))
                found = likelihood(name, *tensors).log_prob(x).flatten().tolist()
                for count, value in zip(counts, found, strict=True):
                    truth = float(exact(name, count, mean, theta, 0.5))
                    assert abs(value - truth) <= 1e-4 * max(abs(truth), 1e-2), (count, mean, theta)


@pytest.mark.parametrize("name", ["nb", "zinb", "poisson"])
def test_gradients_are_those_of_finite_differences(name):
    points = torch.tensor([[0.5, 2.0, 0.1], [20.0, 0.4, -1.0], [300.0, 50.0, 2.0]], dtype=torch.float64)
    mean, theta, logit = (column[:, None].clone().requires_grad_() for column in points.T)
    x = torch.tensor([[0.0], [3.0], [280.0]], dtype=torch.float64)
    used = (mean, theta, logit)[: {"poisson": 1, "nb": 2, "zinb": 3}[name]]
    assert torch.autograd.gradcheck(lambda *values: likelihood(name, *(*values, theta, logit)[:3]).log_prob(x), used)
