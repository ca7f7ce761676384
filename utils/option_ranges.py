"""The values that numeric options accept; a value out of range is rejected with a one-line error.

`bounded` declares a field of an options dataclass, `bounded_number` the type of an argparse option.
"""

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import Field, dataclass, field, fields, is_dataclass
from typing import Any, Literal

from utils.cli import InputError
from utils.words import counted

DeviceName = Literal["auto", "cpu", "cuda"]  # values of the options `device`
METADATA_KEY = "range"  # of a dataclass field
MAX_INT = 2**31 - 1  # upper bound of integer options that have no other
MAX_SEED = 2**32 - 1  # NumPy's limit
MAX_IMAGE_SIZE = 4096  # pixels, height and width of a network's input
MAX_CHANNELS = 16384  # of a layer
MAX_WORKERS = 256  # data-loading processes


@dataclass(frozen=True)
class Range:
    """A range of finite numbers.

    Attributes:
        minimum: The lower bound.
        maximum: The upper bound.
        exclude_minimum: Whether the lower bound itself is out of range.
        exclude_maximum: Whether the upper bound itself is out of range.
        multiple_of: If set, only multiples of this number are in range.
        also_allowed: One more accepted number, with a special meaning.
        length: The number of values that a list option must have.
    """

    minimum: float
    maximum: float
    exclude_minimum: bool = False
    exclude_maximum: bool = False
    multiple_of: int | None = None
    also_allowed: float | None = None
    length: int | None = None

    def __contains__(self, value: float) -> bool:
        if value == self.also_allowed:
            return True
        if not math.isfinite(value) or (self.multiple_of and value % self.multiple_of):
            return False
        above_minimum = value > self.minimum if self.exclude_minimum else value >= self.minimum
        below_maximum = value < self.maximum if self.exclude_maximum else value <= self.maximum
        return above_minimum and below_maximum

    def __str__(self) -> str:
        bounds = [f"{'above' if self.exclude_minimum else 'at least'} {self.minimum:g}"]
        if math.isfinite(self.maximum):
            bounds.append(f"{'below' if self.exclude_maximum else 'at most'} {self.maximum:.10g}")
        multiple = f"a multiple of {self.multiple_of}, " if self.multiple_of else ""
        alternative = "" if self.also_allowed is None else f", or {self.also_allowed:g}"
        return f"{multiple}{' and '.join(bounds)}{alternative}"

    def error_message(self, value: Any) -> str:
        """What is wrong with a number or a list of numbers, to be appended to its name; empty if nothing is."""
        values = list(value) if isinstance(value, Sequence) else [value]
        if self.length is not None and len(values) != self.length:
            return f"has {counted(len(values), 'number')} instead of {self.length}"
        invalid = next((each for each in values if each not in self), None)
        return "" if invalid is None else f"is {invalid}; it must be {self}"


def bounded(default: Any, minimum: float, maximum: float | None = None, **limits: Any) -> Any:
    """A dataclass field with a default and a range.

    Args:
        default: A number or a list of numbers.
        minimum: The lower bound.
        maximum: The upper bound; default: MAX_INT for integers and lists, none for floats.
        **limits: More arguments of `Range`.
    """
    is_integer = isinstance(default, int | list)
    metadata = {METADATA_KEY: _make_range(is_integer, minimum, maximum, limits)}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def check_ranges(options: Any, prefix: str = "") -> None:
    """Check all values of (nested) options. Raises InputError that names the first option out of range."""
    for option in fields(options):
        value, name = getattr(options, option.name), f"{prefix}{option.name}"
        if is_dataclass(value):
            check_ranges(value, f"{name}.")
        elif (allowed := range_of(option)) and value is not None and (message := allowed.error_message(value)):
            raise InputError(f"{name} {message}")


def range_of(option: "Field[Any]") -> Range | None:
    """The range of a dataclass field, if it was declared by `bounded`."""
    return option.metadata.get(METADATA_KEY)


class bounded_number:
    """A `type` for argparse: numbers within a range.

    Args:
        number_type: int or float.
        minimum: The lower bound.
        maximum: The upper bound; default: MAX_INT for integers, none for floats.
        **limits: More arguments of `Range`.
    """

    def __init__(
        self, number_type: Callable[[str], float], minimum: float, maximum: float | None = None, **limits: Any
    ):
        self.number_type = number_type
        self.range = _make_range(number_type is int, minimum, maximum, limits)
        self.__name__ = number_type.__name__  # argparse's messages name the type by it

    def __call__(self, text: str) -> float:
        value = self.number_type(text)
        if message := self.range.error_message(value):
            raise argparse.ArgumentTypeError(message)
        return value


def _make_range(is_integer: bool, minimum: float, maximum: float | None, limits: dict[str, Any]) -> Range:
    if maximum is None:
        maximum = MAX_INT if is_integer else math.inf
    return Range(minimum, maximum, **limits)


POSITIVE_INT = bounded_number(int, 1)
NON_NEGATIVE_INT = bounded_number(int, 0)
SEED_INT = bounded_number(int, 0, MAX_SEED)
NUM_JOBS = bounded_number(int, 1, also_allowed=-1)  # -1: one process per core
