"""A dictionary that forgets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["BoundedDict"]

K = TypeVar("K")
V = TypeVar("V")


class BoundedDict(dict[K, V]):
    """A dictionary that drops its oldest entry when it would hold more than `most`: a cache in a long-lived process.

    Parameters
    ----------
    most
        Number of entries that are kept, or the sum of their sizes.
    size
        Size of a value; by default each has the size 1.

    Examples
    --------
    >>> cache = BoundedDict(2)
    >>> cache["a"], cache["b"], cache["c"] = 1, 2, 3
    >>> list(cache)
    ['b', 'c']
    """

    def __init__(self, most: int, size: Callable[[Any], int] = lambda value: 1) -> None:
        super().__init__()
        self.most, self.size, self.total = most, size, 0

    def __setitem__(self, key: K, value: V) -> None:
        if key in self:
            del self[key]
        super().__setitem__(key, value)
        self.total += self.size(value)
        while self.total > self.most and len(self) > 1:
            del self[next(iter(self))]

    def __delitem__(self, key: K) -> None:
        self.total -= self.size(self[key])
        super().__delitem__(key)
