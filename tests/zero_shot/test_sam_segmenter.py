"""Prompts and embeddings against `SamPredictor`; encoder and upscaling against segment-anything."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from segment_anything import SamPredictor
from segment_anything.modeling import ImageEncoderViT, Sam

from models.sam import SamConfig
from reference.random_sam import MINI, random_sam
from zero_shot.segmenters.sam import ImageEmbedding, SamSegmenter, upscale_matrix
from zero_shot.segmenters.sam_encoder import encode

SIZES = [(224, 224), (90, 160), (161, 97), (300, 300), (8, 200)]


def frames_of(sizes: list[tuple[int, int]], seed: int = 0) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


@pytest.fixture(scope="module")
def sam() -> Sam:
    return random_sam(seed=2)


@pytest.fixture(scope="module")
def predictor(sam: Sam) -> SamPredictor:
    return SamPredictor(sam)


def agree(ours: tuple[torch.Tensor, torch.Tensor], masks: np.ndarray, scores: np.ndarray) -> None:
    """Shapes alike, fewer than one pixel in 10,000 different, the same predicted IoU but for rounding."""
    assert ours[0].dtype == torch.bool and ours[0].shape == masks.shape and ours[1].shape == scores.shape
    assert (ours[0].numpy() != masks).mean() < 1e-4
    np.testing.assert_allclose(ours[1].numpy(), scores, atol=2e-5)


def test_embeddings_are_the_predictors(sam: Sam, predictor: SamPredictor) -> None:
    for frame, embedded in zip(frames_of(SIZES), SamSegmenter(sam).embed(frames_of(SIZES)), strict=True):
        predictor.set_image(frame)
        assert embedded.size == predictor.original_size and embedded.scaled == predictor.input_size
        torch.testing.assert_close(embedded.features[None], predictor.features, atol=1e-5, rtol=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(SIZES), st.integers(1, 40), st.integers(0, 10**6), st.booleans(), st.booleans())
def test_points_give_the_predictors_masks(
    sam: Sam, predictor: SamPredictor, size: tuple[int, int], count: int, seed: int, multimask: bool, whole: bool
) -> None:
    generator = np.random.default_rng(seed)
    points = generator.uniform(0, 1, (count, 2)) * (size[1], size[0])
    points = points.astype(int) if whole else points
    labels = generator.integers(0, 2, count)
    frame = frames_of([size], seed)[0]
    predictor.set_image(frame)
    masks, scores, _ = predictor.predict(points, labels, multimask_output=multimask)
    segmenter = SamSegmenter(sam)
    ours = segmenter.prompt(segmenter.embed([frame])[0], points=points, labels=labels, multimask=multimask)
    agree(ours, masks[None], scores[None])


@pytest.mark.parametrize("multimask", [True, False])
@pytest.mark.parametrize("memory", [1, 2048])
def test_boxes_give_the_predictors_masks(sam: Sam, predictor: SamPredictor, multimask: bool, memory: int) -> None:
    frame = frames_of([(90, 160)])[0]
    boxes = np.array([[10, 20, 60, 70], [0, 0, 159, 89], [33.5, 1, 34, 80], [50, 50, 50, 50]])
    predictor.set_image(frame)
    segmenter = SamSegmenter(sam, memory_mib=memory)
    embedded = segmenter.embed([frame])[0]
    ours = segmenter.prompt(embedded, boxes=boxes, multimask=multimask)
    corners = predictor.transform.apply_boxes_torch(torch.tensor(boxes), (90, 160)).float()
    masks, scores, _ = predictor.predict_torch(None, None, corners, multimask_output=multimask)
    agree(ours, masks.numpy(), scores.numpy())
    masks, scores, _ = predictor.predict(box=boxes[0], multimask_output=multimask)
    agree((ours[0][:1], ours[1][:1]), masks[None], scores[None])


def test_points_join_every_box(sam: Sam, predictor: SamPredictor) -> None:
    frame = frames_of([(90, 160)])[0]
    points, labels = np.array([[20, 30], [100, 50]]), np.array([1, 0])
    boxes = np.array([[10, 20, 60, 70], [5, 5, 120, 80]])
    predictor.set_image(frame)
    segmenter = SamSegmenter(sam)
    ours = segmenter.prompt(segmenter.embed([frame])[0], points=points, labels=labels, boxes=boxes)
    stock = [predictor.predict(points, labels, box)[:2] for box in boxes]
    agree(ours, np.stack([masks for masks, _ in stock]), np.stack([scores for _, scores in stock]))


def test_no_boxes_give_no_masks(sam: Sam) -> None:
    segmenter = SamSegmenter(sam)
    masks, scores = segmenter.prompt(segmenter.embed(frames_of([(90, 160)]))[0], boxes=np.empty((0, 4)))
    assert masks.shape == (0, 3, 90, 160) and scores.shape == (0, 3)


def test_masks_of_the_random_sam_depend_on_the_prompt(sam: Sam) -> None:
    """Without this the comparisons above would compare one mask with itself."""
    segmenter = SamSegmenter(sam)
    embedded = segmenter.embed(frames_of([(224, 224)]))[0]
    places = [np.array([[x, y]]) for x in (30, 110, 190) for y in (30, 110, 190)]
    masks = [segmenter.prompt(embedded, points=place, labels=np.array([1]))[0] for place in places]
    shares = torch.stack([mask.float().mean((0, 2, 3)) for mask in masks])
    assert ((shares > 0.01) & (shares < 0.99)).float().mean() > 0.2
    assert len({mask.numpy().tobytes() for mask in masks}) == len(masks)


def test_prompts_without_a_label_for_each_point_are_refused(sam: Sam) -> None:
    segmenter = SamSegmenter(sam)
    embedded = segmenter.embed(frames_of([(90, 160)]))[0]
    one, point = np.array([1]), np.array([[3, 4]])
    for bad in ({}, {"points": point}, {"points": point, "labels": np.array([1, 0])}, {"labels": one, "boxes": None}):
        with pytest.raises(ValueError, match="points with one label each"):
            segmenter.prompt(embedded, **bad)


@pytest.mark.parametrize("frame", [np.zeros((4, 4)), np.zeros((4, 4, 3)), np.zeros((4, 4, 4), np.uint8)])
def test_arrays_that_are_not_frames_are_refused(sam: Sam, frame: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected a frame"):
        SamSegmenter(sam).embed([frame])


def test_the_memory_budget_changes_no_number(sam: Sam) -> None:
    frames = frames_of(SIZES)
    large, small = (SamSegmenter(sam, memory_mib=memory) for memory in (2048, 1))
    assert large.images_per_batch > 5 > small.images_per_batch == 1
    for one, other in zip(large.embed(frames), small.embed(frames), strict=True):
        torch.testing.assert_close(one.features, other.features, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("memory", [1, 2**14, 2**30])
def test_encoder_equals_segment_anything(memory: int) -> None:
    sizes = SamConfig(32, 3, 2, (1,), image_size=128, window=3, channels=16, decoder_mlp=16, iou_hidden=16)
    encoder: ImageEncoderViT = random_sam(sizes).image_encoder
    for block in encoder.blocks:
        block.attn.rel_pos_h.normal_(0, 0.5)
        block.attn.rel_pos_w.normal_(0, 0.5)
    images = torch.randn(3, 3, 128, 128)
    torch.testing.assert_close(encode(encoder, images, memory), encoder(images), atol=1e-5, rtol=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 400), st.integers(1, 400))
def test_upscaling_equals_segment_anything(sam: Sam, height: int, width: int) -> None:
    segmenter = SamSegmenter(sam)
    scaled = segmenter.transform.get_preprocess_shape(height, width, 256)
    if min(scaled) < 1:
        return  # a frame so thin that SAM itself cannot take it
    embedded = ImageEmbedding(torch.empty(0), (height, width), scaled, "")
    low = torch.randn(2, 3, 64, 64)
    expected = sam.postprocess_masks(low, scaled, (height, width))
    torch.testing.assert_close(segmenter.upscale(low, embedded), expected, atol=1e-5, rtol=1e-5)


def test_rows_of_the_upscaling_matrix_sum_to_one() -> None:
    matrix = upscale_matrix(64, 256, 144, 90)
    assert matrix.shape == (90, 64)
    torch.testing.assert_close(matrix.sum(1), torch.ones(90))
    assert not matrix[:, 37:].any()  # beyond the frame SAM saw only padding


def test_cached_embeddings_are_identical(sam: Sam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = frames_of(SIZES[:3])
    first = SamSegmenter(sam, cache=tmp_path).embed([*frames, frames[0]])
    assert torch.equal(first[0].features, first[3].features)
    again = SamSegmenter(sam, cache=tmp_path)
    monkeypatch.setattr("zero_shot.segmenters.sam.encode", None)  # whoever calls it now fails
    for one, other in zip(first, again.embed([*frames, frames[0]]), strict=True):
        assert torch.equal(one.features, other.features)
        assert (one.size, one.scaled, one.content) == (other.size, other.scaled, other.content)
    with pytest.raises(TypeError):
        again.embed(frames_of([(50, 50)]))


def test_the_cache_separates_weights_sizes_and_precisions(tmp_path: Path) -> None:
    frames = frames_of([(50, 50)])
    heads = SamConfig(**{**vars(MINI), "heads": 2})  # the same weights mean something else
    sams = [random_sam(), random_sam(seed=1), random_sam(heads)]
    sams[2].load_state_dict(sams[0].state_dict())
    segmenters = [SamSegmenter(sam, cache=tmp_path) for sam in sams]
    segmenters.append(SamSegmenter(sams[0], cache=tmp_path, precision="bf16"))
    for number, segmenter in enumerate(segmenters):
        segmenter.embed(frames)
        assert len(list(tmp_path.rglob("*.safetensors"))) == number + 1


def test_a_damaged_embedding_is_recomputed(sam: Sam, tmp_path: Path) -> None:
    frames = frames_of([(50, 50)])
    segmenter = SamSegmenter(sam, cache=tmp_path)
    first = segmenter.embed(frames)[0]
    assert segmenter.embeddings
    segmenter.embeddings.path(first.content).write_bytes(b"junk")
    with pytest.warns(UserWarning, match="damaged"):
        assert torch.equal(segmenter.embed(frames)[0].features, first.features)
    assert segmenter.embeddings.get(first.content) is not None


def test_bf16_stays_near_float32(sam: Sam) -> None:
    """bfloat16 has 8 bits: embeddings within 2 %, predicted IoU within .1 of a spread of 3, masks mostly the same."""
    frame = frames_of([(224, 224)])[0]
    rough, fine = (SamSegmenter(sam, precision=precision) for precision in ("bf16", "fp32"))
    one, other = rough.embed([frame])[0], fine.embed([frame])[0]
    assert one.features.dtype == torch.float32
    difference = (one.features - other.features).norm() / other.features.norm()
    assert 0 < difference < 0.02
    points, labels = np.array([[100, 120], [30, 60]]), np.array([1, 0])
    masks, scores = rough.prompt(one, points=points, labels=labels)
    masks_32, scores_32 = fine.prompt(other, points=points, labels=labels)
    assert scores.dtype == torch.float32 and (scores - scores_32).abs().max() < 0.1
    assert (masks != masks_32).float().mean() < 0.02
