"""What a list holds more than once."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item", bound=Hashable)


def repeats(items: Iterable[Item]) -> Iterator[tuple[int, Item]]:
    """(index, item) wherever an item comes for the second time; later copies are not told again."""
    times: dict[Item, int] = {}
    for index, item in enumerate(items):
        times[item] = times.get(item, 0) + 1
        if times[item] == 2:
            yield index, item
