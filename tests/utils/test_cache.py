"""The disk cache: what is put comes back as it was, and whatever went wrong on the disk counts as absent."""

import errno
import multiprocessing
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from utils import cache as module
from utils.cache import Cache, content_hash, get_or_compute, weights_hash
from utils.cli import InputError

KEY = content_hash(np.arange(3))


def tensors(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(4, 5, generator=generator)
    return {"a": values, "b": values.bfloat16(), "bits": (values > 0).to(torch.uint8), "none": torch.empty(0, 4).long()}


def same(one: dict[str, Tensor] | None, other: dict[str, Tensor]) -> bool:
    return one is not None and one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in other)


def test_what_is_put_comes_back_bit_by_bit(tmp_path: Path) -> None:
    cache = Cache(tmp_path, "embedding", {"weights": "w"})
    assert cache.get(KEY) is None
    cache.put(KEY, tensors())
    kept = Cache(tmp_path, "embedding", {"weights": "w"}).get(KEY)
    assert same(kept, tensors()) and kept is not None and kept["b"].dtype == torch.bfloat16
    cache.put(KEY, {"t": tensors()["a"].T})  # again, and of another layout
    assert same(cache.get(KEY), {"t": tensors()["a"].T})
    assert not list(tmp_path.rglob("*partial*"))


def test_every_parameter_is_part_of_the_address(tmp_path: Path) -> None:
    Cache(tmp_path, "embedding", {"weights": "w", "precision": "fp32"}).put(KEY, tensors())
    assert Cache(tmp_path, "embedding", {"precision": "fp32", "weights": "w"}).get(KEY) is not None
    for kind, parameters in {
        "embedding": {"weights": "v", "precision": "fp32"},
        "proposals": {"weights": "w", "precision": "fp32"},
        "audio": {"weights": "w"},
    }.items():
        assert Cache(tmp_path, kind, parameters).get(KEY) is None
    assert Cache(tmp_path, "embedding", {"weights": "w", "precision": "bf16"}).get(KEY) is None


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.binary(max_size=4))
def test_damage_anywhere_in_an_entry_is_noticed(tmp_path_factory: pytest.TempPathFactory, at: int, junk: bytes) -> None:
    cache = Cache(tmp_path_factory.mktemp("cache"), "embedding", {})
    cache.put(KEY, tensors())
    whole = cache.path(KEY).read_bytes()
    at %= len(whole)
    changed = whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1 :] if not junk else whole[:at] + junk
    cache.path(KEY).write_bytes(changed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = cache.get(KEY)
    assert found is None or same(found, tensors())  # a changed name of the header's padding, say, harms nothing
    if found is None:
        assert not cache.path(KEY).exists()


@pytest.mark.parametrize("content", [b"", b"\0" * 64, b"not safetensors at all"])
def test_a_damaged_entry_is_dropped_with_a_warning(tmp_path: Path, content: bytes) -> None:
    cache = Cache(tmp_path, "embedding", {})
    cache.put(KEY, tensors())
    cache.path(KEY).write_bytes(content)
    with pytest.warns(UserWarning, match="damaged"):
        assert cache.get(KEY) is None
    assert not cache.path(KEY).exists()
    cache.put(KEY, tensors())
    assert same(cache.get(KEY), tensors())


def test_an_entry_of_another_kind_or_content_is_dropped(tmp_path: Path) -> None:
    cache, other = Cache(tmp_path, "embedding", {}), Cache(tmp_path, "proposals", {})
    elsewhere = content_hash(np.arange(4))
    other.put(KEY, tensors())
    cache.put(elsewhere, tensors())
    cache.path(KEY).parent.mkdir(parents=True)
    for source in (other.path(KEY), cache.path(elsewhere)):
        shutil.copy(source, cache.path(KEY))
        with pytest.warns(UserWarning, match="another entry"):
            assert cache.get(KEY) is None
    assert same(other.get(KEY), tensors())


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_full_disk_or_a_read_only_folder_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    cache = Cache(tmp_path, "embedding", {})
    cache.put(KEY, tensors())

    def refuse(*_: object) -> None:
        raise OSError(number, "the reason")

    monkeypatch.setattr(module, "write_bytes", refuse)
    with pytest.raises(InputError, match=r"cannot write to the cache \(the reason\)") as caught:
        cache.put(content_hash(np.arange(5)), tensors())
    assert "\n" not in str(caught.value)
    assert same(cache.get(KEY), tensors())  # what is there can still be read


def test_a_damaged_entry_in_a_read_only_folder_counts_as_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache(tmp_path, "embedding", {})
    cache.put(KEY, tensors())
    cache.path(KEY).write_bytes(b"junk")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.warns(UserWarning, match="damaged"):
        assert cache.get(KEY) is None


def test_a_file_in_the_folders_place_is_told(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(InputError, match="cannot write to the cache"):
        Cache(tmp_path / "taken", "embedding", {}).put(KEY, tensors())


def _fill(folder: Path) -> bool:
    cache, fine = Cache(folder, "embedding", {}), True
    for _ in range(20):
        for seed in range(10):
            key = content_hash(np.array([seed]))
            found = cache.get(key)
            fine = fine and (found is None or same(found, tensors(seed)))
            cache.put(key, tensors(seed))
    return fine


def test_processes_may_fill_one_cache_at_once(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert all(pool.map(_fill, [tmp_path] * 2))
    cache = Cache(tmp_path, "embedding", {})
    assert all(same(cache.get(content_hash(np.array([seed]))), tensors(seed)) for seed in range(10))
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 10


def test_content_keys_tell_type_shape_and_values_apart() -> None:
    base = np.arange(12, dtype=np.uint8)
    arrays: list[np.ndarray] = [
        base,
        base.astype(np.int64),
        base.reshape(3, 4),
        base.reshape(4, 3),
        base.reshape(3, 4).T,
        base + 1,
    ]
    assert len({content_hash(array) for array in arrays}) == len(arrays)
    assert content_hash(base[::2]) == content_hash(base[::2].copy())
    assert len(content_hash(base)) == 64


def test_weights_keys_tell_names_shapes_and_values_apart() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(3, 3)
    key = weights_hash(linear)
    assert key == weights_hash(linear) != weights_hash(nn.Sequential(linear))
    with torch.no_grad():
        linear.weight[1, 2] += 1e-3
    assert weights_hash(linear) != key
    assert weights_hash(linear.bfloat16()) not in (key, weights_hash(nn.Linear(3, 3)))


@given(contents=st.lists(st.sampled_from("abcde")), known=st.sets(st.sampled_from("abcde")), batch=st.integers(1, 4))
def test_only_batches_that_lack_something_are_made_and_each_content_once(
    tmp_path_factory: pytest.TempPathFactory, contents: list[str], known: set[str], batch: int
) -> None:
    cache = Cache(tmp_path_factory.mktemp("cache"), "letter", {})
    for content in known:
        cache.put(content, {"t": torch.tensor(ord(content))})
    made: list[list[str]] = []
    different = list(dict.fromkeys(contents))
    batches = [different[first : first + batch] for first in range(0, len(different), batch)]

    def make(some: list[int]) -> list[dict[str, Tensor]]:
        assert 0 < len(some) <= batch
        made.append([contents[place] for place in some])
        return [{"t": torch.tensor(ord(contents[place]))} for place in some]

    for _ in range(2):  # the second time everything is known
        found = get_or_compute(cache, contents, make, batch)
        assert [chr(int(entry["t"])) for entry in found] == contents
        assert made == [some for some in batches if not known.issuperset(some)]
    made.clear()
    assert [chr(int(entry["t"])) for entry in get_or_compute(None, contents, make, batch)] == contents
    assert made == batches
