"""Features of targets from sets of genes and of drugs from structures."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from cfmvc_scvi.errors import DataError, MissingExtraError
from cfmvc_scvi.pp import drug_fingerprints, gene_set_embeddings
from cfmvc_scvi.pp.features import _leading

SETS = {
    "interferon": [f"I{i}" for i in range(8)],
    "cycle": [f"C{i}" for i in range(8)],
    "everything": [f"{kind}{i}" for kind in "IC" for i in range(8)],
    "tiny": ["I0", "C0"],
}


def distance(table: pd.DataFrame, one: str, other: str) -> float:
    return float(np.linalg.norm(table.loc[one] - table.loc[other]))


def test_genes_of_one_set_are_near() -> None:
    table = gene_set_embeddings(SETS, ["I1", "I5", "C3", "ACTB"])
    assert distance(table, "I1", "I5") < 0.1 * distance(table, "I1", "C3")
    assert table.loc["ACTB"].isna().all() and table.drop("ACTB").notna().all(axis=None)
    pd.testing.assert_frame_equal(table, gene_set_embeddings(SETS, ["I1", "I5", "C3", "ACTB"]))
    assert gene_set_embeddings(SETS, ["I1", "C3"], n_components=1).shape == (2, 1)


def test_a_table_says_the_same_as_sets() -> None:
    rows = [(gene, term) for term, genes in SETS.items() for gene in genes]
    table = pd.DataFrame([*rows, (None, "cycle")], columns=["gene", "term"])
    found, known = (gene_set_embeddings(sets, ["I1", "C3"], n_components=2) for sets in (table, SETS))
    np.testing.assert_allclose(found, known, atol=1e-9)


def test_the_sign_of_a_direction_does_not_hang_on_rounding() -> None:
    opposite = np.array([[1.0, 1.0], [1.0, -1.0]])  # both entries of the second direction are equally large
    for nudge in (1.0, 1 + 1e-13, 1 - 1e-13):
        found = _leading(sp.csr_matrix(opposite * [[1.0], [nudge]] * [1.1, 1.0]), 2)
        assert (found[0] > 0).all()


@pytest.mark.parametrize(
    ("sets", "genes", "options", "words"),
    [
        (SETS, ["I1", "I1"], {}, "1 genes are named twice"),
        (SETS, [], {}, "no genes"),
        (SETS, ["actb"], {}, "none of the 1 genes.*'actb'.*'C0'"),
        (SETS, ["I1"], {"min_genes": 99}, "none of the 4 sets has 99 genes"),
        (SETS, ["I1"], {"n_components": 0}, "n_components"),
        (pd.DataFrame({"gene": ["I1"], "go": ["x"]}), ["I1"], {}, "no column 'term'"),
    ],
)
def test_sets_that_cannot_be_used(sets: object, genes: list, options: dict, words: str) -> None:
    with pytest.raises(DataError, match=words):
        gene_set_embeddings(sets, genes, **options)


DRUGS = {
    "ethanol": "CCO",
    "propanol": "CCCO",
    "aspirin": "CC(=O)Oc1ccccc1C(=O)O",
    "salicylic acid": "Oc1ccccc1C(=O)O",
    "unknown": None,
}


@pytest.mark.extra
def test_like_drugs_are_near() -> None:
    pytest.importorskip("rdkit")
    table = drug_fingerprints(DRUGS)
    assert list(table.index) == list(DRUGS) and table.loc["unknown"].isna().all()
    assert distance(table, "ethanol", "propanol") < distance(table, "ethanol", "aspirin")
    assert distance(table, "aspirin", "salicylic acid") < distance(table, "aspirin", "propanol")
    assert (table.max() > table.min()).all()
    assert drug_fingerprints({"one": "CCO"}).notna().all(axis=None)


@pytest.mark.extra
def test_structures_that_cannot_be_used() -> None:
    pytest.importorskip("rdkit")
    for smiles, options, words in [
        ({"a": None, "b": ""}, {}, "none of the 2 drugs"),
        ({"a": "CCO", "bad": "C1CC"}, {}, "1 structures cannot be read.*'bad'.*'C1CC'"),
        ({"a": "CCO", "b": "OCC"}, {}, "all 2 structures have the same"),
        (DRUGS, {"radius": -1}, "radius is -1"),
    ]:
        with pytest.raises(DataError, match=words):
            drug_fingerprints(smiles, **options)


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "rdkit", None)
    monkeypatch.setitem(__import__("sys").modules, "rdkit.Chem", None)
    with pytest.raises(MissingExtraError, match=r"cfmvc-scvi\[chem\]"):
        drug_fingerprints(DRUGS)
