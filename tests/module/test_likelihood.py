"""The likelihood of counts: scvi's values and gradients, and the exact ones."""

import mpmath
import pytest
import torch
from scvi.distributions import NegativeBinomial

from cfmvc_scvi.module.likelihood import SparseNegativeBinomial


def parameters(n_cells: int = 12, n_genes: int = 9) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Counts, most of them zero, means and dispersions over several orders of magnitude, in float64."""
    rng = torch.Generator().manual_seed(0)
    mu = torch.exp(3 * torch.randn(n_cells, n_genes, generator=rng, dtype=torch.float64))
    theta = torch.exp(2 * torch.randn(n_genes, generator=rng, dtype=torch.float64))
    counts = torch.poisson(mu, generator=rng) * (torch.rand(mu.shape, generator=rng) < 0.4)
    assert (counts == 0).any() and (counts > 0).any()
    return counts, mu, theta


def value_and_gradients(kind: type[NegativeBinomial], counts, mu, theta) -> list[torch.Tensor]:
    mu, theta = mu.clone().requires_grad_(), theta.clone().requires_grad_()
    value = kind(mu=mu, theta=theta).log_prob(counts)
    weights = torch.linspace(1, 2, value.numel()).reshape(value.shape).to(value)  # no entry may stand for another
    (weights * value).sum().backward()
    return [value.detach(), mu.grad, theta.grad]


@pytest.mark.parametrize("layout", ["contiguous", "transposed"])
def test_it_is_scvis_negative_binomial(layout):
    counts, mu, theta = parameters()
    if layout == "transposed":
        counts, mu = (values.t().contiguous().t() for values in (counts, mu))
    for ours, scvis in zip(
        value_and_gradients(SparseNegativeBinomial, counts, mu, theta),
        value_and_gradients(NegativeBinomial, counts, mu, theta),
        strict=True,
    ):
        torch.testing.assert_close(ours, scvis, rtol=1e-7, atol=1e-12)


def test_its_gradient_is_that_of_its_value():
    counts, mu, theta = parameters(5, 4)
    torch.autograd.gradcheck(
        lambda m, t: SparseNegativeBinomial(mu=m, theta=t).log_prob(counts),
        (mu.requires_grad_(), theta.requires_grad_()),
    )


@pytest.mark.parametrize("x", [0, 1, 7, 1_000_000])
def test_it_is_the_exact_likelihood(x):
    means, thetas = [1e-6, 0.3, 20.0, 1e6], [1e-3, 0.5, 30.0, 1e4]
    mu = torch.tensor(means, dtype=torch.float64).repeat(len(thetas), 1).t().contiguous()
    ours = SparseNegativeBinomial(mu=mu, theta=torch.tensor(thetas, dtype=torch.float64)).log_prob(
        torch.full_like(mu, x)
    )
    for i, m in enumerate(means):
        for j, t in enumerate(thetas):
            with mpmath.workdps(40):
                exact = (
                    mpmath.loggamma(x + t)
                    - mpmath.loggamma(t)
                    - mpmath.loggamma(x + 1)
                    + t * mpmath.log(mpmath.mpf(t) / (t + m))
                    + x * mpmath.log(mpmath.mpf(m) / (t + m))
                )
            assert float(ours[i, j]) == pytest.approx(float(exact), rel=2e-3 if m < 1e-5 and x else 1e-4, abs=1e-7)


@pytest.mark.parametrize("case", ["several samples", "a dispersion for each cell"])
def test_other_shapes_are_left_to_scvi(case):
    counts, mu, theta = parameters()
    if case == "several samples":
        mu = torch.stack([mu, 2 * mu])
    else:
        theta = theta * torch.linspace(1, 2, len(mu))[:, None]
    expected = NegativeBinomial(mu=mu, theta=theta).log_prob(counts)
    assert torch.equal(SparseNegativeBinomial(mu=mu, theta=theta).log_prob(counts), expected)
