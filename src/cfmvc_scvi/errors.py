"""Exceptions and warnings of cfmvc-scvi: each derives from `CFMVCError` and from the builtin a caller would expect."""

from __future__ import annotations

__all__ = [
    "CFMVCError",
    "CFMVCWarning",
    "CorruptModelError",
    "DataError",
    "DownloadError",
    "MissingExtraError",
    "ModelFileError",
    "NonFiniteError",
    "NotTrainedError",
    "UnknownConditionError",
    "UnsafeFileError",
    "UnsupportedError",
]


class CFMVCError(Exception):
    """Base of all exceptions of this package."""


class CFMVCWarning(UserWarning):
    """Base of all warnings of this package."""


class DataError(CFMVCError, ValueError):
    """The data cannot be used as they are; the message says what is wrong, how often, and the remedy."""


class DownloadError(CFMVCError, ConnectionError):
    """A public data set cannot be fetched; the message gives its address and where to put it by hand."""


class UnknownConditionError(CFMVCError, KeyError):
    """A perturbation, context, key or column that the model or the data do not have."""

    def __str__(self) -> str:  # KeyError shows its repr, which turns a sentence into a quoted string
        return str(self.args[0]) if self.args else ""


class NotTrainedError(CFMVCError, RuntimeError):
    """A prediction was asked of a stage that has not been trained."""


class NonFiniteError(CFMVCError, FloatingPointError):
    """NaN or infinity in a weight, a gradient, a loss, an ODE state or a cell."""


class CorruptModelError(CFMVCError, ValueError):
    """A saved model is truncated, altered or incomplete."""


class ModelFileError(CFMVCError, ValueError):
    """A model cannot be saved or loaded as asked: another class, a newer format, a taken name, an unknown type."""


class UnsafeFileError(CFMVCError, ValueError):
    """Reading this file would run code or read other files."""


class UnsupportedError(CFMVCError, NotImplementedError):
    """An argument that scvi-tools knows and this package refuses, rather than ignoring it."""


class MissingExtraError(CFMVCError, ImportError):
    """An optional dependency is not installed; the message gives the pip command."""
