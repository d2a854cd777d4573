"""Features of perturbation targets from what is known of them: sets of genes, and structures of drugs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import scipy.sparse as sp
from scipy.sparse.linalg import svds

from cfmvc_scvi._optional import require_extra
from cfmvc_scvi.errors import DataError

__all__ = ["drug_fingerprints", "gene_set_embeddings"]


def gene_set_embeddings(
    sets: Mapping[str, Iterable[str]] | pd.DataFrame,
    genes: Sequence[str],
    *,
    n_components: int = 20,
    min_genes: int = 3,
) -> pd.DataFrame:
    r"""Describe genes by the sets that they are in, such as terms of the Gene Ontology or pathways.

    Memberships weighted by :math:`\log(n / n_s)`, n genes of which :math:`n_s` are in set s, rows of unit length, in
    their leading singular directions over all genes of the sets: two genes are near that share sets, small ones above
    all.

    Parameters
    ----------
    sets
        Genes of each set by its name, or a table with columns ``gene`` and ``term``, a membership in each row.
    genes
        Targets of perturbations, those without cells among them.
    n_components
        Most features; fewer if there are fewer sets or genes.
    min_genes
        Sets of fewer genes are left out.

    Returns
    -------
    DataFrame (genes, components), for `adata.uns` and ``perturbation_embeddings_key`` of `CFMVC.setup_anndata`. A gene
    that is in no set has a row of NaN: it is predicted to do what others lead to expect.

    Raises
    ------
    DataError
        If a gene is named twice, no set is large enough, or none of the genes is in a set.

    Notes
    -----
    Deterministic: each component has its largest entry positive. Which ontology and evidence codes to use is the
    caller's choice; terms that were derived from the screen that is predicted would tell its answer.

    Examples
    --------
    >>> sets = {"interferon": ["STAT1", "IRF1", "JAK2"], "cell cycle": ["CDK1", "CCNB1", "TOP2A"]}
    >>> cfmvc_scvi.pp.gene_set_embeddings(sets, ["STAT1", "JAK2", "CDK1", "ACTB"]).notna().all(axis=1).tolist()
    [True, True, True, False]
    """
    names = _once(genes, "genes")
    if n_components < 1:
        raise DataError(f"n_components must be at least 1, got {n_components}")
    members = _memberships(sets)
    kept = {name: found for name, found in members.items() if len(found) >= min_genes}
    if not kept:
        raise DataError(
            f"none of the {len(members)} sets has {min_genes} genes or more; lower min_genes, or check that the table "
            "has a gene and a term in each row"
        )
    known = pd.Index(sorted(set().union(*kept.values())))
    place = known.get_indexer(names)
    if (place < 0).all():
        raise DataError(
            f"none of the {len(names)} genes is in a set, first {names[0]!r}; the sets name genes like {known[0]!r}. "
            "Use the same kind of names"
        )
    columns = [known.get_indexer(list(found)) for found in kept.values()]
    weights = [np.log(len(known) / len(found)) if len(kept) > 1 else 1.0 for found in columns]
    rows = np.concatenate(columns)
    column = np.repeat(np.arange(len(columns)), [len(found) for found in columns])
    values = np.repeat(np.maximum(weights, 1e-6), [len(found) for found in columns])
    matrix = sp.csr_matrix((values, (rows, column)), shape=(len(known), len(columns)))
    matrix = sp.diags(1 / np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())) @ matrix
    scores = _leading(matrix, n_components)
    table = np.where((place >= 0)[:, None], scores[place], np.nan)
    return pd.DataFrame(table, index=names, columns=[f"sets_{i + 1}" for i in range(scores.shape[1])])


def drug_fingerprints(smiles: Mapping[str, str | None], *, radius: int = 2, n_bits: int = 1024) -> pd.DataFrame:
    """Describe drugs by Morgan fingerprints of their structures (extra ``chem``: RDKit).

    Counts of the substructures around each atom, hashed to `n_bits`, as square roots, which makes the distance of two
    drugs one of their substructures rather than of their sizes; substructures that all or none of the drugs have are
    left out.

    Parameters
    ----------
    smiles
        Structure of each drug by its name as in the data, in SMILES; None or an empty text where it is not known.
    radius
        Bonds that a substructure reaches; 2 is ECFP4.
    n_bits
        Length of the hash.

    Returns
    -------
    DataFrame (drugs, bits), for `adata.uns` and ``perturbation_embeddings_key`` of `CFMVC.setup_anndata`. A drug
    without a structure has a row of NaN.

    Raises
    ------
    MissingExtraError
        If RDKit is not installed.
    DataError
        If there is no structure, one cannot be read, or all are alike.

    References
    ----------
    Rogers and Hahn, J Chem Inf Model 50:742 (2010).

    Examples
    --------
    >>> cfmvc_scvi.pp.drug_fingerprints({"aspirin": "CC(=O)Oc1ccccc1C(=O)O", "unknown": None})  # doctest: +SKIP
    """
    chem = require_extra("rdkit.Chem", "chem")
    generators = require_extra("rdkit.Chem.rdFingerprintGenerator", "chem")
    log = require_extra("rdkit.RDLogger", "chem")
    if radius < 0 or n_bits < 1:
        raise DataError(f"radius is {radius} and n_bits {n_bits}; they must be at least 0 and 1.")
    with_structure = {name: text for name, text in smiles.items() if text}
    if not with_structure:
        raise DataError(f"none of the {len(smiles)} drugs has a structure; pass SMILES by the name of the drug.")
    log.DisableLog("rdApp.error")  # what cannot be read is named below
    try:
        molecules = {name: chem.MolFromSmiles(text) for name, text in with_structure.items()}
    finally:
        log.EnableLog("rdApp.error")
    bad = [name for name, molecule in molecules.items() if molecule is None]
    if bad:
        raise DataError(
            f"{len(bad)} structures cannot be read, first that of {bad[0]!r}: {with_structure[bad[0]]!r}. Correct the "
            "SMILES, or pass None for a drug without a structure."
        )
    generator = generators.GetMorganGenerator(radius=radius, fpSize=n_bits)
    counts = np.stack([generator.GetCountFingerprintAsNumPy(molecule) for molecule in molecules.values()])
    varies = counts.min(axis=0) < counts.max(axis=0)
    if len(molecules) > 1 and not varies.any():
        raise DataError(f"all {len(molecules)} structures have the same fingerprint; raise radius or n_bits.")
    chosen = varies if len(molecules) > 1 else counts[0] > 0
    table = pd.DataFrame(np.sqrt(counts[:, chosen].astype(float)), index=list(molecules))
    table.columns = [f"bit_{bit}" for bit in np.flatnonzero(chosen)]
    return table.reindex(list(smiles))


def _once(names: Iterable[str], what: str) -> list[str]:
    found = [str(name) for name in names]
    if len(set(found)) < len(found):
        raise DataError(f"{len(found) - len(set(found))} {what} are named twice; name each once")
    if not found:
        raise DataError(f"no {what} are named")
    return found


def _memberships(sets: Mapping[str, Iterable[str]] | pd.DataFrame) -> dict[str, set[str]]:
    if isinstance(sets, pd.DataFrame):
        if missing := {"gene", "term"} - set(sets.columns):
            raise DataError(f"the table of sets has no column {sorted(missing)[0]!r}; name its columns gene and term")
        return {str(term): {str(gene) for gene in part["gene"]} for term, part in sets.dropna().groupby("term")}
    return {str(name): {str(gene) for gene in found} for name, found in sets.items()}


def _leading(matrix: sp.csr_matrix, n_components: int) -> np.ndarray:
    """Return rows of U S of the leading singular directions, `(rows, components)`."""
    n = min(n_components, min(matrix.shape))
    if n < min(matrix.shape):
        left, singular, _ = svds(matrix, k=n, v0=np.ones(min(matrix.shape)), random_state=0)
    else:
        left, singular, _ = np.linalg.svd(matrix.toarray(), full_matrices=False)
    order = np.argsort(-singular)[:n]
    scores = left[:, order] * singular[order]
    size = np.abs(scores)
    first = (size > 0.5 * size.max(axis=0)).argmax(axis=0)  # of large ones: rounding does not choose among the largest
    result: np.ndarray = scores * np.where(scores[first, np.arange(n)] < 0, -1.0, 1.0)
    return result
