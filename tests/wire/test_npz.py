"""Messages in npz: what is written is read, and nothing that was not written by `write_npz` does harm."""

import io
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfmvc_scvi.errors import DataError
from cfmvc_scvi.wire import read_npz, write_npz

LIMIT = 10**6


def archive(entries: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return stream.getvalue()


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


HEADER = npy(np.frombuffer(b"{}", dtype=np.uint8))
MESSAGE = write_npz({"a": [1, "x"]}, {"x": np.arange(6.0).reshape(2, 3), "y": np.zeros(0, dtype=np.int32)})


def test_what_is_written_is_read() -> None:
    header, arrays = read_npz(MESSAGE, LIMIT)
    assert header == {"a": [1, "x"]} and set(arrays) == {"x", "y"}
    np.testing.assert_array_equal(arrays["x"], np.arange(6.0).reshape(2, 3))
    assert arrays["y"].dtype == np.int32


def test_a_bomb_is_refused_before_it_goes_off() -> None:
    stream = io.BytesIO()
    np.savez_compressed(stream, header=np.frombuffer(b"{}", dtype=np.uint8), x=np.zeros(20_000_000))
    bomb = stream.getvalue()
    assert len(bomb) < 200_000
    tracemalloc.start()
    with pytest.raises(OverflowError, match=r"unpacks to 16000\d+ bytes; at most 1000000"):
        read_npz(bomb, LIMIT)
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()


def test_an_archive_that_understates_its_size_gains_nothing() -> None:
    content = bytearray(write_npz({}, {"x": np.zeros(1_000_000)}))
    directory = content.rindex(b"PK\x01\x02")  # of the last entry
    struct.pack_into("<I", content, directory + 24, 100)
    tracemalloc.start()
    with pytest.raises(DataError, match="not a message in npz"):
        read_npz(bytes(content), LIMIT)
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()


def header_of(description: bytes) -> bytes:
    padded = description.ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(padded)) + padded


HUGE = header_of(b"{'descr': '<f8', 'fortran_order': False, 'shape': (10000000000,)}")
NEGATIVE = header_of(b"{'descr': '<f8', 'fortran_order': False, 'shape': (-1, 0)}")


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({}, "KeyError"),
        ({"header.npy": b"junk"}, "ValueError"),
        ({"header.npy": npy(np.frombuffer(b"[1]", dtype=np.uint8))}, "not a JSON object"),
        ({"header.npy": npy(np.frombuffer(b"{nan}", dtype=np.uint8))}, "not a message"),
        ({"header.npy": HEADER, "x.npy": npy(np.array([{}], dtype=object))}, "type object"),
        ({"header.npy": HEADER, "x.npy": npy(np.array(["text"]))}, "type <U4"),
        ({"header.npy": HEADER, "x.npy": npy(np.asfortranarray(np.ones((2, 3))))}, "C order"),
        ({"header.npy": HEADER, "x.npy": npy(np.arange(9))[:-8]}, r"shape \(9,\) has 64 bytes"),
        (
            {
                "header.npy": HEADER,
                "x.npy": HUGE,
            },
            "has 0 bytes",
        ),
        (
            {"header.npy": HEADER, "x.npy": NEGATIVE},
            "shape",
        ),
        ({"header.npy": HEADER, "x.npy": b"\x93NUMPY\x02\x00" + bytes(200)}, r"format \(2, 0\)"),
        ({f"x{number}.npy": HEADER for number in range(17)}, "17 arrays; at most 16"),
    ],
)
def test_other_archives_are_refused(entries: dict[str, bytes], words: str) -> None:
    with pytest.raises(DataError, match=words):
        read_npz(archive(entries), LIMIT)


@given(st.data())
@settings(deadline=None)
def test_anything_else_is_refused_in_the_same_way(data: st.DataObject) -> None:
    content = bytearray(MESSAGE)
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    for sent in (bytes(content), bytes(content[: data.draw(st.integers(0, len(content)))]), data.draw(st.binary())):
        try:
            read_npz(sent, LIMIT)
        except (DataError, OverflowError):
            pass
