"""Answer any video with masks, second by second or frame by frame, and leave pictures and a page to look at."""

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
import torch
from tqdm import tqdm

from models.mini import MINI
from utils.cli import InputError, quiet_bar
from utils.config import to_yaml
from utils.encode import write_video
from utils.figures import PREDICTION, overlay
from utils.files import jpeg_bytes, png_bytes, read_image, write_bytes, write_text
from utils.picture import study_size, to_rgb
from utils.stream import Video, in_shape, pixels, read_frames, read_seconds_frames
from utils.stream_sound import read_seconds, read_sound
from zero_shot.options import FOR_PUBLIC_WEIGHTS, Options
from zero_shot.page import Card, enlarged, facts, fit, hot, prompted, save_pictures, spans, write_page
from zero_shot.settings import Answer, Setting
from zero_shot.weights import weight_files

Every = Literal["second", "frame"]

NOTES = "demo.json"  # marks a folder as a demo's
MADE = ("config.yaml", "index.html", "overlay.mp4", "masks", "pictures", "heat", "prompts")
CARDS = 600  # seconds that the page shows, at most


@dataclass
class Moment:
    """A frame that gets a mask: its number from 1, its second from 0, and whether it stands for that second.

    frame: as the study resizes it. picture: (h, w, 3), for people. sound: of its second, None where that is silent.
    """

    number: int
    second: int
    picked: bool
    frame: np.ndarray
    picture: np.ndarray
    sound: np.ndarray | None


@dataclass
class Mark:
    """What became of a moment: the part of the frame that is marked (0 to 1), and what the sound was taken for."""

    second: int
    silent: bool
    part: float
    words: Sequence[str] = ()


def check_folder(out: Path, video: Video) -> None:
    """Raise InputError where a demo of the video must not be written."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; choose another --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out}: cannot be made ({error.strerror}); choose another --out") from error
    there = sorted(path.name for path in out.iterdir())
    others = [name for name in there if NOTES not in there or name not in (NOTES, *MADE)]
    if others:
        raise InputError(f"{out}: holds something else than a demo ({', '.join(others[:3])}); choose another --out")
    if out.resolve() in video.path.resolve().parents:
        raise InputError(f"{video.path}: lies in {out}, which is made anew; choose another --out")


def run(
    setting: Setting,
    options: Options,
    video: Video,
    out: Path,
    every: Every = "second",
    *,
    heat: bool = False,
    prompts: bool = False,
) -> None:
    """Make the demo of a video in a folder that `check_folder` allows, and say what came of it.

    heat, prompts: also save the similarity maps, and the frames with SAM's prompts, as pictures.
    """
    record: dict[str, Any] = {"video": str(video.path), "every": every, "duration": video.duration}
    write_text(out / NOTES, json.dumps(record, indent=2) + "\n")  # first, so that the folder stays a demo's
    for path in (out / name for name in MADE):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    write_text(out / "config.yaml", to_yaml(options))

    stride = -(-video.seconds // CARDS)
    marks: list[Mark] = []
    cards: list[Card] = []
    total = video.ticks if every == "frame" else video.seconds
    with tqdm(total=total, desc="masks", unit="mask", **quiet_bar()) as bar:
        for moment, answer in answered(setting, moments(video, setting, every), options.run.batch):
            mark = save_mask(out, video, moment, answer)
            marks.append(mark)
            if answer and answer.heat is not None and heat:
                write_bytes(out / "heat" / f"{moment.number:06d}.jpg", jpeg_bytes(hot(moment.picture, answer)))
            if answer and answer.prompt is not None and prompts:
                write_bytes(out / "prompts" / f"{moment.number:06d}.jpg", jpeg_bytes(prompted(moment.picture, answer)))
            if moment.picked and moment.second % stride == 0:
                pictures = save_pictures(out, moment.number, moment.picture, answer)
                cards.append(Card(moment.second, pictures, answer is None, mark.part, mark.words))
            bar.update()
    rate = video.sound_rate if video.sound_rate in (av.Codec("aac", "w").audio_rates or []) else 48_000
    sound = read_sound(video, rate) if video.sound_rate else None
    shown = tqdm(tinted(video, out, every), total=video.ticks, desc="overlay", unit="frame", **quiet_bar())
    write_video(out / "overlay.mp4", shown, video.fps, sound, rate)

    notes = remarks(video, options, marks)
    for wanted, folder, what in ((heat, "heat", "similarity map"), (prompts, "prompts", "prompt for SAM")):
        if wanted and not (out / folder).is_dir():
            notes.append(f"There is no {what} to show: setting {options.setting} made none of this video.")
    if stride > 1:
        notes.append(f"The video is long: the page shows one second in {stride}.")
    record |= {"masks": len(marks), "notes": notes}
    write_text(out / NOTES, json.dumps(record, indent=2) + "\n")
    write_page(out / "index.html", video, cards, notes, to_yaml(options), every)
    print(summary(video, marks, notes, every, out / "index.html"))


def moments(video: Video, setting: Setting, every: Every) -> Iterator[Moment]:
    """The frames that are to get a mask, each with the sound of its second."""
    sounds = read_seconds(video, setting.sample_rate, int16_round_trip=setting.int16_round_trip)
    picked, before, sound = video.picked(), -1, None
    for place, frame in read_frames(video) if every == "frame" else read_seconds_frames(video):
        second = video.second(place) if every == "frame" else place
        if second > before:
            before, sound = second, next(sounds, None)
        shown = every == "second" or place == picked[second]
        rgb = to_rgb(frame)
        yield Moment(place + 1, second, shown, study_size(rgb), fit(in_shape(video, rgb)), sound)


def answered(setting: Setting, asking: Iterator[Moment], batch: int) -> Iterator[tuple[Moment, Answer | None]]:
    """Each moment with its answer; where nothing sounds there is nothing to ask."""
    while group := list(islice(asking, batch)):
        sounds = [moment.sound for moment in group if moment.sound is not None]
        frames = [moment.frame for moment in group if moment.sound is not None]
        answers = iter(setting.answer(frames, torch.from_numpy(np.stack(sounds))) if sounds else [])
        for moment in group:
            yield moment, None if moment.sound is None else next(answers)


def save_mask(out: Path, video: Video, moment: Moment, answer: Answer | None) -> Mark:
    """Write a mask at the size of the video."""
    size = (video.height, video.width)
    mask = np.zeros(size, bool) if answer is None else enlarged(answer.mask, size)
    write_bytes(out / "masks" / f"{moment.number:06d}.png", png_bytes(mask.astype(np.uint8) * 255))
    return Mark(moment.second, answer is None, float(mask.mean()), answer.words if answer else ())


def tinted(video: Video, out: Path, every: Every) -> Iterator[np.ndarray]:
    """The frames of the video under the masks that were written."""
    number, mask = 0, np.zeros((video.height, video.width), bool)
    for tick, frame in read_frames(video):
        wanted = (tick if every == "frame" else video.second(tick)) + 1
        if wanted != number:
            number, mask = wanted, read_image(out / "masks" / f"{wanted:06d}.png")[..., 0] > 0
        yield overlay(pixels(video, frame), mask, PREDICTION)


def remarks(video: Video, options: Options, marks: Sequence[Mark]) -> list[str]:
    """What a reader must know to make sense of the masks, one sentence each."""
    notes = list(video.notes)
    if video.lost:
        notes.append(f"The file is cut short: {video.lost} of its frames are missing.")
    silent = sorted({mark.second for mark in marks if mark.silent})
    if not video.sound_rate:
        notes.append("The video has no sound track: nothing sounds, so every mask is empty.")
    elif len(silent) == video.seconds:
        notes.append("The video is silent from beginning to end: nothing sounds, so every mask is empty.")
    elif silent:
        notes.append(f"Silent at {spans(silent)}: nothing sounds there, so the masks are empty.")
    empty = sum(not mark.silent and mark.part == 0 for mark in marks)
    if empty:
        why = (
            "no proposal was likely enough"
            if options.setting == "no_prompt"
            else "nothing was found to prompt SAM with"
        )
        notes.append(f"{empty} of {len(marks)} masks are empty though something sounds: {why}.")
    if any(path.parent == MINI for path in weight_files(options)):
        notes.append(
            "These are the miniature weights, which know fourteen drawn things and nothing else. For other videos: "
            f"python -m pretrained.fetch audioclip-full sam-vit-h, then --config {FOR_PUBLIC_WEIGHTS}"
        )
    return notes


def summary(video: Video, marks: Sequence[Mark], notes: Sequence[str], every: Every, page: Path) -> str:
    """One screen for the end of the run."""
    shown = [mark.part for mark in marks if mark.part > 0]
    part = f", which mark {100 * sum(shown) / len(shown):.1f} % of the frame on average" if shown else ""
    words = sorted({word for mark in marks for word in mark.words})
    lines = [
        f"{video.path}: {facts(video)}",
        f"masks: {len(marks)}, one for every {every}; {len(shown)} not empty{part}",
        *([f"heard: {', '.join(words[:20])}"] if words else []),
        *(f"note: {note}" for note in notes),
        f"page: {page}",
    ]
    return "\n".join(lines)
