"""SAM 2.1, EdgeTAM and SAM 3's tracker against transformers' own calls, by tiny random networks of the real classes."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from synthetic.random_sam2 import random_folder
from tests.helpers.random_sam3 import save_sam3_video
from utils.cli import InputError
from zero_shot.detectors.sam3 import Sam3Detector
from zero_shot.method_options import ProposalOptions
from zero_shot.model_options import Sam2Options
from zero_shot.options import Options
from zero_shot.segmenters import SEGMENTERS
from zero_shot.segmenters.base import Segmenter
from zero_shot.segmenters.sam2 import Sam2Segmenter
from zero_shot.segmenters.sam2_families import FAMILIES, load_network

SIZES = [(90, 160), (128, 128), (161, 97), (90, 160)]
POINTS, LABELS = np.array([[20.0, 30.0], [100.0, 50.0]]), np.array([1, 0])
BOXES = np.array([[10.0, 20.0, 60.0, 70.0], [5.0, 5.0, 120.0, 80.0], [33.5, 1.0, 34.0, 80.0]])
EVERYTHING = ProposalOptions(5, -1e9, 0.0, 1.0, 1.0)


def frames_of(sizes: list[tuple[int, int]], seed: int = 0) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder for each family, of a video network, and "image" of an image-only one. Read only."""
    root = tmp_path_factory.mktemp("sam2")
    made = {family: random_folder(root / family, family) for family in FAMILIES}
    return {**made, "image": random_folder(root / "image", "sam2", video=False)}


@pytest.fixture(scope="session")
def segmenters(folders: dict[str, Path]) -> dict[str, Sam2Segmenter]:
    return {family: Sam2Segmenter(*load_network(folders[family], family, tracks=False)) for family in FAMILIES}


@pytest.fixture(params=FAMILIES)
def segmenter(request: pytest.FixtureRequest, segmenters: dict[str, Sam2Segmenter]) -> Sam2Segmenter:
    return segmenters[request.param]


def build(folder: Path, segmenter: str = "sam2", **changes: Any) -> Segmenter:
    options = replace(Options(), segmenter=segmenter, sam2=Sam2Options(str(folder)), **changes)
    return SEGMENTERS[segmenter](options, torch.device("cpu"), None)


@torch.no_grad()
def stock(model: Any, processor: Any, frame: np.ndarray, **prompt: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Masks (K, C, H, W) and predicted IoU (K, C) by transformers' processor, network and post-processing.

    The maps are rounded as ours are: which of its masks a network gives may depend on the last digit.
    """
    import transformers

    whole = transformers.Sam2Processor(processor, target_size=model.prompt_encoder.input_image_size)
    inputs = whole(images=frame, return_tensors="pt", **{k: v for k, v in prompt.items() if k.startswith("input")})
    sizes = inputs.pop("original_sizes")
    maps = [part.half().float() for part in model.get_image_embeddings(inputs.pop("pixel_values"))]
    output = model(**inputs, image_embeddings=maps, multimask_output=prompt.get("multimask", True))
    return whole.post_process_masks(output.pred_masks, sizes)[0], output.iou_scores[0]


def agree(ours: tuple[torch.Tensor, torch.Tensor], theirs: tuple[torch.Tensor, torch.Tensor]) -> None:
    assert ours[0].dtype == torch.bool and ours[0].shape == theirs[0].shape
    assert (ours[0] != theirs[0]).float().mean() < 1e-3
    torch.testing.assert_close(ours[1], theirs[1], atol=1e-3, rtol=0)


@pytest.mark.parametrize("family", ["sam2", "edgetam"])  # see test_sam3_adds_the_embedding_of_no_memory
@pytest.mark.parametrize("multimask", [True, False])
def test_prompts_give_transformers_masks(segmenters: dict[str, Sam2Segmenter], family: str, multimask: bool) -> None:
    segmenter = segmenters[family]
    model, processor = segmenter.network, segmenter.image_processor
    for frame, embedding in zip(frames_of(SIZES[:2]), segmenter.embed(frames_of(SIZES[:2])), strict=True):
        points, labels, boxes = [[POINTS.tolist()]], [[LABELS.tolist()]], [BOXES.tolist()]
        ours = segmenter.prompt(embedding, points=POINTS, labels=LABELS, multimask=multimask)
        agree(ours, stock(model, processor, frame, input_points=points, input_labels=labels, multimask=multimask))
        ours = segmenter.prompt(embedding, boxes=BOXES, multimask=multimask)
        agree(ours, stock(model, processor, frame, input_boxes=boxes, multimask=multimask))
        joined = {"input_points": [[POINTS.tolist()] * 3], "input_labels": [[LABELS.tolist()] * 3]}
        ours = segmenter.prompt(embedding, points=POINTS, labels=LABELS, boxes=BOXES, multimask=multimask)
        agree(ours, stock(model, processor, frame, input_boxes=boxes, **joined, multimask=multimask))
        assert ours[0].shape == (3, 3 if multimask else 1, *frame.shape[:2])


def test_sam3_adds_the_embedding_of_no_memory(folders: dict[str, Path]) -> None:
    """transformers' image class adds it to a fourth map that it does not use, its video class to the third as SAM 3."""
    models = [load_network(folders["sam3_tracker"], "sam3_tracker", tracks=tracks) for tracks in (False, True)]
    frame = frames_of(SIZES[1:2])[0]
    found = []
    for model, processor in models:
        model.no_memory_embedding.data.fill_(0.7)
        segmenter = Sam2Segmenter(model, processor)
        found.append(segmenter.prompt(segmenter.embed([frame])[0], boxes=BOXES[:1]))
    pixels = models[1][1](torch.from_numpy(frame).permute(2, 0, 1), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        *fine, coarse = models[1][0].get_image_embeddings(pixels)
        scale = torch.tensor([112 / 128] * 4)
        output = models[1][0]._single_frame_forward(
            input_boxes=(torch.tensor(BOXES[:1]).float() * scale)[None], image_embeddings=[*fine, coarse]
        )
    for _, scores in found:
        torch.testing.assert_close(scores, output.iou_scores[0], atol=2e-2, rtol=0)


def test_masks_depend_on_the_prompt(segmenter: Sam2Segmenter) -> None:
    """Without this the comparisons would compare one mask with itself."""
    embedding = segmenter.embed(frames_of(SIZES[:1]))[0]
    masks, scores = segmenter.prompt(embedding, boxes=BOXES)
    assert len({mask.numpy().tobytes() for mask in masks.flatten(0, 1)}) == 9
    assert ((masks.float().mean((2, 3)) > 0.01) & (masks.float().mean((2, 3)) < 0.99)).float().mean() > 0.3
    assert scores.std() > 0.01 and scores.min() > 0 and scores.max() < 1


def test_a_batch_equals_single_frames(segmenter: Sam2Segmenter) -> None:
    frames = frames_of(SIZES)
    together = Sam2Segmenter(segmenter.network, segmenter.image_processor, memory_mib=4096)
    assert together.images_per_batch > 2
    for one, frame in zip(together.embed(frames), frames, strict=True):
        alone = segmenter.embed([frame])[0]
        assert one.size == alone.size == frame.shape[:2] and one.content == alone.content
        for left, right in zip(one.maps, alone.maps, strict=True):
            torch.testing.assert_close(left, right, atol=2e-2, rtol=2e-3)  # of float16


def test_prompts_in_chunks_equal_the_whole(segmenter: Sam2Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    embedding = segmenter.embed(frames_of(SIZES[:1]))[0]
    whole = segmenter.prompt(embedding, boxes=BOXES)
    monkeypatch.setattr(segmenter, "memory", 1)
    assert segmenter.prompts_per_batch(3, embedding.size) == 1
    chunks = segmenter.prompt(embedding, boxes=BOXES)
    alone = [segmenter.prompt(embedding, boxes=box[None]) for box in BOXES]
    for other in (chunks, tuple(torch.cat(parts) for parts in zip(*alone, strict=True))):
        assert (whole[0] != other[0]).float().mean() < 1e-4
        torch.testing.assert_close(whole[1], other[1], atol=1e-5, rtol=0)


def test_no_prompt_gives_no_mask(segmenter: Sam2Segmenter) -> None:
    embedding = segmenter.embed(frames_of(SIZES[:1]))[0]
    masks, scores = segmenter.prompt(embedding, boxes=np.empty((0, 4)))
    assert masks.shape == (0, 3, 90, 160) and scores.shape == (0, 3)
    with pytest.raises(ValueError, match="a prompt consists of points"):
        segmenter.prompt(embedding)


def test_bf16_stays_near_float32(segmenter: Sam2Segmenter) -> None:
    frame = frames_of(SIZES[1:2])[0]
    rough = Sam2Segmenter(segmenter.network, segmenter.image_processor, precision="bf16")
    one, other = rough.embed([frame])[0], segmenter.embed([frame])[0]
    for left, right in zip(one.maps, other.maps, strict=True):
        difference = (left.float() - right.float()).norm() / right.float().norm()
        assert 0 < difference < 0.03
    masks, scores = rough.prompt(one, boxes=BOXES)
    masks_32, scores_32 = segmenter.prompt(other, boxes=BOXES)
    assert scores.dtype == torch.float32 and (scores - scores_32).abs().max() < 0.15
    assert (masks != masks_32).float().mean() < 0.05


def test_proposals_are_the_masks_of_the_grid(segmenter: Sam2Segmenter) -> None:
    """Without thresholds every point gives its three masks; with them a subset, by descending predicted IoU."""
    frame = frames_of(SIZES[:1])[0]
    every = segmenter.propose([frame], EVERYTHING)[0]
    embedding = segmenter.embed([frame])[0]
    assert len(every) == 3 * 5**2
    for record in every[::10]:
        masks, scores = segmenter.prompt(embedding, points=np.array(record["point_coords"]), labels=np.array([1]))
        which = int((scores[0] - record["predicted_iou"]).abs().argmin())
        assert scores[0, which] == pytest.approx(record["predicted_iou"], abs=1e-4)
        assert (masks[0, which].numpy() != record["segmentation"]).mean() < 1e-3
        assert record["area"] == record["segmentation"].sum()
    scores = np.array([record["predicted_iou"] for record in every])
    threshold = float(np.sort(scores)[37:39].mean())
    kept = segmenter.propose([frame], replace(EVERYTHING, pred_iou_thresh=threshold))[0]
    assert len(kept) == (scores > threshold).sum() and 20 < len(kept) < 60
    assert [record["predicted_iou"] for record in kept] == sorted((s for s in scores if s > threshold), reverse=True)
    assert segmenter.propose([frame], replace(EVERYTHING, pred_iou_thresh=1.0)) == [[]]


def test_shortcuts_give_the_decoders_records(segmenter: Sam2Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same records by FastSam2Decoder as by the network's own mask decoder in batches."""
    frame = frames_of(SIZES[:1])[0]
    fast = segmenter.propose([frame], EVERYTHING)[0]
    called = []
    forward = segmenter.network.mask_decoder.forward
    monkeypatch.setattr(
        segmenter.network.mask_decoder, "forward", lambda **inputs: (called.append(1), forward(**inputs))[1]
    )
    segmenter.propose([frame], EVERYTHING)
    assert not called
    monkeypatch.setattr("zero_shot.segmenters.sam2.shortcuts_hold", lambda decoder: False)
    batched = segmenter.propose([frame], EVERYTHING)[0]
    assert called and len(fast) == len(batched) == 75
    for one, other in zip(fast, batched, strict=True):
        assert one["point_coords"] == other["point_coords"]
        assert one["predicted_iou"] == pytest.approx(other["predicted_iou"], abs=1e-4)
        assert (one["segmentation"] != other["segmentation"]).mean() < 1e-3


def test_the_cache_keeps_the_same_bits(folders: dict[str, Path], tmp_path: Path) -> None:
    frames = frames_of(SIZES[:3])
    model, processor = load_network(folders["sam2"], "sam2", tracks=False)
    plain = Sam2Segmenter(model, processor).embed(frames)
    cached = Sam2Segmenter(model, processor, cache=tmp_path)
    first = cached.embed([*frames, frames[0]])
    model.get_image_features = None  # whoever calls it now fails
    again = cached.embed(frames)
    for one, two, three in zip(plain, first, again, strict=False):
        assert all(
            torch.equal(a, b) and torch.equal(b, c) for a, b, c in zip(one.maps, two.maps, three.maps, strict=True)
        )
    (size, *_) = {path.stat().st_size for path in tmp_path.rglob("*.safetensors")}
    values = sum(part.numel() for part in plain[0].maps)
    assert 2 * values < size < 2 * values + 1000


def test_cache_addresses_differ_by_backend_but_not_by_class(folders: dict[str, Path], tmp_path: Path) -> None:
    frame = frames_of(SIZES[1:2])
    counts = []
    for family in FAMILIES:
        for tracks in (False, True):  # the class that tracks encodes frames as the other does
            Sam2Segmenter(*load_network(folders[family], family, tracks=tracks), cache=tmp_path).embed(frame)
            counts.append(len(list(tmp_path.rglob("*.safetensors"))))
    assert counts == [1, 1, 2, 2, 3, 3]
    model, processor = load_network(folders["sam2"], "sam2", tracks=False)
    Sam2Segmenter(model, processor, cache=tmp_path, precision="bf16").embed(frame)
    processor.image_mean = [0.0, 0.0, 0.0]
    Sam2Segmenter(model, processor, cache=tmp_path).embed(frame)
    model.no_memory_embedding.data.add_(1)
    Sam2Segmenter(model, processor, cache=tmp_path).embed(frame)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 6


def test_a_folder_of_sam3s_detector_and_tracker(tmp_path: Path) -> None:
    """The kind of folder that facebook/sam3 is: each of its networks gets its own weights."""
    save_sam3_video(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    assert {name.split(".")[0] for name in saved} == {"detector_model", "tracker_model", "tracker_neck"}
    trackers = {tracks: load_network(tmp_path, "sam3_tracker", tracks=tracks)[0] for tracks in (False, True)}
    prefixes = {
        "vision_encoder.backbone.": "detector_model.vision_encoder.backbone.",
        "vision_encoder.neck.": "tracker_neck.",
    }
    for network in trackers.values():
        for name, weight in network.state_dict().items():
            source = next(
                (name.replace(own, other, 1) for own, other in prefixes.items() if name.startswith(own)), None
            )
            assert torch.equal(weight, saved[source or f"tracker_model.{name}"]), name
    detector = Sam3Detector(tmp_path).model.state_dict()
    assert all(torch.equal(weight, saved[f"detector_model.{name}"]) for name, weight in detector.items())
    segmenter = build(tmp_path, "sam3_tracker")
    masks, _ = segmenter.prompt(segmenter.embed([np.zeros((30, 40, 3), np.uint8)])[0], boxes=BOXES)
    assert masks.shape[-2:] == (30, 40)


@pytest.mark.parametrize("family", FAMILIES)
def test_segmenters_are_built_by_name(folders: dict[str, Path], family: str) -> None:
    built = build(folders[family], family)
    assert isinstance(built, Sam2Segmenter) and not hasattr(built.network, "memory_attention")
    tracking = build(folders[family], family, track="both")
    assert isinstance(tracking, Sam2Segmenter) and hasattr(tracking.network, "memory_attention")


def test_the_configuration_of_a_whole_processor_is_read(folders: dict[str, Path], tmp_path: Path) -> None:
    """Folders of the hub have processor_config.json, with the image processor in it."""
    import transformers

    folder = Path(shutil.copytree(folders["sam2"], tmp_path / "copy"))
    (folder / "preprocessor_config.json").unlink()
    _, processor = load_network(folders["sam2"], "sam2", tracks=False)
    transformers.Sam2Processor(processor).save_pretrained(folder)
    assert (folder / "processor_config.json").is_file() and not (folder / "preprocessor_config.json").exists()
    again = load_network(folder, "sam2", tracks=False)[1]
    assert again.to_dict() == processor.to_dict()


def test_an_image_only_folder_segments_but_does_not_track(folders: dict[str, Path]) -> None:
    assert isinstance(build(folders["image"]), Sam2Segmenter)
    with pytest.raises(InputError, match=r"an image-only sam2 .*cannot track; save it as Sam2VideoModel$"):
        build(folders["image"], track="both")


def test_missing_memory_modules_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    """transformers would fill them with random weights, without a word."""
    folder = Path(shutil.copytree(folders["sam2"], tmp_path / "copy"))
    state = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in state.items() if not name.startswith("memory_")}
    assert len(kept) < len(state)
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"weights are missing: memory_"):
        build(folder, track="forward")
    assert isinstance(build(folder), Sam2Segmenter)  # images need no memory


def test_other_folders_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--segmenter edgetam \(model_type 'edgetam_video'\), not of sam2"):
        build(folders["edgetam"])
    with pytest.raises(InputError, match=r"nowhere: no such folder; it has to be .* facebook/sam2"):
        build(tmp_path / "nowhere")
    for name in ("sam2.1-hiera-tiny", "facebook/sam2.1-hiera-tiny"):
        with pytest.raises(InputError, match=r"python -m pretrained.download sam2.1-hiera-tiny gets it$"):
            build(Path(name))
    with pytest.raises(InputError, match=r"sam_vit_h_4b8939\.pth: no such folder; it has to be .* facebook/sam2"):
        build(Path("sam-vit-h"))  # registered, but a file
    with pytest.raises(InputError, match="no checkpoint of this name"):
        build(Path("sam2-gigantic"))
    damaged = Path(shutil.copytree(folders["sam2"], tmp_path / "damaged"))
    (damaged / "model.safetensors").write_bytes((damaged / "model.safetensors").read_bytes()[:-1000])
    with pytest.raises(InputError, match="damaged: "):
        build(damaged)
    config = json.loads((damaged / "config.json").read_text())
    (damaged / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "code.Model"}}))
    with pytest.raises(InputError, match="auto_map would be downloaded"):
        build(damaged)


def test_without_the_package(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match=r"pip install -e .\[grounding\]"):
        build(folders["sam2"])


def test_compiling_is_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(InputError, match=r"run\.compile is for segmenter sam"):
        build(folders["sam2"], run=replace(Options().run, compile=True))
