"""Names of interactions, on effects whose class is known."""

import numpy as np
import pytest

from cfmvc_scvi.errors import DataError
from cfmvc_scvi.shift import gene_classes, pair_fit


def test_genes() -> None:
    parts = np.array([[1.0, 1.0, 1.0, 1.0, 1.0, 0.0], [1.0, 1.0, 1.0, 0.9, 1.0, 0.0]])
    together = np.array([2.05, 3.0, 1.5, 1.0, -1.0, 1.0])
    expected = ["additive", "synergy", "suppression", "epistasis", "reversal", "suppression"]
    assert list(gene_classes(parts, together, np.full(6, 0.1))) == expected
    assert set(gene_classes(parts, together, np.full(6, 5.0))) == {"additive"}
    negative = gene_classes(-parts, -together, np.full(6, 0.1))
    assert list(negative) == expected
    assert gene_classes(parts, together, np.full(6, 0.4), level=0.5)[1] == "synergy"


def test_pairs(rng: np.random.Generator) -> None:
    a, b, new = rng.standard_normal((3, 400))
    for first, second, together, kind in [
        (a, b, a + b, "additive"),
        (a, b, 1.6 * a + 1.5 * b, "synergy"),
        (a, b, 0.5 * a + 0.6 * b, "suppression"),
        (a, b, a + 0.1 * b, "epistasis"),
        (a, b, 0.3 * (a + b) + 2 * new, "neomorphism"),
        (a, a + 0.1 * b, a, "redundancy"),
    ]:
        found = pair_fit(first, second, together)
        assert found.kind == kind
        if kind not in ("neomorphism", "redundancy"):
            np.testing.assert_allclose(found.first * first + found.second * second, together)
            assert found.explained == pytest.approx(1)
    assert pair_fit(a, b, a + b).magnitude == pytest.approx(1)
    assert pair_fit(a, a, 2 * a).kind == "additive" and pair_fit(a, a, a).similarity == pytest.approx(1)


def test_what_has_no_class() -> None:
    one = np.ones(3)
    for ask, words in [
        (lambda: gene_classes(one[None], one, one), "at least"),
        (lambda: gene_classes(np.ones((2, 4)), one, one), r"\(2, 4\)"),
        (lambda: pair_fit(one, np.zeros(3), one), "no effect"),
        (lambda: pair_fit(one, np.ones(4), one), r"\(4,\)"),
    ]:
        with pytest.raises(DataError, match=words):
            ask()
