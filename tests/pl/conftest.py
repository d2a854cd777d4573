from collections.abc import Iterator

import matplotlib.pyplot as plt
import pytest


@pytest.fixture(autouse=True)
def _figures() -> Iterator[None]:
    """Draw without a screen, and leave no figure open."""
    plt.switch_backend("Agg")
    yield
    plt.close("all")
