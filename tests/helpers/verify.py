"""Running pretrained.verify on the files of tests/helpers/public_files.py."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pretrained import verify

COCO_AP = "groundingdino/coco-ap"
Verdicts = dict[tuple[str, str], str]


def run(public: SimpleNamespace, *words: str, out: Path, known: Path | None = None) -> tuple[int, Verdicts, list[Any]]:
    """Run the command; its exit code, its verdicts by check and checkpoint, and the results in its JSON."""
    places = ["--known", str(known or public.exact), "--inputs", str(public.inputs), "--out", str(out)]
    code = verify.main([*words, *places, "--device", "cpu"])
    results = json.loads((out / "verify.json").read_text())["results"]
    return code, {(row["check"], row["checkpoint"]): row["verdict"] for row in results}, results


def without_files(verdicts: Verdicts) -> Verdicts:
    return {key: verdict for key, verdict in verdicts.items() if key[0] != "file"}


def has_pycocotools() -> bool:
    try:
        import pycocotools  # noqa: F401
    except ImportError:
        return False
    return True


def change_file(patch: pytest.MonkeyPatch, public: SimpleNamespace, out: Path, name: str, change: Callable) -> None:
    """Another folder of checkpoints in which one differs."""
    folder = _linked(patch, public.weights, out / "weights")
    state = torch.load(folder / name, weights_only=True)
    (folder / name).unlink()
    torch.save(change(state), folder / name)


def change_folder(
    patch: pytest.MonkeyPatch,
    public: SimpleNamespace,
    out: Path,
    name: str,
    configs: dict[str, Callable[[Any], Any]] | None = None,
    weights: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None,
) -> None:
    """Another folder of checkpoints in which one, which is a folder, differs in its JSON files or its weights."""
    link = _linked(patch, public.weights, out / "weights") / name
    source = link.resolve()
    link.unlink()
    link.mkdir()
    for path in source.iterdir():
        content = path.read_bytes()
        if configs and path.name in configs:
            entries = json.loads(content)
            configs[path.name](entries)
            content = json.dumps(entries).encode()
        (link / path.name).write_bytes(content)
        if weights and path.suffix == ".safetensors":
            save_file(weights(load_file(path)), link / path.name, metadata={"format": "pt"})


def _linked(patch: pytest.MonkeyPatch, source: Path, folder: Path) -> Path:
    """A folder of links to checkpoints, which is in force; one that is there already is used again."""
    if not folder.exists():
        folder.mkdir()
        for path in source.iterdir():
            (folder / path.name).symlink_to(path)
    patch.setenv("SAM4AVS_WEIGHTS", str(folder))
    return folder
