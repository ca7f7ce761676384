"""Implementations of scoring saved masks: 740 clips of five seconds, as many as the test split of S4 has."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

import reference.metrics
from benchmarks.harness import Output, Work
from scoring.binary import open_model, score_models
from utils.files import png_bytes, write_bytes, write_text
from utils.layout import AVSBench

FOLDER = Path(tempfile.gettempdir())  # masks are kept here for the next run


def prepare(count: int, **_: Any) -> dict[str, Any]:
    """Write the masks of a split, the ground truth and the predictions of a model: blurred noise above a threshold."""
    root = FOLDER / f"avs_benchmark_{count}_masks"
    if (root / "done").is_file():
        return {}
    shutil.rmtree(root, ignore_errors=True)
    lines = ["name,start,category,split", *(f"clip{index},0,dog,test" for index in range(count))]
    write_text(root / "s4_meta_data.csv", "\n".join(lines) + "\n")
    data, rng = AVSBench(root, "s4"), np.random.default_rng(0)
    for clip in data.clips:
        for second, path in enumerate(data.masks(clip)):
            field = cv2.GaussianBlur(rng.standard_normal((2, 56, 56)).transpose(1, 2, 0), (0, 0), 6)
            large = cv2.resize(field, (224, 224))
            truth, predicted = large[..., 0] > 0.05, large.sum(axis=2) > 0.05
            write_bytes(path, png_bytes(truth.astype(np.uint8) * 255))
            out = root / "masks" / "dog" / clip.name / f"{clip.name}_{second}.png"
            write_bytes(out, png_bytes(predicted.astype(np.uint8) * 255))
    write_text(root / "done", "")
    return {}


def reference_loop(count: int) -> Work:
    """PIL, and AVSBench's own metrics: 255 passes over every frame."""
    root = FOLDER / f"avs_benchmark_{count}_masks"
    data = AVSBench(root, "s4")

    def read(path: Path) -> torch.Tensor:
        with Image.open(path) as image:
            return torch.from_numpy(np.asarray(image) > 0).float()

    def work() -> Output:
        m_j, m_f = [], []
        for clip in data.clips:
            truth = torch.stack([read(path) for path in data.masks(clip)])
            folder = root / "masks" / "dog" / clip.name
            predicted = torch.stack([read(folder / f"{clip.name}_{second}.png") for second in range(len(truth))])
            m_j.append(reference.metrics.mean_iou(predicted, truth))
            m_f.append(reference.metrics.f_score(predicted, truth))
        return {"scores": np.array([np.mean(m_j), np.mean(m_f)])}

    return work


def optimized(count: int) -> Work:
    """What score.py does: one histogram a frame, the clips in threads."""
    root = FOLDER / f"avs_benchmark_{count}_masks"
    data = AVSBench(root, "s4")

    def work() -> Output:
        clips = data.split("test")
        (score,) = score_models(data, clips, [open_model(root / "masks", "model", clips)], jobs=1)
        values = score.result(condition=False, negative=False)
        return {"scores": np.array([values["m_j"], values["m_f_batch_1"]])}

    return work
