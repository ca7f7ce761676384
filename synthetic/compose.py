"""Compose the miniature: clips in AVSBench's raw layout, with exact masks, without a download.

  python -m synthetic.compose --out DIR [--pictures DIR] [--backgrounds DIR] [--s4 N] [--ms3 N] [--seed S]

DIR/Single-source (S4): one thing sounds; one to three of other kinds are silent, so sight alone cannot tell.
DIR/Multi-sources (MS3): two or three things sound, each for a run of seconds; at least one is silent.
The mask of a second shows what is visible of all that sounds in it, in the frame that preprocessing picks.

The things are fourteen drawn kinds with synthesised sounds, or NAME.png (with alpha) and NAME.ogg or NAME.wav
from --pictures. They drift over calm drawn backdrops, or over parts of the photographs (JPEG or PNG) in --backgrounds.

Clips are dealt out to the kinds in turn, and each kind's S4 clips to train, val and test as 70/15/15; a kind with few
clips goes into each split once before it goes into any twice, so small sets have a larger val and test. MS3 clips are
dealt 70/15/15 as a whole. The same arguments give the same masks and meta data, whatever --jobs is. A run that was
stopped goes on when it is started again: one run at a time in a DIR.
"""

if __name__ == "__main__":  # before imports that take seconds
    from utils.environment import prepare_process

    prepare_process()

import argparse
import csv
import io
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from synthetic.assets import AssetLibrary, open_assets
from synthetic.scene import draw_scene, mix_audio, sample_objects
from synthetic.sounds import SYNTHESIS_RATE
from utils.cli import InputError, Parser, cli_entry, progress_bar_options
from utils.files import png_bytes, remove_partials, sha256, write_bytes, write_text
from utils.layout import BENCHMARKS, CLIP_SECONDS, SPLITS, BenchmarkName, Clip
from utils.lock import exclusive_lock
from utils.option_ranges import NON_NEGATIVE_INT, NUM_JOBS, SEED_INT, bounded_number
from utils.parallel import WORKER_LOST, parallel_map
from utils.paths import expand_user, resolve_path
from utils.timestamps import displayed_frames
from utils.video_writer import limit_frame_rate, write_video

VERSION = 1  # of the composed clips: raise it when the same arguments would give others
SPLIT_FRACTIONS = {"train": 0.70, "test": 0.15, "val": 0.15}
RECIPE = "compose.json"
FEWEST_KINDS: dict[BenchmarkName, int] = {"s4": 2, "ms3": 3}  # what sounds and one silent thing


@dataclass(frozen=True)
class ClipSpec:
    """One clip to compose."""

    benchmark: BenchmarkName
    index: int
    target: str  # a kind that sounds
    clip: Clip


@dataclass(frozen=True)
class RenderConfig:
    """What all the clips of a run share."""

    out: Path
    seed: int
    fps: float
    size: tuple[int, int]  # height and width of the videos

    def path(self, benchmark: BenchmarkName, template: str, clip: Clip | None = None, k: int = 0) -> Path:
        """A file of a benchmark, from one of its path templates."""
        names = {"name": clip.name, "split": clip.split, "category": clip.category} if clip else {}
        return self.out / BENCHMARKS[benchmark].root / template.format(**names, k=k)


def generator(seed: int, benchmark: BenchmarkName, index: int = -1) -> np.random.Generator:
    """The random numbers of one clip, or (-1) those of the plan: nobody draws from another's."""
    return np.random.default_rng([seed, list(BENCHMARKS).index(benchmark), index + 1])


def assign_splits(categories: Sequence[str]) -> list[str]:
    """The split of each clip by its category and the module's rule; more clips do not change the first."""
    dealt: Counter[str | None] = Counter()
    have: Counter[tuple[str | None, str]] = Counter()
    splits = []
    for category in categories:
        new = [split for split in SPLIT_FRACTIONS if not have[category, split]]
        among = None if new else category  # whose shares to balance: those of all the clips, or the category's
        dealt.update((None, category))
        behind = {
            s: SPLIT_FRACTIONS[s] * dealt[among] - have[among, s] + (not have[among, s]) for s in new or SPLIT_FRACTIONS
        }
        splits.append(max(behind, key=behind.__getitem__))
        have.update(((None, splits[-1]), (category, splits[-1])))
    return splits


def plan_clips(benchmark: BenchmarkName, count: int, kinds: Sequence[str], seed: int) -> list[ClipSpec]:
    """The clips of a benchmark: the kinds lead in turn, in an order of the seed."""
    turns = generator(seed, benchmark).permutation(kinds)
    leads = [str(turns[i % len(turns)]) for i in range(count)]
    s4 = benchmark == "s4"
    return [
        ClipSpec(benchmark, i, lead, Clip(f"{lead if s4 else 'mix'}_{i:04d}", split, lead if s4 else ""))
        for i, (lead, split) in enumerate(zip(leads, assign_splits(leads if s4 else [""] * count), strict=True))
    ]


def compose_clip(order: ClipSpec, setting: RenderConfig, cast: AssetLibrary) -> bool:
    """Make the masks and then the video of one clip; whether it was there already.

    The video comes last, under a temporary name, so a clip that has its video is whole.
    """
    cv2.setNumThreads(1)  # clips are made in parallel processes
    benchmark, clip = BENCHMARKS[order.benchmark], order.clip
    video = setting.path(order.benchmark, benchmark.video, clip)
    masks = [
        setting.path(order.benchmark, benchmark.mask, clip, k + 1) for k in range(benchmark.masks_per_clip[clip.split])
    ]
    if all(path.is_file() for path in (video, *masks)):
        return True
    rng = generator(setting.seed, order.benchmark, order.index)
    roles = sample_objects(order.benchmark, order.target, cast.categories, rng)
    count = int(np.ceil(CLIP_SECONDS * setting.fps))
    moments = (displayed_frames(np.arange(count) / setting.fps) / setting.fps).tolist()
    scene, visible = draw_scene(roles, cast, setting.size, moments, rng)
    for second, path in enumerate(masks):
        share = sum(part for role, part in zip(roles, visible[second], strict=True) if second in role.sounding)
        mask = np.broadcast_to(np.asarray(share) > 0.5, visible.shape[2:])
        write_bytes(path, png_bytes(mask.astype(np.uint8) * 255))
    frames = (scene.frame(index / setting.fps) for index in range(count))
    write_video(video, frames, setting.fps, mix_audio(roles, cast, rng), SYNTHESIS_RATE)
    return False


def write_meta(benchmark: BenchmarkName, orders: Sequence[ClipSpec], setting: RenderConfig) -> None:
    """Write the meta CSV: last of all, so that it lists nothing that is not there."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(BENCHMARKS[benchmark].columns)
    for clip in (order.clip for order in orders):
        writer.writerow(
            (clip.name, clip.start, clip.category, clip.split) if benchmark == "s4" else (clip.name, clip.split)
        )
    write_text(setting.path(benchmark, BENCHMARKS[benchmark].meta), text.getvalue())


def check_recipe(setting: RenderConfig, cast: AssetLibrary, counts: dict[BenchmarkName, int]) -> None:
    """Leave the arguments in DIR, or compare them with those left there. Raises InputError if they differ."""
    recipe: dict[str, Any] = {
        "version": VERSION,
        "seed": setting.seed,
        "fps": setting.fps,
        "size": "{1}x{0}".format(*setting.size),
        "clips": counts,
        "kinds": list(cast.categories),
        "pictures": {path.name: sha256(path) for path in cast.files},
        "backgrounds": {path.name: sha256(path) for path in cast.photographs},
    }
    path = setting.out / RECIPE
    if path.is_file():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            differ = [key for key in recipe if found.get(key, {}) != recipe[key]]
        except (ValueError, AttributeError):
            raise InputError(f"{path}: unreadable, so {setting.out} is left alone; give another --out") from None
        if differ:
            raise InputError(
                f"{setting.out} was composed with other arguments ({', '.join(differ)}: see {RECIPE}); "
                "give another --out, or delete it first"
            )
        return
    for benchmark in counts:
        if (root := setting.path(benchmark, "")).exists():
            raise InputError(f"{root} is there and was not composed by this command; give another --out")
    write_text(path, json.dumps(recipe, indent=1) + "\n")


def summary(benchmark: BenchmarkName, orders: Sequence[ClipSpec], setting: RenderConfig) -> str:
    """A line about a benchmark's clips."""
    splits = Counter(order.clip.split for order in orders)
    return f"  {setting.path(benchmark, '')}: {len(orders)} clips, " + ", ".join(f"{splits[s]} {s}" for s in SPLITS)


def frame_size(text: str) -> tuple[int, int]:
    """Parse WxH into (height, width)."""
    width, height = (int(number) for number in text.lower().split("x"))
    if min(width, height) < 64 or width % 2 or height % 2:
        raise ValueError
    return height, width


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(__doc__, prog="python -m synthetic.compose")
    parser.add_argument("--out", type=expand_user, required=True, help="folder to compose into")
    parser.add_argument(
        "--pictures", type=resolve_path, help="folder of pictures and sounds instead of the drawn kinds"
    )
    parser.add_argument("--backgrounds", type=resolve_path, help="folder of photographs instead of drawn backdrops")
    parser.add_argument(
        "--s4", type=NON_NEGATIVE_INT, default=280, metavar="N", help="single-source clips (default 280)"
    )
    parser.add_argument("--ms3", type=NON_NEGATIVE_INT, default=70, metavar="N", help="multi-source clips (default 70)")
    parser.add_argument("--seed", type=SEED_INT, default=0, help="default 0")
    parser.add_argument("--jobs", type=NUM_JOBS, default=-1, help="processes (default -1: one a core)")
    parser.add_argument(
        "--fps", type=bounded_number(float, 1, 120), default=10.0, help="frames a second, 1 to 120 (default 10)"
    )
    parser.add_argument("--size", type=frame_size, default=(240, 320), metavar="WxH", help="even, default 320x240")
    args = parser.parse_args(argv)
    if args.s4 + args.ms3 == 0:
        parser.error("--s4 and --ms3 are numbers of clips; one of them must be above 0")
    return args


@cli_entry
def main(argv: Sequence[str] | None = None) -> int:
    """Compose what the command line asks for."""
    args = parse(argv)
    begin = time.perf_counter()
    cast = open_assets(args.pictures, args.backgrounds)
    setting = RenderConfig(args.out, args.seed, float(limit_frame_rate(args.fps)), args.size)
    asked: dict[BenchmarkName, int] = {"s4": args.s4, "ms3": args.ms3}
    counts = {name: count for name, count in asked.items() if count}
    for name in counts:
        if len(cast.categories) < FEWEST_KINDS[name]:
            raise InputError(
                f"{args.pictures}: {len(cast.categories)} kinds are too few; {name} needs {FEWEST_KINDS[name]}"
            )
    plans = {name: plan_clips(name, count, cast.categories, args.seed) for name, count in counts.items()}
    orders = [order for name in plans for order in plans[name]]
    try:
        with exclusive_lock(args.out / ".lock", "composes here"):
            check_recipe(setting, cast, counts)
            remove_partials(args.out)
            made = parallel_map(partial(compose_clip, setting=setting, cast=cast), orders, args.jobs)
            results = list(tqdm(made, total=len(orders), desc="compose", unit="clip", **progress_bar_options()))
            if lost := [order.clip.name for order, result in zip(orders, results, strict=True) if result is None]:
                raise InputError(f"not composed: {', '.join(lost)}: {WORKER_LOST}")
            for name in plans:
                write_meta(name, plans[name], setting)
    except OSError as error:
        raise InputError(f"cannot write into {args.out}: {error}; mend that and run the command again") from error
    there = sum(map(bool, results))
    new, seconds = len(orders) - there, time.perf_counter() - begin
    pace = f"{new} clips composed in {seconds:.1f} s ({new / seconds:.1f} a second)"
    print(f"{pace}, {there} were there already" if there else pace)
    for name in plans:
        print(summary(name, plans[name], setting))
    print(f"  {len(cast.categories)} kinds: {', '.join(cast.categories)}")
    print(f"next: python preprocess_{next(iter(plans))}.py --root {setting.path(next(iter(plans)), '')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
