"""SIGKILL at random moments: run again until it is done, each command ends with what an undisturbed run leaves.

Exempt: what something cost (metrics.json, cost.json, log.csv, state.pt, job.json, a study's CSV), what tells of the
runs themselves (the report of preprocessing, a row's log.txt, a page with its date, tensorboard's record), and hidden
temporary files that a killed process left in the cache or beside a page.
`pytest -m "slow or not slow" -rP tests/robustness/test_kills.py` prints how often each was killed.
"""

import hashlib
import random
import shutil
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from tests.helpers.crash_injection import Forks, Run, left_behind, until_done
from tests.helpers.tiny_checkpoints import arguments, folder, same
from tests.pretrained.test_download import CONTENT, Server
from utils.layout import AVSBench

__all__ = ["folder"]  # a fixture
Way = Callable[[Path], Run]
MINI = "--audioclip.weights mini --audioclip.reverse false --sam.model mini --sam.weights mini --run.device cpu"
HEAT = {"data.max_clips": 1, "data.num_workers": 0, "run.device": "cpu", "run.use_cache": False}
ROWS = [
    {"zero_shot": "point_global", "name": name, "tables": {"zero_shot": name}, "benchmarks": ["s4"]}
    | {"options": {**HEAT, "method": name}}
    for name in ("heatmap", "foreground")
]
FEW = "--proposals.points_per_side 4 --proposals.pred_iou_thresh 0.5 --proposals.stability_score_thresh 0.6"


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    running = Forks(tmp_path_factory.mktemp("forks") / "log")
    yield running
    running.close()


class SlowServer(Server):
    """Sends a file in eighty pieces, a millisecond apart."""

    def respond(self, request: BaseHTTPRequestHandler) -> None:
        whole = request.wfile

        class Slow:
            def write(self, body: bytes) -> None:
                for first in range(0, len(body), len(CONTENT) // 80):
                    whole.write(body[first : first + len(CONTENT) // 80])
                    time.sleep(0.001)

            def __getattr__(self, name: str) -> Any:
                return getattr(whole, name)

        request.wfile = Slow()  # type: ignore[assignment]
        try:
            super().respond(request)
        except ConnectionError:
            pass  # killed
        finally:
            request.wfile = whole


@pytest.fixture
def way(
    request: pytest.FixtureRequest, composed: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Way]:
    """How to run the command that the test names into a folder."""
    kind = request.param
    if kind.startswith("compose"):
        words = f"--s4 3 --ms3 1 --size 64x64 --fps 3 --jobs {2 if kind.endswith('parallel') else 1}"
        yield lambda out: Run("synthetic.compose", ["--out", str(out), *words.split()])
    elif kind.startswith("preprocess"):
        data = AVSBench(composed / "Single-source", "s4")

        def preprocess(out: Path) -> Run:
            for clip in data.clips[:6]:
                video = out / data.video(clip).relative_to(data.root)
                video.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(data.video(clip), video)
            meta = (data.root / data.benchmark.meta).read_text().splitlines()[:7]
            (out / data.benchmark.meta).write_text("\n".join(meta) + "\n")
            return Run("preprocess_s4", ["--root", str(out), "--jobs", "2" if kind.endswith("parallel") else "1"])

        yield preprocess
    elif kind == "proposals":
        words = "--method no_prompt --retrieval.score map --data.max_clips 2 --run.batch_size 1"
        words += f" --data.num_workers 0 {MINI} {FEW}"
        words += f" --data.root {composed / 'Single-source'}"

        def evaluate(out: Path) -> Run:
            return Run("zero_shot.evaluate", [*words.split(), "--run.cache", f"{out}/cache", "--out", f"{out}/run"])

        yield evaluate
    elif kind == "demo":
        video = min((composed / "Single-source").rglob("*.mp4"))
        words = f"{video} --method point --run.batch_size 2 --run.use_cache false --save-heatmaps --save-prompts {MINI}"
        yield lambda out: Run("demo", [*words.split(), "--out", str(out)])
    elif kind == "tables":
        study = {
            "data": {"s4": str(composed / "Single-source"), "ms3": str(composed / "Multi-sources")},
            "configs": {"zero_shot": "zero_shot/configs/mini", "supervised": "supervised/configs/mini"},
            "tables": {"zero_shot": "Zero-shot"},
            "rows": ROWS,
        }
        (tmp_path / "own.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
        words = f"--study {tmp_path / 'own.yaml'} --jobs 1"

        def reproduce(out: Path) -> Run:
            return Run("reproduce_tables", [*words.split(), "--runs", f"{out}/runs", "--out", f"{out}/tables"])

        yield reproduce
    elif kind.startswith("train"):
        more = "--train.checkpoint_minutes 0 --train.batch_size 2 --data.fraction 0.4"
        more += " --train.optimizer adamw --train.ema_decay 0.9"
        unlike = "--train.schedule cosine --model.freeze []", "--fidelity published --data.num_workers 1"
        more += f" {unlike[kind == 'train_published']}"
        yield lambda out: Run("supervised.train", [*arguments(composed, folder, out), *more.split()])
    else:
        monkeypatch.setenv("no_proxy", "*")
        server, listed = SlowServer(), tmp_path / "checkpoints.yaml"
        digest = hashlib.sha256(CONTENT).hexdigest()
        good = {
            "file": "a.pt",
            "url": server.url + "a",
            "size": len(CONTENT),
            "sha256": digest,
            "used_by": ["a configuration"],
        }
        listed.write_text(yaml.safe_dump([{"name": "a", **good}, {**good, "name": "b", "file": "b.pt", "sha256": ""}]))
        settings = {"models.weights.PRETRAINED": str(tmp_path), "utils.http_download.CHUNK_BYTES": 4096}
        yield lambda out: Run("pretrained.download", ["--all", "--to", str(out)], settings=settings)
        server.http.shutdown()
        server.http.server_close()


def compare(whole: Path, cut: Path) -> None:
    """Two runs left the same behind; see the module for what is exempt."""
    if (whole / "state.pt").exists():
        same(whole, cut)
        logs = [pd.read_csv(run / "log.csv").drop(columns="seconds") for run in (whole, cut)]
        pd.testing.assert_frame_equal(logs[0], logs[1])
        assert (whole / "best.safetensors").read_bytes() == (cut / "best.safetensors").read_bytes()
        names = (
            "config.yaml",
            "cost.json",
            "data.json",
            "initial_weights.json",
            "best.safetensors",
            "state.pt",
            "log.csv",
            "curves.png",
        )
        assert {path.name for path in cut.iterdir()} == {*names, "tensorboard"}
        return
    kept, found = (left_behind(run, exempt=EXEMPT) for run in (whole, cut))
    assert kept.keys() == found.keys() and len(kept) > 1
    assert not [name for name in kept if kept[name] != found[name]]
    if (whole / "run").exists() or (whole / "runs").exists():
        return  # caches are shared, so that nobody may clear them
    assert not list(cut.rglob("*.partial*")) and not list(cut.rglob(".lock"))


def killed(forks: Forks, way: Way, tmp_path: Path, kills: int, seed: int) -> None:
    """Kill a command so many times, in as many folders as that takes, and compare each with an undisturbed run's."""
    chance, before = random.Random(seed), forks.killed
    undisturbed = forks.run(way(tmp_path / "whole"))
    assert undisturbed.code == 0, undisturbed.said
    folders = 0
    while forks.killed - before < kills:
        folders += 1
        cut = tmp_path / f"cut{folders}"
        until_done(forks, way(cut), undisturbed, min(4, kills - forks.killed + before), chance)
        compare(tmp_path / "whole", cut)
    print(f"killed {forks.killed - before} times in {folders} folders")


EXEMPT = ("s4_preprocess_report.csv", "log.txt", "job.json", "own.csv", "index.html")
FAST = ["compose", "preprocess", "download", "demo"]
SLOW = [
    "compose",
    "compose_parallel",
    "preprocess",
    "preprocess_parallel",
    "proposals",
    "train",
    "train_published",
    "demo",
]


@pytest.mark.parametrize("way", FAST, indirect=True)
def test_killed_once(forks: Forks, way: Way, tmp_path: Path) -> None:
    killed(forks, way, tmp_path, kills=1, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "way, kills", [*((name, 8) for name in SLOW), ("download", 12), ("tables", 3)], indirect=["way"]
)
def test_killed_at_many_moments(forks: Forks, way: Way, tmp_path: Path, kills: int) -> None:
    killed(forks, way, tmp_path, kills, seed=kills)
