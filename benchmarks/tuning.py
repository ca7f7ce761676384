"""Implementations of a search for options (zero_shot.tune) on the validation clips, with the small weights."""

import shutil
from pathlib import Path

import numpy as np
from accelerate import Accelerator

from benchmarks import data
from benchmarks.harness import Output, Work
from zero_shot.evaluate import evaluate, open_split
from zero_shot.methods import build_method
from zero_shot.options import Options
from zero_shot.search import Search
from zero_shot.search_space import OptionSet, option_sets, parse_values, set_options


def _options(method: str, count: int, composed: int, side: int) -> tuple[Options, Path]:
    """The options of zero_shot/configs/mini on the validation clips, and a folder for what is computed."""
    folder = data.CLIPS_DIR / f"avs_benchmark_tuning_{method}"
    values = {
        "method": method,
        "data.root": data.clips(composed).root,
        "data.split": "val",
        "data.max_clips": count,
        "data.num_workers": 0,
        "audioclip.weights": "mini",
        "audioclip.reverse": False,
        "audioclip.interpolation": "bicubic",
        "audioclip.amplitude": "int16",
        "sam.model": "mini",
        "prompt.threshold": 0.95,
        "retrieval.rule": "top1",
        "audioclip.crop_size": 128,
        "retrieval.max_area": 0.5,
        "run.cache": folder / "cache",
        "run.device": "cpu",
    }
    proposals = {"points_per_side": side, "pred_iou_thresh": 0.75, "stability_score_thresh": 0.9}
    return set_options(Options(), {**values, **{f"proposals.{name}": each for name, each in proposals.items()}}), folder


def _sets(base: Options, count: int) -> list[OptionSet]:
    return option_sets(parse_values([], base), base, count, seed=0)


def search(method: str, count: int, composed: int, side: int, sets: int, compared: int, cold: bool) -> Work:
    """All sets by `Search`; the M_J of the first ones is compared."""
    base, folder = _options(method, count, composed, side)
    shutil.rmtree(folder, ignore_errors=True)

    def work() -> Output:
        shutil.rmtree(folder if cold else folder / "search", ignore_errors=True)
        found = Search(base, _sets(base, sets), "val", Accelerator(cpu=True), folder / "search")
        found.run()
        return {"M_J": np.array([each["m_j"] for each in found.results()[:compared]])}

    return work


def one_by_one(method: str, count: int, composed: int, side: int, sets: int, compared: int, cold: bool) -> Work:
    """The first sets by zero_shot.evaluate, each with networks of its own."""
    base, folder = _options(method, count, composed, side)
    shutil.rmtree(folder, ignore_errors=True)

    def work() -> Output:
        if cold:
            shutil.rmtree(folder, ignore_errors=True)
        found = []
        for chosen in _sets(base, sets)[:compared]:
            options = set_options(base, chosen)
            built = build_method(options)
            metrics = evaluate(built, open_split(options, built), Accelerator(cpu=True), options.run.batch_size, 0)
            found.append(metrics.result(1)["m_j"])
        return {"M_J": np.array(found)}

    return work
