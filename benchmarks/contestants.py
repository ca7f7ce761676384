"""The contestants: ours and the textbook forms of tests/plain.py, on the sizes of the study."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
import soundfile
import torch

from avsbench_data import compose
from models.tpavi import TPAVI
from tests import plain
from utils import preprocess
from utils.audio import SAMPLE_RATE, five_examples, log_mel
from utils.layout import AVSBench, Clip
from utils.metrics import f_score
from utils.video import frame_indices

Work = Callable[[], float]


def _frames() -> tuple[torch.Tensor, torch.Tensor]:
    """Twenty frames, a metric batch of four videos."""
    generator = torch.Generator().manual_seed(0)
    masks = torch.zeros(20, 224, 224)
    masks[:, 60:150, 80:170] = 1
    return masks * 2 - 1 + 2 * torch.randn(masks.shape, generator=generator), masks


def f_measure_plain() -> Work:
    """255 passes over the pixels of each frame."""
    logits, masks = _frames()
    return lambda: plain.f_measure(logits, masks)


def f_measure_ours() -> Work:
    """One histogram a frame."""
    logits, masks = _frames()
    return lambda: f_score(logits, masks)


def _tpavi(forward: Callable[[TPAVI, torch.Tensor, torch.Tensor], torch.Tensor]) -> Work:
    torch.manual_seed(0)
    block = TPAVI()
    block.W_z[1].weight.data.fill_(1.0)  # type: ignore[operator]
    maps = torch.randn(1, 5, 256, 56, 56, requires_grad=True)
    audio, direction = torch.rand(1, 5, 128), torch.randn(1, 5, 256, 56, 56)
    maps.grad = torch.zeros_like(maps)

    def step() -> float:
        assert maps.grad is not None
        maps.grad.zero_()
        forward(block, maps, audio).backward(direction)
        return maps.grad.abs().mean().item()

    return step


def tpavi_plain() -> Work:
    """Stage 1, forward and backward, through the 15 680 × 15 680 matrix."""
    return _tpavi(plain.tpavi)


def tpavi_ours() -> Work:
    """The same through the 128 × 128 memory."""
    return _tpavi(lambda block, maps, audio: block(maps, audio)[0])


def _clips() -> AVSBench:
    """48 composed clips of 480×360 at 25 frames a second, made once and kept in the system's temporary folder."""
    root = Path(tempfile.gettempdir()) / "avs_benchmark_48_clips"
    arguments = ["--out", str(root), "--s4", "48", "--ms3", "0", "--size", "480x360", "--fps", "25"]
    assert compose.main(arguments) == 0
    return AVSBench(root / "Single-source", "s4")


def _total(data: AVSBench) -> float:
    return sum(float(np.load(data.log_mel(clip)).sum()) for clip in data.clips)


def preprocess_plain() -> Work:
    """One process; every frame is decoded, converted and resized, and the file opened again for its sound."""
    data = _clips()

    def one(clip: Clip) -> None:
        path = str(data.video(clip))
        with av.open(path) as container:
            rate = float(container.streams.video[0].average_rate or 25)
            frames = [
                cv2.resize(frame.to_ndarray(format="rgb24", interpolation="BICUBIC"), (224, 224))
                for frame in container.decode(video=0)
            ]
        for target, index in zip(data.frames(clip), frame_indices(rate), strict=True):
            target.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(target), cv2.cvtColor(frames[min(index, len(frames) - 1)], cv2.COLOR_RGB2BGR))
        with av.open(path) as container:
            layout = "mono" if container.streams.audio[0].channels == 1 else "stereo"
            resampler = av.AudioResampler("s16", layout, SAMPLE_RATE)
            blocks = [b.to_ndarray() for f in [*container.decode(audio=0), None] for b in resampler.resample(f)]
        samples = np.concatenate(blocks, axis=1).reshape(-1, resampler.layout.nb_channels)
        data.wav(clip).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(data.wav(clip), samples, SAMPLE_RATE, subtype="PCM_16")
        examples = five_examples(log_mel(soundfile.read(data.wav(clip), dtype="int16")[0], SAMPLE_RATE))
        data.log_mel(clip).parent.mkdir(parents=True, exist_ok=True)
        np.save(data.log_mel(clip), examples)

    def work() -> float:
        for clip in data.clips:
            one(clip)
        return _total(data)

    return work


def preprocess_ours() -> Work:
    """Two processes; each file is opened once and only the chosen frames are converted."""
    data = _clips()

    def work() -> float:
        preprocess.preprocess(data, jobs=2, overwrite=True)
        return _total(data)

    return work
