"""Whole demos of a video by each segmenter, without and with tracking, to show that memory does not grow with it.

AudioCLIP and the small SAM have the weights of pretrained/mini; other networks have their published sizes and random
weights. Demos of different lengths give different masks, so no output is compared.
"""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import Output, Work
from benchmarks.segmenters import build_segmenter, random_sam2
from utils.config import resolve_options
from utils.files import sha256
from utils.video_info import open_video
from utils.video_writer import write_video
from zero_shot.demo import run
from zero_shot.demo_folder import DemoOutputs
from zero_shot.methods import build_method
from zero_shot.methods.tracking import ClipTracker
from zero_shot.options import Options
from zero_shot.segmenters.sam2_families import FAMILIES
from zero_shot.segmenters.sam2_tracker import MaskTracker

FPS, SIZE, RATE = 5, (360, 640), 16_000


def short_demo(network: str, track: bool, short: int, long: int, tiny: bool = False) -> Work:
    """The demo of a video of `short` seconds, with a mask for each."""
    return _demo(network, track, short, tiny)


def long_demo(network: str, track: bool, short: int, long: int, tiny: bool = False) -> Work:
    """The demo of a video of `long` seconds."""
    return _demo(network, track, long, tiny)


def _demo(network: str, track: bool, seconds: int, tiny: bool) -> Work:
    config = Path(__file__).parents[1] / "zero_shot" / "configs" / "mini" / "s4_point_global.yaml"
    options: Options = resolve_options(Options, ["--config", str(config), "--run.use_cache", "false"])
    options = replace(options, run=replace(options.run, device="cpu"))
    method: Any = build_method(options)
    if network != "mini":
        method.segmenter = build_segmenter(network, "fp32", tiny)
    if track:
        family = "edgetam" if network == "edgetam" else "sam2"
        options = replace(options, track="both", tracking=replace(options.tracking, weights=network))  # its windows
        method.tracker = ClipTracker(
            MaskTracker(random_sam2(network, "fp32", tiny, video=True), FAMILIES[family]), backward=True, threshold=0.0
        )

    def work() -> Output:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "video.mp4"
            _write(path, seconds)
            (out := Path(folder) / "out").mkdir()
            run(method, options, open_video(path), sha256(path), out, DemoOutputs())
        return {"nothing": np.zeros(1)}

    return work


def _write(path: Path, seconds: int) -> None:
    """A video of moving squares with a tone of changing pitch."""
    squares = np.random.default_rng(0).integers(0, 256, (9, 16, 3), dtype=np.uint8)
    base = squares.repeat(SIZE[0] // 9, axis=0).repeat(SIZE[1] // 16, axis=1)
    time = np.arange(seconds * RATE) / RATE
    tone = 0.3 * np.sin(2 * np.pi * (440 + 200 * np.sin(time / 7)) * time)
    write_video(path, (np.roll(base, 4 * frame, axis=1) for frame in range(seconds * FPS)), FPS, tone, RATE)
