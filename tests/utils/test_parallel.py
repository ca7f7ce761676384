"""Items computed ahead in a thread."""

import threading
from collections.abc import Iterator

import pytest

from utils.parallel import compute_ahead


def test_items_come_in_order_from_one_other_thread() -> None:
    threads = set()

    def items() -> Iterator[int]:
        for item in range(50):
            threads.add(threading.get_ident())
            yield item

    assert list(compute_ahead(items())) == list(range(50))
    assert len(threads) == 1 and threading.get_ident() not in threads
    assert list(compute_ahead(iter(()))) == []


def test_no_more_than_asked_for_is_computed_ahead() -> None:
    started = []

    def items() -> Iterator[int]:
        for item in range(50):
            started.append(item)
            yield item

    ahead = compute_ahead(items(), count=3)
    assert next(ahead) == 0
    ahead.close()  # waits for what has been started
    assert len(started) == 4


def test_an_error_comes_after_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    ahead = compute_ahead(items())
    assert next(ahead) == 1
    with pytest.raises(ValueError, match="broken"):
        next(ahead)
