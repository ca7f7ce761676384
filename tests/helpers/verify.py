"""Running pretrained.verify on the files of tests/helpers/public_files.py."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

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
    folder = out / "weights"
    folder.mkdir()
    for path in public.weights.iterdir():
        (folder / path.name).symlink_to(path)
    state = torch.load(folder / name, weights_only=True)
    (folder / name).unlink()
    torch.save(change(state), folder / name)
    patch.setenv("SAM4AVS_WEIGHTS", str(folder))
