"""Hostile files of a clip: log-mels of ours, pickled ones, sounds, frames and masks; and results of a run."""

import io
import json
import pickle
from functools import partial
from pathlib import Path
from typing import get_args

import cv2
import numpy as np
import pytest
import soundfile
import torch

from tests.robustness import archives
from tests.robustness.media import wide_png
from tests.robustness.mutations import mutated
from tests.robustness.sandbox import Guard, guarded
from utils.audio import load_clip_waveform
from utils.dataset import read_frame, read_log_mel
from utils.layout import AVSBench, Clip, SoftMasks
from utils.masks import read_mask
from utils.preprocess import audio_intact, frames_intact, log_mel_intact
from utils.results import results_table
from zero_shot.label_list import read_labels

CLIP = Clip("a", "test", "dog")
MEL = np.linspace(-5, 5, 5 * 96 * 64, dtype=np.float32).reshape(5, 1, 96, 64)


def benchmark(root: Path) -> AVSBench:
    root.mkdir()
    (root / "s4_meta_data.csv").write_text("name,start,category,split\na,0,dog,test\n")
    data = AVSBench(root, "s4")
    for path in (data.frames(CLIP)[0], data.wav(CLIP), data.log_mel(CLIP), data.masks(CLIP)[0]):
        path.parent.mkdir(parents=True)
    return data


def wav(kind: str = "WAV", subtype: str = "PCM_16", seconds: float = 1.5, rate: int = 16_000) -> bytes:
    out = io.BytesIO()
    samples = 0.1 * np.sin(np.arange(round(seconds * rate)) / 9)
    soundfile.write(out, samples, rate, format=kind, subtype=subtype)
    return out.getvalue()


def png(height: int = 224, width: int = 224, channels: int = 3) -> bytes:
    noise = np.random.default_rng(0).integers(0, 2, (height, width, channels), dtype=np.uint8) * 255
    return cv2.imencode(".png", noise)[1].tobytes()


def as_mel(data: AVSBench) -> None:
    """What is taken for whole is read, and what is read is whole."""
    intact = log_mel_intact(data, CLIP)
    found = read_log_mel(data, CLIP)
    assert intact and found.dtype == np.float32 and found.shape == MEL.shape and np.isfinite(found).all()


def as_sound(data: AVSBench) -> None:
    audio_intact(data, CLIP)
    found = load_clip_waveform(data.wav(CLIP), 44_100)
    assert found.shape == (5, 44_100) and np.isfinite(found).all()


def as_frame(data: AVSBench) -> None:
    frames_intact(data, CLIP)
    assert read_frame(data.frames(CLIP)[0]).shape == (224, 224, 3)


def as_mask(path: Path, soft: SoftMasks) -> None:
    assert set(np.unique(read_mask(path, soft)).tolist()) <= {0.0, 1.0}


def work(guard: Guard, count: int, seed: int) -> None:
    data = benchmark(guard.inside / "root")
    mel, pkl, sound = data.log_mel(CLIP), data.pickled_log_mel(CLIP), data.wav(CLIP)
    frame, mask = data.frames(CLIP)[0], data.masks(CLIP)[0]

    def attempt(name: str, path: Path, content: bytes, use: partial) -> None:
        path.write_bytes(content)
        guard.attempt(name, use)
        path.unlink()

    for name, content in archives.npys().items():
        attempt(f"npy: {name}", mel, content, partial(as_mel, data))
    for name, content in archives.pickles(guard.inside.parent / "ran").items():
        attempt(f"pkl: {name}", pkl, content, partial(as_mel, data))
    for sides in ((1 << 50, 1, 1, 1), (5, 1, 96, 1 << 30), (1 << 28, 1, 1, 1), (-1, 1, 96, 64)):
        attempt(f"pkl of {sides}", pkl, archives.huge_tensor(sides), partial(as_mel, data))
    for name, content in {
        "nothing": b"",
        "a day of FLAC": wav("FLAC", seconds=2),
        "a rate of a hertz": wav(rate=1, seconds=5000),
        "hours at 8 Hz": wav(rate=8, seconds=100_000),
        "a rate of gigahertz": wav()[:24] + b"\xff\xff\xff\x7f" + wav()[28:],
        "a thousand channels": wav()[:22] + b"\x00\x04" + wav()[24:],
        "no channels": wav()[:22] + b"\0\0" + wav()[24:],
        "floats": wav(subtype="FLOAT"),
        "ogg": wav("OGG", "VORBIS"),
        "raw": bytes(100),
    }.items():
        attempt(f"wav: {name}", sound, content, partial(as_sound, data))
    for name, content in {
        "nothing": b"",
        "wide": wide_png(20_000),
        "wider": wide_png(60_000),
        "empty": png()[:50],
        "grey": png(channels=1),
        "with alpha": png(channels=4),
        "of 16 bits": cv2.imencode(".png", np.zeros((224, 224), np.uint16))[1].tobytes(),
        "a JPEG": cv2.imencode(".jpg", np.zeros((224, 224, 3), np.uint8))[1].tobytes(),
        "a GIF": b"GIF89a\xff\xff\xff\xff\x80\0\0" + bytes(60),
        "a TIFF": cv2.imencode(".tiff", np.zeros((224, 224, 3), np.uint8))[1].tobytes(),
        "an SVG": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    }.items():
        attempt(f"frame: {name}", frame, content, partial(as_frame, data))
        for soft in get_args(SoftMasks):
            attempt(f"mask, {soft}: {name}", mask, content, partial(as_mask, mask, soft))

    run = guard.inside / "run" / "metrics.json"
    run.parent.mkdir()
    texts = {
        "deep": "[" * 100_000,
        "a list": "[1]",
        "null": "null",
        "cut": '{"m_j": "' + "x" * 10**6,
        "of lists": '{"m_j": [1]}',
    }
    for name, text in texts.items():
        attempt(f"results: {name}", run, text.encode(), partial(results_table, run.parent))
        attempt(f"labels: {name}", run, text.encode(), partial(read_labels, run))

    saved = io.BytesIO()
    np.save(saved, MEL)
    for path, content, use in (
        (mel, saved.getvalue(), partial(as_mel, data)),
        (pkl, pickle.dumps(torch.from_numpy(MEL.copy()).requires_grad_(True)), partial(as_mel, data)),
        (sound, wav(), partial(as_sound, data)),
        (sound, wav("WAV", "FLOAT"), partial(as_sound, data)),
        (frame, png(), partial(as_frame, data)),
        (mask, png(channels=1), partial(as_mask, mask, "refuse")),
        (mask, png(channels=1), partial(as_mask, mask, "dither")),
        (
            run,
            json.dumps({"m_j": 0.5, "m_f": 0.5, "split": "test", "frames": 5}).encode(),
            partial(results_table, run.parent),
        ),
        (run, json.dumps(["dog", "cat"]).encode(), partial(read_labels, run)),
    ):
        attempt(f"whole {path.name}", path, content, use)
        for name, damaged in mutated({path.name: content}, count, seed):
            attempt(name, path, damaged, use)


@pytest.mark.parametrize("count, seed", [(40, 0), pytest.param(400, 1, marks=pytest.mark.slow)])
def test_files(tmp_path: Path, count: int, seed: int) -> None:
    tally = guarded(partial(work, count=count, seed=seed), tmp_path)
    print(f"fuzz, files of clips and results: {tally}")
    assert not tally.faults, "\n\n".join(tally.faults)
    assert tally.tried > 9 * count and tally.refused > 3 * count and tally.tried - tally.refused > count
    assert tally.grown < 700
