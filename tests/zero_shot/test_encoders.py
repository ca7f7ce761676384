"""Audio-visual encoders: exchangeable by their protocol, refused where they lack a map, and PE-AV itself."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.helpers.tiny_transformers import AUDIO_RATE, save_pe_a_frame, save_pe_av
from utils.cli import InputError
from utils.memo import NO_MEMO
from zero_shot import evaluate
from zero_shot.encoders import ENCODERS, AudioVisualEncoder, DenseEncoder
from zero_shot.encoders.audioclip import AudioCLIPEncoder
from zero_shot.encoders.pe_av import PEAVEncoder
from zero_shot.method_options import RetrievalOptions
from zero_shot.methods import build_method
from zero_shot.methods.no_prompt import NoPrompt
from zero_shot.methods.prompted import HeatmapBox, PointPrompt, SimilarityThreshold
from zero_shot.model_options import PEAVOptions
from zero_shot.options import Options
from zero_shot.proposal_scoring import crop_proposals
from zero_shot.search_space import parse_values

COLORS = [(200, 0, 0), (0, 200, 0), (0, 0, 200)]  # of the proposals, from left to right
FRAME = np.repeat(np.array(COLORS, np.uint8), 20, axis=0)[None].repeat(40, axis=0)  # (40, 60, 3)


class StubEncoder:
    """Embeds audio of level i / 10, and crops of color i, on axis `order[i]` of three; keeps what it is given."""

    device, int16_round_trip, memo = torch.device("cpu"), False, NO_MEMO

    def __init__(self, order: Sequence[int], sample_rate: int = 1000):
        self.axes, self.sample_rate = torch.eye(3)[list(order)], sample_rate
        self.crops: list[np.ndarray] = []

    def encode_audio(self, audio: Tensor) -> Tensor:
        return torch.eye(3)[(10 * audio[:, 0]).round().long()]

    def encode_crops(self, frame: np.ndarray, proposals: Any, fidelity: Any) -> tuple[Tensor, list[int]]:
        crops = crop_proposals(frame, proposals, fidelity)
        self.crops += crops.values()
        return self.axes[[int(crop.sum(axis=(0, 1)).argmax()) for crop in crops.values()]], list(crops)

    def with_options(self, options: Options) -> "StubEncoder":
        return self


class StubSegmenter:
    """Proposes the three fields of FRAME; keeps what it is given."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def propose(self, frames: Sequence[np.ndarray], options: Any) -> list[list[dict[str, Any]]]:
        self.calls.append(([frame.tobytes() for frame in frames], options))
        found = []
        for field in range(3):
            mask = np.zeros(FRAME.shape[:2], bool)
            mask[:, 20 * field : 20 * field + 20] = True
            box = [20 * field, 0, 19, 39]
            found.append({"segmentation": mask, "area": int(mask.sum()), "bbox": box, "predicted_iou": 0.9})
        return [found for _ in frames]


def chosen(masks: Sequence[np.ndarray]) -> list[list[int]]:
    """The fields that each mask marks, as a whole."""
    parts = [[mask[:, 20 * field : 20 * field + 20] for field in range(3)] for mask in masks]
    assert all(part.all() or not part.any() for fields in parts for part in fields)
    return [[field for field, part in enumerate(fields) if part.all()] for fields in parts]


def test_orthogonal_encoders_choose_the_proposal_they_should_and_change_nothing_else() -> None:
    audio = torch.tensor([0.0, 0.1, 0.2])[:, None].repeat(1, 1000)
    results = {}
    for order in ([0, 1, 2], [2, 0, 1]):
        encoder, segmenter = StubEncoder(order), StubSegmenter()
        method = NoPrompt(Options(), encoder, segmenter)  # type: ignore[arg-type]
        predictions = method.predict([FRAME] * 3, audio)
        assert chosen([prediction.mask for prediction in predictions]) == [[order.index(axis)] for axis in range(3)]
        results[tuple(order)] = (encoder.crops, segmenter.calls, predictions, method.sample_rate)
    (crops, calls, predictions, rate), (other_crops, other_calls, other_predictions, other_rate) = results.values()
    assert calls == other_calls and rate == other_rate
    assert len(crops) == 9 and all(map(np.array_equal, crops, other_crops))
    for one, other in zip(predictions, other_predictions, strict=True):
        assert (one.similarity_map, one.prompt, one.labels) == (other.similarity_map, other.prompt, other.labels)


def test_audio_comes_at_the_rate_of_the_encoder() -> None:
    for rate in (16_000, 48_000):
        method = NoPrompt(Options(), StubEncoder([0, 1, 2], rate), StubSegmenter())  # type: ignore[arg-type]
        assert method.sample_rate == rate and not method.int16_round_trip


def test_what_has_maps() -> None:
    assert isinstance(StubEncoder([0, 1, 2]), AudioVisualEncoder) and not isinstance(StubEncoder([0]), DenseEncoder)
    assert {name for name, each in ENCODERS.items() if hasattr(each, "similarity_maps")} == {"audioclip"}


@pytest.mark.parametrize("method", ["point", "heatmap_box", "heatmap", "no_prompt"])
def test_methods_that_need_a_map_refuse_an_encoder_without_one(method: Any) -> None:
    options = Options(method=method, encoder="pe_av", pe_av=PEAVOptions("nowhere/folder"))
    options.retrieval = RetrievalOptions(score="map")
    options.run.use_cache = False
    with pytest.raises(InputError, match=f"method {method}.* needs similarity maps, which encoder pe_av does not"):
        build_method(options)  # before the folder is looked for
    classes: dict[str, Any] = {"point": PointPrompt, "heatmap_box": HeatmapBox, "no_prompt": NoPrompt}
    with pytest.raises(InputError, match="needs similarity maps"):
        if method == "heatmap":
            SimilarityThreshold(options, StubEncoder([0, 1, 2]))  # type: ignore[arg-type]
        else:
            classes[method](options, StubEncoder([0, 1, 2]), StubSegmenter())


def test_tune_searches_what_the_encoder_has() -> None:
    options = Options(method="no_prompt", encoder="pe_av")
    names = set(parse_values([], options))
    assert names == {"retrieval.rule", "retrieval.threshold", "retrieval.logit_scale", "retrieval.max_area"}
    assert names | {"retrieval.score", "audioclip.reverse"} <= set(parse_values([], Options(method="no_prompt")))
    for name in ("retrieval.score", "audioclip.crop_size"):
        with pytest.raises(InputError, match=f"--search {name}: method no_prompt does not have it"):
            parse_values([name], options)


def test_the_refusal_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--config", "zero_shot/configs/mini/s4_point_local.yaml", "--encoder", "pe_av", "--out", str(tmp_path)]
    assert evaluate.main(words) == 1
    error = capsys.readouterr().err
    assert "--encoder audioclip" in error and error.count("\n") == 1


# PE-AV


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random PE-AV. Read only: copy it to change it."""
    return save_pe_av(tmp_path_factory.mktemp("pe") / "pe-av")


@pytest.fixture(scope="module")
def encoder(folder: Path) -> PEAVEncoder:
    return PEAVEncoder(folder)


@pytest.fixture(scope="module")
def seconds() -> Tensor:
    """Two tones and noise, (3, 48 000)."""
    time = torch.arange(AUDIO_RATE) / AUDIO_RATE
    noise = torch.randn(AUDIO_RATE, generator=torch.Generator().manual_seed(0))
    return 0.3 * torch.stack(((2760 * time).sin(), (18_000 * time).sin(), noise.clamp(-3, 3)))


@pytest.fixture(scope="module")
def crops() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((32, 32), (20, 50), (1, 9))]


def test_pe_av_says_what_it_needs(encoder: PEAVEncoder) -> None:
    assert isinstance(encoder, AudioVisualEncoder) and not isinstance(encoder, DenseEncoder)
    assert encoder.sample_rate == AUDIO_RATE and not encoder.int16_round_trip


@torch.inference_mode()
def test_pe_av_gives_the_embeddings_of_transformers(
    encoder: PEAVEncoder, seconds: Tensor, crops: list[np.ndarray]
) -> None:
    """Those by which its own logits compare audio with video; the first crop needs no resizing."""
    pixels = torch.from_numpy(crops[0]).permute(2, 0, 1)[None, None].float() / 127.5 - 1
    own = encoder.model.get_audio_video_embeds(
        seconds[:1, None], pixels, return_audio_embeds=True, return_video_embeds=True
    )
    audio, images = encoder.encode_audio(seconds), encoder.embed_images(crops)
    torch.testing.assert_close(audio[:1], F.normalize(own.audio_embeds, dim=1), atol=1e-5, rtol=0)
    torch.testing.assert_close(images[:1], F.normalize(own.video_embeds, dim=1), atol=1e-5, rtol=0)
    assert audio.shape == images.shape == (3, 16) and audio.dtype == images.dtype == torch.float32
    assert (audio[0] - audio[2]).abs().max() > 1e-3 and (images[0] - images[1]).abs().max() > 1e-3


def test_pe_av_does_not_depend_on_the_batch(encoder: PEAVEncoder, seconds: Tensor, crops: list[np.ndarray]) -> None:
    alone = torch.cat([encoder.encode_audio(second[None]) for second in seconds])
    torch.testing.assert_close(encoder.encode_audio(seconds), alone, atol=1e-5, rtol=0)
    alone = torch.cat([encoder.embed_images([crop]) for crop in crops])
    torch.testing.assert_close(encoder.embed_images(crops), alone, atol=1e-5, rtol=0)
    assert encoder.embed_images([]).shape == (0, 16)


def test_pe_av_computes_nothing_twice(
    folder: Path, seconds: Tensor, crops: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for source in (folder, folder, save_pe_av(tmp_path / "other", seed=1)):
        kept = PEAVEncoder(source, cache=tmp_path / "cache")
        if len(found) == 1:
            monkeypatch.setattr(kept, "_run", None)  # calling it fails
        found.append((kept.encode_audio(seconds), kept.embed_images(crops)))
    for cold, warm, other in zip(*found, strict=True):
        assert torch.equal(cold, warm) and not torch.allclose(cold, other, atol=1e-3)
    assert len([path for path in (tmp_path / "cache").glob("*/*") if path.is_dir()]) == 4, "two kinds, two encoders"


def test_no_prompt_runs_with_pe_av(folder: Path, composed: Path, tmp_path: Path) -> None:
    words = ["--config", "zero_shot/configs/mini/s4_no_prompt.yaml", "--encoder", "pe_av", "--pe_av.weights"]
    words += [str(folder), "--data.root", str(composed / "Single-source"), "--data.max_clips", "1"]
    words += ["--proposals.points_per_side", "2", "--proposals.stability_score_thresh", "0.6", "--run.use_cache"]
    assert evaluate.main([*words, "false", "--data.num_workers", "0", "--out", str(tmp_path / "run")]) == 0
    found = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert any(name.endswith("pe-av/model.safetensors") for name in found["checkpoints"])
    assert not any("audioclip" in name for name in found["checkpoints"])


def test_folders_that_are_no_pe_av(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere: no such folder; it has to be .* facebook/pe-av-small"):
        PEAVEncoder(tmp_path / "nowhere")
    with pytest.raises(InputError, match="type 'pe_audio', not 'pe_audio_video'"):
        PEAVEncoder(save_pe_a_frame(tmp_path / "frame"))
    deeper = Path(shutil.copytree(folder, tmp_path / "deeper"))
    config = json.loads((deeper / "config.json").read_text())
    config["audio_video_config"]["num_hidden_layers"] = 2
    (deeper / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="weights are missing"):
        PEAVEncoder(deeper)
    with pytest.raises(InputError, match="random: networks of the transformers package are folders"):
        PEAVEncoder.from_options(Options(pe_av=PEAVOptions("random")), torch.device("cpu"), None)


def test_audioclip_of_no_prompt_as_published() -> None:
    """The original encodes one second at CLAP's rate with a network for five seconds at 44.1 kHz."""

    def facts(**fields: Any) -> tuple[int, int, bool]:
        options = Options(**fields)
        options.audioclip.weights = "mini"
        encoder = AudioCLIPEncoder.from_options(options, torch.device("cpu"), None)
        return encoder.sample_rate, encoder.options.audio_repeats, encoder.int16_round_trip

    assert facts(method="no_prompt", fidelity="published") == (48_000, 1, True)
    assert facts(method="no_prompt") == facts(method="point", fidelity="published") == (44_100, 5, False)
