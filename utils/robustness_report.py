"""Collect what a model segments under each sound condition, and write robustness.json and robustness_per_frame.csv."""

import csv
import io
import json
from argparse import ArgumentParser, Namespace
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from utils.files import write_text
from utils.layout import Clip
from utils.option_ranges import SEED_INT
from utils.paths import resolve_path
from utils.robustness import (
    AUC_POINTS,
    NEGATIVES,
    SWEEP,
    FrameMeasures,
    area_auc,
    class_shares,
    condition_measures,
    harmonic_mean,
    measure_frames,
)
from utils.run_identity import record_sounds
from utils.sound_conditions import CONDITIONS, NEGATIVE_CONDITIONS, SEEDED, AudioCondition
from utils.words import counted

if TYPE_CHECKING:
    from accelerate import Accelerator

    from utils.dataset import AVSDataset

FILE = "robustness.json"
LISTED_CLIPS = 10  # with the largest predicted area in silence
Run = tuple[AudioCondition, int]  # a condition and its seed


def add_audio_arguments(parser: ArgumentParser) -> None:
    """Add the options --audio, --audio-seeds and --offscreen-sounds."""
    group = parser.add_argument_group("sound conditions", "Frames and masks stay the same (utils/sound_conditions.py).")
    group.add_argument(
        "--audio",
        nargs="+",
        choices=CONDITIONS,
        default=["original"],
        metavar="CONDITION",
        help=f"{', '.join(CONDITIONS)}; each is compared with original, which is evaluated first",
    )
    group.add_argument(
        "--audio-seeds", nargs="+", type=SEED_INT, default=[0], metavar="SEED", help="of noise and of other sounds"
    )
    group.add_argument("--offscreen-sounds", type=resolve_path, metavar="DIR", help="sounds for offscreen")


def condition_runs(conditions: Sequence[AudioCondition], seeds: Sequence[int]) -> list[Run]:
    """The evaluations for the options: the original sound first, and every seed of the conditions that have one."""
    runs: list[Run] = [("original", seeds[0])]
    for condition in dict.fromkeys(conditions):
        if condition != "original":
            runs += [(condition, seed) for seed in (dict.fromkeys(seeds) if condition in SEEDED else seeds[:1])]
    return runs


def evaluate_conditions(
    dataset: "AVSDataset",
    args: Namespace,
    split: str,
    out: Path,
    accelerator: "Accelerator",
    evaluate_run: Callable[[Run, str, "RobustnessRecorder | None"], None],
) -> None:
    """Evaluate a split under every condition that the options ask for, and compare them.

    Args:
        dataset: the split.
        args: with the options of `add_audio_arguments`.
        split: its name.
        out: run folder, for robustness.json and robustness_per_frame.csv.
        accelerator: of the processes.
        evaluate_run: evaluates the data set as it is then. It gets the condition with its seed, the suffix of file
            names and, if there are several conditions, the recorder to which it adds every clip.

    Raises:
        InputError: A condition is not possible for these clips, or the folder has results under other offscreen sounds;
            nothing is evaluated then.
    """
    runs = condition_runs(args.audio, args.audio_seeds)
    recorder = RobustnessRecorder() if len(runs) > 1 else None
    sounds: Iterable[Path] = ()
    for condition, seed in runs:
        dataset.set_sound(condition, seed, args.offscreen_sounds)
        if dataset.sound and dataset.sound.sounds:
            sounds = dataset.sound.sounds  # the same for every seed
    if sounds and accelerator.is_main_process:
        record_sounds(out, sounds)
    for run in runs:
        dataset.set_sound(*run, args.offscreen_sounds)
        if recorder and dataset.sound:
            recorder.reused_sounds[run] = dataset.sound.reused_sounds
        evaluate_run(run, result_suffix(split, run, args.audio_seeds), recorder)
    if recorder is None:
        return
    recorder.gather(accelerator.num_processes)
    if accelerator.is_main_process:
        summary = recorder.write(out, "" if split == "test" else f"_{split}", dataset.clips, split=split)
        print("\n".join(format_robustness(summary)))


def result_suffix(split: str, run: Run, seeds: Sequence[int]) -> str:
    """What follows "metrics" and the like in the file names of a run; empty for the test split's original sound."""
    condition, seed = run
    if (split, condition) == ("test", "original"):
        return ""
    return f"_{split}_{condition}" + ("" if seed == seeds[0] else f"_seed{seed}")


def run_label(run: Run, seeds: Sequence[int]) -> str:
    """A condition, with its seed where there are several."""
    condition, seed = run
    return f"{condition}, seed {seed}" if condition in SEEDED and len(seeds) > 1 else condition


class RobustnessRecorder:
    """Accumulates the frame measures of clips under all conditions. Clips must be added with the original sound first.

    Attributes:
        measures: by condition and seed, then by the clip's index.
        truth_areas: mean ground-truth area of each clip, as a fraction of the frame.
        reused_sounds: by condition and seed, how many clips get a sound that another clip has, where there are such.
    """

    def __init__(self) -> None:
        self.measures: dict[Run, dict[int, FrameMeasures]] = defaultdict(dict)
        self.truth_areas: dict[int, float] = {}
        self.reused_sounds: dict[Run, int] = {}
        self._original: dict[int, tuple[np.ndarray, tuple[int, ...]]] = {}  # packed bits, and the shape

    def add(
        self,
        run: Run,
        index: int,
        masks: np.ndarray,
        truth: np.ndarray,
        probabilities: np.ndarray | None = None,
        heard: np.ndarray | None = None,
        seen: np.ndarray | None = None,
    ) -> None:
        """Add the labeled frames of a clip.

        Args:
            run: the condition and its seed.
            index: of the clip in the split.
            masks: (N, H, W) bool, predicted.
            truth: (N, H, W) bool, the ground truth of the original sound.
            probabilities: (N, H, W) float32, where the method gives any.
            heard, seen: (N, H, W) bool, of AVSS: the predicted pixels in a class of the new sound, and of the own one.
        """
        if run[0] == "original":
            self._original[index] = np.packbits(masks), masks.shape
            self.truth_areas[index] = float(truth.mean())
        bits, shape = self._original[index]
        original = np.unpackbits(bits, count=int(np.prod(shape))).reshape(shape).astype(bool)
        self.measures[run][index] = measure_frames(masks, truth, original, probabilities, heard, seen)

    def gather(self, processes: int) -> None:
        """Share the measures among all processes."""
        if processes > 1:
            from accelerate.utils import gather_object  # slow to import, and not needed by a single process

            for measures, truth_areas in gather_object([(dict(self.measures), self.truth_areas)]):
                for run, clips in measures.items():
                    self.measures[run].update(clips)
                self.truth_areas.update(truth_areas)

    def summary(self, clips: Sequence[Clip]) -> dict[str, Any]:
        """The content of robustness.json."""
        runs: dict[AudioCondition, dict[int, dict[int, FrameMeasures]]] = defaultdict(dict)
        for (condition, seed), measures in self.measures.items():
            runs[condition][seed] = measures
        (original,) = runs.pop("original").values()
        frames = FrameMeasures.cat([original[index] for index in sorted(original)])
        m_j = float(frames.same.mean())
        truth = float(np.mean([self.truth_areas[index] for index in sorted(original)]))
        described: dict[str, Any] = {
            "m_j": m_j,
            "pIA": float(frames.area.mean()),
            "ground_truth_area": truth,
            "thresholds": SWEEP,
            "conditions": {
                "original": {
                    "mean": {"pIA": float(frames.area.mean()), "AUC_N": area_auc(frames.area), "MJ_same": m_j}
                    | class_shares(frames),
                    **_curves([frames]),
                }
            },
        }
        for condition, seeds in runs.items():
            described["conditions"][condition] = self._condition(condition, seeds, original)
        areas = [described["conditions"][name]["mean"]["pIA"] for name in NEGATIVES if name in runs]
        if len(areas) == len(NEGATIVES):
            described["H"] = harmonic_mean(m_j, 1 - float(np.mean(areas)))
        if "silent" in runs:
            described["largest_in_silence"] = _largest(next(iter(runs["silent"].values())), clips)
        return described

    def _condition(
        self, condition: AudioCondition, seeds: dict[int, dict[int, FrameMeasures]], original: dict[int, FrameMeasures]
    ) -> dict[str, Any]:
        """Mean and range over the seeds of a condition, on the clips to which it applies."""
        parts, values = [], []
        for measures in seeds.values():
            indices = sorted(measures)
            m_j = float(FrameMeasures.cat([original[index] for index in indices]).same.mean())
            parts.append(FrameMeasures.cat([measures[index] for index in indices]))
            values.append(condition_measures(parts[-1], m_j, condition in NEGATIVE_CONDITIONS))
        names = [name for name in values[0] if all(name in value for value in values)]
        return {
            "seeds": list(seeds),
            "clips": [len(measures) for measures in seeds.values()],
            "dropped_clips": [len(original) - len(measures) for measures in seeds.values()],
            "reused_sounds": [self.reused_sounds.get((condition, seed), 0) for seed in seeds],
            "mean": {name: float(np.mean([value[name] for value in values])) for name in names},
            "range": {name: [min(v[name] for v in values), max(v[name] for v in values)] for name in names},
            **_curves(parts),
        }

    def write(self, out: Path, suffix: str, clips: Sequence[Clip], **details: Any) -> dict[str, Any]:
        """Write robustness.json and robustness_per_frame.csv, their names with the suffix; returns the former."""
        content = {**self.summary(clips), **details}
        write_text(out / f"robustness{suffix}.json", json.dumps(content, indent=1) + "\n")
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["name", "category", "second", "audio", "seed", "area", "iou_same", "agree"])
        for (condition, seed), measures in self.measures.items():
            for index, frames in sorted(measures.items()):
                key = [clips[index].name, clips[index].category]
                for second, row in enumerate(zip(frames.area, frames.same, frames.agree, strict=True), 1):
                    writer.writerow([*key, second, condition, seed, *(f"{value:.6f}" for value in row)])
        write_text(out / f"robustness_per_frame{suffix}.csv", text.getvalue())
        return content


def _curves(parts: Sequence[FrameMeasures]) -> dict[str, Any]:
    """Mean predicted area at each threshold, None without probabilities, and the share of frames up to each area."""
    frames = FrameMeasures.cat(parts)
    grid = np.linspace(0, 1, AUC_POINTS)
    sweep = None if np.isnan(frames.sweep).any() else frames.sweep.mean(axis=0).tolist()
    return {"sweep": sweep, "share_up_to_area": [float((frames.area <= area).mean()) for area in grid]}


def _largest(measures: dict[int, FrameMeasures], clips: Sequence[Clip]) -> list[dict[str, Any]]:
    """The clips with the largest predicted area, and the area."""
    means = {index: float(frames.area.mean()) for index, frames in measures.items()}
    order = sorted(means, key=lambda index: (-means[index], index))[:LISTED_CLIPS]
    return [{"name": clips[i].name, "category": clips[i].category, "pIA": means[i]} for i in order if means[i] > 0]


def format_robustness(summary: dict[str, Any]) -> list[str]:
    """A line for each condition, for the end of a command."""
    lines = [f"original  area {summary['pIA']:.4f} (ground truth {summary['ground_truth_area']:.4f})"]
    for name, condition in summary["conditions"].items():
        if name == "original":
            continue
        mean, span = condition["mean"], condition["range"]["pIA"]
        seeds = f" ({span[0]:.4f} to {span[1]:.4f} over {len(condition['seeds'])} seeds)" if span[0] != span[1] else ""
        lines.append(
            f"{name:9} area {mean['pIA']:.4f}{seeds}, quiet frames {mean['quiet']:.3f}, "
            f"M_J with the original's masks {mean['MJ_same']:.4f} ({-mean['drop']:+.4f}), agreement {mean['agree']:.3f}"
        )
        if reused := max(condition["reused_sounds"]):
            lines.append(
                f"note: {name}: no permutation gives each clip a sound without a common class; "
                f"{counted(reused, 'clip')} got a sound that another clip has"
            )
    return lines
