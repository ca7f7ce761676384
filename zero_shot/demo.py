"""Answer any video with masks, second by second or frame by frame, and leave pictures and a page to look at."""

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
from utils.cli import quiet_bar
from utils.config import to_yaml
from utils.encode import write_video
from utils.figures import PREDICTION, overlay
from utils.files import jpeg_bytes, png_bytes, read_image, write_bytes, write_text
from utils.lock import alone
from utils.picture import study_size, to_rgb
from utils.stream import Video, in_shape, pixels, read_frames, read_seconds_frames
from utils.stream_sound import read_seconds, read_sound
from zero_shot.demo_folder import (
    MASK_LIST,
    MaskRecord,
    check_folder,
    describe,
    finished_notes,
    line,
    printable,
    resume,
    write_record,
)
from zero_shot.options import FOR_PUBLIC_WEIGHTS, Options
from zero_shot.page import enlarged, facts, fit, hot, prompted, save_pictures, spans, write_page
from zero_shot.settings import Answer, Setting
from zero_shot.weights import weight_files

Every = Literal["second", "frame"]

CARDS = 600  # seconds that the page shows, at most
MINIATURE_NOTE = (
    "Made by the miniature networks, which know fourteen drawings and nothing else: do not rely on what they mark in "
    "any other video. For that: python -m pretrained.fetch audioclip-full sam-vit-h, then "
    f"--config {FOR_PUBLIC_WEIGHTS}"
)


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


def run(
    setting: Setting,
    options: Options,
    video: Video,
    digest: str,
    out: Path,
    every: Every = "second",
    *,
    heat: bool = False,
    prompts: bool = False,
) -> None:
    """Make the demo of a video in a folder that `check_folder` allows, or go on with it, and say what came of it.

    digest: sha256 of the video. heat, prompts: also save the similarity maps, and the frames with SAM's prompts.
    """
    description = describe(options, video, digest, every, heat, prompts)
    if is_miniature(options):
        print(f"note: {MINIATURE_NOTE}")
    with alone(out / ".lock", "makes a demo here"):
        check_folder(out, video, digest)  # again: until now another process may have been here
        total = video.ticks if every == "frame" else video.seconds
        records = resume(out, description, options.run.batch, total)
        notes = finished_notes(out) if len(records) == total else None
        if notes is None:
            write_text(out / "config.yaml", to_yaml(options))
            add_masks(setting, video, out, records, description, options.run.batch)
            write_overlay(video, out, every)
            notes = remarks(video, options, records) + lacking(out, options, heat=heat, prompts=prompts)
            if (stride := card_stride(video)) > 1:
                notes.append(f"The video is long: the page shows one second in {stride}.")
            page, small = out / "index.html", is_miniature(options)
            write_page(page, video, records, notes, every, configuration=to_yaml(options), miniature=small)
            write_record(out, description, duration=video.duration, masks=len(records), notes=notes)
    print(summary(video, records, notes, every, out / "index.html"))


def lacking(out: Path, options: Options, *, heat: bool, prompts: bool) -> list[str]:
    """A note for each kind of picture that was asked for and that the setting does not make."""
    wanted = ((heat, "heat", "similarity map"), (prompts, "prompts", "prompt for SAM"))
    return [
        f"There is no {what} to show: setting {options.setting} made none of this video."
        for asked, folder, what in wanted
        if asked and not (out / folder).is_dir()
    ]


def is_miniature(options: Options) -> bool:
    """Whether the networks are those that ship, which know drawings alone."""
    return any(path.parent == MINI for path in weight_files(options))


def card_stride(video: Video) -> int:
    """The page shows one second in so many."""
    return -(-video.seconds // CARDS)


def add_masks(
    setting: Setting, video: Video, out: Path, records: list[MaskRecord], description: dict[str, Any], batch: int
) -> None:
    """Make the masks that `records` lacks, with their pictures, and add them to it and to the list on disk."""
    every, stride = description["every"], card_stride(video)
    total = video.ticks if every == "frame" else video.seconds
    if len(records) == total:
        return
    with (
        tqdm(total=total, initial=len(records), desc="masks", unit="mask", **quiet_bar()) as bar,
        (out / MASK_LIST).open("a", encoding="utf-8") as listing,
    ):
        for moment, answer in answered(setting, moments(video, setting, every, skip=len(records)), batch):
            record = save_mask(out, video, moment, answer)
            if answer and answer.heat is not None and description["heat"]:
                write_bytes(out / "heat" / f"{moment.number:06d}.jpg", jpeg_bytes(hot(moment.picture, answer)))
            if answer and answer.prompt is not None and description["prompts"]:
                write_bytes(out / "prompts" / f"{moment.number:06d}.jpg", jpeg_bytes(prompted(moment.picture, answer)))
            if moment.picked and moment.second % stride == 0:
                record.pictures = save_pictures(out, moment.number, moment.picture, answer)
            listing.write(line(record))
            listing.flush()
            records.append(record)
            bar.update()


def write_overlay(video: Video, out: Path, every: Every) -> None:
    """Write the video with its sound and the masks."""
    rate = video.sound_rate if video.sound_rate in (av.Codec("aac", "w").audio_rates or []) else 48_000
    sound = read_sound(video, rate) if video.sound_rate else None
    shown = tqdm(tinted(video, out, every), total=video.ticks, desc="overlay", unit="frame", **quiet_bar())
    write_video(out / "overlay.mp4", shown, video.fps, sound, rate)


def moments(video: Video, setting: Setting, every: Every, skip: int = 0) -> Iterator[Moment]:
    """The frames that are to get a mask, but for the first `skip` of them, each with the sound of its second."""
    sounds = read_seconds(video, setting.sample_rate, int16_round_trip=setting.int16_round_trip)
    picked, before, sound = video.picked(), -1, None
    for place, frame in read_frames(video) if every == "frame" else read_seconds_frames(video):
        second = video.second(place) if every == "frame" else place
        if second > before:
            before, sound = second, next(sounds, None)
        if place >= skip:
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


def save_mask(out: Path, video: Video, moment: Moment, answer: Answer | None) -> MaskRecord:
    """Write a mask at the size of the video."""
    size = (video.height, video.width)
    mask = np.zeros(size, bool) if answer is None else enlarged(answer.mask, size)
    write_bytes(out / "masks" / f"{moment.number:06d}.png", png_bytes(mask.astype(np.uint8) * 255))
    words = answer.words if answer else ()
    return MaskRecord(moment.number, moment.second, answer is None, float(mask.mean()), words)


def tinted(video: Video, out: Path, every: Every) -> Iterator[np.ndarray]:
    """The frames of the video under the masks that were written."""
    number, mask = 0, np.zeros((video.height, video.width), bool)
    for tick, frame in read_frames(video):
        wanted = (tick if every == "frame" else video.second(tick)) + 1
        if wanted != number:
            number, mask = wanted, read_image(out / "masks" / f"{wanted:06d}.png")[..., 0] > 0
        yield overlay(pixels(video, frame), mask, PREDICTION)


def remarks(video: Video, options: Options, records: Sequence[MaskRecord]) -> list[str]:
    """What a reader must know to make sense of the masks, one sentence each; the weightiest first."""
    notes = [*([MINIATURE_NOTE] if is_miniature(options) else []), *video.notes]
    if video.lost:
        notes.append(f"The file is cut short: {video.lost} of its frames are missing.")
    silent = sorted({record.second for record in records if record.silent})
    if not video.sound_rate:
        notes.append("The video has no sound track: nothing sounds, so every mask is empty.")
    elif len(silent) == video.seconds:
        notes.append("The video is silent from beginning to end: nothing sounds, so every mask is empty.")
    elif silent:
        notes.append(f"Silent at {spans(silent)}: nothing sounds there, so the masks are empty.")
    empty = sum(not record.silent and record.part == 0 for record in records)
    if empty:
        why = (
            "no proposal was likely enough"
            if options.setting == "no_prompt"
            else "nothing was found to prompt SAM with"
        )
        notes.append(f"{empty} of {len(records)} masks are empty though something sounds: {why}.")
    return notes


def summary(video: Video, records: Sequence[MaskRecord], notes: Sequence[str], every: Every, page: Path) -> str:
    """One screen for the end of the run."""
    shown = [record.part for record in records if record.part > 0]
    part = f", which mark {100 * sum(shown) / len(shown):.1f} % of the frame on average" if shown else ""
    words = sorted({word for record in records for word in record.words})
    lines = [
        f"{printable(video.path)}: {facts(video)}",
        f"masks: {len(records)}, one for every {every}; {len(shown)} not empty{part}",
        *([f"heard: {', '.join(words[:20])}"] if words else []),
        *(f"note: {note}" for note in notes),
        f"page: {printable(page)}",
    ]
    return "\n".join(lines)
