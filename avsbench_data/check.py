"""Check that a benchmark's files are there and whole, before hours are spent on them.

    python -m avsbench_data.check --root avsbench_data/Single-source --dataset s4

Names every missing, unreadable or wrong-shaped file with the way to mend it. Raw videos and masks are always
checked; frames, sound and log-mels once preprocessing has made (or AVSBench's distribution has brought) some.
Exit code 1 if anything is wrong. --soft_masks dither takes masks in grey as runs with data.soft_masks: dither do.
"""

if __name__ == "__main__":  # before imports that take seconds
    from utils.environment import prepare_process

    prepare_process()

import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import get_args

from tqdm import tqdm

from utils.audio import SAMPLE_RATE, read_wav
from utils.cli import InputError, Parser, cli_entry, progress_bar_options
from utils.dataset import read_frame, read_log_mel
from utils.layout import AVSBench, Clip, SoftMasks
from utils.masks import SoftMaskError, read_mask
from utils.option_ranges import NUM_JOBS
from utils.parallel import WORKER_LOST, parallel_map
from utils.paths import resolve_path
from utils.preprocess import detect_fidelity
from utils.video import check_clip


def clip_problems(data: AVSBench, clip: Clip, raw: bool, features: bool, soft_masks: SoftMasks = "refuse") -> list[str]:
    """What is wrong with one clip's files, a line each. soft_masks: as the loaders are told by data.soft_masks."""
    remedy = f"python preprocess_{data.benchmark.name}.py --root {data.root}"
    problems = []
    for check, fix in _checks(data, clip, raw, features, remedy, soft_masks):
        try:
            check()
        except InputError as error:
            problems.append(f"{error}{'' if 'preprocess' in str(error) else f' — {fix}'}")
    return problems


def _checks(
    data: AVSBench, clip: Clip, raw: bool, features: bool, remedy: str, soft_masks: SoftMasks
) -> Iterator[tuple]:
    if raw:
        yield lambda: check_clip(data.video(clip)), "obtain the raw video again"
    for path in data.masks(clip):
        yield lambda path=path: read_mask(path, soft_masks), "obtain gt_masks again"
    if features:
        for path in data.frames(clip):
            yield lambda path=path: read_frame(path), f"run {remedy}"
        yield lambda: _check_wav(data.wav(clip)), f"run {remedy}"
        yield lambda: read_log_mel(data, clip), f"run {remedy}"


def soft_pixels(data: AVSBench, clip: Clip) -> list[int]:
    """Of each of the clip's masks that is in grey, how many pixels are neither black nor white."""
    found = []
    for path in data.masks(clip):
        try:
            read_mask(path)
        except SoftMaskError as error:
            found.append(error.pixels)
        except InputError:
            pass  # `clip_problems` names it
    return found


def _look(clip: Clip, data: AVSBench, raw: bool, features: bool, soft_masks: SoftMasks) -> tuple[list[str], list[int]]:
    problems = clip_problems(data, clip, raw, features, soft_masks)
    return problems, soft_pixels(data, clip) if problems or soft_masks == "dither" else []


def _check_wav(path: Path) -> None:
    samples, rate = read_wav(path)
    if rate != SAMPLE_RATE:
        raise InputError(f"{path}: is at {rate} Hz, not 16000 Hz")
    if len(samples) == 0:
        raise InputError(f"{path}: holds no samples")


@cli_entry
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = Parser(__doc__)
    parser.add_argument("--root", type=resolve_path, required=True, help="the folder that holds the meta CSV")
    parser.add_argument("--dataset", choices=("s4", "ms3"), required=True)
    parser.add_argument(
        "--soft_masks",
        choices=get_args(SoftMasks),
        default="refuse",
        help="masks in grey: refuse them (default), or dither them as the original's loader of S4 does",
    )
    parser.add_argument("--jobs", type=NUM_JOBS, default=-1, help="processes (default -1: one a core)")
    args = parser.parse_args(argv)
    data = AVSBench(args.root, args.dataset)
    folder = args.root / f"{args.dataset}_data"
    raw = (folder / "raw_videos").is_dir()
    features = any((folder / name).is_dir() for name in ("visual_frames", "audio_wav", "audio_log_mel"))
    if not raw and not features:
        raise InputError(f"{folder}: neither raw_videos nor visual_frames is there; see avsbench_data/README.md")
    if not raw:
        print("note: no raw_videos; the distributed frames, sound and log-mels are checked instead")
    if not features:
        print(f"note: not preprocessed yet; run python preprocess_{args.dataset}.py --root {args.root}")
    look = partial(_look, data=data, raw=raw, features=features, soft_masks=args.soft_masks)
    made = parallel_map(look, data.clips, args.jobs)
    bar = tqdm(made, total=len(data.clips), desc=f"check {args.dataset}", unit="clip", **progress_bar_options())
    bad, soft = 0, []
    for clip, findings in zip(data.clips, bar, strict=True):
        problems, pixels = findings or ([f"{clip.name}: cannot be checked, {WORKER_LOST}"], [])
        soft += pixels
        bad += bool(problems)
        for problem in problems:
            tqdm.write(problem, file=sys.stdout)
    if soft:
        done = "dithered" if args.soft_masks == "dither" else "refused; --soft_masks dither reads them"
        print(f"note: {len(soft)} masks are in grey, {sum(soft)} pixels of them neither black nor white: {done}")
    try:
        detect_fidelity(data)
    except InputError as error:
        bad += 1
        print(error)
    counts = ", ".join(f"{len(data.split(split))} {split}" for split in ("train", "val", "test"))
    print(f"{len(data.clips)} clips ({counts}): {f'{bad} with problems' if bad else 'all well'}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
