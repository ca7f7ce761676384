"""Masks carried through clips: the memory against transformers' own sessions, and the choice and gating of seconds."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from synthetic.random_sam2 import random_folder
from utils.cli import InputError
from utils.memo import Memo
from zero_shot.method_options import PromptOptions
from zero_shot.methods import ObjectMask, Prediction
from zero_shot.methods.prompted import SimilarityThreshold
from zero_shot.methods.tracking import ClipTracker, build_tracker
from zero_shot.model_options import Sam2Options, TrackingOptions
from zero_shot.options import Options
from zero_shot.segmenters.sam2 import Sam2Segmenter, upscale
from zero_shot.segmenters.sam2_families import FAMILIES, load_network
from zero_shot.segmenters.sam2_tracker import MaskTracker

SIZE = (96, 128)


def clip(count: int, seed: int = 0) -> list[np.ndarray]:
    """Frames of fields of color that move to the right."""
    generator = np.random.default_rng(seed)
    fields = np.kron(generator.integers(0, 256, (6, 8, 3), dtype=np.uint8), np.ones((16, 16, 1), np.uint8))
    return [np.roll(fields, 5 * index, axis=1) for index in range(count)]


def rectangle(left: int, top: int, right: int, bottom: int) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[top:bottom, left:right] = True
    return mask


MASKS = np.stack([rectangle(10, 10, 60, 50), rectangle(70, 40, 120, 90)])


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("trackers")
    return {family: random_folder(root / family, family, seed=1) for family in FAMILIES}


@pytest.fixture(scope="module", params=FAMILIES)
def tracker(request: pytest.FixtureRequest, folders: dict[str, Path]) -> MaskTracker:
    network = load_network(folders[request.param], request.param, tracks=True)
    return MaskTracker(Sam2Segmenter(*network), FAMILIES[request.param])


@torch.inference_mode()
def stock(tracker: MaskTracker, frames: Sequence[np.ndarray], pivot: int, reverse: bool) -> dict[int, np.ndarray]:
    """Masks by frame, by a session of transformers with all feature maps in its cache and nothing dropped."""
    model, side = tracker.model, tracker.segmenter.image_size
    session = tracker.session_class(
        video=torch.zeros(len(frames), 3, 1, 1),
        video_height=SIZE[0],
        video_width=SIZE[1],
        dtype=torch.float32,
        max_vision_features_cache_size=len(frames),
    )
    encoding = model.vision_encoder.neck.position_encoding
    for index, frame in enumerate(frames):
        (embedding,) = tracker.segmenter.embed([frame])
        maps = [part[None].float() for part in embedding.maps]
        where = [encoding(part.shape, part.device, part.dtype) for part in maps]
        flat = [[part.flatten(2).permute(2, 0, 1) for part in parts] for parts in (maps, where)]
        session.cache.cache_vision_features(index, {"vision_feats": flat[0], "vision_pos_embeds": flat[1]})
    scaled = torch.nn.functional.interpolate(
        torch.tensor(MASKS)[:, None].float(), (side, side), mode="bilinear", antialias=True
    )
    for number, mask in enumerate(scaled):
        session.add_mask_inputs(session.obj_id_to_idx(number), pivot, (mask[None] >= 0.5).float())
        session.obj_with_new_inputs.append(number)
    model(inference_session=session, frame_idx=pivot)
    outputs = model.propagate_in_video_iterator(session, start_frame_idx=pivot, reverse=reverse)
    return {each.frame_idx: (upscale(each.pred_masks, SIZE)[:, 0] > 0).numpy() for each in outputs}


@pytest.mark.parametrize("pivot", [0, 2, 4])
def test_every_frame_is_covered_as_by_transformers(tracker: MaskTracker, pivot: int) -> None:
    frames = clip(5)
    carried = tracker.carry(frames, pivot, MASKS)
    assert carried.shape == (5, 2, *SIZE) and carried.dtype == bool
    np.testing.assert_array_equal(carried[pivot], MASKS)  # untouched, not what the network makes of it
    covered = {pivot}
    for reverse in (False, True):
        for index, masks in stock(tracker, frames, pivot, reverse).items():
            if index != pivot:
                np.testing.assert_array_equal(carried[index], masks)
            covered.add(index)
    assert covered == set(range(5))
    others = np.delete(carried, pivot, axis=0)
    assert others.any() and not others.all()


def test_forward_leaves_earlier_frames_alone(tracker: MaskTracker) -> None:
    both, forward = (tracker.carry(clip(5), 2, MASKS, backward=backward) for backward in (True, False))
    assert not forward[:2].any() and both[:2].any()
    np.testing.assert_array_equal(forward[2:], both[2:])


def test_the_two_directions_are_alike(tracker: MaskTracker) -> None:
    """A video played backwards has the same masks: no direction uses what the other has found."""
    frames = clip(6)
    carried = tracker.carry(frames, 2, MASKS)
    np.testing.assert_array_equal(tracker.carry(frames[::-1], 3, MASKS)[::-1], carried)


def test_objects_stay_apart(tracker: MaskTracker) -> None:
    """Each is carried as if it were alone."""
    together = tracker.carry(clip(5), 1, MASKS)
    assert (together[2:, 0] != together[2:, 1]).any()
    for number in range(2):
        alone = tracker.carry(clip(5), 1, MASKS[[number]])
        assert (alone[:, 0] != together[:, number]).mean() < 1e-4
    assert tracker.carry(clip(3), 1, MASKS[:0]).shape == (3, 0, *SIZE)


def test_memory_does_not_grow_with_the_video(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """What is dropped changes no mask, and what is kept does not depend on the number of frames."""
    tracker = MaskTracker(Sam2Segmenter(*load_network(folders["sam2"], "sam2", tracks=True)), FAMILIES["sam2"])
    frames, kept = clip(24), []
    forget = tracker._forget

    def watched(session, oldest) -> None:  # type: ignore[no-untyped-def]
        forget(session, oldest)
        outputs = [
            each for kinds in session.output_dict_per_obj.values() for kind in kinds.values() for each in kind.values()
        ]
        tensors = [part for output in outputs for part in output.values() if isinstance(part, torch.Tensor)]
        kept.append((len(outputs), max(part.numel() for part in tensors), len(session.cache._vision_features)))

    monkeypatch.setattr(tracker, "_forget", watched)
    carried = tracker.carry(frames, 0, MASKS)
    assert kept[-1] == kept[16] and kept[-1][0] == 2 * 17 and kept[-1][2] == 1
    assert max(size for _, size, _ in kept) < 128**2 / 4 + 1  # no mask at the network's input size
    expected = stock(tracker, frames, 0, False)
    for index in (5, 15, 17, 23):
        np.testing.assert_array_equal(carried[index], expected[index])


def test_carried_masks_are_cached(folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another threshold runs no network; other masks, another pivot, direction or memory do."""
    network = load_network(folders["sam2"], "sam2", tracks=True)
    plain = MaskTracker(Sam2Segmenter(*network), FAMILIES["sam2"]).carry(clip(3), 1, MASKS)
    tracker = MaskTracker(Sam2Segmenter(*network, cache=tmp_path), FAMILIES["sam2"])
    np.testing.assert_array_equal(tracker.carry(clip(3), 1, MASKS), plain)
    network[0].no_object_pointer.data.add_(1)
    other = MaskTracker(Sam2Segmenter(*network, cache=tmp_path), FAMILIES["sam2"])
    monkeypatch.setattr(MaskTracker, "_propagate", None)  # whoever calls it now fails
    np.testing.assert_array_equal(tracker.carry(clip(3), 1, MASKS), plain)
    for again, frames, pivot, masks, backward in [
        (tracker, clip(3, 1), 1, MASKS, True),
        (tracker, clip(3), 0, MASKS, True),
        (tracker, clip(3), 1, MASKS[::-1], True),
        (tracker, clip(3), 1, MASKS, False),
        (other, clip(3), 1, MASKS, True),
    ]:
        with pytest.raises(TypeError):
            again.carry(frames, pivot, masks, backward=backward)


class StubTracker:
    """Carries each mask unchanged, and notes what it was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int, bool]] = []

    def carry(
        self, frames: Sequence[np.ndarray], pivot: int, masks: np.ndarray, *, backward: bool = True
    ) -> np.ndarray:
        self.calls.append((pivot, len(masks), backward))
        carried = np.broadcast_to(masks, (len(frames), *masks.shape)).copy()
        carried[: 0 if backward else pivot] = False
        return carried


def prediction(objects: Sequence[ObjectMask], similarity: np.ndarray | None = None, **fields: object) -> Prediction:
    mask = np.zeros(SIZE, bool)
    for each in objects:
        mask |= each.mask
    return replace(Prediction(mask, similarity, objects=objects), **fields)


def track(
    predictions: list[Prediction | None], threshold: float = 0.5, backward: bool = True
) -> tuple[list[Prediction | None], StubTracker]:
    stub = StubTracker()
    clip_tracker = ClipTracker(stub, backward=backward, threshold=threshold)  # type: ignore[arg-type]
    return clip_tracker.track(clip(len(predictions)), predictions), stub


LEFT, RIGHT = MASKS
HEARD_LEFT, HEARD_RIGHT = np.where(LEFT, 0.9, 0.1).astype(np.float32), np.where(RIGHT, 0.9, 0.1).astype(np.float32)


def test_the_most_certain_second_is_the_pivot() -> None:
    """Predicted IoU × audio score, by the most certain object; the first on ties."""
    scores = [(0.9, 0.5), (0.6, 0.9), (0.95, 0.4), (0.9, 0.6)]
    predictions: list[Prediction | None] = [prediction([ObjectMask(LEFT, *pair)], HEARD_LEFT) for pair in scores]
    tracked, stub = track(predictions)
    assert stub.calls == [(1, 1, True)] and tracked[1] is predictions[1]
    assert [each.pivot for each in tracked if each] == [1, None, 1, 1]
    assert track([predictions[3], predictions[1]])[1].calls == [(0, 1, True)]


def test_seconds_whose_audio_does_not_agree_are_gated() -> None:
    predictions: list[Prediction | None] = [
        prediction([ObjectMask(LEFT, 0.9, 0.9)], HEARD_LEFT),
        prediction([ObjectMask(RIGHT, 0.8, 0.9)], HEARD_RIGHT),  # another object is heard
        None,  # silent
        prediction([], HEARD_LEFT),  # nothing was found here, but the object is heard
    ]
    tracked, _ = track(predictions)
    assert tracked[0] is predictions[0] and tracked[2] is None
    assert tracked[1] and not tracked[1].mask.any() and not tracked[1].objects
    assert tracked[3] and (tracked[3].mask == LEFT).all()
    assert tracked[3].objects[0].audio_score == pytest.approx(0.9)
    loose, _ = track(predictions, threshold=0.05)
    assert loose[1] and (loose[1].mask == LEFT).all()
    strict, _ = track(predictions, threshold=0.95)
    assert strict[3] and not strict[3].mask.any()


class LeftEncoder:
    """Hears the left object in every second, as surely as the one sample of its audio says."""

    device, sample_rate, int16_round_trip, memo = torch.device("cpu"), 1, False, Memo()
    encode_crops = with_options = lambda *_: None

    def encode_audio(self, audio: torch.Tensor) -> torch.Tensor:
        return audio

    def similarity_maps(
        self, frames: Sequence[np.ndarray], audio_features: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        scaled = torch.from_numpy(HEARD_LEFT).expand(len(frames), -1, -1)
        return scaled, scaled * audio_features[:, :, None]


def test_seconds_are_compared_by_maps_of_one_scale() -> None:
    """Similarity maps, each scaled by itself, are alike in all seconds: they tell where the audio agrees, not when."""
    method = SimilarityThreshold(Options(method="heatmap", prompt=PromptOptions(threshold=0.5)), LeftEncoder())
    frames, audio = clip(3), torch.tensor([[0.2], [0.8], [0.5]])
    method.tracker = ClipTracker(StubTracker(), backward=True, threshold=0.3)  # type: ignore[arg-type]
    predictions = method.predict(frames, audio)
    assert [each.certainty for each in predictions] == pytest.approx([0.18, 0.72, 0.45])
    for prediction in predictions:
        np.testing.assert_array_equal(prediction.similarity_map, HEARD_LEFT)
    first, pivot, last = method.track(frames, predictions)
    assert pivot is predictions[1] and last.pivot == 1 and last.mask.any() and not first.mask.any()


def test_objects_are_gated_one_by_one() -> None:
    both = [ObjectMask(LEFT, 0.9, 0.9, "dog"), ObjectMask(RIGHT, 0.9, 0.8, "cat")]
    heard = {"dog": 0.8, "cat": 0.7}
    predictions: list[Prediction | None] = [
        prediction(both, label_scores=heard),
        prediction(both[:1], label_scores={"dog": 0.1, "cat": 0.9}),
        prediction([], label_scores={"bird": 1.0}),
    ]
    tracked, stub = track(predictions)
    assert stub.calls == [(0, 2, True)]
    assert tracked[1] and (tracked[1].mask == RIGHT).all() and [each.label for each in tracked[1].objects] == ["cat"]
    assert tracked[2] and not tracked[2].mask.any()


def test_forward_keeps_the_seconds_before_the_pivot() -> None:
    predictions: list[Prediction | None] = [
        prediction([ObjectMask(RIGHT, 0.2, 0.9)], HEARD_RIGHT),
        prediction([ObjectMask(LEFT, 0.9, 0.9)], HEARD_LEFT),
        prediction([ObjectMask(RIGHT, 0.2, 0.9)], HEARD_LEFT),
    ]
    tracked, stub = track(predictions, backward=False)
    assert stub.calls == [(1, 1, False)]
    assert tracked[0] is predictions[0] and tracked[2] and (tracked[2].mask == LEFT).all()


@pytest.mark.parametrize("count", [0, 1, 3])
def test_without_an_object_or_a_second_frame_nothing_changes(count: int) -> None:
    for objects in ([], [ObjectMask(LEFT, 0.9, 0.9)] if count < 2 else []):
        predictions: list[Prediction | None] = [prediction(objects) for _ in range(count)]
        tracked, stub = track(predictions)
        assert tracked == predictions and not stub.calls
    assert track([None, None])[0] == [None, None]


def test_agreement_is_the_mean_of_the_map_or_the_labels_score() -> None:
    assert prediction([], HEARD_LEFT).audio_agreement(LEFT) == pytest.approx(0.9)
    assert prediction([], HEARD_LEFT, audio_map=HEARD_RIGHT).audio_agreement(LEFT) == pytest.approx(0.1)
    assert prediction([], HEARD_LEFT).audio_agreement(np.zeros(SIZE, bool)) == 0
    assert prediction([], HEARD_LEFT, label_scores={"dog": 0.3}).audio_agreement(LEFT, "dog") == 0.3
    assert prediction([], HEARD_LEFT).audio_agreement(LEFT, "dog") == 0
    assert prediction([]).audio_agreement(LEFT) == 1


def test_the_segmenters_own_network_tracks(folders: dict[str, Path]) -> None:
    options = replace(Options(), segmenter="sam2", sam2=Sam2Options(str(folders["sam2"])), track="forward")
    segmenter = Sam2Segmenter(*load_network(folders["sam2"], "sam2", tracks=True))
    built = build_tracker(options, "cpu", segmenter)
    assert built and built.tracker.segmenter is segmenter and not built.backward
    other = replace(options, tracking=TrackingOptions(str(folders["edgetam"]), 0.25), track="both")
    built = build_tracker(other, "cpu", segmenter)
    assert built and type(built.tracker.model).__name__ == "EdgeTamVideoModel"
    assert (built.backward, built.threshold) == (True, 0.25)
    assert build_tracker(replace(options, track="none")) is None


def test_what_cannot_be_tracked_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="segmenter sam cannot track; name a network that can"):
        build_tracker(replace(Options(), track="both"))
    with pytest.raises(InputError, match="method foreground uses no audio"):
        build_tracker(replace(Options(), track="both", method="foreground"))
    image = random_folder(tmp_path / "image", video=False)
    with pytest.raises(InputError, match="image-only sam2"):
        build_tracker(replace(Options(), track="both", tracking=TrackingOptions(str(image))))
    (tmp_path / "config.json").write_text('{"model_type": "clap"}', encoding="utf-8")
    with pytest.raises(InputError, match="type 'clap', which cannot track"):
        build_tracker(replace(Options(), track="both", tracking=TrackingOptions(str(tmp_path))))
    with pytest.raises(InputError, match=r"pretrained.download edgetam gets it$"):
        build_tracker(replace(Options(), track="both", tracking=TrackingOptions("edgetam")))
