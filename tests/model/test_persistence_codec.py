"""Encoding of attributes: what comes back is what went in, and what is unknown is named."""

from __future__ import annotations

import json
import math
from collections import Counter, OrderedDict, defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scvi.utils import attrdict

from cfmvc_scvi.errors import ModelFileError
from cfmvc_scvi.model.persistence import decode, encode


def through_files(value):
    """Encode, write to bytes, read, decode."""
    arrays = {}
    text = json.dumps(encode(value, "value", arrays), allow_nan=False)
    return decode(json.loads(text), safetensors.numpy.load(safetensors.numpy.save(arrays)))


def assert_same(a, b):
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    elif isinstance(a, np.ndarray):
        assert a.shape == b.shape
        assert a.dtype.kind == b.dtype.kind
        if a.dtype.kind == "O":
            assert_same(list(a.flat), list(b.flat))
        elif a.dtype.kind == "U":
            assert a.tolist() == b.tolist()
        else:
            assert a.dtype == b.dtype
            assert np.ascontiguousarray(a).tobytes() == np.ascontiguousarray(b).tobytes()
    elif isinstance(a, float) and math.isnan(a):
        assert math.isnan(b)
    else:
        assert a == b
        assert str(a) == str(b)  # the sign of zero


NUMERIC = "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64".split()
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
arrays = st.sampled_from(NUMERIC).flatmap(lambda d: hnp.arrays(np.dtype(d), hnp.array_shapes(min_dims=0, min_side=0)))
keys = st.text() | st.integers() | st.none() | st.just("$type")
values = st.recursive(
    scalars | arrays,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(keys, inner, max_size=3)
        | st.lists(inner, max_size=3).map(lambda items: np.array([*items, None], dtype=object)[:-1])
    ),
    max_leaves=8,
)


@settings(max_examples=30, deadline=None)
@given(values)
def test_any_tree_comes_back(value):
    assert_same(value, through_files(value))


@pytest.mark.parametrize("dtype", NUMERIC)
def test_numpy_scalars_keep_their_type(dtype):
    assert_same(np.dtype(dtype).type(1), through_files(np.dtype(dtype).type(1)))


@pytest.mark.parametrize("value", [np.float32(0.1), np.float16("inf"), np.float64(-0.0), np.str_("NK"), -math.inf])
def test_special_scalars(value):
    assert_same(value, through_files(value))


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6).reshape(2, 3).T,
        np.arange(10)[::-2],
        np.array(2.5),
        np.array([1, 2], dtype=">i4"),
        np.array([["a", "bc"], ["", "é"]]),
        np.array([["a", None], [1, 2.5]], dtype=object),
        np.array([], dtype=object).reshape(0, 3),
    ],
    ids=["fortran", "strided", "0-d", "big-endian", "strings", "objects", "empty"],
)
def test_arrays(array):
    back = through_files({"x": array})["x"]
    assert_same(array.astype(array.dtype.newbyteorder("=")), back)
    assert back.flags.writeable


@pytest.mark.parametrize("tensor", [torch.eye(3)[:, 1], torch.tensor(7), torch.get_rng_state(), torch.ones(0, 2)])
def test_tensors(tensor):
    back = through_files(OrderedDict({"x": tensor, 0: True}))
    assert type(back) is OrderedDict
    assert list(back) == ["x", 0]
    assert back["x"].dtype == tensor.dtype
    assert torch.equal(back["x"], tensor)


def test_registry_containers():
    registry = defaultdict(dict, {"X": {"state_registry": attrdict({"n": 3, "inner": {"names": ("a", "b")}})}})
    back = through_files(registry)
    assert type(back) is defaultdict
    assert back == registry
    assert back["unknown"] == {}
    assert type(back["X"]["state_registry"]) is attrdict
    assert back["X"]["state_registry"].inner.names == ("a", "b")


def frames():
    loss = pd.DataFrame({"train_loss": [1.5, math.nan, math.inf]}, index=pd.RangeIndex(3, name="epoch"))
    objects = loss.astype(object)
    mixed = pd.DataFrame({"a": [1, 2], "b": [True, False], "c": ["x", "y"]}, index=pd.Index([3, 3], name="epoch"))
    numbered = pd.DataFrame(np.eye(2, dtype=np.float32), columns=pd.Index([10, 20]), index=["r", "s"])
    twice = pd.DataFrame([[1, 2.0]], columns=["a", "a"])
    return {"loss": loss, "objects": objects, "mixed": mixed, "numbered": numbered, "twice": twice, "none": loss[[]]}


def without_string_dtypes(frame):
    """The frame as pandas 2 makes it: strings are objects."""

    def plain(values):
        return values.astype(object) if isinstance(values.dtype, pd.StringDtype) else values

    columns = [plain(frame.iloc[:, i]).set_axis(plain(frame.index)) for i in range(frame.shape[1])]
    out = pd.concat(columns, axis=1) if columns else frame.copy()
    return out.set_axis(plain(frame.columns), axis=1)


@pytest.mark.parametrize("name", list(frames()))
def test_frames(name):
    frame = frames()[name]
    back = through_files(frame)
    pd.testing.assert_frame_equal(back, without_string_dtypes(frame))
    assert back.index.name == frame.index.name
    assert type(back.index) is type(frame.index)


def test_pandas_string_dtype_is_written_as_plain_strings():
    plain = pd.DataFrame({"train_loss": ["x", "y"]}, index=pd.Index(["a", "b"], dtype=object))
    text = plain.astype("string").set_axis(plain.columns.astype("string"), axis=1)
    text.index = text.index.astype("string")
    assert encode(plain, "value", {}) == encode(text, "value", {})
    back = through_files(text)
    assert (back.columns.dtype, back.index.dtype, back["train_loss"].dtype) == (object, object, object)
    assert through_files(text["train_loss"].array).tolist() == ["x", "y"]


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({"a": [1, {2}]}, r"attributes\['a'\]\[1\] .*builtins\.set"),
        ({"table": pd.DataFrame({"c": pd.Categorical(["u"])})}, r"\['table'\]\['c', 0\] .*category"),
        ({"x": np.array(["2020"], dtype="datetime64[s]")}, r"\['x'\] .*datetime64"),
        ({"x": np.array([1j])}, r"\['x'\] .*complex"),
        ({"x": np.array([object()], dtype=object)}, r"\['x'\]\[0\] .*object"),
        ({("a", "b"): 1}, r"key of type tuple"),
        ({"d": defaultdict(set)}, r"\['d'\] .*set"),
        ({"d": Counter(a=1)}, r"\['d'\] .*Counter"),
        ({"t": torch.ones(2, dtype=torch.bfloat16)}, r"\['t'\] .*bfloat16"),
        ({"t": torch.eye(2).to_sparse()}, r"\['t'\] .*sparse"),
        ({"p": Path("x")}, r"\['p'\] .*Path"),
        ({"m": np.ma.masked_array([1], [True])}, r"\['m'\] .*MaskedArray"),
        ({"i": pd.MultiIndex.from_tuples([(1, 2)])}, r"\['i'\] .*MultiIndex"),
        ({"f": len}, r"\['f'\] .*builtin_function"),
    ],
)
def test_unknown_types_name_their_place(value, place):
    with pytest.raises(ModelFileError, match=place):
        encode(value, "attributes", {})


@pytest.mark.parametrize(
    "node", [{"$type": "code"}, {"$type": "array", "name": "x"}, {"$type": "scalar", "dtype": "O", "value": 1}]
)
def test_a_foreign_tree_is_an_error(node):
    with pytest.raises((LookupError, ValueError)):
        decode(node, {})
