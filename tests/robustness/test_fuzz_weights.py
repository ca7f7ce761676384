"""Malformed weights: checkpoints, small weights, training states and caches are read in full or refused in one line."""

import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save as safetensors_bytes
from torch import Tensor, nn

from models.audioclip import AudioCLIP
from models.checkpoints import load_checkpoint, read_state_dict
from models.key_maps import load_audio, load_visual
from models.registry import create_model
from models.weights import MINI_DIR
from supervised import state, train
from tests.helpers.tiny_checkpoints import SIZES, arguments, clip, folder
from tests.robustness import archives
from tests.robustness.mutations import mutated
from tests.robustness.sandbox import Guard, guarded
from utils.cache import Cache

__all__ = ["folder"]  # a fixture

KEY = "ab" * 32


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8))


def into_small(path: Path) -> None:
    """What is loaded is finite, and of its own types; what is refused leaves the module as it was."""
    module = small()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    try:
        load_checkpoint(module, path)
    except BaseException:
        assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
        raise
    for name, value in module.state_dict().items():
        assert value.isfinite().all() and value.dtype == before[name].dtype, name


def into_towers(path: Path, model: AudioCLIP) -> None:
    load: Callable[[dict[str, Tensor]], object]
    for tower, load in (
        (model.visual, partial(load_visual, model.visual)),
        (model.audio, partial(load_audio, model.audio)),
    ):
        load_checkpoint(tower, path, load)
        assert all(value.isfinite().all() for value in tower.state_dict().values())


def checkpoints(guard: Guard, count: int, seed: int) -> None:
    whole = {name: value + 0.25 if value.is_floating_point() else value for name, value in small().state_dict().items()}
    mark = guard.inside.parent / "ran"
    tensor = torch.ones(2)
    files = {f"{name}.pth": content for name, content in archives.pickles(mark).items()}
    files |= {f"{name}.safetensors": content for name, content in archives.safetensors(whole).items()}
    files |= {f"a bomb in {record}.pth": archives.zip_bomb(record) for record in ("data.pkl", "data/0", "byteorder")}
    for kind in ("w", "legacy"):
        odd: dict[str, Any] = {
            "code": {"0.weight": tensor, "extra": archives.Intruder(mark)},
            "not finite": whole | {"0.bias": torch.full((8,), math.inf)},
            "complex": whole | {"0.bias": torch.ones(8, dtype=torch.complex64)},
            "integers": whole | {"0.bias": torch.ones(8, dtype=torch.int64)},
            "without content": whole | {"0.bias": torch.ones(8, device="meta")},
            "sparse": whole | {"0.bias": torch.ones(8).to_sparse()},
            "quantised": whole | {"0.bias": torch.quantize_per_tensor(torch.ones(8), 0.1, 0, torch.qint8)},
            "of parameters": {name: nn.Parameter(value, value.is_floating_point()) for name, value in whole.items()},
            "deep": _deep(200),
            "of names": {("x" * 10_000): tensor},
            "of signs": {"\x1b[2J\nerror: all is well": tensor},
            "of bytes": {b"0.weight": tensor},
            "none": None,
            "empty": {},
            "of numbers": {"0.weight": 3, "0.bias": [1.0]},
        }
        files |= {f"{kind} {name}.pth": archives.archive(kind, content) for name, content in odd.items()}
    for name, content in files.items():
        path = guard.inside / f"weights{Path(name).suffix}"
        path.write_bytes(content)
        guard.attempt(f"checkpoint: {name}", partial(into_small, path))
        guard.attempt(f"a part of the checkpoint: {name}", partial(read_state_dict, path, "model"))
    kinds = {"a.pth": archives.archive("w", whole), "b.pth": archives.archive("legacy", whole)}
    kinds["c.safetensors"] = safetensors_bytes(whole)
    for name, content in mutated(kinds, count, seed):
        path = guard.inside / f"weights{Path(name).suffix}"
        path.write_bytes(content)
        guard.attempt(f"checkpoint: {name}", partial(into_small, path))

    model, public = clip(1), guard.inside / "public.pt"
    wholes = clip(2).state_dict()
    for name, changed in {
        "whole": wholes,
        "not finite": wholes | {"visual.conv1.weight": wholes["visual.conv1.weight"] * math.nan},
        "of a tensor for a name": wholes | {"audio.fbsp.fc": torch.zeros(())},
        "only the image": {name: value for name, value in wholes.items() if name.startswith("visual.")},
        "names only": {"visual.": torch.ones(1), "audio.": torch.ones(1)},
        "integers": {name: value.long() for name, value in wholes.items()},
    }.items():
        torch.save(changed, public)
        guard.attempt(f"public checkpoint {name}", partial(into_towers, public, model))


def _deep(levels: int) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for _ in range(levels):
        content = {"a": content}
    return content


def small_weights(guard: Guard, count: int, seed: int) -> None:
    notes, weights = guard.inside / "audioclip.json", guard.inside / "audioclip.safetensors"
    whole = safetensors_bytes(clip(1).state_dict())
    sam = json.loads((MINI_DIR / "sam.json").read_text())["model"]
    weights.write_bytes(whole)

    def attempt(name: str, text: str) -> None:
        notes.write_text(text)
        guard.attempt(f"small weights: {name}", partial(create_model, "audioclip", guard.inside))

    attempt("whole", json.dumps({"model": SIZES}))
    odd: tuple[Any, ...] = (0, -1, 3, 10**9, 10**30, 2.5, "8", None, [], [10**6] * 4, [4000] * 4)
    for name in SIZES:
        for value in odd:
            attempt(f"{name} = {value!r}", json.dumps({"model": SIZES | {name: value}}))
    texts = ("", "[", "null", "[]", '{"model": 3}', '{"model": {}}', '{"model": {"speed": 9}}', "[" * 100_000, "\u00ff")
    for text in texts:
        attempt(text[:30], text)
    (guard.inside / "sam.safetensors").write_bytes((MINI_DIR / "sam.safetensors").read_bytes())
    for name in sam:
        for value in (*odd[:5], {}):
            (guard.inside / "sam.json").write_text(json.dumps({"model": sam | {name: value}}))
            guard.attempt(f"small SAM weights: {name} = {value!r}", partial(create_model, "sam_mini", guard.inside))
    notes.write_text(json.dumps({"model": SIZES}))
    for name, content in archives.safetensors(clip(1).state_dict()).items():
        weights.write_bytes(content)
        guard.attempt(f"small weights {name}", partial(create_model, "audioclip", guard.inside))
    weights.write_bytes(whole)
    for name, content in mutated({"a.json": json.dumps({"model": SIZES}).encode()}, count, seed):
        notes.write_bytes(content)
        guard.attempt(f"small weights: {name}", partial(create_model, "audioclip", guard.inside))


def caches(guard: Guard, count: int, seed: int) -> None:
    cache = Cache(guard.inside, "embedding", {"weights": "w"})
    whole = {"a": torch.randn(4, 5), "b": torch.ones(3, dtype=torch.uint8)}
    cache.put(KEY, whole)
    path = cache.path(KEY)
    content = path.read_bytes()

    def use() -> None:
        found = cache.get(KEY)
        assert found is None or (len(found) == 2 and all(torch.equal(found[name], whole[name]) for name in whole))
        assert found is not None or not path.exists()

    for name, odd in (*archives.safetensors(whole).items(), *mutated({"entry": content}, count, seed)):
        path.write_bytes(odd)
        guard.attempt(f"cache: {name}", use)


def states(guard: Guard, count: int, seed: int, run: Path, words: list[str]) -> None:
    """A run that is gone on with; its options are those of `words`."""
    saved = run / "state.pt"
    content = saved.read_bytes()
    whole = torch.load(saved, weights_only=True)

    def gone_on() -> None:
        if train.main(words) == 1:
            raise SystemExit(2)  # refused

    def attempt(name: str, content: bytes, use: Callable[[], object]) -> None:
        saved.write_bytes(content)
        guard.attempt(f"state: {name}", use)

    attempt("whole", content, gone_on)
    first = next(iter(whole["model"]))
    progress = whole["progress"]
    for name, changed in {
        "of nothing": {},
        "of a list": [1],
        "without a model": {k: v for k, v in whole.items() if k != "model"},
        "without an optimiser": {k: v for k, v in whole.items() if k != "optimizer"},
        "of another model": whole | {"model": {"x": torch.ones(2)}},
        "of a model of numbers": whole | {"model": 3},
        "that is not finite": whole | {"model": whole["model"] | {first: whole["model"][first] * math.nan}},
        "of another optimiser": whole | {"optimizer": {"state": {}, "param_groups": []}},
        "of an optimiser of numbers": whole | {"optimizer": {"state": {0: 3}, "param_groups": 3}},
        "of moments of another shape": whole | {"optimizer": _misshapen(whole["optimizer"])},
        "without progress": whole | {"progress": {}} | {"progress": {"speed": 9}},
        "of a history of words": whole | {"progress": progress | {"history": ["a"]}},
        "of a history without numbers": whole | {"progress": progress | {"history": [{}]}},
        "of an epoch in words": whole | {"progress": progress | {"epoch": "many"}},
        "of an epoch before the first": whole | {"progress": progress | {"epoch": -1}},
        "of a step beyond the last": whole | {"progress": progress | {"epoch": 0, "step": 10**6}},
        "of sums in words": whole | {"progress": progress | {"epoch": 0, "sums": {"loss": "low"}}},
    }.items():
        attempt(name, archives.archive("w", changed), gone_on)
    attempt("bomb", archives.zip_bomb("data.pkl"), partial(state.load_state, saved))
    for name, damaged in mutated({"state.pt": content}, count, seed):
        attempt(name, damaged, partial(unchanged, saved, whole))


def unchanged(saved: Path, whole: dict[str, Any]) -> None:
    """A damaged state is refused, unless the damage is where it does not matter."""
    progress, tensors = state.load_state(saved)
    assert vars(progress) == whole["progress"]
    assert all(torch.equal(value, whole["model"][name]) for name, value in tensors["model"].items())


def _misshapen(optimizer: dict[str, Any]) -> dict[str, Any]:
    moments = {place: {name: torch.ones(7) for name in kept} for place, kept in optimizer["state"].items()}
    return {"state": moments, "param_groups": optimizer["param_groups"]}


@pytest.mark.parametrize("count, seed", [(50, 0), pytest.param(400, 1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("work", [checkpoints, small_weights, caches])
def test_weights(tmp_path: Path, work: Callable[..., None], count: int, seed: int) -> None:
    tally = guarded(partial(work, count=count, seed=seed), tmp_path)
    print(f"fuzz, {work.__name__}: {tally}")
    assert not tally.faults, "\n\n".join(tally.faults)
    assert tally.tried > count and (work is caches or tally.refused > count / 2)
    assert tally.grown < 500


@pytest.mark.parametrize("count, seed", [(30, 0), pytest.param(200, 1, marks=pytest.mark.slow)])
def test_states(composed: Path, folder: Path, tmp_path: Path, count: int, seed: int) -> None:
    run = tmp_path / "box" / "inside" / "run"
    words = arguments(composed, folder, run, "--train.epochs", "1", "--data.fraction", "0.3")
    assert train.main(words) == 0
    tally = guarded(partial(states, count=count, seed=seed, run=run, words=words), tmp_path / "box")
    print(f"fuzz, states of runs: {tally}")
    assert not tally.faults, "\n\n".join(tally.faults)
    assert tally.tried > count and tally.refused > count / 2
