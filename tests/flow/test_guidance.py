import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cfmvc_scvi.flow import guided


def _velocities(scale: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    return scale * torch.randn(6, 4), scale * torch.randn(6, 4)


def test_zero_and_one_return_the_velocities_bit_for_bit() -> None:
    v_null, v_condition = _velocities(1e3)
    assert torch.equal(guided(v_null, v_condition, 0.0), v_null)
    assert torch.equal(guided(v_null, v_condition, 1.0), v_condition)


@settings(max_examples=30, deadline=None)
@given(scale=st.floats(-2, 8))
def test_is_the_line_through_both(scale: float) -> None:
    v_null, v_condition = (v.double() for v in _velocities())
    torch.testing.assert_close(guided(v_null, v_condition, scale), v_null + scale * (v_condition - v_null))


@settings(max_examples=30, deadline=None)
@given(scale=st.floats(-8, 8))
def test_equal_velocities_stay_as_they_are(scale: float) -> None:
    v = _velocities()[0]
    assert torch.equal(guided(v, v, scale), v)


def test_scale_per_cell() -> None:
    v_null, v_condition = _velocities()
    scale = torch.linspace(0, 3, 6)[:, None]
    rows = [guided(v_null[i], v_condition[i], scale[i].item()) for i in range(6)]
    torch.testing.assert_close(guided(v_null, v_condition, scale), torch.stack(rows))


def test_gradient_reaches_both() -> None:
    v_null, v_condition = (v.requires_grad_() for v in _velocities())
    guided(v_null, v_condition, 2.5).sum().backward()
    assert v_null.grad is not None and v_condition.grad is not None
    assert v_null.grad.unique().item() == pytest.approx(-1.5)
    assert v_condition.grad.unique().item() == pytest.approx(2.5)
