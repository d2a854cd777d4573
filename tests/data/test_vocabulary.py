from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfmvc_scvi.data import Vocabulary, condition_table
from cfmvc_scvi.errors import DataError, UnknownConditionError

VOCABULARY = Vocabulary(("A", "B", "C"), "control")

characters = st.characters(exclude_categories=["Cs"], exclude_characters="+\0")  # pandas may end strings at a null
names = st.text(characters, min_size=1, max_size=6).map(str.strip).filter(lambda name: name and name != "control")
vocabularies = st.lists(names, min_size=1, max_size=6, unique=True).map(
    lambda found: Vocabulary(tuple(found), "control")
)


@st.composite
def designs(draw: st.DrawFn) -> tuple[Vocabulary, np.ndarray]:
    """A vocabulary and a design with doses that float32 holds."""
    vocabulary = draw(vocabularies)
    doses = st.sampled_from([0.0, 0.0, 1.0, 0.25, 3.5, 100.0])
    row = st.lists(doses, min_size=vocabulary.n_perturbations, max_size=vocabulary.n_perturbations)
    return vocabulary, np.array(draw(st.lists(row, min_size=1, max_size=8)), dtype=np.float32)


@given(designs())
def test_names_and_design_are_inverse(drawn: tuple[Vocabulary, np.ndarray]) -> None:
    vocabulary, design = drawn
    labels = vocabulary.names(design)
    np.testing.assert_array_equal(vocabulary.design(labels), design > 0)
    doses = ["+".join(str(dose) for dose in row[row > 0]) for row in design]
    np.testing.assert_array_equal(vocabulary.design(labels, doses), design)


@given(designs())
def test_labels_rebuild_the_part_of_the_vocabulary_that_they_use(drawn: tuple[Vocabulary, np.ndarray]) -> None:
    vocabulary, design = drawn
    rebuilt = Vocabulary.from_labels(vocabulary.names(design), "control")
    used = [name for name, present in zip(vocabulary.perturbations, (design > 0).any(axis=0), strict=True) if present]
    assert rebuilt.perturbations == tuple(sorted(used))


@given(vocabularies)
def test_json_round_trip(vocabulary: Vocabulary) -> None:
    assert Vocabulary.from_dict(json.loads(json.dumps(vocabulary.to_dict()))) == vocabulary


@given(designs(), st.randoms(use_true_random=False))
def test_order_of_parts_and_spaces_do_not_count(drawn: tuple[Vocabulary, np.ndarray], random: object) -> None:
    vocabulary, design = drawn
    for label in vocabulary.names(design):
        parts = label.split("+") if label != "control" else ["control"]
        random.shuffle(parts)
        assert vocabulary.canonical("  +\t".join(parts) + " ") == label


@given(designs())
def test_condition_table_rebuilds_the_design_and_starts_with_control(drawn: tuple[Vocabulary, np.ndarray]) -> None:
    _, design = drawn
    rows, codes = condition_table(design)
    np.testing.assert_array_equal(rows[codes], design)
    assert not rows[0].any()
    assert len(np.unique(rows, axis=0)) == len(rows)
    np.testing.assert_array_equal(codes == 0, ~design.any(axis=1))


def test_condition_table_counts_in_the_order_of_the_columns() -> None:
    design = VOCABULARY.design(["C", "A+B", "B", "A", "A"])
    rows, codes = condition_table(design)
    assert VOCABULARY.names(rows) == ["control", "A", "B", "A+B", "C"]
    np.testing.assert_array_equal(codes, [4, 3, 2, 1, 1])


def test_negative_zero_is_control() -> None:
    rows, codes = condition_table(np.array([[-0.0, 0.0], [1.0, -0.0], [1.0, 0.0]], dtype=np.float32))
    np.testing.assert_array_equal(rows, [[0, 0], [1, 0]])
    np.testing.assert_array_equal(codes, [0, 1, 1])


@pytest.mark.parametrize("shape", [(0, 3), (4, 0)])
def test_condition_table_of_nothing_is_control(shape: tuple[int, int]) -> None:
    rows, codes = condition_table(np.zeros(shape, dtype=np.float32))
    assert rows.shape == (1, shape[1])
    np.testing.assert_array_equal(codes, np.zeros(shape[0]))


@pytest.mark.parametrize("entry", [-1.0, np.nan])
def test_condition_table_refuses_what_is_no_dose(entry: float) -> None:
    with pytest.raises(DataError, match="doses"):
        condition_table(np.array([[entry, 0.0]]))


def test_control_is_the_zero_row_and_dose_one_the_default() -> None:
    expected = [[0, 0, 0], [1, 0, 0], [1, 1, 0]]
    design = VOCABULARY.design(["control", "A", "B+A"])
    np.testing.assert_array_equal(design, expected)
    assert design.dtype == np.float32


@pytest.mark.parametrize("label", ["A+control", "control+A", " control + A ", "A"])
def test_a_combination_with_control_is_the_single(label: str) -> None:
    assert VOCABULARY.canonical(label) == "A"
    assert Vocabulary.from_labels([label], "control").perturbations == ("A",)


@pytest.mark.parametrize("label", ["control", " control", "control+control"])
def test_control_with_itself_is_control(label: str) -> None:
    assert VOCABULARY.canonical(label) == "control"


def test_control_label_may_contain_the_separator() -> None:
    vocabulary = Vocabulary.from_labels(["DMSO+vehicle", "A", "A+B"], "DMSO+vehicle")
    assert vocabulary.perturbations == ("A", "B")
    assert vocabulary.canonical("DMSO+vehicle") == "DMSO+vehicle"


def test_other_separator() -> None:
    vocabulary = Vocabulary.from_labels(["ctrl", "CD3+", "CD3+_KO"], "ctrl", separator="_")
    assert vocabulary.perturbations == ("CD3+", "KO")
    assert vocabulary.canonical("KO_CD3+") == "CD3+_KO"


@pytest.mark.parametrize(
    ("doses", "expected"),
    [
        (2.0, [[0, 0, 0], [2, 0, 0], [2, 2, 0]]),
        ([np.nan, 0.5, 3], [[0, 0, 0], [0.5, 0, 0], [3, 3, 0]]),
        (["", "0.5", "1+3"], [[0, 0, 0], [0.5, 0, 0], [3, 1, 0]]),
        (pd.Series([None, 0.5, 3], dtype="Float64"), [[0, 0, 0], [0.5, 0, 0], [3, 3, 0]]),
        (pd.Series([7, 0, 1]).astype("category"), [[0, 0, 0], [0, 0, 0], [1, 1, 0]]),
    ],
    ids=["one for all", "numbers, none for control", "texts, in the order as written", "nullable", "category"],
)
def test_doses_weigh_the_design(doses: object, expected: list[list[float]]) -> None:
    np.testing.assert_allclose(VOCABULARY.design(["control", "A", "B+A"], doses), expected)


def test_dose_text_follows_the_parts_as_written_with_control() -> None:
    np.testing.assert_allclose(VOCABULARY.design(["A+control", "control+A"], ["2+1", "nan+3"]), [[2, 0, 0], [3, 0, 0]])


def test_names_with_doses() -> None:
    design = np.array([[0.1, 0, 2], [0, 0, 0]], dtype=np.float32)
    assert VOCABULARY.names(design, with_dose=True) == ["A@0.1+C@2", "control"]
    assert VOCABULARY.names(design[0]) == ["A+C"]


def test_names_refuse_another_width() -> None:
    with pytest.raises(DataError, match="2 columns; expected 3"):
        VOCABULARY.names(np.zeros((1, 2), dtype=np.float32))


@pytest.mark.parametrize(
    "labels",
    [
        pd.Series([0, 1, 2]),
        pd.Series([0, 1, 2], dtype="Int64"),
        pd.Series([0, 1, 2]).astype("category"),
        pd.Series(["0", "1", "2"], dtype="string"),
        np.array(["0", "1", "2"]),
        ["0", 1, " 2"],
    ],
    ids=["int", "nullable int", "category", "string", "numpy", "list"],
)
def test_labels_of_any_dtype(labels: object) -> None:
    vocabulary = Vocabulary.from_labels(labels, "0")
    assert Vocabulary.from_labels(labels, 0) == vocabulary
    assert vocabulary.perturbations == ("1", "2")
    np.testing.assert_array_equal(vocabulary.design(labels), [[0, 0], [1, 0], [0, 1]])


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("Z", ["'Z'", "control 'control'", "A, B, C", "embedding"]),
        ("A+Z", ["'Z' (in 'A+Z')"]),
        ("a", ["'a' -> 'A'"]),
        ("contrl", ["'contrl' -> 'control'"]),
        ("", ["''"]),
        ("0", ["'0'"]),
    ],
)
def test_unknown_part_is_named(label: str, words: list[str]) -> None:
    with pytest.raises(UnknownConditionError) as caught:
        VOCABULARY.design([label])
    assert isinstance(caught.value, KeyError)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("label", "words"),
    [("A+A", "names A twice"), ("A+", "empty part"), ("+", "empty part")],
    ids=["repeat", "end", "bare"],
)
def test_malformed_combination_is_refused(label: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        VOCABULARY.design([label])
    with pytest.raises(DataError, match=words):
        Vocabulary.from_labels([label], "control")


@pytest.mark.parametrize(
    ("perturbations", "separator", "words"),
    [
        (("A", "A"), "+", "given twice: A"),
        (("control",), "+", "control label"),
        (("A+B",), "+", "contains the separator"),
        (("",), "+", "empty"),
        ((" A",), "+", "padded"),
        (("A",), "", "separator of combinations is empty"),
    ],
)
def test_inconsistent_vocabulary_is_refused(perturbations: tuple[str, ...], separator: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        Vocabulary(perturbations, "control", separator)


@pytest.mark.parametrize(
    ("dose", "shown"),
    [(-1.0, "-1.0"), (np.nan, "nan"), (np.inf, "inf"), (1e39, r"1e\+39"), ("high", "high"), ("1+2+3", r"1\+2\+3")],
)
def test_invalid_dose_names_the_cell(dose: object, shown: str) -> None:
    labels = pd.Series(["control", "A+B"], index=["AAAC", "AAAG"])
    doses = pd.Series([np.nan, dose], index=labels.index, name="dose", dtype=object)
    with pytest.raises(DataError, match=rf"1 cell without a valid dose in 'dose': AAAG \('A\+B' with dose {shown}\)"):
        VOCABULARY.design(labels, doses)


def test_one_dose_per_label() -> None:
    with pytest.raises(DataError, match="2 labels but 3 doses"):
        VOCABULARY.design(["A", "B"], [1, 2, 3])


def test_missing_label_is_refused() -> None:
    with pytest.raises(DataError, match="1 label missing"):
        VOCABULARY.design(["A", None])


@pytest.mark.parametrize("kind", [int, bool, np.float32])
def test_conditions_are_told_apart_in_any_kind_of_number(kind: type) -> None:
    rows, codes = condition_table(np.array([[0, 1], [1, 0], [0, 0]], dtype=kind))
    np.testing.assert_array_equal(rows[codes], [[0, 1], [1, 0], [0, 0]])
    assert not rows[0].any()
