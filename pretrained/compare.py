"""Compare what a network gives with what others have published."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pretrained.known_outputs import Check

Place = tuple[str | int, ...]


@dataclass(frozen=True)
class Difference:
    """One published value beside ours.

    Attributes:
        quantity: what it is.
        expected: the published number, or the name of the largest entry of a group.
        found: ours; None if there is none.
        allowed: by how much they may differ.
        at_most: the published number is an upper bound: a smaller one of ours agrees, but proves little.
    """

    quantity: str
    expected: float | str
    found: float | str | None
    allowed: float = 0.0
    at_most: bool = False

    @property
    def excess(self) -> float:
        """The difference in units of what is allowed; at most 1 if they agree."""
        if not isinstance(self.expected, int | float) or not isinstance(self.found, int | float):
            return 0.0 if self.found == self.expected else math.inf
        difference = abs(self.found - self.expected)
        if not difference > 0:  # equal, or NaN
            return 0.0 if difference == 0 else math.inf
        excess = difference / self.allowed if self.allowed else math.inf
        return min(1.0, excess) if self.at_most and self.found < self.expected else excess

    @property
    def inconclusive(self) -> bool:
        """Whether ours is so far below an upper bound that it says nothing."""
        return self.at_most and self.agrees and not replace(self, at_most=False).agrees

    @property
    def agrees(self) -> bool:
        """Whether the difference is allowed."""
        return self.excess <= 1


def compare(check: Check, found: Mapping[str, Any]) -> list[Difference]:
    """All published values of a check beside ours, the worst first.

    Args:
        check: with its expected values and tolerances.
        found: ours, in the same structure; it may have more.

    Returns:
        At least one difference, unless the check expects nothing or is partial and nothing of it was measured.
    """
    differences = []
    for place, expected in _leaves(check.expected):
        # Of the innermost name that has one.
        names = (check.tolerance[str(key)] for key in reversed(place) if str(key) in check.tolerance)
        tolerance = next(names, check.tolerance)
        value = _at(found, place)
        if value is None and (tolerance.get("shorter") or (check.partial and place[0] not in found)):
            continue
        allowed = tolerance.get("absolute", 0.0) + tolerance.get("relative", 0.0) * abs(expected)
        at_most = bool(tolerance.get("at_most"))
        differences.append(Difference(_name(place), expected, value, allowed, at_most))
    if check.same_top:
        for place, group in _groups(check.expected):
            own = _at(found, place)
            largest = max(own, key=own.__getitem__) if own else None
            differences.append(Difference(f"largest of {_name(place)}", max(group, key=group.__getitem__), largest))
    return sorted(differences, key=lambda difference: (difference.excess, difference.inconclusive), reverse=True)


def _leaves(values: Any, place: Place = ()) -> Iterator[tuple[Place, float]]:
    if isinstance(values, int | float):
        yield place, values
        return
    for key, value in values.items() if isinstance(values, Mapping) else enumerate(values):
        yield from _leaves(value, (*place, key))


def _groups(values: Mapping[str, Any], place: Place = ()) -> Iterator[tuple[Place, Mapping[str, float]]]:
    """The innermost mappings."""
    if not any(isinstance(value, Mapping) for value in values.values()):
        yield place, values
        return
    for key, value in values.items():
        yield from _groups(value, (*place, key))


def _at(values: Any, place: Place) -> Any:
    for key in place:
        if isinstance(values, Mapping):
            values = values.get(key)
        elif isinstance(values, Sequence) and isinstance(key, int) and key < len(values):
            values = values[key]
        else:
            return None
    return values


def _name(place: Place) -> str:
    """`iou[2] of point` as "point, iou 2"."""
    return ", ".join(str(key) for key in place)
