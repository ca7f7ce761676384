"""Load batches of clips in worker processes, with the workers' errors raised in the main process as InputError."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from utils.cli import InputError, os_error_message
from utils.interrupts import block_interrupts


@dataclass(frozen=True)
class _ReadError:
    """The error message of an item that could not be read."""

    message: str


class _ErrorsAsItems(Dataset[Any]):
    """Returns errors as items, since torch puts a worker's traceback into the message of its exceptions."""

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
    if errors := [item for item in items if isinstance(item, _ReadError)]:
        return errors[0]
    # Contiguous, as from workers: the memory layout changes the rounding of later operations.
    return {
        name: value.contiguous() if isinstance(value, Tensor) else value
        for name, value in default_collate(items).items()
    }


def load_batches(
    dataset: Dataset[Any], batches: Iterable[list[int]], workers: int = 0, pin_memory: bool = False
) -> Iterator[Any]:
    """Load batches of a data set in the given order.

    Args:
        dataset: Its items are dicts of tensors, numbers and strings.
        batches: The indices of each batch.
        workers: Number of processes; 0 loads in this one.
        pin_memory: Put tensors in pinned memory, for copies to a GPU.

    Yields:
        Collated batches.

    Raises:
        InputError: An item cannot be read.
        RuntimeError: A worker was killed; torch raises this anywhere in this process (see utils.cli.cli_entry).
    """
    loader = DataLoader(
        _ErrorsAsItems(dataset), batch_sampler=batches, num_workers=workers, pin_memory=pin_memory, collate_fn=_collate
    )
    with block_interrupts():  # workers start here
        iterator = iter(loader)
    for batch in iterator:
        if isinstance(batch, _ReadError):
            raise InputError(batch.message)
        yield batch


def chunk(indices: Sequence[int], batch_size: int) -> list[list[int]]:
    """Split indices into batches; the last may be smaller."""
    return [list(indices[start : start + batch_size]) for start in range(0, len(indices), batch_size)]
