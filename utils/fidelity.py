"""Whether to reproduce the defects of the original code or to correct them; docs/deviations.md lists all of them."""

from typing import Literal, get_args

Fidelity = Literal["published", "corrected"]


def validate_fidelity(fidelity: Fidelity) -> Fidelity:
    """Return the argument; raises ValueError if it is not a Fidelity."""
    if fidelity not in get_args(Fidelity):
        raise ValueError(f"fidelity must be 'published' or 'corrected', got {fidelity!r}")
    return fidelity
