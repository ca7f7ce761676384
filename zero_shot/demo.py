"""The demo: masks for any video, one per second or per frame, with an overlay video and an HTML page."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import av
import cv2
import numpy as np
import torch
from tqdm import tqdm

from utils.audio_stream import read_audio, read_audio_per_second
from utils.cli import progress_bar_options
from utils.config import to_yaml
from utils.figures import PREDICTION_COLOR, overlay_mask
from utils.files import jpeg_bytes, png_bytes, read_image, write_bytes, write_text
from utils.lock import exclusive_lock
from utils.parallel import compute_ahead
from utils.video_frame import resize_frame, shrink_frame, to_rgb
from utils.video_info import VideoInfo
from utils.video_stream import frame_to_rgb, read_frame_per_second, read_frames, resize_to_video
from utils.video_writer import write_video
from zero_shot.demo_folder import (
    MASK_LIST,
    DemoOutputs,
    MaskRecord,
    check_folder,
    describe,
    finished_notes,
    record_line,
    resume,
    write_record,
)
from zero_shot.demo_notes import (
    SMALL_WEIGHTS_NOTE,
    card_stride,
    collect_notes,
    describe_certainty,
    models_used,
    summary,
    surest_labels,
    uses_small_weights,
)
from zero_shot.figures import heatmap_image, prompt_image, resize_mask
from zero_shot.methods import Prediction, ZeroShotMethod
from zero_shot.options import Options
from zero_shot.page import write_page

MIN_IMAGE_SIZE, MAX_IMAGE_SIZE = 480, 960  # pixels: longer side of the images on the page


@dataclass
class DemoFrame:
    """A frame that gets a mask.

    Attributes:
        number: from 1.
        second: from 0.
        on_page: whether it represents its second on the page.
        frame: (H, W, 3) uint8 RGB, the input of the method; 224 × 224 for those of the study.
        image: (h, w, 3) uint8 RGB, for the page.
        audio: (samples,) of its second; None if that is silent.
    """

    number: int
    second: int
    on_page: bool
    frame: np.ndarray
    image: np.ndarray
    audio: np.ndarray | None


def run(
    method: ZeroShotMethod, options: Options, video: VideoInfo, digest: str, out: Path, outputs: DemoOutputs
) -> None:
    """Make or resume the demo of a video, and print a summary.

    Args:
        method: built from the options.
        options: of the method.
        video: by `utils.video_info.open_video`.
        digest: sha256 of the video.
        out: a folder that `check_folder` accepts.
        outputs: what to make.

    Raises:
        InputError: if another process makes a demo in the folder, or the folder is no longer acceptable.
    """
    description = describe(options, video, digest, outputs)
    small = uses_small_weights(options)
    if small:
        print(f"note: {SMALL_WEIGHTS_NOTE}")
    with exclusive_lock(out / ".lock", "makes a demo here"):
        check_folder(out, video, digest)  # again: another process may have changed it in the meantime
        total = video.num_frames if outputs.mask_rate == "frame" else video.num_seconds
        records = resume(out, description, options.window, total)
        notes = finished_notes(out) if len(records) == total else None
        if notes is None:
            write_text(out / "config.yaml", to_yaml(options))
            # Also if no mask is missing: the notes that reading adds were not saved.
            add_masks(method, video, out, records, outputs, options)
            write_overlay(video, out, outputs)
            notes = collect_notes(video, options, outputs, records, out)
            page = out / "index.html"
            write_page(
                page,
                video,
                records,
                notes,
                outputs,
                models=models_used(options),
                configuration=to_yaml(options),
                small_weights=small,
            )
            write_record(out, description, duration=video.duration, masks=len(records), notes=notes)
    print(summary(video, records, notes, outputs, out / "index.html"))


def add_masks(
    method: ZeroShotMethod,
    video: VideoInfo,
    out: Path,
    records: list[MaskRecord],
    outputs: DemoOutputs,
    options: Options,
) -> None:
    """Predict and save the masks that `records` lacks, and append them to it and to the list on disk."""
    stride = card_stride(video)
    total = video.num_frames if outputs.mask_rate == "frame" else video.num_seconds
    frames = iterate_frames(video, method, outputs, skip=len(records))
    with (
        tqdm(total=total, initial=len(records), desc="masks", unit="mask", **progress_bar_options()) as bar,
        (out / MASK_LIST).open("a", encoding="utf-8") as mask_list,
    ):
        for frame, prediction in predict_windows(method, frames, options.run.batch_size, options.window):
            record = save_mask(out, video, frame, prediction)
            save_requested_images(out, frame, prediction, outputs)
            if frame.on_page and frame.second % stride == 0:
                record.images = save_page_images(out, frame, prediction)
            mask_list.write(record_line(record))
            mask_list.flush()
            records.append(record)
            bar.update()


def iterate_frames(
    video: VideoInfo, method: ZeroShotMethod, outputs: DemoOutputs, skip: int = 0
) -> Iterator[DemoFrame]:
    """The frames that get a mask, without the first `skip` of them, each with the audio of its second."""
    seconds = read_audio_per_second(video, method.sample_rate, int16_round_trip=method.int16_round_trip)
    representative, previous, audio = video.frame_index_per_second(), -1, None
    every_frame = outputs.mask_rate == "frame"
    for index, frame in read_frames(video) if every_frame else read_frame_per_second(video):
        second = video.second_of(index) if every_frame else index
        if second > previous:
            previous, audio = second, next(seconds, None)
        if index >= skip:
            on_page = not every_frame or index == representative[second]
            rgb = to_rgb(frame)
            whole = resize_to_video(video, rgb)
            input_frame = resize_frame(rgb) if method.image_size is None else shrink_frame(whole, method.image_size)
            yield DemoFrame(index + 1, second, on_page, input_frame, resize_for_page(whole), audio)


def predict_windows(
    method: ZeroShotMethod, frames: Iterator[DemoFrame], batch_size: int, window: int
) -> Iterator[tuple[DemoFrame, Prediction | None]]:
    """Each frame with its prediction; None if its second is silent.

    Args:
        method: predicts, and tracks within a window.
        frames: in order.
        batch_size: frames predicted at once.
        window: frames held at once.
    """
    while part := list(islice(frames, window)):
        predictions: list[Prediction | None] = []
        for start in range(0, len(part), batch_size):
            batch = part[start : start + batch_size]
            audio = [frame.audio for frame in batch if frame.audio is not None]
            images = [frame.frame for frame in batch if frame.audio is not None]
            found = iter(method.predict(images, torch.from_numpy(np.stack(audio))) if audio else [])
            predictions += [None if frame.audio is None else next(found) for frame in batch]
        yield from zip(part, method.track([frame.frame for frame in part], predictions), strict=True)


def save_mask(out: Path, video: VideoInfo, frame: DemoFrame, prediction: Prediction | None) -> MaskRecord:
    """Write a mask at the size of the video."""
    size = (video.height, video.width)
    mask = np.zeros(size, bool) if prediction is None else resize_mask(prediction.mask, size)
    write_bytes(out / "masks" / f"{frame.number:06d}.png", png_bytes(mask.astype(np.uint8) * 255))
    record = MaskRecord(frame.number, frame.second, prediction is None, float(mask.mean()))
    if prediction:
        record.labels = prediction.labels
        record.label_scores = surest_labels(prediction)
        record.certain = describe_certainty(prediction)
    return record


def save_requested_images(out: Path, frame: DemoFrame, prediction: Prediction | None, outputs: DemoOutputs) -> None:
    """Write the images that --save-heatmaps and --save-prompts request, as far as the method gives them."""
    name = f"{frame.number:06d}.jpg"
    if outputs.heatmaps and prediction and prediction.similarity_map is not None:
        write_bytes(out / "heatmaps" / name, jpeg_bytes(heatmap_image(frame.image, prediction)))
    if outputs.prompts and prediction and prediction.prompt is not None:
        write_bytes(out / "prompts" / name, jpeg_bytes(prompt_image(frame.image, prediction)))


def save_page_images(out: Path, frame: DemoFrame, prediction: Prediction | None) -> dict[str, str]:
    """Write the images of a second on the page; returns their paths relative to `out` by view."""
    image, size = frame.image, frame.image.shape[:2]
    mask = np.zeros(size, bool) if prediction is None else resize_mask(prediction.mask, size)
    views = {"frame": image, "mask": overlay_mask(image, mask, PREDICTION_COLOR)}
    if prediction and (prediction.similarity_map is not None or prediction.prompt is not None):
        views["heatmap"] = prompt_image(heatmap_image(image, prediction), prediction)
    paths = {view: f"images/{frame.number:06d}_{view}.jpg" for view in views}
    for view, path in paths.items():
        write_bytes(out / path, jpeg_bytes(views[view]))
    return paths


def resize_for_page(rgb: np.ndarray) -> np.ndarray:
    """An image whose longer side has MIN_IMAGE_SIZE to MAX_IMAGE_SIZE pixels."""
    side = max(rgb.shape[:2])
    scale = min(max(side, MIN_IMAGE_SIZE), MAX_IMAGE_SIZE) / side
    size = [max(1, round(length * scale)) for length in rgb.shape[1::-1]]
    return cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)


def write_overlay(video: VideoInfo, out: Path, outputs: DemoOutputs) -> None:
    """Write overlay.mp4: the video with its audio and the masks."""
    rate = video.audio_rate if video.audio_rate in (av.Codec("aac", "w").audio_rates or []) else 48_000
    audio = read_audio(video, rate) if video.audio_rate else None
    frames = tqdm(
        compute_ahead(overlay_frames(video, out, outputs)),
        total=video.num_frames,
        desc="overlay",
        unit="frame",
        **progress_bar_options(),
    )
    write_video(out / "overlay.mp4", frames, video.fps, audio, rate)


def overlay_frames(video: VideoInfo, out: Path, outputs: DemoOutputs) -> Iterator[np.ndarray]:
    """The frames of the video with the saved masks drawn on them."""
    number, mask = 0, np.zeros((video.height, video.width), bool)
    for index, frame in read_frames(video):
        current = (index if outputs.mask_rate == "frame" else video.second_of(index)) + 1
        if current != number:
            number, mask = current, read_image(out / "masks" / f"{current:06d}.png")[..., 0] > 0
        yield overlay_mask(frame_to_rgb(video, frame), mask, PREDICTION_COLOR)
