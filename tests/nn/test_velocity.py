import pytest
import torch
from torch import Tensor

from cfmvc_scvi.errors import DataError
from cfmvc_scvi.nn import VelocityField

N_LATENT, N_PERTURBATIONS, N_CONTEXT = 6, 3, 4


def trained_like(**sizes: int) -> VelocityField:
    """A field whose last layers are as large as after training."""
    field = VelocityField(N_LATENT, N_PERTURBATIONS, N_CONTEXT, n_hidden=32, **sizes)
    with torch.no_grad():
        field.base_out.weight.mul_(100)
        field.basis_out.weight.mul_(100)
    return field


def cells(n: int) -> dict[str, Tensor]:
    return {
        "z_t": torch.randn(n, N_LATENT),
        "t": torch.rand(n),
        "design": torch.eye(N_PERTURBATIONS + 1)[torch.arange(n) % (N_PERTURBATIONS + 1), 1:],
        "context": torch.randn(n, N_CONTEXT),
    }


def rows(batch: dict[str, Tensor], index: object) -> dict[str, Tensor]:
    return {name: values[index] for name, values in batch.items()}


def test_is_base_plus_guided_effect() -> None:
    field, batch = trained_like(), cells(12)
    base, effect, alpha = field.components(**batch)
    assert base.shape == effect.shape == (12, N_LATENT) and alpha.shape == (12, 16)
    assert effect[1].abs().max() > 0.01
    assert torch.equal(field.base(batch["z_t"], batch["t"], batch["context"]), base)
    for scale in (0.0, 0.7, 1.0, 2.5):
        assert torch.equal(field(**batch, guidance_scale=scale), base + scale * effect)


def test_effect_is_linear_in_alpha_with_basis_fields_of_the_state() -> None:
    """The shared form U (h * sum_j alpha_j m_j) is the sum over j of alpha_j B_j(h)."""
    field, batch = trained_like(n_basis=5), cells(12)
    _, effect, alpha = field.components(**batch)
    hidden = field._hidden(batch["z_t"], batch["t"], field.context_encoder(batch["context"]))
    basis = torch.stack([field.basis_out(hidden * field.basis_in.weight[:, j]) for j in range(5)], dim=1)
    torch.testing.assert_close(effect, (alpha[:, :, None] * basis).sum(dim=1), rtol=1e-5, atol=1e-6)


def test_effect_depends_on_the_state() -> None:
    field, batch = trained_like(), cells(2)
    same = {name: values[1:].expand(2, *values.shape[1:]) for name, values in batch.items()}
    effect = field.components(**(same | {"z_t": batch["z_t"]})).effect
    assert (effect[0] - effect[1]).abs().max() > 1e-2


@pytest.mark.parametrize("n_layers", [1, 2, 4])
def test_time_is_a_scalar_or_one_per_cell(n_layers: int) -> None:
    field, batch = trained_like(n_layers=n_layers), cells(5)
    batch["t"] = torch.full((5,), 0.3)
    expected = field(**batch)
    torch.testing.assert_close(field(**(batch | {"t": torch.tensor(0.3)})), expected, rtol=1e-5, atol=1e-6)
    assert (field(**(batch | {"t": torch.tensor(0.9)})) - expected).abs().max() > 1e-3


def test_at_is_the_forward_of_a_fixed_condition() -> None:
    field, batch = trained_like(), cells(8)
    velocity = field.at(batch["design"], batch["context"], guidance_scale=1.5)
    for t in (torch.tensor(0.0), torch.tensor(0.6)):
        assert torch.equal(velocity(batch["z_t"], t), field(**(batch | {"t": t}), guidance_scale=1.5))


def test_velocity_starts_near_zero_and_every_parameter_has_a_gradient() -> None:
    field = VelocityField(N_LATENT, N_PERTURBATIONS, N_CONTEXT)
    batch = cells(64)
    velocity = field(**batch)
    assert velocity.square().mean().sqrt() < 0.02
    (velocity - torch.randn(64, N_LATENT)).square().mean().backward()
    for name, parameter in field.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        assert (parameter.grad != 0).any(), f"{name} gets no gradient at the first step"


def test_control_cells_teach_the_base_only() -> None:
    field, batch = trained_like(), cells(16)
    field(**(batch | {"design": torch.zeros(16, N_PERTURBATIONS)})).square().sum().backward()
    assert field.base_out.weight.grad is not None and field.base_out.weight.grad.abs().max() > 0
    for parameter in (field.basis_out.weight, field.basis_in.weight, *field.perturbation_encoder.parameters()):
        assert parameter.grad is None or not parameter.grad.any()


@pytest.mark.parametrize("size", [1, 2, 7, 33])
def test_batch_size_changes_nothing(size: int) -> None:
    field, batch = trained_like(), cells(99)
    parts = [field(**rows(batch, slice(i, i + size))) for i in range(0, 99, size)]
    torch.testing.assert_close(torch.cat(parts), field(**batch), rtol=0, atol=1e-6)


def test_permuted_cells_get_permuted_velocities() -> None:
    field, batch = trained_like(), cells(40)
    order = torch.randperm(40)
    torch.testing.assert_close(field(**rows(batch, order)), field(**batch)[order], rtol=0, atol=1e-6)


def test_permuted_perturbations_are_the_same_field() -> None:
    field, batch = trained_like(), cells(20)
    expected = field(**batch)
    order = torch.tensor([2, 0, 1])
    with torch.no_grad():
        field.perturbation_encoder.embedding.copy_(field.perturbation_encoder.embedding[order])
    permuted = batch | {"design": batch["design"][:, order]}
    torch.testing.assert_close(field(**permuted), expected, rtol=0, atol=1e-6)


def test_same_seed_same_field_and_state_dict_restores_it() -> None:
    batch = cells(5)
    torch.manual_seed(1)
    first = trained_like()
    torch.manual_seed(1)
    again = trained_like()
    other = trained_like()
    assert torch.equal(first(**batch), again(**batch))
    assert not torch.equal(first(**batch), other(**batch))
    other.load_state_dict(first.state_dict())
    assert torch.equal(first(**batch), other(**batch))


def test_double_precision() -> None:
    field, batch = trained_like().double(), {name: values.double() for name, values in cells(5).items()}
    assert field(**batch).dtype == torch.float64
    torch.testing.assert_close(
        field.float()(**{k: v.float() for k, v in batch.items()}).double(),
        field.double()(**batch),
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"z_t": torch.zeros(5, 2)}, r"z_t has shape \(5, 2\).*\(cells, 6\)"),
        ({"design": torch.zeros(5, 9)}, "design"),
        ({"context": torch.zeros(5, 9)}, "context"),
        ({"t": torch.zeros(4)}, r"t has shape \(4,\) for 5 cells"),
        ({"t": torch.zeros(5, 1)}, "one per cell"),
    ],
)
def test_wrong_shapes_are_named(changes: dict[str, Tensor], message: str) -> None:
    with pytest.raises(DataError, match=message):
        trained_like()(**(cells(5) | changes))


def test_a_trunk_needs_a_layer() -> None:
    with pytest.raises(DataError, match="n_layers is 0"):
        trained_like(n_layers=0)
