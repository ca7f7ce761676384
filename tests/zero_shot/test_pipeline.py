"""The zero-shot methods from Python: the lines of the README, the masks of zero_shot.evaluate, one-line errors."""

import re
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from models import create_model, list_models, list_weights
from utils.audio import read_wav
from utils.cli import InputError
from utils.files import read_image
from utils.layout import AVSBench, Clip
from zero_shot import evaluate, load_pipeline
from zero_shot.encoders import ENCODERS
from zero_shot.methods import METHODS, Prediction, ZeroShotMethod
from zero_shot.options import EncoderName, MethodName, Options, SegmenterName
from zero_shot.pipeline import Pipeline
from zero_shot.segmenters import SEGMENTERS

README = Path(__file__).parents[2] / "README.md"


@pytest.fixture(scope="module")
def clip(composed: Path) -> tuple[AVSBench, Clip]:
    data = AVSBench(composed / "Single-source", "s4")
    return data, data.split("test")[0]


def read_clip(data: AVSBench, clip: Clip) -> tuple[list[np.ndarray], np.ndarray, int]:
    """Frames, audio and sample rate of a clip."""
    return [read_image(path) for path in data.frames(clip)], *read_wav(data.wav(clip))


def test_the_lines_of_the_readme_run_and_write_nothing(
    clip: tuple[AVSBench, Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    (code,) = [block for block in blocks if "load_pipeline" in block]
    assert len(code.strip().splitlines()) <= 5
    monkeypatch.chdir(tmp_path)
    frames, audio, sample_rate = read_clip(*clip)
    names: dict[str, Any] = {"frames": frames, "audio": audio, "sample_rate": sample_rate}
    exec(code, names)
    result = names["result"]
    assert result.masks.shape == (5, 224, 224) and result.masks.dtype == bool and result.masks.any()
    assert result.similarity_maps.shape == (5, 224, 224) and result.similarity_maps.dtype == np.float32
    assert len(result.prompts) == 5 and all(prompt.points.shape[1] == 2 for prompt in result.prompts)
    assert not list(tmp_path.iterdir())


def test_models_by_name() -> None:
    """The other Python lines of the README, with weights that are in the repository."""
    assert "sam_vit_b" in list_models("sam_*") and "audioclip-full" in list_weights("audioclip")
    assert create_model("sam_mini", weights="mini").image_encoder.img_size < 1024
    with pytest.raises(InputError, match=r"^sam_9: no such model; choose from audioclip, "):
        create_model("sam_9")


@pytest.mark.parametrize("config", ["mini/s4_point_dense", "mini/s4_heatmap_box", "mini/s4_no_prompt"])
def test_masks_are_those_of_evaluate(
    clip: tuple[AVSBench, Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: str
) -> None:
    """Of the files of one clip, bit by bit; the names of methods and options come from the same YAML file."""
    data, first = clip
    words = f"--config zero_shot/configs/{config}.yaml --data.max_clips 1 --data.num_workers 0 --run.use_cache false"
    words += f" --run.device cpu --proposals.points_per_side 6 --data.root {data.root} --out {tmp_path / 'run'} --masks"
    assert evaluate.main(words.split()) == 0
    saved = [read_image(path)[..., 0] > 0 for path in sorted((tmp_path / "run" / "masks").rglob("*.png"))]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")  # configurations and weights are found from anywhere
    pipeline = load_pipeline(config, device="cpu", proposals__points_per_side=6)
    result = pipeline(*read_clip(data, first))
    assert np.array_equal(result.masks, saved) and result.masks.any()
    assert (result.similarity_maps is None) == (config == "mini/s4_no_prompt")


class AudioLevel(ZeroShotMethod):
    """Predicts the left half of a frame whose second is loud, and records its input."""

    sample_rate = 8000

    def __init__(self) -> None:
        self.batches: list[int] = []

    def predict(self, frames: Any, audio: Any) -> list[Prediction]:
        """Implements ZeroShotMethod.predict."""
        self.batches.append(len(frames))
        assert {frame.shape for frame in frames} == {(224, 224, 3)} and audio.shape == (len(frames), 8000)
        mask = np.zeros((224, 224), bool)
        mask[:, :112] = True
        return [Prediction(mask & bool(second.abs().max() > 0.25)) for second in audio]


@pytest.mark.parametrize("layout", ["int16", "float stereo", "too short", "too long"])
def test_frames_of_any_size_and_audio_of_any_layout(layout: str) -> None:
    """Seconds 0 and 2 of 23 are loud; masks have the size of the frames; a missing end counts as silence."""
    audio = np.zeros(23 * 16_000, np.float32)
    for second in (0, 2):
        audio[second * 16_000 : (second + 1) * 16_000] = 0.5 * np.sin(np.arange(16_000) / 20)
    if layout == "int16":
        audio = (audio * 32767).astype(np.int16)
    elif layout == "float stereo":
        audio = np.stack([audio, audio], axis=1).astype(np.float64)
    audio = audio[: 3 * 16_000] if layout == "too short" else audio
    audio = np.concatenate([audio, np.ones(9000, np.float32)]) if layout == "too long" else audio
    method = AudioLevel()
    result = Pipeline(method, Options())([np.zeros((90, 160, 3), np.uint8)] * 23, audio, 16_000)
    assert result.masks.shape == (23, 90, 160) and method.batches == [20, 3]
    assert np.flatnonzero(result.masks.any(axis=(1, 2))).tolist() == [0, 2]
    assert result.masks[0, :, :79].all() and not result.masks[0, :, 81:].any()
    assert result.similarity_maps is None and result.prompts == [None] * 23


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        (
            "s4_point_densest",
            {},
            "s4_point_densest: no such file or configuration; configurations: mini/ms3",
        ),
        ("mini/s4_point_dense", {"audioclip__checkpoint": "mini"}, "audioclip.checkpoint"),
        ("mini/s4_point_dense", {"prompt__threshold": 2}, "prompt.threshold is 2"),
        ("mini/s4_point_dense", {"audioclip__weights": "nothing"}, "nothing: no checkpoint of this name"),
        ("mini/s4_box_prompt", {"grounding__clap": "mini"}, "mini: this network has no small weights"),
        (
            "mini/s4_box_prompt",
            {"grounding__clap": "random"},
            "random: networks of the transformers",
        ),
        (
            "mini/s4_point_dense",
            {"sam__model": "vit_b", "sam__weights": "no/sam.pth"},
            "no/sam.pth: no such checkpoint",
        ),
    ],
)
def test_errors_are_one_line(config: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        load_pipeline(config, device="cpu", **options)
    assert "\n" not in str(caught.value)


def test_weights_are_optional_and_names_are_resolved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without sam.weights the public checkpoint of the model is used, and SAM4AVS_WEIGHTS holds for all of them."""
    monkeypatch.setenv("SAM4AVS_WEIGHTS", str(tmp_path))
    with pytest.raises(InputError, match=re.escape(f"{tmp_path}/sam_vit_l_0b3195.pth: no such checkpoint; python -m")):
        load_pipeline("mini/s4_point_dense", device="cpu", sam__model="vit_l")
    options = Options(method="box_prompt")
    folders = [path.parent.name for path in options.checkpoint_files() if path.name == "model.safetensors"]
    assert folders == ["clap-htsat-unfused", "grounding-dino-base"]
    assert all(path.is_relative_to(tmp_path) for path in options.checkpoint_files())


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        ("modern/demo_small", {}, "3 {in} clap-htsat-unfused mm-grounding-dino-tiny edgetam gets them$"),
        (
            "modern/demo_small",
            {"concept__finder": "sam3"},
            "3 {in} clap-htsat-unfused sam3 edgetam gets them .gated: .*",
        ),
        ("s4_no_prompt", {"audioclip__weights": "mini"}, "sam_vit_h_4b8939.pth: no such checkpoint; .* gets it$"),
        ("s4_no_prompt", {"sam__weights": "no/sam.pth"}, "AudioCLIP-Full-Training.pt: no such checkpoint; .*"),
    ],
)
def test_all_missing_downloads_are_named_at_once(
    config: str, options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SAM4AVS_WEIGHTS", str(tmp_path))
    wanted = message.replace("{in}", f"checkpoints are missing in {tmp_path}; python -m pretrained.download")
    with pytest.raises(InputError, match=wanted):
        load_pipeline(config, device="cpu", **options)


@pytest.mark.parametrize(
    ("frames", "audio", "sample_rate", "message"),
    [
        ([], np.zeros(9), 9, "expected frames"),
        ([np.zeros((4, 4), np.uint8)], np.zeros(9), 9, "expected frames"),
        ([np.zeros((4, 4, 3))], np.zeros(9), 9, "of uint8"),
        ([np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5, 3), np.uint8)], np.zeros(9), 9, "of one size"),
        ([np.zeros((4, 4, 3), np.uint8)], np.zeros((1, 1, 9)), 9, "expected audio"),
        ([np.zeros((4, 4, 3), np.uint8)], np.zeros((2, 99)), 9, "transpose it"),
        ([np.zeros((4, 4, 3), np.uint8)], np.zeros(9, np.int64), 9, "expected audio"),
        ([np.zeros((4, 4, 3), np.uint8)], np.full(9, np.nan), 9, "finite"),
        ([np.zeros((4, 4, 3), np.uint8)], np.zeros(9), 0, "positive"),
    ],
)
def test_bad_arrays(frames: Any, audio: Any, sample_rate: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Pipeline(AudioLevel(), Options())(frames, audio, sample_rate)


def test_registers_have_the_names_of_the_options() -> None:
    for register, names in ((METHODS, MethodName), (ENCODERS, EncoderName), (SEGMENTERS, SegmenterName)):
        assert tuple(register) == get_args(names)
