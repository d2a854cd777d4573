"""Files of an exported model: what is read is what was written, and nothing else is believed."""

import io
import json
from pathlib import Path

import numpy as np
import pytest

from cfmvc_scvi.errors import CorruptModelError, ModelFileError
from cfmvc_scvi.runtime import Bundle, Card
from cfmvc_scvi.runtime.files import packed, read_export, unpacked, write_export

GRAPHS = {"encoder.onnx": b"e", "decoder.onnx": b"d", "field_midpoint.onnx": b"f"}


@pytest.fixture
def card(torch_bundle: Bundle) -> Card:
    return Card.from_dict({**torch_bundle.card.to_dict(), "solvers": ["midpoint"]})


@pytest.fixture
def written(card: Card, torch_bundle: Bundle, tmp_path: Path) -> Path:
    state = torch_bundle.known.reference.state(with_goals=True)
    write_export(tmp_path / "exported", card, state, {"question": {"dose": 2.0}}, GRAPHS, overwrite=False)
    return tmp_path / "exported"


def test_what_is_written_is_read(written: Path, card: Card, torch_bundle: Bundle) -> None:
    again, state, golden, graphs = read_export(written)
    assert again == card and golden == {"question": {"dose": 2.0}} and graphs == GRAPHS
    original = torch_bundle.known.reference.state(with_goals=True)
    np.testing.assert_array_equal(state["panel"]["data"], original["panel"]["data"])
    np.testing.assert_array_equal(state["goals"]["2"]["goal"], original["goals"]["2"]["goal"])
    assert state["contexts"] == json.loads(json.dumps(original["contexts"]))


def test_nested_values_survive() -> None:
    values = {"a": {"b": np.arange(3), "c": None, "d": [1, "x"]}, "e": np.float64(1.5), "f": np.zeros((0, 2))}
    back = unpacked(packed(values))
    np.testing.assert_array_equal(back["a"]["b"], values["a"]["b"])
    assert back["a"]["c"] is None and back["a"]["d"] == [1, "x"] and back["e"] == 1.5 and back["f"].shape == (0, 2)


def test_pickles_are_not_read() -> None:
    stream = io.BytesIO()
    np.savez(stream, x=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        unpacked(stream.getvalue())


@pytest.mark.parametrize("name", ["card.json", "reference.npz", "golden.npz", *GRAPHS])
def test_an_altered_or_missing_file_is_named(written: Path, name: str) -> None:
    content = (written / name).read_bytes()
    (written / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(CorruptModelError, match=name):
        read_export(written)
    (written / name).unlink()
    with pytest.raises(CorruptModelError, match=f"{name}' is missing"):
        read_export(written)


def test_a_graph_that_the_card_names_must_be_there(card: Card, tmp_path: Path) -> None:
    fewer = {name: graph for name, graph in GRAPHS.items() if not name.startswith("field")}
    write_export(tmp_path / "x", card, {}, {}, fewer, overwrite=False)
    with pytest.raises(CorruptModelError, match="lacks field_midpoint.onnx"):
        read_export(tmp_path / "x")


def test_other_directories_are_told_apart(served, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="no exported model in"):
        Bundle.load(tmp_path)
    served.save(tmp_path / "model")
    with pytest.raises(ModelFileError, match="is a saved model, not an exported one"):
        Bundle.load(tmp_path / "model")


def test_newer_and_foreign_cards_are_refused(card: Card) -> None:
    values = card.to_dict()
    with pytest.raises(ModelFileError, match="format version 2.*upgrade"):
        Card.from_dict({**values, "format_version": 2})
    with pytest.raises(ModelFileError, match="not an exported model"):
        Card.from_dict({**values, "format": "other"})
    for change in ({"more": 1}, {"columns": {}}):
        with pytest.raises(CorruptModelError, match="not as an export writes it"):
            Card.from_dict({**values, **change})


def test_nothing_is_overwritten_unasked(written: Path, card: Card) -> None:
    with pytest.raises(ModelFileError, match="already exists"):
        write_export(written, card, {}, {}, GRAPHS, overwrite=False)
    write_export(written, card, {"new": 1}, {}, GRAPHS, overwrite=True)
    assert read_export(written)[1] == {"new": 1}
