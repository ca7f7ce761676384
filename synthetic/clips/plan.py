"""Which clips a run composes: their names, target categories and splits, and the random numbers of each."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from utils.layout import BENCHMARKS, BenchmarkName, Clip, MaskBenchmarkName, clip_path

SPLIT_FRACTIONS = {"train": 0.70, "test": 0.15, "val": 0.15}
# The sounding ones and one silent distractor.
MIN_CATEGORIES: dict[BenchmarkName, int] = {"s4": 2, "ms3": 3, "avss": 3}


@dataclass(frozen=True)
class ClipSpec:
    """One clip to compose.

    Attributes:
        benchmark: "s4", "ms3" or "avss".
        index: its number within the benchmark.
        target: a category that sounds.
        clip: its name, split and category.
    """

    benchmark: BenchmarkName
    index: int
    target: str
    clip: Clip


@dataclass(frozen=True)
class RenderConfig:
    """What all clips of a run share.

    Attributes:
        out: the output folder.
        seed: of all random numbers.
        fps: frames per second.
        size: height and width of the videos.
        level: of difficulty, see `sampling.LEVELS`.
    """

    out: Path
    seed: int
    fps: float
    size: tuple[int, int]
    level: Literal["plain", "hard"] = "plain"

    def path(self, benchmark: BenchmarkName, template: str, clip: Clip | None = None, k: int = 0) -> Path:
        """A file of a benchmark, from one of the path templates of `utils.layout`."""
        return self.out / BENCHMARKS[benchmark].root / (clip_path(template, clip, k) if clip else template)


def clip_rng(seed: int, benchmark: BenchmarkName, index: int = -1) -> np.random.Generator:
    """The random numbers of one clip, or (index -1) of the plan; each has a stream of its own."""
    return np.random.default_rng([seed, list(BENCHMARKS).index(benchmark), index + 1])


def assign_splits(categories: Sequence[str]) -> list[str]:
    """Assign clips to train, val and test in the ratio 70/15/15, within each category as well as overall.

    A category enters each split once before it enters any split twice. Appending clips does not change the splits of
    the earlier ones.

    Args:
        categories: of each clip.

    Returns:
        The split of each clip.
    """
    assigned: Counter[str | None] = Counter()
    have: Counter[tuple[str | None, str]] = Counter()
    splits = []
    for category in categories:
        new = [split for split in SPLIT_FRACTIONS if not have[category, split]]
        scope = None if new else category  # balance over all clips, or within the category
        assigned.update((None, category))
        deficit = {
            split: SPLIT_FRACTIONS[split] * assigned[scope] - have[scope, split] + (not have[scope, split])
            for split in new or SPLIT_FRACTIONS
        }
        splits.append(max(deficit, key=deficit.__getitem__))
        have.update(((None, splits[-1]), (category, splits[-1])))
    return splits


def plan_clips(benchmark: MaskBenchmarkName, count: int, categories: Sequence[str], seed: int) -> list[ClipSpec]:
    """Plan the clips of a benchmark; the categories take turns as targets, in a random order."""
    order = clip_rng(seed, benchmark).permutation(categories)
    targets = [str(order[i % len(order)]) for i in range(count)]
    s4 = benchmark == "s4"
    splits = assign_splits(targets if s4 else [""] * count)
    return [
        ClipSpec(benchmark, i, target, Clip(f"{target if s4 else 'mix'}_{i:04d}", split, target if s4 else ""))
        for i, (target, split) in enumerate(zip(targets, splits, strict=True))
    ]
