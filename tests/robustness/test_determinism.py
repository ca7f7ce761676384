"""The same seed on the same machine gives the same bits, whatever the number of workers that read the clips.

Elsewhere: compositions (test_compose.py), killed runs (test_kills.py), several processes (test_runs.py,
test_zero_shot.py), batches (test_supervised.py, test_zero_shot.py), the order of videos (test_metrics.py).
"""

from pathlib import Path
from typing import Any

import pytest

from supervised import evaluate as supervised_evaluate
from supervised import train
from tests.helpers.crash_injection import left_behind
from tests.helpers.tiny_checkpoints import arguments, folder, same
from zero_shot import evaluate

__all__ = ["folder"]  # a fixture
MINI = "--audioclip.weights mini --audioclip.reverse false --sam.model mini --sam.weights mini --run.device cpu"
# A tower that is trained, one whose features are computed once, and one that draws random numbers at every step.
PVT = "--model.segmentor tpavi --model.backbone pvt_v2_b0 --model.weights random --model.vggish.weights random"
PVT += " --model.vggish.widths [4,4,4,8] --model.vggish.hidden 16"


@pytest.fixture(autouse=True)
def no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results tell the commit, and one may be made meanwhile."""
    monkeypatch.setenv("GIT_DIR", str(tmp_path))


@pytest.mark.parametrize(
    "more",
    [
        pytest.param("--model.freeze [] --train.optimizer adamw", id="fpn"),
        pytest.param("--fidelity published", id="published", marks=pytest.mark.slow),
        pytest.param(PVT, id="pvt", marks=pytest.mark.slow),
    ],
)
def test_training_depends_on_nothing_but_its_options(composed: Path, folder: Path, tmp_path: Path, more: str) -> None:
    runs = {}
    for name, words in {
        "first": "--data.num_workers 0",
        "again": "--data.num_workers 0 --train.checkpoint_minutes 0",
        "helped": f"--data.num_workers 2 --data.cache {tmp_path / 'cache'}",
        "other": "--data.num_workers 0 --train.seed 7",
    }.items():
        runs[name] = tmp_path / name
        few = ["--data.fraction", "0.4", "--train.batch_size", "2"]
        assert train.main([*arguments(composed, folder, runs[name]), *few, *more.split(), *words.split()]) == 0
        assert supervised_evaluate.main(["--run-dir", str(runs[name]), "--masks"]) == 0
    found = {name: left_behind(run, exempt=("config.yaml", "log.csv", "state.pt")) for name, run in runs.items()}
    for name in ("again", "helped"):
        same(runs["first"], runs[name])
        for kind in ("best.safetensors", "metrics.json", "per_frame.csv", "curves.png"):
            assert found[name][kind] == found["first"][kind], (name, kind)
        masks = [key for key in found["first"] if key.startswith("masks/")]
        assert len(masks) == 10 and all(found[name][key] == found["first"][key] for key in masks)
    assert found["other"]["best.safetensors"] != found["first"]["best.safetensors"]


@pytest.mark.parametrize("method", ["point", "no_prompt"])
def test_zero_shot_numbers_depend_on_nothing_but_the_options(composed: Path, tmp_path: Path, method: str) -> None:
    words = f"--method {method} --retrieval.score map --data.root {composed / 'Single-source'} {MINI} --masks"
    words += " --proposals.points_per_side 4 --proposals.pred_iou_thresh 0.5 --proposals.stability_score_thresh 0.6"
    found: list[dict[str, Any]] = []
    for workers, cache in (("0", "false"), ("2", "true"), ("0", "true")):
        out = tmp_path / f"run{len(found)}"
        cached = ["--run.use_cache", cache, "--run.cache", str(tmp_path / "cache"), "--data.num_workers", workers]
        assert evaluate.main([*words.split(), *cached, "--out", str(out)]) == 0
        found.append(left_behind(out, exempt=("config.yaml",)))
    # metrics.json, per_frame.csv, data.json and the masks of ten frames
    assert len(found[0]) == 3 + 10 and found[1:] == found[:1] * 2
