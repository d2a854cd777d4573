"""Cells on their way to a server and back: npz and Arrow, read only as far as limits allow."""

from __future__ import annotations

from cfmvc_scvi.wire.arrow import arrow_head, arrow_rows, read_arrow, write_arrow
from cfmvc_scvi.wire.npz import read_npz, write_npz

__all__ = ["ARROW", "JSON", "NPZ", "arrow_head", "arrow_rows", "read_arrow", "read_npz", "write_arrow", "write_npz"]

JSON = "application/json"
NPZ = "application/x-npz"
ARROW = "application/vnd.apache.arrow.stream"
