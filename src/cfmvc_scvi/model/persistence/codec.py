"""Lossless encoding of a model's attributes as JSON and a dictionary of numeric arrays.

Plain values of JSON stand for themselves; everything else is an object with the key ``"$type"``. Nothing that is
decoded runs code: each type is rebuilt by a constructor named here.
"""

from __future__ import annotations

import math
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from scvi.utils import attrdict

from cfmvc_scvi.errors import ModelFileError

__all__ = ["decode", "encode"]

_TAG = "$type"
_NUMERIC_DTYPES = frozenset(
    "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64".split(),
)
_KEY_TYPES = (str, bool, int, float, type(None), np.generic)
_FACTORIES: dict[str, Callable[[], Any]] = {"dict": dict, "list": list}


def encode(value: Any, name: str, arrays: dict[str, np.ndarray]) -> Any:
    """Encode a value; the inverse of `decode`.

    Known types: None, bool, int, str, float (NaN and infinities too), list, tuple, dict (keys: scalars), OrderedDict,
    defaultdict of dict or list, scvi's attrdict, numpy scalars, numeric, boolean, string and object arrays, dense
    tensors of numpy's types (they come back on the CPU), pandas Index and DataFrame. String dtypes of pandas come back
    as dtype object, whatever the version of pandas that wrote them, so that the same file reads the same everywhere.

    Parameters
    ----------
    value
        The value.
    name
        Where the value stands, for example ``"attributes['history_']"``: the name in error messages and of the array.
    arrays
        Receives the numeric arrays, keyed by the place where they stand.

    Returns
    -------
    A tree of what JSON knows.

    Raises
    ------
    ModelFileError
        If a part of the value has another type; the message names its place.
    """
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {_TAG: "float", "value": repr(value)}
    if type(value) is list:
        return [encode(item, f"{name}[{i}]", arrays) for i, item in enumerate(value)]
    if type(value) is tuple:
        return {_TAG: "tuple", "items": encode(list(value), name, arrays)}
    if type(value) is attrdict:
        return {_TAG: "attrdict", "value": encode(value.to_dict(), name, arrays)}
    if isinstance(value, dict):
        return _encode_dict(value, name, arrays)
    if isinstance(value, np.generic):
        return _encode_scalar(value, name)
    if isinstance(value, torch.Tensor):
        return _encode_tensor(value, name, arrays)
    if type(value) is np.ndarray:
        return _encode_array(value, name, arrays)
    if type(value) in (pd.Index, pd.RangeIndex):
        return _encode_index(value, name, arrays)
    if type(value) is pd.DataFrame:
        return _encode_frame(value, name, arrays)
    if isinstance(value, pd.api.extensions.ExtensionArray) and pd.api.types.is_string_dtype(value.dtype):
        return _encode_array(np.asarray(value, dtype=object), name, arrays)
    raise _unknown(name, f"type {type(value).__module__}.{type(value).__qualname__}")


def decode(node: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """Rebuild a value from what `encode` returned.

    Parameters
    ----------
    node
        Tree of what JSON knows.
    arrays
        The numeric arrays that `encode` collected.

    Returns
    -------
    The value. A tree that `encode` never wrote raises one of the builtin errors of a wrong key, type or value.
    """
    if isinstance(node, list):
        return [decode(item, arrays) for item in node]
    if not isinstance(node, dict):
        return node
    if _TAG not in node:
        return {key: decode(item, arrays) for key, item in node.items()}
    return _DECODERS[node[_TAG]](node, arrays)


def _unknown(name: str, what: str) -> ModelFileError:
    return ModelFileError(
        f"{name} cannot be saved: {what} is not supported. Keep it as plain Python values, numpy arrays or a pandas "
        "DataFrame, or under an attribute whose name does not end in '_', which is not saved"
    )


def _encode_dict(value: dict[Any, Any], name: str, arrays: dict[str, np.ndarray]) -> Any:
    for key in value:
        if not isinstance(key, _KEY_TYPES):
            raise _unknown(name, f"a key of type {type(key).__name__} ({key!r})")
    items = [(key, encode(item, f"{name}[{key!r}]", arrays)) for key, item in value.items()]
    if type(value) is dict and all(type(key) is str and key != _TAG for key in value):
        return dict(items)
    node: dict[str, Any] = {_TAG: "dict", "items": [[encode(key, f"{name} key", arrays), item] for key, item in items]}
    if type(value) is defaultdict:
        factory = getattr(value.default_factory, "__name__", None)
        if factory is not None and _FACTORIES.get(factory) is not value.default_factory:
            raise _unknown(name, f"a defaultdict of {value.default_factory!r}")
        return node | {_TAG: "defaultdict", "factory": factory}
    if type(value) is OrderedDict:
        return node | {_TAG: "ordered"}
    if type(value) is not dict:
        raise _unknown(name, f"type {type(value).__module__}.{type(value).__qualname__}")
    return node


def _encode_scalar(value: np.generic, name: str) -> Any:
    if type(value) is np.str_:
        return {_TAG: "scalar", "dtype": "str", "value": str(value)}
    if value.dtype.name not in _NUMERIC_DTYPES:
        raise _unknown(name, f"a numpy scalar of dtype {value.dtype}")
    return {_TAG: "scalar", "dtype": value.dtype.name, "value": encode(value.item(), name, {})}


def _encode_array(value: np.ndarray, name: str, arrays: dict[str, np.ndarray]) -> Any:
    if value.dtype.kind in "OU":
        items = encode(value.ravel().tolist(), name, arrays)
        return {_TAG: "objects", "string": value.dtype.kind == "U", "shape": list(value.shape), "items": items}
    if value.dtype.name not in _NUMERIC_DTYPES:
        raise _unknown(name, f"an array of dtype {value.dtype}")
    # safetensors writes the memory as it lies: C order and the machine's byte order
    arrays[name] = np.asarray(value, dtype=value.dtype.newbyteorder("="), order="C")
    return {_TAG: "array", "name": name}


def _encode_tensor(value: torch.Tensor, name: str, arrays: dict[str, np.ndarray]) -> Any:
    if value.layout != torch.strided or str(value.dtype).removeprefix("torch.") not in _NUMERIC_DTYPES:
        raise _unknown(name, f"a tensor of layout {value.layout} and dtype {value.dtype}")
    return {_TAG: "tensor", "value": _encode_array(value.detach().cpu().numpy(), name, arrays)}


def _encode_column(values: pd.Series | pd.Index, name: str, arrays: dict[str, np.ndarray]) -> Any:
    if pd.api.types.is_object_dtype(values.dtype) or pd.api.types.is_string_dtype(values.dtype):
        return _encode_array(values.to_numpy(dtype=object), name, arrays)
    if not isinstance(values.dtype, np.dtype):
        raise _unknown(name, f"a pandas column of dtype {values.dtype}")
    return _encode_array(values.to_numpy(), name, arrays)


def _encode_index(value: pd.Index, name: str, arrays: dict[str, np.ndarray]) -> Any:
    node = {_TAG: "index", "name": encode(value.name, f"{name}.name", arrays)}
    if isinstance(value, pd.RangeIndex):
        return node | {_TAG: "range", "bounds": [value.start, value.stop, value.step]}
    return node | {"values": _encode_column(value, name, arrays)}


def _encode_frame(value: pd.DataFrame, name: str, arrays: dict[str, np.ndarray]) -> Any:
    columns = [
        _encode_column(value.iloc[:, i], f"{name}[{label!r}, {i}]", arrays) for i, label in enumerate(value.columns)
    ]
    return {
        _TAG: "frame",
        "index": encode(value.index, f"{name}.index", arrays),
        "columns": encode(value.columns, f"{name}.columns", arrays),
        "data": columns,
    }


def _decode_scalar(node: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> np.generic:
    if node["dtype"] == "str":
        return np.str_(node["value"])
    if node["dtype"] not in _NUMERIC_DTYPES:
        raise ValueError(f"unknown dtype {node['dtype']!r}")
    return np.dtype(node["dtype"]).type(decode(node["value"], arrays))


def _decode_objects(node: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    items = decode(node["items"], arrays)
    if node["string"]:
        return np.array(items, dtype=str).reshape(node["shape"])
    values = np.empty(len(items), dtype=object)
    for i, item in enumerate(items):  # one by one: numpy would unpack lists into further dimensions
        values[i] = item
    return values.reshape(node["shape"])


def _decode_index(node: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> pd.Index:
    values = decode(node["values"], arrays)
    return pd.Index(values, dtype=values.dtype, name=decode(node["name"], arrays))


def _decode_frame(node: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> pd.DataFrame:
    index = decode(node["index"], arrays)
    columns = [decode(column, arrays) for column in node["data"]]
    frame = pd.DataFrame(
        {i: pd.Series(column, index=index, dtype=column.dtype) for i, column in enumerate(columns)}, index=index
    )
    frame.columns = decode(node["columns"], arrays)
    return frame


def _decode_pairs(node: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> dict[Any, Any]:
    return {decode(key, arrays): decode(item, arrays) for key, item in node["items"]}


def _decode_defaultdict(node: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> defaultdict[Any, Any]:
    factory = None if node["factory"] is None else _FACTORIES[node["factory"]]
    return defaultdict(factory, _decode_pairs(node, arrays))


_DECODERS: dict[str, Callable[[dict[str, Any], Mapping[str, np.ndarray]], Any]] = {
    "array": lambda node, arrays: arrays[node["name"]],
    "attrdict": lambda node, arrays: attrdict(decode(node["value"], arrays)),
    "defaultdict": _decode_defaultdict,
    "dict": _decode_pairs,
    "float": lambda node, arrays: float(node["value"]),
    "frame": _decode_frame,
    "index": _decode_index,
    "objects": _decode_objects,
    "ordered": lambda node, arrays: OrderedDict(_decode_pairs(node, arrays)),
    "range": lambda node, arrays: pd.RangeIndex(*node["bounds"], name=decode(node["name"], arrays)),
    "scalar": _decode_scalar,
    "tensor": lambda node, arrays: torch.from_numpy(decode(node["value"], arrays)),
    "tuple": lambda node, arrays: tuple(decode(node["items"], arrays)),
}
