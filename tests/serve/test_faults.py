"""What one request does wrong is its own; what is encoded together is encoded once (needs the extra serve)."""

from typing import Any

import anndata as ad
import numpy as np
import pytest

from cfmvc_scvi.errors import DataError, UnknownConditionError
from cfmvc_scvi.runtime import Bundle, Cells, Question

pytestmark = pytest.mark.serving


@pytest.fixture
def service(torch_bundle: Bundle) -> Any:
    from cfmvc_scvi.serve._app import _Service
    from cfmvc_scvi.serve.config import Limits
    from cfmvc_scvi.serve.telemetry import Metrics

    return _Service(torch_bundle, Limits(), Metrics(), batching=True)


def cells_of(data: ad.AnnData, **changes: Any) -> Cells:
    obs = {name: data.obs[name].tolist() for name in data.obs} | changes
    return Cells(data.X, obs, data.obs_names, data.var_names)


def test_cells_to_encode_are_encoded_in_one_call(
    service: Any, torch_bundle: Bundle, few: ad.AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    posterior = torch_bundle.networks.posterior

    def counted(counts: Any, inputs: Any) -> Any:
        calls.append(counts.shape[0])
        return posterior(counts, inputs)

    parts = [few[:3].copy(), few[3:4].copy(), few[4:].copy()]
    expected = [torch_bundle.encode(part) for part in parts]
    monkeypatch.setattr(torch_bundle.networks, "posterior", counted)
    contents = [(cells_of(part), None, False) for part in parts]
    contents.insert(1, (cells_of(few[:2].copy(), cell_type=["type_9"] * 2), None, False))
    outcomes = service._answers(contents)
    assert calls == [few.n_obs]
    assert isinstance(outcomes.pop(1), Exception)
    for (mean, sd), alone in zip(outcomes, expected, strict=True):
        np.testing.assert_allclose(mean, alone[0], atol=1e-6)
        np.testing.assert_allclose(sd, alone[1], atol=1e-6)


@pytest.mark.parametrize("question", [None, Question("A", 2.0, seed=1)], ids=["encode", "counterfactual"])
def test_a_bug_that_one_request_finds_is_not_the_others(
    service: Any, torch_bundle: Bundle, few: ad.AnnData, question: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "moments" if question is None else "answer"
    works = getattr(torch_bundle, name)

    def fails(asked: Any) -> Any:
        sizes = [each[0].shape[0] if question is None else len(each.cells.names) for each in asked]
        if 2 in sizes:
            raise ZeroDivisionError("a bug that two cells find")
        return works(asked)

    monkeypatch.setattr(torch_bundle, name, fails)
    contents = [(cells_of(few[:n].copy()), question, False) for n in (1, 2, 3)]
    outcomes = service._answers(contents)
    assert [isinstance(outcome, ZeroDivisionError) for outcome in outcomes] == [False, True, False]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("mito", 10**400),
        ("mito", "much"),
        ("mito", 1e39),
        ("dose", 10**400),
        ("dose", 1e39),
        ("dose", -1.0),
        ("site", 7.5),
        ("cell_type", 10**400),
        ("batch", True),
        ("sample", ""),
        ("phase", "\ud800"),
    ],
    ids=lambda value: str(value)[:8].encode("ascii", "replace").decode(),
)
def test_odd_values_of_columns_are_refused_in_words(service: Any, few: ad.AnnData, column: str, value: Any) -> None:
    cells = cells_of(few[:2].copy(), **({"perturbation": ["A", "A"]} | {column: [value, value]}))
    for question in (None, Question("A", 2.0, seed=1)):
        (outcome,) = service._answers([(cells, question, False)])
        assert isinstance(outcome, DataError | UnknownConditionError), repr(outcome)
        assert column in str(outcome)


def test_deeply_nested_headers_are_refused() -> None:
    import pyarrow as pa

    from cfmvc_scvi.wire import read_arrow, read_npz, write_arrow

    deep = "[" * 10**6
    plain = write_arrow({"genes": ["a"]}, np.ones((1, 1)), {})
    with pa.ipc.open_stream(plain) as reader:
        table = reader.read_all()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema.with_metadata({b"cfmvc-scvi": deep.encode()})) as writer:
        writer.write_table(table)
    with pytest.raises(DataError, match="not a message in Arrow"):
        read_arrow(sink.getvalue().to_pybytes(), "genes")
    import io

    stream = io.BytesIO()
    np.savez(stream, header=np.frombuffer(deep.encode(), dtype=np.uint8), counts=np.ones((1, 1)))
    with pytest.raises(DataError, match="not a message in npz"):
        read_npz(stream.getvalue(), 10**9)
