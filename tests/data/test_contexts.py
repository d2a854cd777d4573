from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfmvc_scvi.data import Contexts
from cfmvc_scvi.errors import DataError, UnknownConditionError

TYPES, DONORS = ["B cells", "NK cells", "T cells"], ["donor1", "donor2"]
codes = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1)), min_size=1, max_size=20)


@pytest.fixture
def contexts() -> Contexts:
    return Contexts.from_codes([1, 0, 0, 1], TYPES, [0, 1, 0, 0], DONORS)


def test_names_and_codes(contexts: Contexts) -> None:
    assert contexts.names == ("B cells | donor1", "B cells | donor2", "NK cells | donor1")
    assert (contexts.label, contexts.sample) == ((0, 0, 1), (0, 1, 0))
    np.testing.assert_array_equal(contexts.encode([1, 0], [0, 1]), [2, 1])


def test_without_samples_a_context_is_a_label() -> None:
    contexts = Contexts.from_codes([2, 0, 2], TYPES)
    assert contexts.names == ("B cells", "T cells")
    np.testing.assert_array_equal(contexts.encode([2, 0]), [1, 0])


def test_codes_as_minibatches_hold_them(contexts: Contexts) -> None:
    labels, samples = np.array([[1.0], [0.0]], dtype=np.float32), np.array([[0.0], [1.0]], dtype=np.float32)
    np.testing.assert_array_equal(contexts.encode(labels, samples), [2, 1])


@given(codes, codes)
def test_extending_keeps_codes_and_agrees_with_encoding(
    first: list[tuple[int, int]], second: list[tuple[int, int]]
) -> None:
    (labels, samples), (more_labels, more_samples) = zip(*first, strict=True), zip(*second, strict=True)
    contexts = Contexts.from_codes(labels, TYPES, samples, DONORS)
    extended = contexts.extend(more_labels, more_samples)
    assert extended.names[: contexts.n_contexts] == contexts.names
    np.testing.assert_array_equal(
        extended.encode(more_labels, more_samples), contexts.encode(more_labels, more_samples, unseen="new")
    )
    found = [extended.names[code] for code in extended.encode(more_labels, more_samples)]
    assert found == [f"{TYPES[label]} | {DONORS[sample]}" for label, sample in second]


def test_json_round_trip(contexts: Contexts) -> None:
    for original in (contexts, Contexts.from_codes([2, 0], TYPES)):
        assert Contexts.from_dict(json.loads(json.dumps(original.to_dict()))) == original


def test_unseen_pair_is_refused_by_name(contexts: Contexts) -> None:
    with pytest.raises(
        UnknownConditionError, match=r"1 context not seen in training: NK cells \| donor2\. Known: B cells"
    ):
        contexts.encode([1, 0], [1, 0])
    with pytest.raises(UnknownConditionError, match="label code 7"):
        contexts.encode([7], [0])


def test_new_pairs_are_numbered_onwards(contexts: Contexts) -> None:
    np.testing.assert_array_equal(contexts.encode([2, 1, 0], [0, 1, 0], unseen="new"), [4, 3, 0])


def test_new_donor(contexts: Contexts) -> None:
    extended = contexts.extend([0], [2], sample_names=[*DONORS, "donor3"])
    assert extended.names[-1] == "B cells | donor3"
    with pytest.raises(DataError, match="has no name"):
        contexts.extend([0], [2])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda contexts: contexts.encode([0]), "without samples"),
        (lambda contexts: Contexts.from_codes([0], TYPES, [0]), "with samples"),
        (lambda contexts: contexts.encode([0, 1], [0]), "2 labels but 1 samples"),
        (lambda contexts: contexts.extend([0], [0], label_names=["X", *TYPES]), "labels changed"),
        (lambda contexts: contexts.extend([0], [0], sample_names=DONORS[::-1]), "samples changed"),
        (lambda contexts: Contexts.from_codes([0, 1], ["a", "a"]), "called a"),
    ],
)
def test_inconsistent_input_is_refused(contexts: Contexts, call: object, words: str) -> None:
    with pytest.raises(DataError, match=words):
        call(contexts)
