"""Concept-Prompt: which labels count, what is looked for, and its models with tiny random weights."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import demo
from models.weights import checkpoint_name, list_checkpoints
from synthetic.random_grounding import save_clap, save_detector
from tests.helpers.tiny_transformers import AUDIO_RATE, save_pe_a_frame, save_sam3
from utils.classes import CLASSES
from utils.cli import InputError
from utils.files import read_image
from zero_shot import evaluate
from zero_shot.demo_folder import MaskRecord
from zero_shot.demo_notes import describe_labels
from zero_shot.detectors.grounding_dino import GroundingDinoDetector
from zero_shot.detectors.sam3 import Sam3Detector
from zero_shot.encoders.clap import ClapClassifier
from zero_shot.encoders.pe_a_frame import PEAFrameClassifier
from zero_shot.finders import BoxFinder, Found, TextFinder, Wanted
from zero_shot.label_list import read_labels, read_targets
from zero_shot.method_options import ConceptOptions, GroundingOptions
from zero_shot.methods import METHODS, build_method
from zero_shot.methods.concept_prompt import ConceptPrompt
from zero_shot.methods.prediction import ObjectMask
from zero_shot.options import Options

DATA = Path(__file__).parents[2] / "zero_shot" / "data"
NAMES = ["dog", "cat meowing", "siren", "guitar"]
FRAME = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one of each model, and names.json. Read only."""
    out = tmp_path_factory.mktemp("concept")
    save_clap(out / "clap")
    save_pe_a_frame(out / "pe-a-frame")
    save_detector(out / "detector", multimodal=True)
    save_sam3(out / "sam3")
    (out / "names.json").write_text(json.dumps(NAMES), encoding="utf-8")
    return out


@pytest.fixture(scope="module")
def seconds() -> Tensor:
    """Two tones and noise, (3, 48 000)."""
    time = torch.arange(AUDIO_RATE) / AUDIO_RATE
    noise = torch.randn(AUDIO_RATE, generator=torch.Generator().manual_seed(0))
    return 0.3 * torch.stack(((2760 * time).sin(), (18_000 * time).sin(), noise))


# Labels


def test_label_lists_that_come_with_it() -> None:
    assert [len(read_labels(DATA / f"{name}_labels.json")) for name in ("audioset", "avsbench", "avsbench_s4")] == [
        527, 70, 23,
    ]  # fmt: skip
    avsbench = read_targets(DATA / "avsbench_labels.json")
    assert list(avsbench) == [name.replace("-", " ") for name in CLASSES[1:]]  # without the background
    everyday = read_targets(DATA / "everyday_sounds.json")
    assert everyday["a dog barking"] == "dog" and everyday["wind"] is None and len(everyday) > 90


@pytest.mark.parametrize(
    ("content", "read"),
    [
        ("dog\n\n  a cat \n", {"dog": "dog", "a cat": "a cat"}),
        ("\ufeffdog\na cat\n", {"dog": "dog", "a cat": "a cat"}),
        ('\ufeff["dog", "a cat"]', {"dog": "dog", "a cat": "a cat"}),
        ('["dog", "a cat"]', {"dog": "dog", "a cat": "a cat"}),
        ('{"bark": "dog", "wind": null}', {"bark": "dog", "wind": None}),
    ],
)
def test_forms_of_label_lists(tmp_path: Path, content: str, read: dict[str, str | None]) -> None:
    path = tmp_path / ("labels.txt" if "\n" in content else "labels.json")
    path.write_text(content, encoding="utf-8")
    assert read_targets(path) == read and read_labels(path) == list(read)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "\n \n", "the list of labels is empty"),
        ("a.json", "[]", "the list of labels is empty"),
        ("a.json", "{}", "the list of labels is empty"),
        ("a.txt", "dog\ncat\nDog\n", "has 'Dog' twice"),
        ("a.json", '["dog", "cat", "dog "]', "has 'dog ' twice"),
        ("a.json", '{"dog": "dog", "dog": "cat"}', "it has the key 'dog' twice"),
        ("a.json", '{"dog": "dog", "cat": 3}', "not a JSON list of names, nor an object"),
        ("a.json", '{"dog": ""}', "not a JSON list of names, nor an object"),
        ("a.json", '["dog", 3]', "not a JSON list of names, nor an object"),
        ("a.json", "3", "not a JSON list of names, nor an object"),
        ("a.json", "[1, ", "not JSON"),
        ("a.txt", "d\xf6g", "not UTF-8 text"),
    ],
)
def test_bad_label_lists_are_refused_in_one_line(
    tmp_path: Path, name: str, content: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    path.write_bytes(content.encode("latin1"))
    words = ["--method", "concept_prompt", "--grounding.labels", str(path), "--out", str(tmp_path / "run")]
    assert evaluate.main(words) == 1  # before any model is looked for
    error = capsys.readouterr().err
    assert message in error and str(path) in error and error.count("\n") == 1


# Which labels count


class StubClassifier:
    """Gives each second the probabilities in it."""

    sample_rate = 16_000

    def __init__(self, labels: Sequence[str]):
        self.labels = list(labels)

    def probabilities(self, audio: Tensor) -> Tensor:
        return audio[:, : len(self.labels)]


class StubFinder:
    """Finds the left half for every target, with the certainty .9; keeps what it was asked for."""

    segmenter = None

    def __init__(self) -> None:
        self.asked: list[Wanted] = []

    def find(self, frames: Sequence[np.ndarray], wanted: Sequence[Wanted]) -> list[Found]:
        self.asked += wanted
        mask = np.zeros(FRAME.shape[:2], bool)
        mask[:, :45] = True
        return [
            ([ObjectMask(mask, 0.9, probability, label) for label, (_, probability) in each.items()], np.ones((1, 4)))
            for each in wanted
        ]


TARGETS = {"bark": "dog", "howl": "dog", "meow": "cat", "wind": None}


def concept(top_k: int = 2, min_confidence: float = 0.3) -> ConceptPrompt:
    options = Options(method="concept_prompt", grounding=GroundingOptions(top_k=top_k))
    options.concept = ConceptOptions(min_confidence=min_confidence)
    return ConceptPrompt(options, StubClassifier(list(TARGETS)), TARGETS, StubFinder())


@pytest.mark.parametrize(
    ("probabilities", "top_k", "heard", "asked"),
    [
        ([0.5, 0.0, 0.4, 0.1], 1, ["bark"], {"bark": ("dog", 0.5)}),
        ([0.5, 0.0, 0.4, 0.1], 2, ["bark", "meow"], {"bark": ("dog", 0.5), "meow": ("cat", 0.4)}),
        ([0.2, 0.1, 0.25, 0.2], 2, [], {}),  # nothing is sure enough
        ([0.1, 0.5, 0.3, 0.1], 2, ["bark", "meow"], {"bark": ("dog", 0.5), "meow": ("cat", 0.3)}),  # a dog, once
        ([0.0, 0.1, 0.3, 0.6], 2, ["wind", "meow"], {"meow": ("cat", 0.3)}),
        ([0.0, 0.1, 0.3, 0.6], 1, ["wind"], {}),  # which nothing that could be seen makes
    ],
)
def test_labels_that_are_sure_enough_are_looked_for(
    probabilities: list[float], top_k: int, heard: list[str], asked: Wanted
) -> None:
    method = concept(top_k)
    (prediction,) = method.predict([FRAME], torch.tensor([probabilities], dtype=torch.float64))
    assert list(prediction.labels) == heard and method.finder.asked == [asked]  # type: ignore[attr-defined]
    assert prediction.mask.any() == bool(asked) and prediction.mask.shape == FRAME.shape[:2]
    assert [each.label for each in prediction.objects] == list(asked)


def test_another_label_of_the_same_thing_keeps_it_in_a_track() -> None:
    method = concept()
    bark, howl = method.predict([FRAME] * 2, torch.tensor([[0.5, 0, 0, 0], [0, 0.7, 0, 0]], dtype=torch.float64))
    (dog,) = bark.objects
    assert howl.audio_agreement(dog.mask, dog.label) == pytest.approx(0.7)
    assert bark.audio_agreement(dog.mask, "meow") == 0 and method.sample_rate == 16_000


class StubDetector:
    """Finds as many boxes as the target has letters, the last one outside of the frame."""

    def detect_with_scores(self, frame: np.ndarray, caption: str, threshold: float) -> tuple[np.ndarray, np.ndarray]:
        boxes = [[10 * n, 0, 10 * n + 9, 9] for n in range(len(caption) - 1)] + [[-9, -9, -5, -5]]
        scores = np.linspace(0.9, 0.5, len(caption), dtype=np.float32)
        return np.array(boxes, np.float32)[scores > threshold], scores[scores > threshold]


class StubSegmenter:
    """Fills boxes."""

    def __init__(self) -> None:
        self.embedded = 0

    def embed(self, frames: Sequence[np.ndarray]) -> list[np.ndarray]:
        self.embedded += len(frames)
        return list(frames)

    def prompt(self, embedding: np.ndarray, boxes: np.ndarray, multimask: bool) -> tuple[Tensor, Tensor]:
        assert not multimask
        masks = torch.zeros(len(boxes), 1, *embedding.shape[:2], dtype=torch.bool)
        for mask, (left, top, right, bottom) in zip(masks, boxes.astype(int), strict=True):
            mask[0, max(0, top) : max(0, bottom), max(0, left) : max(0, right)] = True
        return masks, torch.full((len(boxes), 1), 0.8)


def test_boxes_of_every_label_become_objects() -> None:
    segmenter = StubSegmenter()
    finder = BoxFinder(StubDetector(), segmenter, 0.3)  # type: ignore[arg-type]
    wanted: list[Wanted] = [{}, {"bark": ("dog", 0.5), "x": ("ox", 0.2)}, {}]
    nothing, (objects, boxes), _ = finder.find([FRAME] * 3, wanted)
    assert nothing[0] == [] and nothing[1].shape == (0, 4) and segmenter.embedded == 1
    assert len(boxes) == 5
    found = [(each.label, each.audio_score, round(each.detection_score, 2)) for each in objects]
    assert found == [("bark", 0.5, 0.9), ("bark", 0.5, 0.7), ("x", 0.2, 0.9)]  # boxes outside give no mask
    assert all(each.predicted_iou == pytest.approx(0.8) for each in objects)
    finder.threshold = 0.95
    assert [len(found) for found, _ in finder.find([FRAME] * 3, wanted)] == [0, 0, 0] and segmenter.embedded == 1


# Models


@torch.inference_mode()
def test_clap_is_as_sure_as_transformers(folders: Path, seconds: Tensor) -> None:
    classifier = ClapClassifier(folders / "clap", folders / "names.json")
    mel = classifier.feature_extractor(
        [second.repeat(10).numpy() for second in seconds], sampling_rate=AUDIO_RATE, return_tensors="pt"
    )
    tokens = classifier.tokenizer(NAMES, padding=True, return_tensors="pt")
    output = classifier.model(**tokens, input_features=mel["input_features"])
    found = classifier.probabilities(seconds)
    torch.testing.assert_close(found, output.logits_per_audio.softmax(dim=1), atol=1e-4, rtol=0)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(3))
    assert [NAMES[index] for index in found.argmax(dim=1)] == [names[0] for names in classifier.classify(seconds)]


@torch.inference_mode()
def test_pe_a_frame_is_as_sure_as_transformers(folders: Path, seconds: Tensor) -> None:
    classifier = PEAFrameClassifier(folders / "pe-a-frame", folders / "names.json")
    tokens = classifier.tokenizer(NAMES, padding=True, return_tensors="pt")
    output = classifier.model(tokens["input_ids"], seconds[:, None], tokens["attention_mask"])
    plain = output.logits_audio_text.sigmoid()
    assert plain.shape == (3, len(NAMES), 25)  # frames of 40 ms
    found = classifier.probabilities(seconds)
    torch.testing.assert_close(found, plain.amax(dim=2), atol=1e-5, rtol=0)
    assert found.std(dim=0).min() > 1e-4 and found.std(dim=1).min() > 1e-4 and classifier.sample_rate == AUDIO_RATE
    alone = torch.cat([classifier.probabilities(second[None]) for second in seconds])
    torch.testing.assert_close(found, alone, atol=1e-5, rtol=0)
    assert classifier.probabilities(seconds[:0]).shape == (0, len(NAMES))
    for bad in (seconds[0], torch.zeros(1, 0), torch.full((1, 48_000), torch.nan)):
        with pytest.raises(ValueError, match="audio"):
            classifier.probabilities(bad)


def test_the_detector_may_be_either(folders: Path) -> None:
    detector = GroundingDinoDetector(folders / "detector")
    assert type(detector.model).__name__ == "MMGroundingDinoForObjectDetection"
    boxes, scores = detector.detect_with_scores(FRAME, "dog", 0.0)
    assert boxes.shape == (12, 4) and scores.shape == (12,) and np.ptp(scores) > 0
    kept, kept_scores = detector.detect_with_scores(FRAME, "dog", float(np.median(scores)))
    assert np.array_equal(kept, boxes[scores > np.median(scores)]) and len(kept_scores) == len(kept)


@torch.inference_mode()
def test_sam3_gives_the_instances_of_transformers(folders: Path) -> None:
    detector = Sam3Detector(folders / "sam3")
    both = detector.find(FRAME, ["dog", "cat"], 0.0, 0.0)
    for text, ours in zip(("dog", "cat"), both, strict=True):
        inputs = detector.processor(images=FRAME, text=text, return_tensors="pt")
        output = detector.model(
            pixel_values=inputs["pixel_values"], input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]
        )
        scores = output.pred_logits[0].sigmoid() * output.presence_logits[0].sigmoid()
        np.testing.assert_allclose(ours.scores, scores, atol=1e-5)
        assert ours.masks.shape == (6, 60, 90) and ours.masks.dtype == bool and ours.boxes.shape == (6, 4)
        assert ours.presence == pytest.approx(float(output.presence_logits.sigmoid()), abs=1e-5)
        kept = detector.find(FRAME, [text], float(np.median(ours.scores)), 0.0)[0]
        assert len(kept.masks) == 3 and np.array_equal(kept.masks, ours.masks[ours.scores > np.median(ours.scores)])
        absent = detector.find(FRAME, [text], 0.0, min(1.0, ours.presence + 1e-3))[0]
        assert absent.masks.shape == (0, 60, 90) and absent.presence == pytest.approx(ours.presence)
    assert not np.allclose(both[0].scores, both[1].scores)
    assert detector.find(FRAME, [], 0.0, 0.0) == []
    objects, boxes = TextFinder(detector, 0.0, 0.0).find([FRAME], [{"bark": ("dog", 0.4)}])[0]
    assert len(boxes) == 6 and {(each.label, each.audio_score) for each in objects} == {("bark", 0.4)}


# As commands


def words(folders: Path, out: Path, *more: str) -> list[str]:
    where = {"clap": "grounding.clap", "detector": "grounding.detector", "names.json": "grounding.labels"}
    where |= {"pe-a-frame": "concept.pe_a_frame", "sam3": "concept.sam3"}
    found = ["--method", "concept_prompt", "--sam.model", "mini", "--sam.weights", "mini", "--run.device", "cpu"]
    for name, option in where.items():
        found += [f"--{option}", str(folders / name)]
    found += ["--grounding.threshold", "0.01", "--concept.min_confidence", "0", "--concept.min_presence", "0"]
    return [*found, "--run.use_cache", "false", "--data.num_workers", "0", "--out", str(out), *more]


@pytest.mark.parametrize("classifier", ["clap", "pe_a_frame"])
@pytest.mark.parametrize("finder", ["detector", "sam3"])
def test_it_runs_with_tiny_models(folders: Path, composed: Path, tmp_path: Path, classifier: str, finder: str) -> None:
    more = ["--concept.classifier", classifier, "--concept.finder", finder, "--data.max_clips", "1", "--masks"]
    root = ["--data.root", str(composed / "Single-source")]
    assert evaluate.main(words(folders, tmp_path / "run", *root, *more)) == 0
    found = json.loads((tmp_path / "run" / "metrics.json").read_text())
    used = {Path(name).parent.name for name in found["checkpoints"]}
    assert used == {
        "clap" if classifier == "clap" else "pe-a-frame", *(["sam3"] if finder == "sam3" else ["detector", "mini"]),
    }  # fmt: skip
    assert found["videos"] == 1 and len(list((tmp_path / "run" / "masks").rglob("*.png"))) == 5


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--grounding.clap", "clap-htsat-unfused"], "python -m pretrained.download clap-htsat-unfused gets it"),
        (
            ["--grounding.detector", "IDEA-Research/grounding-dino-tiny"],
            "python -m pretrained.download grounding-dino-tiny gets it",
        ),
        (["--grounding.detector", "someone/detector"], "someone/detector: no such folder"),
        (["--grounding.detector", "grounding-dino-huge"], "no checkpoint of this name"),
        (["--concept.finder", "sam3", "--concept.sam3", "sam3"], "(gated: ask for access at"),
        (["--concept.min_confidence", "1.5"], "concept.min_confidence is 1.5; it must be"),
        (["--grounding.top_k", "9"], "grounding.top_k is 9; it must be from 1 to 4, the number of labels"),
    ],
)
def test_what_is_missing_is_said_in_one_line(
    folders: Path, tmp_path: Path, more: list[str], message: str, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("SAM4AVS_WEIGHTS", str(tmp_path))
    assert evaluate.main(words(folders, tmp_path / "run", *more)) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_without_the_package(folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    for build in (
        lambda: PEAFrameClassifier(folders / "pe-a-frame", folders / "names.json"),
        lambda: Sam3Detector(folders / "sam3"),
    ):
        with pytest.raises(InputError, match=r"pip install -e .\[grounding\]"):
            build()


def test_no_gated_or_non_commercial_model_is_a_default() -> None:
    limited = {entry.name for entry in list_checkpoints() if entry.gated or entry.non_commercial}
    assert "sam3" in limited
    for method in METHODS:
        used = {checkpoint_name(path) for path in Options(method=method).checkpoint_files()}  # type: ignore[arg-type]
        assert not used & limited
    with pytest.raises(InputError):
        build_method(Options(method="concept_prompt", grounding=GroundingOptions(clap="nowhere/folder")))


# On the page of a demo


@pytest.mark.parametrize(
    ("labels", "scores", "words"),
    [
        (["bark"], {"bark": 0.62, "meow": 0.071}, "labels “bark” 62 %; less surely “meow” 7 %"),
        (["bark", "meow"], {"bark": 0.5, "meow": 0.4}, "labels “bark” 50 %, “meow” 40 %"),
        ([], {"wind": 0.12}, "no label is sure enough; at best “wind” 12 %"),
        (["bark"], {}, "labels “bark”"),
        ([], {}, ""),
    ],
)
def test_what_a_second_is_called(labels: list[str], scores: dict[str, float], words: str) -> None:
    assert describe_labels(MaskRecord(1, 0, False, 0.1, labels, scores)) == words


def test_the_page_says_which_models_and_how_surely(
    folders: Path, clip_file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video, sizes = clip_file("concept.mp4", seconds=3, fps=4), []
    find = BoxFinder.find

    def noting(self: BoxFinder, frames: Sequence[np.ndarray], wanted: Sequence[Wanted]) -> list[Found]:
        sizes.extend(frame.shape for frame in frames)
        return find(self, frames, wanted)

    monkeypatch.setattr(BoxFinder, "find", noting)
    out = tmp_path / "out"
    assert demo.main([str(video), *words(folders, out, "--concept.image_size", "60")]) == 0
    assert sizes == [(45, 60, 3)] * 3  # not 224 × 224: the aspect ratio stays
    assert {read_image(path).shape[:2] for path in (out / "masks").iterdir()} == {(48, 64)}
    page = (out / "index.html").read_text(encoding="utf-8")
    for said in ("CLAP names the sound: ", "GroundingDINO finds what is named: ", "Segment Anything segments: mini"):
        assert said in page
    records = [json.loads(line) for line in (out / "masks.jsonl").read_text().splitlines()]
    for record in records:
        (label,) = record["labels"]
        assert next(iter(record["label_scores"])) == label and 0 < record["label_scores"][label] <= 1
        assert f"labels “{label}” {100 * record['label_scores'][label]:.0f} %; less surely “" in page
