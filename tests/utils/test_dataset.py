"""AVSBench's layout and loaders: every variant of the original, and what goes wrong with files."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import constants
from torch.utils.data import DataLoader

from reference import images as reference
from utils.cli import InputError
from utils.dataset import NORMALIZATION, AVSDataset, normalize_frames, read_frame, sample_fraction
from utils.files import png_bytes, read_image, write_bytes
from utils.layout import BENCHMARKS, AVSBench, Clip, read_metadata
from utils.pickled_log_mel import read_pickled_tensor


def open_s4(root: Path) -> AVSBench:
    return AVSBench(root / "Single-source", "s4")


def open_ms3(root: Path) -> AVSBench:
    return AVSBench(root / "Multi-sources", "ms3")


def test_paths_are_avsbenchs() -> None:
    s4, ms3 = BENCHMARKS["s4"], BENCHMARKS["ms3"]
    named = {"name": "abc_1", "split": "val", "category": "race_car", "k": 3}
    assert s4.frame.format(**named) == "s4_data/visual_frames/val/race_car/abc_1/abc_1_3.png"
    assert s4.mask.format(**named) == "s4_data/gt_masks/val/race_car/abc_1/abc_1_3.png"
    assert s4.wav.format(**named) == "s4_data/audio_wav/val/race_car/abc_1.wav"
    assert ms3.video.format(**named) == "ms3_data/raw_videos/abc_1.mp4"
    assert ms3.frame.format(**named) == "ms3_data/visual_frames/abc_1/abc_1.mp4_3.png"
    assert ms3.mask.format(**named) == "ms3_data/gt_masks/val/abc_1/abc_1_3.png"
    assert ms3.log_mel.format(**named) == "ms3_data/audio_log_mel/val/abc_1"


@pytest.mark.parametrize("images, audio", [("imagenet", "log_mel"), ("clip", "waveform"), ("raw", "waveform")])
@pytest.mark.parametrize("open_data", [open_s4, open_ms3])
def test_variants(composed: Path, open_data, images, audio) -> None:
    data = open_data(composed)
    for split in ("train", "test"):
        dataset = AVSDataset(data, split, images=images, audio=audio, sample_rate=44_100, audio_repeats=5)
        assert len(dataset) == len(data.split(split))
        item = dataset[0]
        labelled = 1 if (data.benchmark.name, split) == ("s4", "train") else 5
        assert item["masks"].shape == (labelled, 224, 224) and set(item["masks"].unique().tolist()) <= {0.0, 1.0}
        if audio == "log_mel":
            assert item["log_mel"].shape == (5, 1, 96, 64) and "waveform" not in item
        else:
            assert item["waveform"].shape == (5, 220_500) and item["waveform"].abs().max() <= 1
        with Image.open(data.frames(dataset.clips[0])[2]) as image:
            pixels = torch.from_numpy(np.array(image))
        if images == "raw":
            assert torch.equal(item["frames"][2], pixels)
        else:
            mean, std = (torch.tensor(v)[:, None, None] for v in NORMALIZATION[images])
            pixels = pixels.permute(2, 0, 1) / 255
            torch.testing.assert_close(item["frames"][2], (pixels - mean) / std)
        assert item["name"] == dataset.clips[0].name and item["category"] == dataset.clips[0].category


def test_no_prompt_waveform_and_collation(composed: Path) -> None:
    dataset = AVSDataset(
        open_ms3(composed), "test", images="raw", audio="waveform", sample_rate=48_000, int16_round_trip=True
    )
    item = dataset[0]
    assert item["waveform"].shape == (5, 48_000)
    steps = item["waveform"] * 32767
    torch.testing.assert_close(steps, steps.round(), atol=2e-3, rtol=0)
    batch = next(iter(DataLoader(AVSDataset(open_s4(composed), "val"), batch_size=2)))
    assert batch["frames"].shape == (2, 5, 3, 224, 224) and batch["masks"].shape == (2, 5, 224, 224)


def test_image_size_resizes_frames_but_not_masks(composed: Path) -> None:
    item = AVSDataset(open_s4(composed), "val", image_size=96)[0]
    assert item["frames"].shape == (5, 3, 96, 96) and item["masks"].shape == (5, 224, 224)


def test_partial_training_data_is_the_originals_draw() -> None:
    s4 = [Clip(str(i), "train") for i in range(3452)]
    ms3 = [Clip(str(i), "train") for i in range(296)]
    drawn = {
        (n, f): [int(c.name) for c in sample_fraction(c_, f)]
        for n, c_ in (("s4", s4), ("ms3", ms3))
        for f in (0.2, 0.5)
    }
    assert [len(drawn[key]) for key in drawn] == [690, 1726, 59, 148]
    assert drawn["s4", 0.2][:8] == [856, 2356, 1341, 1499, 3061, 1390, 3038, 3097]
    assert drawn["ms3", 0.5][:8] == [230, 228, 12, 215, 264, 45, 238, 55]
    for name in ("s4", "ms3"):
        assert drawn[name, 0.5][: len(drawn[name, 0.2])] == drawn[name, 0.2]
    with pytest.raises(InputError, match=f"leaves none of {len(ms3)} clips"):
        sample_fraction(ms3, 1e-6)
    assert sorted(sample_fraction(ms3, 1.0), key=lambda clip: int(clip.name)) == ms3
    for wrong in (0.0, 1.01):
        with pytest.raises(InputError, match=f"fraction {wrong} is not in"):
            sample_fraction(s4, wrong)


def test_only_training_data_is_partial(composed: Path) -> None:
    data = open_ms3(composed)
    assert len(AVSDataset(data, "train", fraction=0.5)) == round(0.5 * len(data.split("train")))
    assert len(AVSDataset(data, "test", fraction=0.5)) == len(data.split("test"))


def test_statistics_are_imagenets_and_clips() -> None:
    assert NORMALIZATION["imagenet"] == (constants.IMAGENET_DEFAULT_MEAN, constants.IMAGENET_DEFAULT_STD)
    assert NORMALIZATION["clip"] == (constants.OPENAI_CLIP_MEAN, constants.OPENAI_CLIP_STD)


@pytest.mark.parametrize("statistics", NORMALIZATION)
def test_normalising_by_table_is_the_formula_to_the_bit(statistics: str) -> None:
    frames = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1).repeat(2, 1, 1, 3)
    frames[1] = torch.randint(256, (16, 16, 3), generator=torch.Generator().manual_seed(0))
    assert torch.equal(normalize_frames(frames, statistics), reference.normalize_frames(frames, statistics))
    assert torch.equal(normalize_frames(frames[1:], statistics), reference.normalize_frames(frames[1:], statistics))
    thin = frames[:, :1, :, :]
    assert torch.equal(normalize_frames(thin, statistics), reference.normalize_frames(thin, statistics))


def test_smaller_frames_are_averaged_and_larger_ones_interpolated(tmp_path: Path) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    write_bytes(tmp_path / "frame.png", png_bytes(frame))
    blocks = frame.reshape(56, 4, 56, 4, 3).mean((1, 3))
    np.testing.assert_allclose(read_frame(tmp_path / "frame.png", 56), blocks, atol=0.51)
    image = torch.from_numpy(frame).permute(2, 0, 1)[None].float()
    larger = torch.nn.functional.interpolate(image, (448, 448), mode="bilinear")[0].permute(1, 2, 0)
    np.testing.assert_allclose(read_frame(tmp_path / "frame.png", 448), larger, atol=1)


def test_frames_without_compression_hold_the_same_pixels(tmp_path: Path) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    for compress in (True, False):
        write_bytes(tmp_path / "frame.png", png_bytes(frame, compress))
        np.testing.assert_array_equal(read_image(tmp_path / "frame.png"), frame)
        with Image.open(tmp_path / "frame.png") as image:
            np.testing.assert_array_equal(np.asarray(image), frame)


def test_avsbenchs_pickles_are_read(benchmark_copy: Path) -> None:
    data = open_s4(benchmark_copy)
    clip = data.split("test")[0]
    ours = np.load(data.log_mel(clip))
    data.log_mel(clip).unlink()
    tensor = torch.from_numpy(ours).requires_grad_(True)  # as AVSBench writes them
    data.pickled_log_mel(clip).write_bytes(pickle.dumps(tensor))
    item = AVSDataset(data, "test")[0]
    assert torch.equal(item["log_mel"], torch.from_numpy(ours)) and not item["log_mel"].requires_grad


class Bomb:
    """A pickle that creates a file when it is loaded."""

    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self) -> tuple:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_malicious_pickle_is_refused(tmp_path: Path, protocol: int) -> None:
    bomb, target = tmp_path / "bomb.pkl", tmp_path / "exploded"
    bomb.write_bytes(pickle.dumps(Bomb(target), protocol))
    with pytest.raises(InputError, match=r"bomb\.pkl: not a pickled tensor"):
        read_pickled_tensor(bomb)
    # The same inside the storage of an honest-looking tensor.
    inner = pickle.dumps(Bomb(target), 2)
    outer = b"\x80\x02ctorch.storage\n_load_from_bytes\n(B" + len(inner).to_bytes(4, "little") + inner + b"tR."
    bomb.write_bytes(outer)
    with pytest.raises(InputError, match="not a pickled tensor"):
        read_pickled_tensor(bomb)
    assert not target.exists()
    pickle.loads(pickle.dumps(Bomb(target), protocol))
    assert target.exists()  # the bomb is live


def test_wrong_log_mels_are_named(benchmark_copy: Path) -> None:
    data = open_s4(benchmark_copy)
    clip = data.split("test")[0]
    dataset = AVSDataset(data, "test")
    np.save(data.log_mel(clip), np.zeros((4, 1, 96, 64), np.float32))
    with pytest.raises(InputError, match=r"shape \(4, 1, 96, 64\)"):
        dataset[0]
    np.save(data.log_mel(clip), np.full((5, 1, 96, 64), np.nan, np.float32))
    with pytest.raises(InputError, match="NaN"):
        dataset[0]
    write_bytes(data.log_mel(clip), b"")
    with pytest.raises(InputError, match=r"not a readable \.npy"):
        dataset[0]
    data.log_mel(clip).unlink()
    with pytest.raises(InputError, match=r"no such file; run python preprocess_s4\.py"):
        dataset[0]


@pytest.mark.parametrize("missing", ["visual_frames", "audio_wav"])
def test_clips_that_are_not_preprocessed_are_told_how(composed: Path, tmp_path: Path, missing: str) -> None:
    root = Path(shutil.copytree(composed / "Single-source", tmp_path / "Single-source"))
    shutil.rmtree(root / "s4_data" / missing)
    with pytest.raises(InputError, match=rf"{missing}.*: no such file; run python preprocess_s4\.py --root "):
        AVSDataset(AVSBench(root, "s4"), "test", images="raw", audio="waveform")


@pytest.mark.parametrize(
    "text, message",
    [
        ("name,start,category,part\na,0,dog,train\n", "no column 'split'; expected the columns name, start, category"),
        ("name,start,kind,split\na,0,dog,train\n", "no column 'category'"),
        ("name,start,category,split\na,0,dog,training\n", "line 2: split is 'training'"),
        ("name,start,category,split\na,soon,dog,train\n", "line 2: start is 'soon'"),
        ("name,start,category,split\na,0,dog,train\na,0,dog,train\n", "'a' is listed twice in train"),
        ("name,start,category,split\n../../etc/x,0,dog,train\n", "cannot be a file name"),
        ("name,start,category,split\n", "no clips in it"),
        ("", "no column 'category'"),
    ],
)
def test_wrong_meta_data(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "s4_meta_data.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        AVSBench(tmp_path, "s4")


def test_meta_data_columns_by_place(tmp_path: Path) -> None:
    path = tmp_path / "meta.csv"
    path.write_text("youtube,begin,category,split\nb_1,7,dog_barking,test\na,0,cat,train\n")
    assert read_metadata(path, BENCHMARKS["s4"]) == [
        Clip("b_1", "test", "dog_barking", 7),
        Clip("a", "train", "cat", 0),
    ]
    with pytest.raises(InputError, match=r"no such file; see avsbench_data/README\.md"):
        AVSBench(tmp_path / "nowhere", "s4")
    with pytest.raises(InputError, match="unknown benchmark 's5'"):
        AVSBench(tmp_path, "s5")


def test_frames_that_are_no_images(benchmark_copy: Path) -> None:
    data = open_s4(benchmark_copy)
    dataset = AVSDataset(data, "test")
    frame = data.frames(dataset.clips[0])[1]
    for content, message in ((b"no image", "not a readable image"), (b"", "not a readable image")):
        frame.write_bytes(content)
        with pytest.raises(InputError, match=message):
            dataset[0]
    Image.new("RGB", (320, 240)).save(frame)
    with pytest.raises(InputError, match="is 320×240, not 224×224; preprocess the clip again"):
        dataset[0]
    frame.unlink()
    with pytest.raises(InputError, match="no such file"):
        dataset[0]
