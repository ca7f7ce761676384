"""Results kept in memory, for work that several configurations do alike (`zero_shot.tune`)."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


class Memo:
    """Keeps the result of a computation for whoever asks for the same one on the same objects.

    Inputs are compared by identity, which costs nothing, so whoever shares a memo must pass the same objects.

    Args:
        keep: False keeps nothing and computes every time.
    """

    def __init__(self, keep: bool = True):
        self.keep = keep
        self._results: dict[tuple[Hashable, ...], tuple[Sequence[object], Any]] = {}

    def __call__(self, kind: str, key: Hashable, inputs: Sequence[object], compute: Callable[[], T]) -> T:
        """The result of `compute()`.

        Args:
            kind: what the result is.
            key: everything that it depends on besides the inputs.
            inputs: the objects that it is computed from; they are kept, so that no other object gets their identity.
            compute: called only if the result is not kept.
        """
        if not self.keep:
            return compute()
        address = (kind, key, *map(id, inputs))
        if address not in self._results:
            self._results[address] = inputs, compute()
        return self._results[address][1]

    def forget(self, *kinds: str) -> None:
        """Remove the results of some kinds; without any, all results."""
        self._results = {key: value for key, value in self._results.items() if kinds and key[0] not in kinds}


NO_MEMO = Memo(keep=False)
