"""Which numbers an option takes. Every numeric option has a range, and what lies outside is refused in a line.

A field of options is declared by `ranged`, an option of argparse by `number`; both take the same bounds.
"""

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import Field, dataclass, field, fields, is_dataclass
from typing import Any, Literal

from utils.cli import InputError

DeviceName = Literal["auto", "cpu", "cuda"]  # values of the options `device`
METADATA_KEY = "range"  # the name in a field's metadata
MAX_INT = 2**31 - 1  # what no count exceeds
MAX_SEED = 2**32 - 1  # of NumPy
MAX_IMAGE_SIZE = 4096  # pixels at which a network may be asked to see a frame
MAX_CHANNELS = 16384  # channels of a layer
MAX_WORKERS = 256  # processes that read clips


@dataclass(frozen=True)
class Range:
    """Finite numbers.

    least, most: are in it unless `above` or `below` says that they are not. multiple: they are multiples of this.
    besides: one more number that has a meaning of its own. length: how many numbers, of an option that is a list.
    """

    least: float
    most: float
    above: bool = False
    below: bool = False
    multiple: int | None = None
    besides: float | None = None
    length: int | None = None

    def __contains__(self, value: float) -> bool:
        if value == self.besides:
            return True
        enough = value > self.least if self.above else value >= self.least
        small = value < self.most if self.below else value <= self.most
        return math.isfinite(value) and enough and small and not (self.multiple and value % self.multiple)

    def __str__(self) -> str:
        lower = f"{'above' if self.above else 'at least'} {self.least:g}"
        upper = f"{'below' if self.below else 'at most'} {self.most:.10g}"
        bounds = [lower, upper] if math.isfinite(self.most) else [lower]
        kind = f"a multiple of {self.multiple}, " if self.multiple else ""
        besides = "" if self.besides is None else f", or {self.besides:g}"
        return f"{kind}{' and '.join(bounds)}{besides}"

    def error_message(self, value: Any) -> str:
        """What is wrong with a number or a list of them, to follow its name; empty if nothing."""
        values = list(value) if isinstance(value, Sequence) else [value]
        if self.length is not None and len(values) != self.length:
            return f"has {len(values)} numbers instead of {self.length}"
        wrong = next((each for each in values if each not in self), None)
        return "" if wrong is None else f"is {wrong}; it must be {self}"


def bounded(default: Any, least: float, most: float | None = None, **more: Any) -> Any:
    """A field of options, with its default and the numbers that it takes; see Range. most: by default no bound."""
    whole = isinstance(default, int | list)
    metadata = {METADATA_KEY: Range(least, (MAX_INT if whole else math.inf) if most is None else most, **more)}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def check_ranges(options: Any, above: str = "") -> None:
    """Raise InputError naming an option, of any depth, whose value lies outside its range."""
    for each in fields(options):
        value, name = getattr(options, each.name), f"{above}{each.name}"
        if is_dataclass(value):
            check_ranges(value, f"{name}.")
        elif (found := range_of(each)) and value is not None and (fault := found.error_message(value)):
            raise InputError(f"{name} {fault}")


def range_of(option: "Field[Any]") -> Range | None:
    """The range of a field of options, if it is numeric."""
    return option.metadata.get(METADATA_KEY)


class bounded_number:
    """A `type` for argparse: numbers of a kind within a range. most: by default no bound."""

    def __init__(self, kind: Callable[[str], float], least: float, most: float | None = None, **more: Any):
        self.kind = kind
        self.range = Range(least, (MAX_INT if kind is int else math.inf) if most is None else most, **more)
        self.__name__ = kind.__name__  # by which argparse calls it

    def __call__(self, text: str) -> float:
        value = self.kind(text)
        if fault := self.range.error_message(value):
            raise argparse.ArgumentTypeError(fault)
        return value


POSITIVE_INT = bounded_number(int, 1)
NON_NEGATIVE_INT = bounded_number(int, 0)
SEED_INT = bounded_number(int, 0, MAX_SEED)
NUM_JOBS = bounded_number(int, 1, besides=-1)  # -1: one a core
