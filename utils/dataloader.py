"""Batches of clips, read by processes of their own. What goes wrong in those is told as if it had gone wrong here."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from utils.cli import InputError, os_error_message
from utils.interrupts import block_interrupts


@dataclass(frozen=True)
class _ReadError:
    """Why an item could not be read."""

    message: str


class _ErrorsAsItems(Dataset[Any]):
    """A data set that hands over faults as items; a worker's exceptions would come with its traceback as their text."""

    def __init__(self, dataset: Dataset[Any]):
        self.dataset = dataset

    def __getitem__(self, index: int) -> Any:
        try:
            return self.dataset[index]
        except InputError as error:
            return _ReadError(str(error))
        except OSError as error:
            return _ReadError(os_error_message(error))


def _collate(items: list[Any]) -> Any:
    if faults := [item for item in items if isinstance(item, _ReadError)]:
        return faults[0]
    # Workers lay tensors out plainly, this process as the items are; and by their layout they are rounded.
    return {
        name: value.contiguous() if isinstance(value, Tensor) else value
        for name, value in default_collate(items).items()
    }


def load_batches(
    dataset: Dataset[Any], batches: Iterable[list[int]], workers: int = 0, pin_memory: bool = False
) -> Iterator[Any]:
    """The batches of the items at the given places, in order.

    workers: processes that read; 0 reads in this one. Raises InputError for an item that cannot be read. Where a
    worker is killed torch raises RuntimeError, anywhere in this process, which utils.cli.command tells.
    """
    loader = DataLoader(
        _ErrorsAsItems(dataset), batch_sampler=batches, num_workers=workers, pin_memory=pin_memory, collate_fn=_collate
    )
    with block_interrupts():  # workers start here
        read = iter(loader)
    for batch in read:
        if isinstance(batch, _ReadError):
            raise InputError(batch.message)
        yield batch


def chunk(places: Sequence[int], batch: int) -> list[list[int]]:
    """Places cut into batches; the last may be smaller."""
    return [list(places[first : first + batch]) for first in range(0, len(places), batch)]
