import pytest
import torch

from cfmvc_scvi.errors import DataError
from cfmvc_scvi.flow import straight_path


@pytest.mark.parametrize("per_cell", [False, True])
def test_ends_are_source_and_target_bit_for_bit(per_cell: bool) -> None:
    z_0, z_1 = torch.randn(7, 3), 100 * torch.randn(7, 3)
    ones = torch.ones(7) if per_cell else torch.tensor(1.0)
    assert torch.equal(straight_path(z_0, z_1, 0 * ones).z_t, z_0)
    assert torch.equal(straight_path(z_0, z_1, ones).z_t, z_1)


def test_each_cell_has_its_own_time() -> None:
    z_0, z_1, t = torch.randn(5, 3), torch.randn(5, 3), torch.rand(5)
    together = straight_path(z_0, z_1, t)
    for i in range(5):
        alone = straight_path(z_0[i : i + 1], z_1[i : i + 1], t[i])
        assert torch.equal(together.z_t[i], alone.z_t[0])
    assert torch.equal(together.t, t)


def test_state_and_target_cannot_be_altered_apart() -> None:
    sample = straight_path(torch.zeros(2, 2), torch.ones(2, 2), torch.tensor(0.5))
    with pytest.raises(AttributeError):
        sample.target = torch.zeros(2, 2)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("source", "target", "time", "message"),
    [
        ((3, 2), (4, 2), (), r"\(3, 2\).*\(4, 2\)"),
        ((3, 2), (3, 1), (), "paired"),
        ((3,), (3,), (), "matrices"),
        ((3, 2), (3, 2), (2,), "3 cells"),
        ((3, 2), (3, 2), (3, 1), "one time per cell"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(source, target, time, message) -> None:
    with pytest.raises(DataError, match=message):
        straight_path(torch.zeros(source), torch.zeros(target), torch.zeros(time))
