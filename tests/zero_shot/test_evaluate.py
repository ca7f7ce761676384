"""zero_shot.evaluate end to end on synthetic clips with the small weights."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import score
from models.audioclip import AudioCLIP
from models.registry import create_model
from synthetic.random_grounding import save_clap, save_detector
from utils.config import from_yaml
from utils.files import read_image
from utils.layout import AVSBench
from zero_shot import evaluate
from zero_shot.encoders.audioclip import AudioCLIPEncoder
from zero_shot.methods import build_method
from zero_shot.methods.prompted import PointPrompt
from zero_shot.model_options import AudioCLIPOptions, SamOptions
from zero_shot.options import Options, RunOptions

REPOSITORY = Path(__file__).parents[2]
CONFIGS = REPOSITORY / "zero_shot" / "configs"
# What the original's scripts set, for S4 and MS3: setting, rule, thresholds.
ROWS = {
    "no_prompt": ("no_prompt", None, (None, None)),
    "point_local": ("point", "local", (0.6, 0.65)),
    "point_global": ("point", "global", (None, None)),
    "point_dense": ("point", "dense", (0.85, 0.7)),
    "heatmap_box": ("heatmap_box", "single_maxarea", (0.55, 0.55)),
    "box_prompt": ("box_prompt", None, (None, None)),
}
MINI = ["--audioclip.weights", "mini", "--audioclip.reverse", "false", "--sam.model", "mini", "--sam.weights", "mini"]
FEW = ["--proposals.points_per_side", "6", "--proposals.pred_iou_thresh", "0.5"]
FEW += ["--proposals.stability_score_thresh", "0.6", "--audioclip.crop_size", "128", "--retrieval.rule", "top1"]


@pytest.mark.parametrize("benchmark", ["s4", "ms3"])
@pytest.mark.parametrize("row", ROWS)
def test_rows_are_the_originals(row: str, benchmark: str) -> None:
    setting, rule, thresholds = ROWS[row]
    place = ["s4", "ms3"].index(benchmark)
    options = from_yaml(Options, CONFIGS / f"{benchmark}_{row}.yaml")
    assert (options.method, options.data.benchmark, options.metric_batch) == (setting, benchmark, 1)
    assert (options.sam.model, options.sam.multimask, options.sam.mask_selection) == ("vit_h", True, "max_score")
    assert options.audioclip == AudioCLIPOptions()  # AudioCLIP-Full, surgery, reversed, no noise, five times over
    assert rule in (None, options.prompt.points, options.prompt.boxes)
    assert thresholds[place] in (None, options.prompt.threshold)
    assert (options.retrieval.logit_scale, options.retrieval.threshold, options.retrieval.rule) == (
        100.0,
        0.5,
        "threshold",
    )
    assert (options.grounding.top_k, options.grounding.threshold) == ((1, 2)[place] if row == "box_prompt" else 1, 0.3)
    mini = from_yaml(Options, CONFIGS / "mini" / f"{benchmark}_{row}.yaml")
    assert (mini.method, mini.data.benchmark, mini.sam.model) == (setting, benchmark, "mini")


def run(composed: Path, out: Path, *more: str, benchmark: str = "s4") -> dict:
    """Evaluate on the composed clips; the numbers of metrics.json."""
    root = composed / {"s4": "Single-source", "ms3": "Multi-sources"}[benchmark]
    where = ["--data.root", str(root), "--data.benchmark", benchmark, "--data.num_workers", "0", "--run.device", "cpu"]
    cache = [] if "--run.cache" in more else ["--run.use_cache", "false"]
    assert evaluate.main([*MINI, *FEW, *where, *cache, "--out", str(out), *more]) == 0
    return json.loads((out / "metrics.json").read_text())


@pytest.mark.parametrize("benchmark", ["s4", "ms3"])
@pytest.mark.parametrize("setting", ["no_prompt", "point", "heatmap_box", "heatmap", "largest_proposal"])
def test_every_method_runs_end_to_end(composed: Path, tmp_path: Path, setting: str, benchmark: str) -> None:
    out = tmp_path / "run"
    found = run(composed, out, "--method", setting, "--sheets", "1", "--masks", benchmark=benchmark)
    clips = AVSBench(composed / ("Single-source" if benchmark == "s4" else "Multi-sources"), benchmark).split("test")
    assert found["videos"] == len(clips) and found["frames"] == 5 * len(clips)
    assert found["method"] == setting and found["fidelity"] == "corrected" and found["metric_batch"] == 1
    assert all(0 <= found[name] <= 1 for name in ("m_j", "m_f", "m_f_whole_set", "iou_dataset"))
    assert all(len(digest) == 64 for digest in found["checkpoints"].values())
    per_frame = pd.read_csv(out / "per_frame.csv")
    assert len(per_frame) == found["frames"] and per_frame["iou"].mean() == pytest.approx(found["m_j"], abs=1e-5)
    masks = sorted((out / "masks").rglob("*.png"))
    assert len(masks) == found["frames"] and len(list((out / "sheets").glob("*.png"))) == 1
    assert set(np.unique(read_image(masks[0]))) <= {0, 255}
    assert from_yaml(Options, out / "config.yaml").method == setting


def test_box_prompt_runs_with_tiny_models(composed: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.json"
    labels.write_text(json.dumps(["dog", "cat", "drum"]))
    save_clap(tmp_path / "clap")
    save_detector(tmp_path / "detector")
    grounding = ["--grounding.clap", str(tmp_path / "clap"), "--grounding.detector", str(tmp_path / "detector")]
    grounding += ["--grounding.labels", str(labels), "--grounding.top_k", "2", "--grounding.threshold", "0.01"]
    found = run(
        composed, tmp_path / "run", "--method", "box_prompt", "--data.max_clips", "1", *grounding, "--sheets", "1"
    )
    assert found["videos"] == 1 and 0 <= found["m_j"] <= 1
    assert any("clap" in name for name in found["checkpoints"])


def test_methods_exceed_the_trivial_baselines(composed: Path, tmp_path: Path) -> None:
    numbers = {s: run(composed, tmp_path / s, "--method", s)["m_j"] for s in ("heatmap", "foreground", "point")}
    assert numbers["foreground"] < 0.2 < min(numbers["heatmap"], numbers["point"])


@pytest.mark.parametrize("setting", ["no_prompt", "point"])
def test_batches_and_a_warm_cache_change_nothing(composed: Path, tmp_path: Path, setting: str) -> None:
    cached = ["--run.cache", str(tmp_path / "cache"), "--method", setting]
    cold = run(composed, tmp_path / "cold", *cached, "--run.batch_size", "1")
    assert list((tmp_path / "cache").rglob("*.safetensors"))
    warm = run(composed, tmp_path / "warm", *cached, "--run.batch_size", "1")
    large = run(composed, tmp_path / "large", "--method", setting, "--run.batch_size", "3")
    names = ("m_j", "m_f", "m_f_whole_set", "iou_dataset")
    assert [warm[name] for name in names] == [cold[name] for name in names]
    assert [large[name] for name in names] == pytest.approx([cold[name] for name in names], abs=2e-3)


def test_a_corrupt_cache_entry_is_recomputed(composed: Path, tmp_path: Path) -> None:
    cached = ["--run.cache", str(tmp_path / "cache"), "--method", "point"]
    cold = run(composed, tmp_path / "cold", *cached)
    for entry in list((tmp_path / "cache").rglob("*.safetensors"))[::2]:
        entry.write_bytes(entry.read_bytes()[:-20] + b"\xff" * 20)
    with pytest.warns(UserWarning, match="damaged"):
        assert run(composed, tmp_path / "again", *cached)["m_j"] == cold["m_j"]


def test_published_errors_lower_the_result(composed: Path, tmp_path: Path) -> None:
    numbers = {}
    for fidelity in ("published", "corrected"):
        numbers[fidelity] = run(composed, tmp_path / fidelity, "--method", "point", "--fidelity", fidelity)
        assert numbers[fidelity]["fidelity"] == fidelity
    assert numbers["published"]["m_j"] < numbers["corrected"]["m_j"]


def tiny_audioclip(fidelity: str) -> AudioCLIP:
    torch.manual_seed(0)
    sizes = {"embed_dim": 16, "vision_layers": (1, 1, 1, 1), "vision_width": 8, "text": False}
    sizes |= {"audio_n_fft": 256, "audio_hop": 128, "audio_win": 256, "audio_layers": (1, 1, 1, 1), "audio_width": 8}
    return AudioCLIP(**sizes, audio_groups=2, audio_width_per_group=8, fidelity=fidelity).eval()  # type: ignore[arg-type]


def test_points_leave_the_diagonal_only_when_corrected() -> None:
    encoder = AudioCLIPEncoder(tiny_audioclip("corrected"), AudioCLIPOptions())
    heat = torch.zeros(224, 224)
    heat[60, 150] = 1.0
    heat[100:120, 20:40] = 0.3
    published, corrected = (
        PointPrompt(Options(method="point", fidelity=f), encoder, None).make_prompt(heat)  # type: ignore[arg-type]
        for f in ("published", "corrected")
    )
    assert published.points is not None and (published.points[:, 0] == published.points[:, 1]).all()
    assert corrected.points is not None and corrected.points[0].tolist() == [150, 60]


@pytest.mark.parametrize(
    "amplitude, fidelity, heard",
    [
        ("by_fidelity", "published", "published"),
        ("by_fidelity", "corrected", "corrected"),
        ("unit", "corrected", "published"),
        ("int16", "published", "corrected"),
    ],
)
def test_amplitude_follows_fidelity_by_default(amplitude, fidelity, heard) -> None:
    options = Options(fidelity=fidelity, audioclip=AudioCLIPOptions(weights="mini", amplitude=amplitude))
    assert AudioCLIPEncoder.from_options(options, torch.device("cpu"), None).model.fidelity == heard


def test_audio_features_do_not_depend_on_the_batch(tmp_path: Path) -> None:
    noise = torch.rand(5, 4410, generator=torch.Generator().manual_seed(1)) - 0.5
    options = AudioCLIPOptions(audio_repeats=2)
    plain = AudioCLIPEncoder(tiny_audioclip("corrected"), options).encode_audio(noise)
    kept = AudioCLIPEncoder(tiny_audioclip("corrected"), options, cache=tmp_path)
    assert torch.equal(kept.encode_audio(noise[1:4]), kept.encode_audio(noise[1:4]))
    torch.testing.assert_close(kept.encode_audio(noise), plain, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(plain.norm(dim=1), torch.ones(5))
    other = AudioCLIPEncoder(tiny_audioclip("published"), options, cache=tmp_path).encode_audio(noise)
    assert not torch.allclose(other, plain, atol=1e-3)  # the cache does not mix amplitudes


def test_bf16_stays_close() -> None:
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (224, 224, 3), dtype=np.uint8) for _ in range(2)]
    seconds = torch.from_numpy(rng.uniform(-0.5, 0.5, (2, 44_100)).astype(np.float32))
    maps = []
    for precision in ("fp32", "bf16"):
        encoder = AudioCLIPEncoder(
            create_model("audioclip", "mini", text=False), AudioCLIPOptions(audio_repeats=1), precision=precision
        )
        maps.append(encoder.similarity_maps(frames, encoder.encode_audio(seconds))[0])
    assert maps[1].dtype == torch.float32 and 0 < (maps[0] - maps[1]).abs().mean() < 0.1


def test_a_silent_or_black_clip_gets_a_mask_of_the_right_size(tmp_path: Path) -> None:
    for setting in ("no_prompt", "point", "heatmap_box"):
        options = Options(method=setting, audioclip=AudioCLIPOptions("mini"), sam=SamOptions("mini", "mini"))
        options = replace(options, run=RunOptions(use_cache=False))
        answers = build_method(options).predict([np.zeros((224, 224, 3), np.uint8)], torch.zeros(1, 44_100))
        assert answers[0].mask.shape == (224, 224) and answers[0].mask.dtype == bool


def test_two_processes_give_the_numbers_of_one(composed: Path, tmp_path: Path) -> None:
    one = run(composed, tmp_path / "one", "--method", "heatmap", "--run.batch_size", "1")
    words = [*MINI, "--method", "heatmap", "--run.batch_size", "1", "--run.device", "cpu", "--data.num_workers", "0"]
    words += ["--data.root", str(composed / "Single-source"), "--out", str(tmp_path / "two")]
    words += ["--run.cache", str(tmp_path / "cache")]  # which both fill at once
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*launch, "-m", "zero_shot.evaluate", *words], cwd=REPOSITORY, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    two = json.loads((tmp_path / "two" / "metrics.json").read_text())
    names = ("m_j", "m_f", "m_f_whole_set", "iou_dataset", "frames", "videos")
    assert [two[name] for name in names] == [one[name] for name in names]


def test_errors_are_one_line(composed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = ["--data.root", str(composed / "Single-source"), "--data.num_workers", "0", "--run.use_cache", "false"]
    mini = Path("pretrained/mini")
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    shutil.copy(mini / "audioclip.safetensors", wrong / "sam.safetensors")
    shutil.copy(mini / "sam.json", wrong)
    for words, said in (
        (["--method", "heatmap", "--prompt.threshold", "1.5"], "at least 0 and at most 1"),
        (["--method", "heatmap", "--audioclip.image_size", "100"], "multiple of 32"),
        (["--method", "heatmap", "--audioclip.weights", "nowhere.pt"], "no such checkpoint"),
        (["--method", "heatmap", "--audioclip.weights", str(mini / "sam.safetensors")], "does not fit AudioCLIP"),
        (["--method", "point", *MINI, "--sam.weights", str(wrong)], "does not fit Sam"),
        (["--method", "point", *MINI, "--sam.model", "vit_b", "--sam.weights", "none.pth"], "no such checkpoint"),
        (["--method", "box_prompt", *MINI, "--grounding.clap", str(tmp_path)], "not a clap folder"),
        (["--method", "heatmap", *MINI, "--data.benchmark", "ms3"], "ms3_meta_data.csv"),
    ):
        assert evaluate.main([*root, *words, "--out", str(tmp_path / "run")]) == 1
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1 and "Traceback" not in error
    with pytest.raises(SystemExit) as stop:
        evaluate.main(["--method", "telepathy"])
    assert stop.value.code == 2


def test_a_run_folder_has_one_configuration(composed: Path, tmp_path: Path) -> None:
    run(composed, tmp_path / "run", "--method", "foreground")
    root = ["--data.root", str(composed / "Single-source"), "--data.num_workers", "0"]
    assert evaluate.main([*root, "--method", "foreground", "--metric_batch", "2", "--out", str(tmp_path / "run")]) == 1


def test_a_clip_without_audio_is_named(benchmark_copy: Path, tmp_path: Path, capsys) -> None:
    data = AVSBench(benchmark_copy / "Single-source", "s4")
    data.wav(data.split("test")[0]).unlink()
    root = ["--data.root", str(data.root), "--data.num_workers", "0", "--run.use_cache", "false"]
    assert evaluate.main([*root, *MINI, "--method", "heatmap", "--out", str(tmp_path / "run")]) == 1
    assert data.split("test")[0].name in capsys.readouterr().err


@pytest.mark.parametrize("method", ["foreground", "heatmap"])
def test_sound_conditions(composed: Path, tmp_path: Path, method: str) -> None:
    """The whole frame is a fixed point; a similarity map follows the sound."""
    words = ["--method", method, "--audio", "silent", "noise", "shuffled", "--audio-seeds", "0", "1", "--masks"]
    found = run(composed, tmp_path / "run", *words)
    content = json.loads((tmp_path / "run" / "robustness.json").read_text())
    assert content["m_j"] == pytest.approx(found["m_j"], abs=1e-6)
    for name, values in content["conditions"].items():
        suffix = "" if name == "original" else f"_test_{name}"
        metrics = json.loads((tmp_path / "run" / f"metrics{suffix}.json").read_text())
        assert metrics["audio"] == name and values["sweep"] is None
        assert len(list((tmp_path / "run" / f"masks{suffix}").rglob("*.png"))) == found["frames"]
        if name == "original":
            continue
        mean = values["mean"]
        assert values["seeds"] == ([0] if name == "silent" else [0, 1])
        if method == "foreground":
            assert (mean["pIA"], mean["agree"], mean["drop"], mean["S_null"]) == (1, 1, 0, 1)
            assert mean["AUC_N"] == pytest.approx(0.025)
        else:
            assert mean["agree"] < 0.9 and mean["pIA"] < 1
    # And score.py measures the same from the masks that were saved.
    words = ["--benchmark", "s4", "--root", str(composed / "Single-source"), "--out", str(tmp_path / "score")]
    masks = ["--masks", str(tmp_path / "run" / "masks_test_silent"), "--original", str(tmp_path / "run" / "masks")]
    assert score.main([*words, *masks, "--audio-condition", "silent", "--names", "ours"]) == 0
    (ours,) = json.loads((tmp_path / "score" / "scores.json").read_text())["models"].values()
    for name, value in content["conditions"]["silent"]["mean"].items():
        assert ours[name] == pytest.approx(value, abs=1e-9), name


def test_offscreen_sounds_are_recorded(composed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Results under other sounds do not replace each other; the same sounds may have moved. Seeds are told apart."""
    sounds = sorted((composed / "offscreen_sounds").iterdir())
    folders = [tmp_path / name for name in ("one", "moved", "other")]
    for folder, files in zip(folders, (sounds[:1], sounds[:1], sounds[1:2]), strict=True):
        folder.mkdir()
        for file in files:
            shutil.copy(file, folder / f"{folder.name}.wav")
    words = ["--method", "foreground", "--data.root", str(composed / "Single-source"), "--out", str(tmp_path / "run")]
    words += ["--audio", "offscreen", "--audio-seeds", "0", "1", "--offscreen-sounds"]
    impossible = [*words, str(folders[2]), "--audio", "offscreen", "shuffled", "--data.max_clips", "1"]
    assert evaluate.main(impossible) == 1 and "two clips of different classes" in capsys.readouterr().err
    assert not (tmp_path / "run" / "offscreen_sounds.json").exists(), "nothing was evaluated"
    shutil.rmtree(tmp_path / "run")
    codes = [evaluate.main([*words, str(folder)]) for folder in folders]
    told = capsys.readouterr()
    assert codes == [0, 0, 1] and "offscreen, seed 0" in told.out and "offscreen, seed 1" in told.out
    assert told.err.count("holds results under other offscreen sounds; choose another --out") == 1
