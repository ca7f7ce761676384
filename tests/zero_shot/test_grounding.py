"""CLAP and GroundingDINO with tiny random weights: equality with transformers, properties, errors."""

import json
import shutil
import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2
from transformers import GroundingDinoImageProcessor, GroundingDinoProcessor

from synthetic.random_grounding import save_clap, save_detector
from utils.cli import InputError
from utils.dataset import NORMALIZATION
from zero_shot.detectors.grounding_dino import GroundingDinoDetector, format_caption
from zero_shot.encoders import clap
from zero_shot.encoders.clap import SAMPLE_RATE, ClapClassifier
from zero_shot.label_list import read_labels

DATA = Path(__file__).parents[2] / "zero_shot" / "data"
NAMES = ["Dog", "Male speech, man speaking", "Siren", "Ambulance (siren)", "Acoustic guitar", "Rain", "Bee"]
FRAME = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with clap, detector and names.json. Read only: copy what you change."""
    out = tmp_path_factory.mktemp("grounding")
    save_clap(out / "clap")
    save_detector(out / "detector")
    (out / "names.json").write_text(json.dumps(NAMES), encoding="utf-8")
    return out


@pytest.fixture(scope="module")
def classifier(folders: Path) -> ClapClassifier:
    return ClapClassifier(folders / "clap", folders / "names.json")


@pytest.fixture(scope="module")
def detector(folders: Path) -> GroundingDinoDetector:
    return GroundingDinoDetector(folders / "detector")


@pytest.fixture(scope="module")
def seconds() -> Tensor:
    """Two tones and noise, (3, 48 000)."""
    time = torch.arange(SAMPLE_RATE) / SAMPLE_RATE
    noise = torch.randn(SAMPLE_RATE, generator=torch.Generator().manual_seed(0))
    return 0.3 * torch.stack(((2760 * time).sin(), (18_000 * time).sin(), noise))


def test_label_lists_are_those_of_the_study() -> None:
    audioset, avsbench = (read_labels(DATA / f"{name}_labels.json") for name in ("audioset", "avsbench_s4"))
    assert len(set(audioset)) == len(audioset) == 527 and audioset[0] == "Speech"
    assert len(set(avsbench)) == len(avsbench) == 23 and "dog barking" in avsbench


@torch.inference_mode()
def test_similarities_are_cosines_with_the_repeated_audio(classifier: ClapClassifier, seconds: Tensor) -> None:
    model = classifier.model
    plain = torch.empty(len(seconds), len(NAMES))
    for row, second in enumerate(seconds):
        whole = second.repeat(10).numpy()
        mel = classifier.feature_extractor(
            whole, sampling_rate=SAMPLE_RATE, truncation="rand_trunc", return_tensors="pt"
        )
        sound = model.get_audio_features(mel["input_features"]).pooler_output[0]
        for column, name in enumerate(NAMES):
            text = model.get_text_features(**classifier.tokenizer([name], return_tensors="pt")).pooler_output[0]
            plain[row, column] = sound @ text / sound.norm() / text.norm()
    ours = classifier.similarities(seconds)
    torch.testing.assert_close(ours, plain, atol=1e-5, rtol=0)
    assert plain.std(dim=0).min() > 1e-3 and plain.std(dim=1).min() > 1e-3  # they tell sounds and names apart


def test_labels_are_ordered_by_similarity(classifier: ClapClassifier, seconds: Tensor) -> None:
    ranked = classifier.classify(seconds, len(NAMES))
    for row, names in zip(classifier.similarities(seconds), ranked, strict=True):
        scores = [float(row[NAMES.index(name)]) for name in names]
        assert scores == sorted(scores, reverse=True) and sorted(names) == sorted(NAMES)
    assert classifier.classify(seconds, 2) == [names[:2] for names in ranked]
    assert classifier.classify(seconds) == [names[:1] for names in ranked]
    assert len({names[0] for names in ranked}) > 1


def test_similarities_do_not_depend_on_the_batch(
    classifier: ClapClassifier, seconds: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = classifier.similarities(seconds)
    monkeypatch.setattr(clap, "CHUNK", 2)
    torch.testing.assert_close(classifier.similarities(seconds), together, atol=1e-5, rtol=0)
    alone = torch.cat([classifier.similarities(second[None]) for second in seconds])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    assert classifier.similarities(seconds[:0]).shape == (0, len(NAMES)) and classifier.classify(seconds[:0], 2) == []


@pytest.mark.parametrize("top", [0, -1, len(NAMES) + 1])
def test_top_k_is_limited_by_the_number_of_labels(classifier: ClapClassifier, seconds: Tensor, top: int) -> None:
    with pytest.raises(InputError, match=f"top_k is {top}; it must be from 1 to {len(NAMES)}"):
        classifier.classify(seconds, top)


@pytest.mark.parametrize(
    ("sounds", "message"),
    [
        (torch.zeros(48_000), r"\(N, samples\)"),
        (torch.zeros(1, 480_001), "10 s or less"),
        (torch.zeros(1, 0), "10 s or less"),
        (torch.full((1, 480), torch.nan), "NaN"),
    ],
)
def test_bad_audio(classifier: ClapClassifier, sounds: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        classifier.classify(sounds)


@torch.inference_mode()
def plain_boxes(
    detector: GroundingDinoDetector, frame: np.ndarray, caption: str, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes and their scores, by PIL's and torchvision's preprocessing and transformers' own reading of the answer."""
    small = v2.functional.resize(Image.fromarray(frame), 96)
    pixels = v2.functional.normalize(v2.functional.to_image(small).float() / 255, *map(list, NORMALIZATION["imagenet"]))
    tokens = detector.tokenizer([caption], return_tensors="pt")
    answer = detector.model(pixel_values=pixels[None], **tokens)
    processor = GroundingDinoProcessor(GroundingDinoImageProcessor(), detector.tokenizer)
    found = processor.post_process_grounded_object_detection(
        answer, tokens["input_ids"], threshold=threshold, target_sizes=[frame.shape[:2]]
    )
    return found[0]["boxes"].numpy(), found[0]["scores"].numpy()


@pytest.mark.parametrize("shape", [(60, 90), (90, 61), (64, 64)])
def test_boxes_equal_transformers_postprocessing(detector: GroundingDinoDetector, shape: tuple[int, int]) -> None:
    frame = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    everything, scores = plain_boxes(detector, frame, "acoustic guitar.", 0.0)
    assert len(everything) == 12 and np.ptp(scores) > 0.1
    np.testing.assert_allclose(detector.detect(frame, "Acoustic guitar", 0.0), everything, atol=1e-3)
    for threshold in (0.3, np.sort(scores)[3:5].mean(), np.sort(scores)[-2:].mean()):
        ours = detector.detect(frame, "Acoustic guitar", float(threshold))
        assert len(ours) == (scores > threshold).sum() and ours.dtype == np.float32
        np.testing.assert_allclose(ours, everything[scores > threshold], atol=1e-3)
    assert detector.detect(frame, "Acoustic guitar", 1.0).shape == (0, 4)


def test_boxes_are_in_pixels_of_the_frame_and_follow_it(detector: GroundingDinoDetector) -> None:
    boxes = detector.detect(FRAME, "Dog", 0.0)
    assert (boxes[:, :2] <= boxes[:, 2:]).all()
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    assert (centres >= 0).all() and (centres <= (90, 60)).all() and centres[:, 0].max() > 60
    assert not np.array_equal(boxes, detector.detect(FRAME[:, ::-1].copy(), "Dog", 0.0))


def test_captions_are_normalized(detector: GroundingDinoDetector) -> None:
    for words in ("Dog bark", "  dog bark ", "dog bark.", "DOG BARK"):
        assert format_caption(words) == "dog bark."
        np.testing.assert_array_equal(detector.detect(FRAME, words, 0.0), detector.detect(FRAME, "dog bark.", 0.0))
    assert not np.array_equal(detector.detect(FRAME, "Siren", 0.0), detector.detect(FRAME, "dog bark.", 0.0))


def test_input_size_is_the_published_one(folders: Path, tmp_path: Path) -> None:
    """Shorter side 800, longer at most 1333, as the package's own settings have it."""
    folder = Path(shutil.copytree(folders / "detector", tmp_path / "detector"))
    GroundingDinoImageProcessor().save_pretrained(folder)
    see = GroundingDinoDetector(folder).image_processor
    assert "Pil" in type(see).__name__
    for shape, seen in (((224, 224), (800, 800)), ((240, 320), (800, 1066)), ((100, 400), (333, 1333))):
        pixels = see(images=np.zeros((*shape, 3), np.uint8), return_tensors="pt")["pixel_values"]
        np.testing.assert_allclose(pixels.shape[2:], seen, atol=1)


@pytest.mark.parametrize("frame", [FRAME[..., 0], FRAME[..., :2], FRAME / 255])
def test_bad_frames(detector: GroundingDinoDetector, frame: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"frame \(H, W, 3\) of uint8"):
        detector.detect(frame, "Dog")


@pytest.mark.parametrize("caption", ["", " . "])
def test_a_caption_needs_words(detector: GroundingDinoDetector, caption: str) -> None:
    with pytest.raises(ValueError, match="no words"):
        detector.detect(FRAME, caption)


def test_nothing_is_downloaded(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    ClapClassifier(folders / "clap", folders / "names.json").classify(torch.zeros(1, 480))
    GroundingDinoDetector(folders / "detector").detect(FRAME, "dog")


def test_without_the_package(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match=r"pip install -e .\[grounding\]"):
        ClapClassifier(folders / "clap", folders / "names.json")
    with pytest.raises(InputError, match=r"pip install -e .\[grounding\]"):
        GroundingDinoDetector(folders / "detector")


def test_folders_that_are_missing_or_of_another_type(folders: Path, tmp_path: Path) -> None:
    names = folders / "names.json"
    with pytest.raises(InputError, match=r"nowhere: no such folder; it has to be .* laion/clap-htsat-unfused"):
        ClapClassifier(tmp_path / "nowhere", names)
    with pytest.raises(InputError, match=r"clap: no such folder; python -m synthetic.random_grounding writes it$"):
        ClapClassifier(tmp_path / "tiny" / "clap", names)
    original = tmp_path / "630k-audioset-best.pt"
    original.write_bytes(b"weights")
    with pytest.raises(InputError, match=r"630k-audioset-best\.pt: not a clap folder"):
        ClapClassifier(original, names)
    with pytest.raises(InputError, match="'grounding-dino', not 'clap'"):
        ClapClassifier(folders / "detector", names)
    with pytest.raises(InputError, match="'clap', not 'grounding-dino'"):
        GroundingDinoDetector(folders / "clap")
    with pytest.raises(InputError, match="CLAP with fusion"):
        ClapClassifier(save_clap(tmp_path / "fused", fusion=True), names)


def damage(folder: Path, how: str) -> None:
    config, weights = folder / "config.json", folder / "model.safetensors"
    if how == "config":
        config.write_text("[1, 2", encoding="utf-8")
    elif how == "list":
        config.write_text("[1, 2]", encoding="utf-8")
    elif how == "sizes":
        found = json.loads(config.read_text(encoding="utf-8"))
        found["text_config"]["hidden_size"] = 32
        config.write_text(json.dumps(found), encoding="utf-8")
    elif how == "layers":
        found = json.loads(config.read_text(encoding="utf-8"))
        found["text_config"]["num_hidden_layers"] = 2
        config.write_text(json.dumps(found), encoding="utf-8")
    elif how == "cut":
        weights.write_bytes(weights.read_bytes()[:-1000])
    else:
        (folder / how).unlink()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("config", "states no model_type"),
        ("list", "states no model_type"),
        ("sizes", "clap-copy: .*size"),
        ("layers", "weights are missing: text_model"),
        ("cut", "clap-copy: "),
        ("model.safetensors", "clap-copy: not a clap folder .missing .*safetensors"),
        ("preprocessor_config.json", "clap-copy: not a clap folder .missing .*processor_config"),
        ("tokenizer_config.json", "clap-copy: not a clap folder .missing tokenizer_config"),
        ("tokenizer.json", "clap-copy: "),
    ],
)
def test_damaged_folders(folders: Path, tmp_path: Path, how: str, message: str) -> None:
    folder = Path(shutil.copytree(folders / "clap", tmp_path / "clap-copy"))
    damage(folder, how)
    with pytest.raises(InputError, match=message) as caught:
        ClapClassifier(folder, folders / "names.json")
    assert "\n" not in str(caught.value) and "laion/clap-htsat-unfused" in str(caught.value)


@pytest.mark.parametrize("content", ["", "{}", "[]", '["Dog", 3]', '["Dog", ""]', '["Dog", "dog"]', '"Dog"'])
def test_bad_lists_of_labels(tmp_path: Path, content: str) -> None:
    path = tmp_path / "names.json"
    with pytest.raises(InputError, match="no such list"):
        read_labels(path)
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=r"not |is empty|twice"):
        read_labels(path)
