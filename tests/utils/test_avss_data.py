"""AVSS on disk: metadata, clips of five and ten seconds, preprocessing, and what `avsbench_data.check` reports."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import preprocess_avss
from avsbench_data import check
from tests.helpers import golden_values as golden
from utils.audio import log_mel, pad_or_trim, read_wav
from utils.classes import PALETTE
from utils.cli import InputError
from utils.dataset import NORMALIZATION, AVSDataset, pad_seconds
from utils.files import jpeg_bytes, png_bytes, read_image, wav_bytes, write_bytes
from utils.labels import fit, read_color_labels, read_index_labels
from utils.layout import BENCHMARKS, AVSBench, Clip
from utils.preprocess import preprocess

FIGURES = np.load(Path(__file__).parents[1] / "golden" / "avss_vggish_seed1.npz")


def open_avss(root: Path) -> AVSBench:
    return AVSBench(root, "avss")


def clip_of(data: AVSBench, subset: str, split: str) -> Clip:
    return next(clip for clip in data.clips if (clip.subset, clip.split) == (subset, split))


@pytest.fixture
def avss_copy(composed_avss: Path, tmp_path: Path) -> AVSBench:
    """A copy that a test may damage."""
    return open_avss(Path(shutil.copytree(composed_avss, tmp_path / "avss")))


def test_lengths_are_of_the_benchmark(composed_avss: Path) -> None:
    data = open_avss(composed_avss)
    assert BENCHMARKS["avss"].max_seconds == 10 and BENCHMARKS["s4"].max_seconds == 5
    for subset, split, frames, labeled in (
        ("v1s", "train", 5, 1),
        ("v1s", "val", 5, 5),
        ("v1m", "train", 5, 5),
        ("v2", "train", 10, 10),
        ("v2", "test", 10, 10),
    ):
        clip = clip_of(data, subset, split)
        assert (len(data.frames(clip)), len(data.masks(clip))) == (frames, labeled)
        assert data.frames(clip)[-1] == composed_avss / subset / clip.name / "frames" / f"{frames - 1}.jpg"


def test_items(composed_avss: Path) -> None:
    data = open_avss(composed_avss)
    dataset = AVSDataset(data, "train")
    mean, std = (torch.tensor(v)[:, None, None] for v in NORMALIZATION["imagenet"])
    for subset, frames, labeled in (("v1s", 5, 1), ("v1m", 5, 5), ("v2", 10, 10)):
        clip = clip_of(data, subset, "train")
        item = dataset[dataset.clips.index(clip)]
        assert item["frames"].shape == (10, 3, 224, 224) and item["labels"].dtype == torch.int64
        assert item["valid"].tolist() == [1.0] * frames + [0.0] * (10 - frames)
        assert item["labeled"].tolist() == [1.0] * labeled + [0.0] * (10 - labeled)
        assert item["log_mel"].shape == (10, 1, 96, 64)
        for name in ("frames", "log_mel"):  # zeros after normalization: the mean color, not black
            assert item[name][:frames].any() and not item[name][frames:].any()
        assert not item["labels"][labeled:].any()
        squeezed = fit(read_image(data.frames(clip)[0]))
        expected = (torch.from_numpy(squeezed.copy()).permute(2, 0, 1) / 255 - mean) / std
        torch.testing.assert_close(item["frames"][0], expected)
        labels = fit(read_color_labels(data.masks(clip)[0]), label=True)
        assert np.array_equal(item["labels"][0], labels) and labels.any() == (labels > 0).any()
        assert np.array_equal(read_color_labels(data.masks(clip)[0]), read_index_labels(data.index_labels(clip)[0]))
        cropped = AVSDataset(data, "train", center_crop=True)[dataset.clips.index(clip)]
        assert np.array_equal(cropped["labels"][0], fit(read_color_labels(data.masks(clip)[0]), train=True, label=True))
    val = AVSDataset(data, "val", center_crop=True)
    assert torch.equal(val[0]["frames"], AVSDataset(data, "val")[0]["frames"])
    waveform = AVSDataset(data, "train", images="clip", audio="waveform", sample_rate=8000)[0]["waveform"]
    assert waveform.shape == (10, 8000)


def test_only_index_labels(avss_copy: AVSBench) -> None:
    clip = clip_of(avss_copy, "v2", "val")
    dataset = AVSDataset(avss_copy, "val")
    index = dataset.clips.index(clip)
    before = dataset[index]["labels"]
    shutil.rmtree(avss_copy.masks(clip)[0].parent)
    assert torch.equal(dataset[index]["labels"], before)


@pytest.mark.parametrize("name, frames", [("avss_wav10", 10), ("avss_wav5", 5)])
def test_golden_log_mel(tmp_path: Path, name: str, frames: int) -> None:
    """The original's examples, as of the wav's 16 bits, padded to ten with zeros."""
    waveform = golden.audio(1, name, float(frames), 16_000)
    mel = log_mel(waveform, 16_000)
    assert np.abs(mel[:, :, ::3, ::2] - FIGURES[f"w{frames}"]).max() < 1e-5
    subset = "v2" if frames == 10 else "v1m"
    folder = tmp_path / subset / "a"
    folder.mkdir(parents=True)
    soundfile.write(folder / "audio.wav", waveform, 16_000, subtype="PCM_16")
    (tmp_path / "metadata.csv").write_text(f"vid,uid,s_min,s_sec,a_obj,split,label\na,a,0,0,man,test,{subset}\n")
    data = open_avss(tmp_path)
    assert [result.status for result in preprocess(data, jobs=1, fidelity="published")] == ["done"]
    padded = pad_seconds(torch.from_numpy(np.load(data.log_mel(data.clips[0]))), 10)[:, :, ::6, ::4]
    batch = FIGURES["batch"][:10] if frames == 10 else FIGURES["batch"][10:]
    assert np.abs(padded.numpy() - batch).max() < 1e-5


def test_missing_audio_by_fidelity(tmp_path: Path) -> None:
    """Audio of nine examples: the last row is zeros as published, and repeats the one before as corrected."""
    samples = (golden.audio(1, "avss_wav10", 10.0, 16_000)[:153_839] * 32767).astype(np.int16)
    write_bytes(tmp_path / "v2" / "a" / "audio.wav", wav_bytes(samples, 16_000))
    (tmp_path / "metadata.csv").write_text("vid,uid,s_min,s_sec,a_obj,split,label\na,a,0,0,man,test,v2\n")
    data = open_avss(tmp_path)
    for fidelity, again in (("published", ["done"]), ("corrected", ["done"]), ("corrected", ["skipped"])):
        assert [result.status for result in preprocess(data, jobs=1, fidelity=fidelity)] == again  # type: ignore[arg-type]
        mel = np.load(data.log_mel(data.clips[0]))
        assert mel.shape == (10, 1, 96, 64) and mel[8].any()
        assert np.array_equal(mel[9], np.zeros_like(mel[9]) if fidelity == "published" else mel[8])


def test_audio_of_another_rate(tmp_path: Path) -> None:
    waveform = golden.audio(1, "avss_wav5", 5.0, 44_100)
    write_bytes(tmp_path / "v1m" / "a" / "audio.wav", wav_bytes((waveform * 32767).astype(np.int16), 44_100))
    (tmp_path / "metadata.csv").write_text("vid,uid,s_min,s_sec,a_obj,split,label\na,a,0,0,man,test,v1m\n")
    assert preprocess_avss.main(["--root", str(tmp_path), "--jobs", "1"]) == 0
    data = open_avss(tmp_path)
    samples, rate = read_wav(data.wav(data.clips[0]))
    assert rate == 16_000 and len(samples) == 80_000
    assert np.array_equal(np.load(data.log_mel(data.clips[0])), pad_or_trim(log_mel(samples, rate), 5))


def test_metadata_refused(tmp_path: Path) -> None:
    header = "vid,uid,s_min,s_sec,a_obj,split,label\n"
    for text, message in (
        ("vid,uid,a_obj,split\na,a,man,test\n", "no column 'label'"),
        (header + "a,a,0,0,man,test,v3\n", "label is 'v3', not v1s, v1m, v2"),
        (header + "a,a,0,0,man,later,v2\n", "split is 'later'"),
        (header + "a,../a,0,0,man,test,v2\n", "cannot be a file name"),
        (header + "a,a,0,0,man,test,v2\na,a,0,0,dog,val,v2\n", "clip 'a' is listed twice"),
    ):
        (tmp_path / "metadata.csv").write_text(text)
        with pytest.raises(InputError, match=message):
            open_avss(tmp_path)


def check_output(root: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    code = check.main(["--root", str(root), "--benchmark", "avss", "--jobs", "1"])
    return code, capsys.readouterr().out.splitlines()


def test_check_reports_each_fault_in_a_line(avss_copy: AVSBench, capsys: pytest.CaptureFixture[str]) -> None:
    data, root = avss_copy, avss_copy.root
    assert check_output(root, capsys)[0] == 0
    clip = clip_of(data, "v2", "test")
    frames, labels, indices = data.frames(clip), data.masks(clip), data.index_labels(clip)
    height, width = read_image(frames[0]).shape[:2]
    picture = np.zeros((height, width, 3), np.uint8)
    picture[0, :3] = 9  # not a class's color
    write_bytes(labels[0], png_bytes(picture))
    write_bytes(indices[1], png_bytes(np.full((height, width), 71, np.uint8)))
    write_bytes(labels[2], png_bytes(np.zeros((height + 2, width, 3), np.uint8)))
    frames[3].unlink()
    write_bytes(frames[0].with_name("10.jpg"), jpeg_bytes(picture))
    for name in ("Thumbs.db", ".DS_Store"):
        (labels[0].parent / name).touch()
    write_bytes(labels[4], png_bytes(PALETTE[np.full((height, width), 7)]))
    data.source_audio(clip).unlink()
    typo = clip_of(data, "v1m", "train")
    rows = list(csv.DictReader((root / "metadata.csv").open()))
    for row in rows:
        row["a_obj"] = "pinao_man" if row["uid"] == typo.name else row["a_obj"]
    with (root / "metadata.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    code, lines = check_output(root, capsys)
    expected = (
        f"{labels[0]}: 3 of {height * width} pixels are in no class's color, such as (9, 9, 9)",
        f"{indices[1]}: {height * width} of {height * width} pixels are above class 70, such as 71",
        f"{frames[2]}: sizes differ: frame {width}×{height}, labels_rgb {width}×{height + 2}",
        f"{frames[3]}: no such file",
        f"{frames[0].parent}: has 1 file more than the 10 of this clip: 10.jpg",
        f"{labels[0].parent}: has 2 stray files: .DS_Store, Thumbs.db",
        f"{labels[4]}: labels_rgb and labels_semantic differ in",
        f"{data.source_audio(clip)}: no such file",
        f"clip {typo.name}: a_obj names 'pinao', which is not a class; perhaps piano",
    )
    assert code == 1
    for text in expected:
        assert sum(text in line for line in lines) == 1, text
    assert lines[-1].endswith(f"2 with problems, {len(expected)} in all")


def test_loader_refuses_what_it_cannot_use(avss_copy: AVSBench) -> None:
    clip = clip_of(avss_copy, "v2", "test")
    dataset = AVSDataset(avss_copy, "test")
    index, labels = dataset.clips.index(clip), avss_copy.masks(clip)
    height, width = read_image(avss_copy.frames(clip)[0]).shape[:2]
    white = np.full((height, width, 3), 255, np.uint8)
    write_bytes(labels[0], png_bytes(white))
    with pytest.raises(InputError, match="in no class's color"):
        dataset[index]
    assert not AVSDataset(avss_copy, "test", unknown_colors="background")[index]["labels"][0].any()
    write_bytes(labels[0], png_bytes(np.zeros((height, width + 4, 3), np.uint8)))
    with pytest.raises(InputError, match=rf"labels of this frame are {width + 4}×{height}, the frame is {width}×"):
        dataset[index]
    (avss_copy.frames(clip)[0].parent / ".DS_Store").touch()  # ignored, unlike in the original
    write_bytes(labels[0], png_bytes(np.zeros((height, width, 3), np.uint8)))
    assert dataset[index]["valid"].all()
    avss_copy.frames(clip)[9].unlink()
    with pytest.raises(InputError, match=r"9.jpg: no such file"):
        dataset[index]
