"""A dictionary that forgets."""

from __future__ import annotations

from typing import TypeVar

__all__ = ["BoundedDict"]

K = TypeVar("K")
V = TypeVar("V")


class BoundedDict(dict[K, V]):
    """A dictionary that drops its oldest entry when it would hold more than `most`: a cache in a long-lived process.

    Parameters
    ----------
    most
        Number of entries that are kept.

    Examples
    --------
    >>> cache = BoundedDict(2)
    >>> cache["a"], cache["b"], cache["c"] = 1, 2, 3
    >>> list(cache)
    ['b', 'c']
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def __setitem__(self, key: K, value: V) -> None:
        self.pop(key, None)
        super().__setitem__(key, value)
        while len(self) > self.most:
            del self[next(iter(self))]
