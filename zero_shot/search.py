"""Evaluation of many option sets of a method on one split, each network and each prompt computed once."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from tqdm import tqdm

from utils.cli import InputError, progress_bar_options
from utils.dataloader import chunk, load_batches
from utils.dataset import AVSDataset
from utils.files import npy_bytes, read_json, read_npy, write_bytes, write_text
from utils.frame_counts import FrameCounts
from utils.memo import Memo
from utils.metrics import Metrics
from zero_shot.evaluate import evaluate, open_split, prepare_folder, write_result
from zero_shot.methods import build_method
from zero_shot.options import Options
from zero_shot.search_space import OptionSet, set_options
from zero_shot.shared_components import SharedComponents

PER_MAP = ("maps", "prompt")  # kinds of results that only sets with the same similarity maps share


class Search:
    """A search in its folder.

    Args:
        base: the row's options.
        sets: to evaluate.
        split: on which they are compared.
        accelerator: of this process.
        out: folder; it keeps the counts of every clip that is done.

    Raises:
        InputError: if data or weights are missing, or the folder holds another search.
    """

    def __init__(self, base: Options, sets: Sequence[OptionSet], split: str, accelerator: Accelerator, out: Path):
        self.accelerator, self.out, self.sets = accelerator, out, sets
        self.memo = Memo()
        self.options = [set_options(base, {**chosen, "data.split": split}) for chosen in sets]
        shared = SharedComponents(base, accelerator.device, self.memo)
        self.methods = [build_method(each, accelerator.device, shared.with_options(each)) for each in self.options]
        self.dataset: AVSDataset = open_split(self.options[0], self.methods[0])
        prepare_folder(out, self.options[0])
        record = out / "sets.json"
        if record.is_file() and read_json(record) != json.loads(json.dumps(sets)):
            raise InputError(f"{out} holds a search of other option sets; choose another --out")
        write_text(record, json.dumps(sets) + "\n")

    def run(self) -> None:
        """Evaluate the sets on the clips that are not done."""
        data = self.options[0].data
        # In the batches of zero_shot.evaluate, because rounding depends on what is encoded together.
        batches = chunk(range(len(self.dataset)), self.options[0].run.batch_size)
        pending = [batch for batch in batches if any(self._read(index) is None for index in batch)]
        # Sets with the same similarity maps one after another.
        order = sorted(range(len(self.sets)), key=lambda number: repr(self.options[number].audioclip))
        total = len(self.dataset) * len(self.sets)
        done = total - sum(map(len, pending)) * len(self.sets)
        with tqdm(desc="clips × sets", total=total, initial=done, **progress_bar_options()) as bar:
            for items in load_batches(self.dataset, pending, data.num_workers, self.accelerator.device.type == "cuda"):
                counts = self._count_batch(items, order, bar)
                for index, clip_counts in zip(items["index"].tolist(), counts, strict=True):
                    write_bytes(self._path(index), npy_bytes(clip_counts))
                self.memo.forget()

    def _count_batch(self, items: dict[str, Any], order: Sequence[int], bar: "tqdm[Any]") -> np.ndarray:
        """Pixel counts (videos, sets, labeled seconds, 4) of a batch, as `FrameCounts.of_masks` takes them."""
        videos, seconds = items["frames"].shape[:2]
        frames = list(items["frames"].flatten(0, 1).numpy())
        audio = items["waveform"].flatten(0, 1)
        ground_truth = items["masks"].numpy() > 0.5
        labeled = ground_truth.shape[1]
        counts = np.zeros((videos, len(order), labeled, 4), np.int32)
        counts[..., 2], counts[..., 3] = ground_truth.sum((2, 3))[:, None], ground_truth[0, 0].size
        maps = ""
        for number in order:
            if maps != (maps := repr(self.options[number].audioclip)):
                self.memo.forget(*PER_MAP)
            predictions = self.methods[number].predict(frames, audio)
            for video in range(videos):
                for second in range(labeled):
                    mask = predictions[video * seconds + second].mask
                    hits = np.count_nonzero(mask & ground_truth[video, second])
                    counts[video, number, second, :2] = np.count_nonzero(mask), hits
            bar.update(videos)
        return counts

    def results(self) -> list[dict[str, Any]]:
        """The metrics of each set on the split."""
        counts = [self._read(index) for index in range(len(self.dataset))]
        found = []
        for number in range(len(self.sets)):
            metrics = Metrics()
            metrics.videos = {
                index: FrameCounts.of_masks(each[number]) for index, each in enumerate(counts) if each is not None
            }
            found.append(metrics.result(self.options[0].metric_batch))
        return found

    def evaluate(self, number: int, split: str, name: str) -> dict[str, Any]:
        """The metrics of one set on another split; evaluated as by zero_shot.evaluate, in a folder of its own."""
        self.memo.forget()
        self.memo.keep = False
        options = set_options(self.options[number], {"data.split": split})
        method, out, begin = self.methods[number], self.out / name, time.perf_counter()
        dataset = open_split(options, method)
        prepare_folder(out, options)
        metrics = evaluate(method, dataset, self.accelerator, options.run.batch_size, options.data.num_workers)
        return write_result(out, "", options, dataset, metrics, ("original", 0), time.perf_counter() - begin)

    def _path(self, index: int) -> Path:
        return self.out / "counts" / f"{index:05d}.npy"

    def _read(self, index: int) -> np.ndarray | None:
        """The counts of a clip; None if it is not done."""
        labeled = len(self.dataset.data.masks(self.dataset.clips[index]))
        try:
            return read_npy(self._path(index), (len(self.sets), labeled, 4))
        except InputError:
            return None
