"""The one setting that governs the original's oddities: repeat them, or do what was meant (docs/deviations.md)."""

from typing import Literal, get_args

Fidelity = Literal["published", "corrected"]


def validate_fidelity(fidelity: Fidelity) -> Fidelity:
    """The fidelity itself; ValueError if it is neither."""
    if fidelity not in get_args(Fidelity):
        raise ValueError(f"fidelity must be 'published' or 'corrected', got {fidelity!r}")
    return fidelity
