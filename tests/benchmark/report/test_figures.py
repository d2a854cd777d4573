from base64 import b64decode

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from cfmvc_scvi.benchmark.report import figures


@pytest.fixture
def group(rng):
    """Forty control, thirty true and thirty predicted cells; the effect is on two of twelve genes."""
    effect = np.repeat([2.0, 0.0], [2, 10])
    cells = {"control": np.zeros(12), "true": effect, "predicted": 0.5 * effect}
    sizes = {"control": 40, "true": 30, "predicted": 30}
    values = {name: rng.normal(4.0 + mean, 0.02, (sizes[name], 12)) for name, mean in cells.items()}
    return figures.GroupCells("drug", "T cells", values, [f"gene_with_a_long_name{i}" for i in range(12)])


def test_an_image_is_a_png_that_says_what_it_shows(group):
    open_before = plt.get_fignums()
    image = figures.delta(group)
    assert b64decode(image.source.removeprefix("data:image/png;base64,")).startswith(b"\x89PNG")
    assert "effect of drug in T cells on each of 12 genes; correlation 1.00" in image.alt
    assert plt.get_fignums() == open_before


def test_distributions_are_of_the_genes_that_respond_most(group):
    image = figures.distributions(group)
    assert "gene_with_a_long_name0 4.0 / 6.0 / 5.0" in image.alt
    assert "gene_with_a_long_name1 " in image.alt


def test_joint_coordinates_are_reproducible_and_shared_out(group):
    groups = [group, figures.GroupCells("drug", "B cells", group.cells, group.genes)]
    points, labels = figures.joint_coordinates(groups, 40, np.random.default_rng(0))
    again, _ = figures.joint_coordinates(groups, 40, np.random.default_rng(0))
    assert np.array_equal(points, again)
    assert points.shape == (120, 2) and np.isfinite(points).all()
    assert (labels.value_counts() == 20).all()


def test_coverage_is_weighted_by_numbers_where_there_are_some():
    frame = pd.DataFrame({"nominal": [0.9, 0.9, 0.5], "observed": [0.8, 1.0, 0.4]})
    assert figures.coverage(frame) == pytest.approx({0.9: 0.9, 0.5: 0.4})
    assert figures.coverage(frame.assign(n=[300, 100, 10])) == pytest.approx({0.9: 0.85, 0.5: 0.4})
