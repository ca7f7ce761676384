"""Interrupted demos, demos of other videos, unusual file names, and the command line."""

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import numpy as np
import pytest
from torch import Tensor

import demo
from supervised import train
from tests.helpers.videos import moving, tone
from tests.zero_shot.test_demo import Capture, LeftHalf, error_of, make, masks, missing, notes
from utils.files import read_image, sha256
from utils.video_info import VideoInfo, open_video
from utils.video_stream import read_frames
from utils.video_writer import write_video
from zero_shot import evaluate
from zero_shot.demo import run
from zero_shot.demo_arguments import check_arguments
from zero_shot.demo_folder import MASK_LIST, DemoOutputs
from zero_shot.methods import Prediction
from zero_shot.options import Options

QUICK = ["--method", "foreground", "--run.device", "cpu"]  # needs no network


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """Ten seconds, of which the third to fifth are silent."""
    path, sound = tmp_path / "film.mp4", tone(10)
    sound[2 * 44_100 : 5 * 44_100] = 0
    write_video(path, moving(20), 2, sound)
    return path


class InterruptedMethod(LeftHalf):
    """Interrupts the run at the n-th batch."""

    def __init__(self, batch: int) -> None:
        super().__init__()
        self.remaining = batch

    def predict(self, frames: Sequence[np.ndarray], seconds: Tensor) -> list[Prediction]:
        self.remaining -= 1
        if self.remaining == 0:
            raise KeyboardInterrupt
        return super().predict(frames, seconds)


def content(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_an_interrupted_demo_resumes(tmp_path: Path, film: Path, capsys: Capture) -> None:
    """Complete batches of four masks are kept, and the result equals that of an uninterrupted run."""
    whole = content(make(tmp_path / "whole", film, heatmaps=True, prompts=True))
    for at, kept, asked in ((1, 0, 7), (2, 4, 5), (3, 8, 2)):
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path / f"cut{at}", film, InterruptedMethod(at), heatmaps=True, prompts=True)
        capsys.readouterr()
        method = LeftHalf()
        out = make(tmp_path / f"cut{at}", film, method, heatmaps=True, prompts=True)
        assert len(method.inputs) == asked
        assert (f"{kept} of 10 masks done" in capsys.readouterr().out) == (kept > 0)
        assert content(out) == whole and not missing(out)


def test_killed_while_the_overlay_is_written(tmp_path: Path, film: Path) -> None:
    out = make(tmp_path, film)
    whole = content(out)
    for name in ("overlay.mp4", "index.html"):
        (out / name).unlink()
    for name in (".overlay.0a1b2c3d.partial.mp4", ".lock", "masks/.000003.0a1b2c3d.partial.png"):
        (out / name).write_bytes(b"of a killed process")
    method = LeftHalf()
    assert content(make(tmp_path, film, method)) == whole and not method.inputs


def test_killed_before_anything_was_written(tmp_path: Path, film: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".demo.0a1b2c3d.partial.json").write_bytes(b"{")
    assert len(masks(make(tmp_path, film))) == 10


@pytest.mark.parametrize("damage, asked", [("line", 2), ("mask", 5), ("image", 5), ("list", 7), ("nonsense", 7)])
def test_missing_parts_of_a_demo_are_made_again(tmp_path: Path, film: Path, damage: str, asked: int) -> None:
    out, method = make(tmp_path, film), LeftHalf()
    whole, listing = content(out), out / MASK_LIST
    if damage == "line":
        listing.write_bytes(listing.read_bytes()[:-9])
    elif damage == "list":
        listing.unlink()
    elif damage == "nonsense":
        listing.write_text('[1]\n{"number": "1"}\n')
    else:
        (out / {"mask": "masks/000006.png", "image": "images/000008_heatmap.jpg"}[damage]).unlink()
    assert content(make(tmp_path, film, method)) == whole and len(method.inputs) == asked


def test_other_options_overwrite_the_demo_with_a_message(tmp_path: Path, film: Path, capsys: Capture) -> None:
    words = [str(film), "--out", str(tmp_path / "out"), *QUICK]
    for more, said in (
        ([], ""),
        (["--run.batch_size", "2", "--data.root", "elsewhere"], "10 of 10 masks done"),
        (["--mask-rate", "frame"], "another mask_rate"),
        (
            ["--mask-rate", "frame", "--audioclip.audio_repeats", "3", "--prompt.points", "global"],
            "audioclip.audio_repeats, prompt.points;",
        ),
    ):
        capsys.readouterr()
        assert demo.main([*words, *more]) == 0
        assert said in (printed := capsys.readouterr().out) and ("overwritten" in printed) == (
            said != "" and "done" not in said
        )
    assert len(masks(tmp_path / "out")) == 20


def test_a_second_demo_in_the_same_folder_is_refused(tmp_path: Path, film: Path) -> None:
    class Second(LeftHalf):
        def predict(self, frames: Sequence[np.ndarray], seconds: Tensor) -> list[Prediction]:
            if pid := os.fork():  # locks are held by processes
                assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
                return super().predict(frames, seconds)
            os._exit(demo.main([str(film), "--out", str(tmp_path / "out"), *QUICK]))

    assert len(masks(make(tmp_path, film, Second()))) == 10


# Other videos


def test_another_video_of_the_same_name_gets_another_folder(
    tmp_path: Path, film: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy elsewhere has the same demo, another video of the same stem its own."""
    monkeypatch.chdir(tmp_path)
    for folder in ("b", "c"):
        (tmp_path / folder).mkdir()
    copy = shutil.copy(film, "c/film.mp4")
    other = tmp_path / "b" / "film.mov"
    write_video(tmp_path / "b" / "film.mp4", moving(6), 2, tone(3))
    (tmp_path / "b" / "film.mp4").rename(other)
    assert demo.main(["film.mp4", *QUICK]) == 0
    first = content(Path("runs/demo/film"))
    capsys.readouterr()
    for _ in range(2):
        assert demo.main(["b/film.mov", *QUICK]) == 0
        said = capsys.readouterr().out
        assert said.startswith(
            "runs/demo/film contains the demo of another video; this one is written to runs/demo/film-2"
        )
    assert demo.main([str(copy), *QUICK]) == 0 and "10 of 10" in capsys.readouterr().out
    assert content(Path("runs/demo/film")).keys() == first.keys() and len(masks(Path("runs/demo/film"))) == 10
    assert len(masks(Path("runs/demo/film-2"))) == 3 and len(list(Path("runs/demo").iterdir())) == 2
    said = error_of(["b/film.mov", *QUICK, "--out", "runs/demo/film"], capsys)
    assert "runs/demo/film: contains the demo of another video (" in said and "film.mp4)" in said
    assert masks(Path("runs/demo/film"))[0].all()
    # A demo that does not say whose it is belongs to nobody else.
    for damaged in ("[]", "{}", "{"):
        Path("runs/demo/film/demo.json").write_text(damaged)
        assert "another video (unknown)" in error_of(["film.mp4", *QUICK, "--out", "runs/demo/film"], capsys)


# Names


@pytest.mark.parametrize(
    "name, shown",
    [
        (b"latin1-\xe9.mp4", "latin1-�.mp4"),
        (b"a\nb\t\x1b[31m.mp4", "a�b��[31m.mp4"),
        ("Ümläut 🎻.mp4".encode(), "Ümläut 🎻.mp4"),
        (b"50%d.mp4", "50%d.mp4"),
        (b"...mp4", "...mp4"),
    ],
)
def test_unusual_file_names(
    tmp_path: Path, film: Path, name: bytes, shown: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = os.fsdecode(name)
    try:
        film.rename(path)
    except OSError:
        pytest.skip("no such names on this file system")
    assert demo.main([path, *QUICK]) == 0
    (out,) = Path("runs/demo").iterdir()
    assert len(masks(out)) == 10 and not missing(out)
    assert f"<h1>What makes the sound in {shown}?" in (out / "index.html").read_text(encoding="utf-8")
    said = capsys.readouterr().out
    assert (
        said.startswith(f"{shown}: 10.0 s")
        and f"page: {out}/index.html" in said.splitlines()
        and str(out).isprintable()
    )
    assert "no such file" in error_of([f"{path}.absent", *QUICK], capsys)


def test_arguments_that_are_not_files(
    tmp_path: Path, film: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(film, "-abc.mp4")
    (tmp_path / "empty").mkdir()
    for word, said in (
        (str(tmp_path), "a folder; name one video file such as "),
        ("empty", "empty: a folder; name one video file"),
        ("https://example.org/watch?v=1", "a URL; videos are not downloaded, save it"),
        ("rtsp://host/live", "a URL"),
        ("-abc.mp4", "begins with a dash, like an option; if it is the video, write ./-abc.mp4"),
        ("-absent.webm", "begins with a dash"),
    ):
        assert said in error_of([word], capsys)
    assert demo.main(["./-abc.mp4", *QUICK]) == 0 and demo.main([*QUICK, "--", "-abc.mp4"]) == 0
    check_arguments(["a.mp4", "--retrieval.logit_scale", "-1.5", "--prompt.threshold=.5", "-h", "--", "-abc.mp4"])


def test_home_folder_is_expanded(tmp_path: Path, film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert demo.main(["~/film.mp4", "--out", "~/out", *QUICK]) == 0 and len(masks(tmp_path / "out")) == 10


# Page and help


def test_images_of_the_page_can_be_enlarged(tmp_path: Path) -> None:
    """Each is a link to itself, which works without scripts; images of a large video are large."""
    path = tmp_path / "a.mp4"
    write_video(path, moving(2, 1080, 1920), 1, tone(2))
    out = make(tmp_path, path)
    page = (out / "index.html").read_text()
    for number in (1, 2):
        for view in ("frame", "heatmap", "mask"):
            image = f"images/{number:06d}_{view}.jpg"
            assert f'<a href="{image}"><img src="{image}"' in page and (out / image).is_file()
    assert page.count("<a ") == 6 and "http" not in page and 'data-second="1"' in page
    assert read_image(out / "images" / "000001_mask.jpg").shape == (540, 960, 3)


@pytest.mark.parametrize("command, own", [(demo, 4), (evaluate, 4), (train, 2)])
def test_help_shows_usage_as_written_and_own_options_first(
    command: object, own: int, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit):
        command.main(["--help"])  # type: ignore[attr-defined]
    said = capsys.readouterr().out
    assert command.__doc__ and command.__doc__.strip() in said  # line breaks and all
    listed = [line.split()[0] for line in said.splitlines() if line.startswith("  --")]
    assert listed[own] == "--config" and said[: said.index("\n\n")].count("[--") == own + 2
    if command is demo:
        assert listed[:own] == ["--out", "--mask-rate", "--save-heatmaps", "--save-prompts"]


def test_notes_of_the_video_reader_are_shown(tmp_path: Path, film: Path, capsys: Capture) -> None:
    """On the page and on the terminal, also by a command that does not read the video again."""
    video, out = open_video(film), tmp_path / "out"
    video.add_note("Time stamps restart at <2 s>.")
    run(LeftHalf(), Options(), video, sha256(film), out, DemoOutputs())
    page = (out / "index.html").read_text()
    assert page.index("Time stamps restart at &lt;2 s&gt;.") < page.index("Silent at 0:02–0:05") < page.index("<video")
    assert "note: Time stamps restart at <2 s>.\n" in capsys.readouterr().out
    make(tmp_path, film)
    assert "note: Time stamps restart at <2 s>.\n" in capsys.readouterr().out and "restart" in notes(out)


def test_notes_found_while_reading_survive_a_kill(tmp_path: Path, film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole video is read again if the command ended before it saved them."""

    def noting(video: VideoInfo) -> Iterator[tuple[int, av.VideoFrame]]:
        video.add_note("The size of the frames changes.")
        return read_frames(video)

    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("zero_shot.demo.read_frames", noting)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("zero_shot.demo.write_page", stopped)
        make(tmp_path, film)
    assert (tmp_path / "out" / "overlay.mp4").is_file()
    assert "size of the frames changes" in notes(make(tmp_path, film))


def test_notes_on_the_audio_survive_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All masks are there, so that nothing else reads the audio second by second."""

    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    path, sound = tmp_path / "film.mp4", tone(3) * [1, -1]
    write_video(path, moving(6), 2, sound)
    whole = content(make(tmp_path / "whole", path))
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("zero_shot.demo.write_overlay", stopped)
        make(tmp_path, path)
    method = LeftHalf()
    out = make(tmp_path, path, method)
    assert "cancel each other, first in second 1" in notes(out)
    assert content(out) == whole and not method.inputs
