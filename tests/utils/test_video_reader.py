"""Videos as people bring them: preprocessing and the demo read them alike, as a player shows them."""

import json
import os
import struct
from collections.abc import Callable
from fractions import Fraction
from itertools import product
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from av.video.stream import VideoStream

from tests.helpers.videos import level, moving, mux, tone
from tests.zero_shot.test_demo import make, masks, missing, notes
from utils.audio_stream import read_audio, read_audio_per_second
from utils.fidelity import Fidelity
from utils.files import write_bytes
from utils.layout import AVSBench
from utils.preprocess import preprocess_clip
from utils.timestamps import displayed_frames, ffmpeg_constant_rate
from utils.tone_map import tone_map
from utils.video import read_clip
from utils.video_frame import apply_display_matrix, display_size, resize_frame, to_rgb
from utils.video_info import VideoInfo, open_video
from utils.video_stream import frame_to_rgb, read_frame_per_second, read_frames
from utils.video_writer import write_video

ClipMaker = Callable[..., Path]
FIDELITIES: tuple[Fidelity, ...] = ("published", "corrected")
CORNERS = {(-1, -1): (220, 30, 30), (1, -1): (30, 220, 30), (-1, 1): (30, 30, 220), (1, 1): (230, 230, 230)}


def first_picture(path: Path) -> tuple[VideoInfo, np.ndarray]:
    video = open_video(path)
    return video, frame_to_rgb(video, next(read_frames(video))[1])


# Orientation and shape


def with_matrix(path: Path, a: int, b: int, c: int, d: int) -> Path:
    """Write a display matrix into the header of an mp4's first track."""
    data, one = bytearray(path.read_bytes()), 1 << 16
    values = (a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    struct.pack_into(">9i", data, data.find(b"tkhd") + 44, *values)
    path.write_bytes(data)
    return path


def corners(rgb: np.ndarray) -> dict[tuple[int, int], tuple[int, ...]]:
    """The color, of CORNERS, in each corner: to the right and down are 1."""
    height, width = rgb.shape[:2]
    found = {}
    for x, y in CORNERS:
        color = rgb[height // 2 + y * height // 4, width // 2 + x * width // 4]
        found[x, y] = min(CORNERS.values(), key=lambda known: np.abs(np.array(known) - color).sum())
    return found


@pytest.mark.parametrize(
    "matrix",
    [(a, 0, 0, d) for a, d in product((1, -1), repeat=2)] + [(0, b, c, 0) for b, c in product((1, -1), repeat=2)],
)
def test_turned_and_mirrored(tmp_path: Path, matrix: tuple[int, int, int, int]) -> None:
    """All eight ways to lay a picture: what is at (x, y) is shown at (a·x + c·y, b·x + d·y)."""
    a, b, c, d = matrix
    frame = np.zeros((48, 64, 3), np.uint8)
    for (x, y), color in CORNERS.items():
        frame[(y + 1) * 12 : (y + 3) * 12, (x + 1) * 16 : (x + 3) * 16] = color
    path = tmp_path / "a.mp4"
    write_video(path, [frame] * 10, 5, tone(2))
    with_matrix(path, *matrix)
    expected = {(a * x + c * y, b * x + d * y): color for (x, y), color in CORNERS.items()}
    video, picture = first_picture(path)
    assert picture.shape[:2] == (video.height, video.width) == ((64, 48) if b else (48, 64))
    assert corners(picture) == expected
    for fidelity in FIDELITIES:
        assert corners(read_clip(path, fidelity).frames[0]) == expected
    assert not [note for note in video.notes if "turn" in note]


def test_other_angles_are_noted(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_video(path, moving(10), 5, tone(2))
    data = bytearray(path.read_bytes())
    turn = [round(0.7071 * (1 << 16) * sign) for sign in (1, 1, -1, 1)]
    struct.pack_into(">9i", data, data.find(b"tkhd") + 44, *turn[:2], 0, *turn[2:], 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    assert "other than quarter turns" in open_video(path).notes[0]


def encode(
    path: Path, planes: list[np.ndarray], pix_fmt: str, codec: str = "ffv1", aspect: Fraction | None = None, **tags: int
) -> Path:
    """Three frames of the given planes as they are, in a file with the given tags, and 2 s of sound."""
    frame = av.VideoFrame(planes[0].shape[1], planes[0].shape[0], pix_fmt)
    for plane, values in zip(frame.planes, planes, strict=True):
        rows = np.zeros((plane.height, plane.line_size // values.itemsize), values.dtype)
        rows[:, : values.shape[1]] = values
        plane.update(rows.tobytes())
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=2)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, pix_fmt
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        for name, value in tags.items():
            setattr(stream.codec_context, name, value)
            setattr(frame, name, value)
        audio = container.add_stream("pcm_s16le", rate=48_000, layout="mono")
        for number in range(4):
            frame.pts, frame.time_base = number, Fraction(1, 2)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        sound = (tone(2, 48_000) * 32767).astype(np.int16).T
        block = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound), format="s16", layout="mono")
        block.sample_rate = 48_000
        container.mux([*audio.encode(block), *audio.encode(None)])  # type: ignore[attr-defined]
    return path


def round_thing(height: int, width: int, aspect: float) -> list[np.ndarray]:
    """YUV planes of a picture whose white disc is round where pixels have the given aspect."""
    y, x = np.mgrid[:height, :width]
    inside = ((x - width / 2) * aspect) ** 2 + (y - height / 2) ** 2 < (0.4 * height) ** 2
    chroma = np.full((height // 2, width // 2), 128, np.uint8)
    return [np.where(inside, 235, 16).astype(np.uint8), chroma, chroma]


@pytest.mark.parametrize(
    "aspect, size", [(Fraction(16, 11), (240, 465)), (Fraction(8, 9), (270, 320)), (Fraction(1), (240, 320))]
)
def test_the_shown_shape_is_kept(tmp_path: Path, aspect: Fraction, size: tuple[int, int]) -> None:
    """A DVD's pixels are not square: pictures, masks and the overlay have the shape that players show."""
    path = encode(tmp_path / "a.mkv", round_thing(240, 320, float(aspect)), "yuv420p", "libx264", aspect=aspect)
    video, picture = first_picture(path)
    assert (video.height, video.width) == picture.shape[:2] == size
    white = picture[..., 1] > 128
    across, down = np.ptp(np.flatnonzero(white.any(0))), np.ptp(np.flatnonzero(white.any(1)))
    assert across == pytest.approx(down, abs=3) and across > 150
    out = make(tmp_path, path)
    assert [mask.shape for mask in masks(out)] == [size] * 2 and not missing(out)
    overlay = open_video(out / "overlay.mp4")
    assert (overlay.height, overlay.width) == (size[0], size[1] + size[1] % 2)  # H.264 wants even sizes
    # The study squashes what it sees anyway: from the pixels of the file, in the demo as in preprocessing.
    _, frame = next(read_frame_per_second(video))
    assert np.array_equal(resize_frame(to_rgb(frame)), read_clip(path).frames[0])


def test_turned_pixels_are_turned_after_they_are_stretched() -> None:
    assert display_size(240, 320, Fraction(16, 11)) == (240, 465) and display_size(240, 320, None) == (240, 320)
    matrix = np.array([[0, 1], [-1, 0]])
    assert apply_display_matrix(np.zeros((240, 465, 3), np.uint8), matrix).shape == (465, 240, 3)


# Colors


def formula(y: float, u: float, v: float, red: float, blue: float, full: bool) -> np.ndarray:
    """RGB by the definition of the standards, 0 to 255, clipped. red, blue: their weights in luma."""
    y, u, v = float(y), float(u), float(v)
    y = y / 255 if full else (y - 16) / 219
    b, r = (2 * (1 - weight) * (c - 128) / (255 if full else 224) + y for weight, c in ((blue, u), (red, v)))
    return np.clip([255 * r, 255 * (y - red * r - blue * b) / (1 - red - blue), 255 * b], 0, 255)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(
    "colorspace, weights", [(1, (0.2126, 0.0722)), (6, (0.299, 0.114)), (9, (0.2627, 0.0593)), (2, (0.299, 0.114))]
)
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le"])
def test_colors_follow_the_tags(
    tmp_path: Path, pix_fmt: str, colorspace: int, weights: tuple[float, float], full: bool
) -> None:
    """Matrix and range; what is not tagged is BT.601, as ffmpeg has it."""
    for y, u, v in ((81, 107, 192), (150, 60, 110), (40, 130, 125)):
        deep, (high, wide) = pix_fmt.endswith("10le"), {"2": (2, 2), "4": (1, 1)}[pix_fmt[4]]
        high = 1 if pix_fmt == "yuv422p" else 2 if "420" in pix_fmt else high
        wide = 2 if pix_fmt != "yuv444p" else 1
        kind, scale = (np.uint16, 4) if deep else (np.uint8, 1)
        shapes = [(48, 64), (48 // high, 64 // wide), (48 // high, 64 // wide)]
        planes = [np.full(shape, value * scale, kind) for shape, value in zip(shapes, (y, u, v), strict=True)]
        tags = {"colorspace": colorspace, "color_range": 2 if full else 1}
        path = encode(tmp_path / f"{y}.mkv", planes, pix_fmt, **tags)
        _, picture = first_picture(path)
        np.testing.assert_allclose(picture[20, 30], formula(y, u, v, *weights, full), atol=1.01)
        np.testing.assert_allclose(read_clip(path).frames[0][100, 100], picture[20, 30], atol=1)
        # libswscale, which the original used, loses up to three levels.
        np.testing.assert_allclose(read_clip(path, "published").frames[0][100, 100], picture[20, 30], atol=3)


@pytest.mark.parametrize("pix_fmt", ["rgb24", "gray", "rgba"])
def test_files_without_chroma_planes(tmp_path: Path, pix_fmt: str) -> None:
    path = tmp_path / "a.mov"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("png", rate=5)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = 64, 48, pix_fmt
        for frame in moving(5):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    video = open_video(path)
    shown = [level(frame_to_rgb(video, frame)) for _, frame in read_frames(video)]
    assert shown == pytest.approx(list(range(5)), abs=0.4)


def hd_film(path: Path) -> Path:
    """The flat (190, 46, 31) of a tagged HD film; a browser shows (191, 46, 34)."""
    planes = [np.full(shape, value, np.uint8) for shape, value in (((72, 128), 81), ((36, 64), 107), ((36, 64), 192))]
    return encode(path, planes, "yuv420p", "libx264", colorspace=1, color_range=1, color_primaries=1, color_trc=1)


def test_the_overlay_has_the_colors_of_its_tags(tmp_path: Path) -> None:
    out = make(tmp_path, hd_film(tmp_path / "hd709.mkv"))
    with av.open(str(out / "overlay.mp4")) as container:
        stream = container.streams.video[0]
        codec = stream.codec_context
        tags = (codec.colorspace, codec.color_range, codec.color_primaries, codec.color_trc)
        assert tags == (1, 1, 1, 1)  # BT.709 in studio range
        frame = next(container.decode(stream))
        y, u, v = (np.frombuffer(plane, np.uint8)[: plane.width] for plane in frame.planes)  # type: ignore[call-overload]
    # In the right half, which the mask leaves as it is, by the definition of what the tags say.
    shown = formula(y[-8], u[-4], v[-4], 0.2126, 0.0722, False)
    np.testing.assert_allclose(shown, (191, 46, 34), atol=3.01)


def test_what_is_written_is_what_was_given(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    for color in ((255, 0, 0), (0, 255, 0), (0, 0, 255), (10, 200, 120), (255, 255, 255)):
        write_video(path, [np.full((48, 64, 3), color, np.uint8)] * 3, 5)
        np.testing.assert_allclose(first_picture(path)[1][20, 30], color, atol=3)


@pytest.mark.parametrize("trc, kind, white", [(16, "PQ", 594), (18, "HLG", 768)])
def test_hdr_is_tone_mapped_and_noted(tmp_path: Path, trc: int, kind: str, white: int) -> None:
    """A phone's HDR film: white paper, 58 % of PQ's range and 75 % of HLG's, is nearly white here too, not grey."""
    tags = {"colorspace": 9, "color_range": 2, "color_primaries": 9, "color_trc": trc}
    chroma = np.full((24, 32), 512, np.uint16)
    path = encode(tmp_path / "a.mkv", [np.full((48, 64), white, np.uint16), chroma, chroma], "yuv420p10le", **tags)
    video, picture = first_picture(path)
    assert f"The video is HDR ({kind}): its colors are tone-mapped to those of an ordinary screen." in video.notes
    assert 225 < picture.mean() < 250 and np.ptp(picture) <= 2
    # published sees what ffmpeg gives: untouched, grey.
    assert read_clip(path, "published").frames[0].mean() == pytest.approx(white / 1023 * 255, abs=2)
    assert read_clip(path).frames[0].mean() == pytest.approx(picture.mean(), abs=1)


@pytest.mark.parametrize(
    ("pixel_format", "codec", "primaries", "trc", "note"),
    [
        ("yuv420p", "libx264", 12, 13, "The colors are those of Display P3, which are taken for BT.709's"),
        ("yuv420p", "libx264", 9, 1, "The colors are those of BT.2020, which are taken for BT.709's"),
        ("gbrp10le", "ffv1", 9, 16, "The video is HDR (PQ) and not coded in YCbCr: it is not tone-mapped."),
        ("yuv420p", "libx264", 1, 1, ""),
    ],
)
def test_colors_that_are_not_converted_are_noted(
    tmp_path: Path, pixel_format: str, codec: str, primaries: int, trc: int, note: str
) -> None:
    size, depth = ((48, 64), np.uint16) if pixel_format == "gbrp10le" else ((24, 32), np.uint8)
    planes = [np.full((48, 64), 128, depth), *[np.full(size, 128, depth)] * 2]
    tags = {"color_primaries": primaries, "color_trc": trc}
    video = open_video(encode(tmp_path / "a.mkv", planes, pixel_format, codec, **tags))
    assert [line[: len(note)] for line in video.notes] == ([note] if note else [])


@pytest.mark.parametrize("transfer", ["PQ", "HLG"])
def test_tone_mapping_keeps_order_and_hues(transfer: str) -> None:
    grey = np.repeat(np.linspace(0, 1, 500, dtype=np.float32)[None, :, None], 3, axis=2)
    curve = tone_map(grey, transfer)[0]
    assert np.abs(np.diff(curve.astype(int), axis=1)).max() <= 1  # grey stays grey
    assert (np.diff(curve[:, 0].astype(int)) >= 0).all() and curve[0].max() == 0 and curve[-1].min() == 255
    red = tone_map(np.array([[[0.5, 0.4, 0.4]]], np.float32), transfer)[0, 0].astype(int)
    assert red[0] > red[1] + 30 and abs(red[1] - red[2]) < 20


# Time stamps


def joined(tmp_path: Path, offset: float, second: tuple[int, int] = (48, 64)) -> Path:
    """Two recordings of 3 s one behind the other, the second with time stamps from `offset` seconds on."""
    whole = b""
    for part, (begin, (height, width)) in enumerate(((0.0, (48, 64)), (offset, second))):
        path = tmp_path / f"{part}.ts"
        with av.open(str(path), "w", format="mpegts") as container:
            video = container.add_stream("libx264", rate=25)
            audio = container.add_stream("mp2", rate=48_000, layout="stereo")
            assert isinstance(video, VideoStream)
            video.height, video.width, video.pix_fmt, video.gop_size = height, width, "yuv420p", 10
            video.bit_rate = 4_000_000
            for number, frame in enumerate(moving(150, height, width)[75 * part :]):
                frame[...] = 20 + 3 * (number % 75) if part == 0 else 245 - 3 * (number % 75)
                picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
                picture.pts, picture.time_base = round(begin * 25) + number, Fraction(1, 25)
                container.mux(video.encode(picture))
                if number == 74:
                    break
            container.mux(video.encode(None))
            sound = tone(3, 48_000, 2) * (1 if part == 0 else 2)
            for start in range(0, len(sound), 1152):
                piece = np.ascontiguousarray((sound[start : start + 1152].T * 32767).astype(np.int16).T.reshape(1, -1))
                block = av.AudioFrame.from_ndarray(piece, format="s16", layout="stereo")
                block.sample_rate, block.time_base = 48_000, Fraction(1, 48_000)
                block.pts = round(begin * 48_000) + start
                container.mux(audio.encode(block))  # type: ignore[attr-defined]
            container.mux(audio.encode(None))  # type: ignore[attr-defined]
        whole += path.read_bytes()
    path = tmp_path / "joined.ts"
    path.write_bytes(whole)
    return path


@pytest.mark.parametrize("offset", [0.0, 1.0, 50.0], ids=["restart", "overlap", "jump"])
def test_joined_recordings(tmp_path: Path, offset: float) -> None:
    """All frames of both, at their rate, none frozen, and the sound of the second under its pictures."""
    video = open_video(joined(tmp_path, offset))
    assert (video.fps, video.num_frames, video.num_seconds) == (25, 150, 6)
    assert video.notes == ["The file consists of concatenated parts: its time stamps start again or jump at 3.0 s."]
    shown = [level(frame_to_rgb(video, frame)) for _, frame in read_frames(video)]
    assert shown == pytest.approx([*range(75), *(75 - n for n in range(75))], abs=0.7)
    track = np.abs(np.concatenate(list(read_audio(video, 48_000)))[:, 0].astype(float))
    assert len(track) == pytest.approx(6 * 48_000, abs=4000)
    assert np.flatnonzero(track > 0.45 * 32768)[0] == pytest.approx(3 * 48_000, abs=2500)  # the second part is louder
    for fidelity in FIDELITIES:
        levels = [level(frame) for frame in read_clip(video.path, fidelity).frames]
        assert levels == pytest.approx([23, 48, 73, 75 - 23, 75 - 48], abs=0.7)


def test_joined_recordings_in_the_demo(tmp_path: Path) -> None:
    out = make(tmp_path, joined(tmp_path, 0.0))
    assert len(masks(out)) == 6 and "time stamps start again" in notes(out) and not missing(out)
    assert open_video(out / "overlay.mp4").num_frames == 150


def test_a_change_of_size_is_noted(tmp_path: Path) -> None:
    path = joined(tmp_path, 0.0, second=(64, 96))
    out = make(tmp_path, path)
    assert notes(out).count("The size of the frames changes") == 1
    assert "The size of the frames changes, first at 3.0 s" in notes(out)
    assert {mask.shape for mask in masks(out)} == {(48, 64)} and len(masks(out)) == 6
    assert [round(level(frame)) for frame in read_clip(path).frames] == [23, 48, 73, 52, 27]


STAMPS = [*range(0, 2000, 40), *range(2160, 5000, 200)]  # 25 frames a second, then 5


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_variable_rate_by_time_stamp(tmp_path: Path, suffix: str) -> None:
    """Corrected gives the frame on the screen at 15/16 of each second, in preprocessing as in the demo."""
    path = mux(tmp_path / f"vfr.{suffix}", "libx264", STAMPS, tone(5, 48_000, 2))
    shown = [max(n for n, stamp in enumerate(STAMPS) if stamp <= 1000 * (second + 15 / 16)) for second in range(5)]
    assert shown == [23, 48, 53, 58, 63]
    frames = read_clip(path).frames
    assert [round(level(frame)) % 75 for frame in frames] == [n % 75 for n in shown]
    video = open_video(path)
    for (second, frame), ours in zip(read_frame_per_second(video), frames, strict=True):
        assert np.array_equal(resize_frame(to_rgb(frame)), ours), second


def test_a_variable_rate_as_published(tmp_path: Path) -> None:
    """imageio's ffmpeg makes 25 frames a second of it, and fills the end of a gap by the frame that is to come."""
    path = mux(tmp_path / "vfr.mp4", "libx264", STAMPS, tone(5, 48_000, 2))
    levels = [round(level(frame)) for frame in read_clip(path, "published").frames]
    assert levels == [23, 48, 54, 59, 64]


def test_a_constant_rate_is_made_as_ffmpeg_does() -> None:
    """Figures of imageio 2.31 with its ffmpeg 4.2.2: gaps, jitter, a late start; it repeats the last frame besides."""
    files = json.loads((Path(__file__).parents[1] / "golden" / "ffmpeg_constant_rate.json").read_text())
    assert len(files) == 5
    for name, film in files.items():
        times = [stamp * float(Fraction(film["time_base"])) for stamp in film["times"]]
        given = ffmpeg_constant_rate(times, float(Fraction(film["rate"])))
        assert given == film["given"][: len(given)], name
        assert set(film["given"][len(given) :]) <= {len(times) - 1}, name


def test_the_frame_on_the_screen() -> None:
    times = np.array([0.0, 0.9, 0.9376, 0.95, 2.9])
    assert displayed_frames(times, 4).tolist() == [2, 3, 4, 4]  # 0.9376 within the rounding of Matroska
    for rate in (10, 15, 16, 24, 25, 30, 60):
        stamps = np.round(np.arange(6 * rate) * 1000 / rate) / 1000
        assert displayed_frames(stamps).tolist() == [int(second * rate + 15 * rate / 16) for second in range(5)]


# Sound and picture


def test_one_picture_over_a_song(tmp_path: Path) -> None:
    path = mux(tmp_path / "song.mkv", "libx264", [0], tone(3, 48_000, 2), "flac")
    out = make(tmp_path, path)
    assert len(masks(out)) == 3 and all(mask.any() for mask in masks(out))
    assert "There is only one frame" in notes(out) and not missing(out)
    assert open_video(out / "overlay.mp4").duration == pytest.approx(3, abs=0.1)


def test_a_picture_that_never_changes(tmp_path: Path) -> None:
    path, picture = tmp_path / "song.mp4", cv2.resize(moving(4)[3], (64, 48))
    picture[10:20, 10:30] = (200, 40, 90)
    write_video(path, [picture] * 75, 25, tone(3))
    assert "The image never changes" in notes(make(tmp_path, path))
    changed = picture.copy()
    changed[30:40, 40:50] = 255
    write_video(path, [picture] * 70 + [changed] * 5, 25, tone(3))
    assert "never changes" not in notes(make(tmp_path / "changed", path))


def test_sound_before_the_first_picture_is_noted(tmp_path: Path) -> None:
    stamps = [1000 + 40 * n for n in range(50)]
    path = mux(tmp_path / "late.mkv", "libx264", stamps, tone(3, 48_000, 2), "flac")
    assert "The audio begins 1.0 s before the first frame" in notes(make(tmp_path, path))


def test_sound_after_the_last_picture_is_noted(tmp_path: Path) -> None:
    path = mux(tmp_path / "long.mkv", "libx264", [40 * n for n in range(50)], tone(5, 48_000, 2), "flac")
    assert "The audio continues for 3.0 s after the last frame" in notes(make(tmp_path, path))
    assert not open_video(mux(tmp_path / "even.mkv", "libx264", [40 * n for n in range(50)], tone(2, 48_000, 2))).notes


@pytest.mark.parametrize("codec", ["flac", "aac"])
def test_antiphase_is_not_silent(tmp_path: Path, codec: str) -> None:
    """Two channels that cancel: the left one is used, and the note says so; the sound of the others is as it was."""
    sound = tone(3, 48_000, 2)
    sound[48_000:, 1] *= -1
    path = mux(tmp_path / "a.mkv", "libx264", [40 * n for n in range(75)], sound, codec)
    video = open_video(path)
    seconds = list(read_audio_per_second(video, 16_000))
    whole = np.concatenate([second for second in seconds if second is not None])
    plain = 0.3 * np.sin(2 * np.pi * 440 * np.arange(48_000) / 16_000)
    edge = np.abs(np.arange(48_000) % 16_000 - 8000) > 7000  # where codecs and filters smear
    assert len(whole) >= 48_000 and np.abs(whole[:48_000] - plain)[~edge].max() < (0.001 if codec == "flac" else 0.03)
    said = notes(make(tmp_path, path))
    assert said.count("cancel each other") == 1
    assert "cancel each other, first in second 2" in said and "ilent at" not in said and "silent from" not in said


def test_preprocessing_notes_what_is_unusual(tmp_path: Path) -> None:
    """Clips are preprocessed all the same; the report says what of them is not as usual."""
    sound = tone(3, 48_000, 2)
    sound[:, 1] *= -1
    tags = {"colorspace": 9, "color_range": 2, "color_primaries": 9, "color_trc": 16}
    hdr = [np.full((48, 64), 594, np.uint16), *[np.full((24, 32), 512, np.uint16)] * 2]
    stamps = [40 * n for n in range(75)]
    videos = {
        "joined": (joined(tmp_path, 0.0, (72, 96)), "The size of the frames changes"),
        "antiphase": (mux(tmp_path / "a.mkv", "libx264", stamps, sound, "flac"), "cancel each other"),
        "hdr": (encode(tmp_path / "h.mkv", hdr, "yuv420p10le", **tags), "HDR"),
        "usual": (mux(tmp_path / "u.mkv", "libx264", stamps, tone(3, 48_000, 2), "flac"), ""),
    }
    found = {}
    for name, (path, part) in videos.items():
        root = tmp_path / name
        root.mkdir()
        (root / "s4_meta_data.csv").write_text(f"name,start,category,split\n{name},0,thing,test\n")
        data = AVSBench(root, "s4")
        write_bytes(data.video(data.clips[0]), path.read_bytes())
        result = preprocess_clip(data, data.clips[0])
        assert result.status == "done" and part in result.notes, (name, result)
        found[name] = result.notes
    assert "start again or jump at 3.0 s" in found["joined"]
    assert found["usual"] == "" and "tone-mapped" in found["hdr"]
    assert "original does not tone-map" in read_clip(videos["hdr"][0], "published").notes[0]


def test_names_that_are_not_utf8(tmp_path: Path, clip_file: ClipMaker) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/latin1-\xe9.mp4"))
    path.write_bytes(clip_file("named.mp4", seconds=2).read_bytes())
    assert open_video(path).num_frames == 50 and len(read_clip(path).frames) == 5
