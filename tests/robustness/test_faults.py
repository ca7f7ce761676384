"""Full disks, folders and files that may not be used, cut files, clips that vanish, lost processes, two at once: each
is told in one line and ends the command with 1, and when it is mended the same command goes on.

More, beside what they concern: test_runs.py, test_preprocess.py, test_cache.py, test_compose.py, test_checkpoints.py.
"""

import errno
import fcntl
import io
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import preprocess_s4
from avsbench_data import check
from pretrained import download
from supervised import evaluate as supervised_evaluate
from supervised import objective, train
from synthetic import compose
from tests.helpers import crash_workers as lost
from tests.helpers.crash_injection import left_behind
from tests.helpers.tiny_checkpoints import arguments, folder, same
from tests.pretrained.test_download import CONTENT, Server, listed, server
from utils import dataset, http_download, preprocess
from utils.cli import InputError
from utils.layout import AVSBench
from utils.lock import exclusive_lock
from utils.metrics import Metrics
from utils.parallel import parallel_map
from zero_shot import evaluate

__all__ = ["folder", "listed", "server"]  # fixtures
REPOSITORY = Path(__file__).parents[2]
Capture = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch
COMPOSE = "--s4 3 --ms3 0 --size 64x64 --fps 3 --jobs 1"
MINI = "--audioclip.weights mini --audioclip.reverse false --sam.model mini --sam.weights mini --run.device cpu"


def assert_one_line_error(capture: Capture, *words: str) -> None:
    """One line says what is wrong, with these words in it."""
    lines = [
        line for line in capture.readouterr().err.splitlines() if not line.startswith("libpng") and "|" not in line
    ]
    lines = [line for line in lines if line and "[ WARN" not in line]
    assert len(lines) == 1 and lines[0].startswith("error: "), lines
    assert all(word in lines[0] for word in words), lines


def heatmap(composed: Path, out: Path, *more: str) -> list[str]:
    """Words for the cheapest zero-shot method that uses audio."""
    words = (
        f"--method heatmap {MINI} --run.batch_size 1 --run.cache {out}/cache --data.root {composed / 'Single-source'}"
    )
    return [*words.split(), "--data.num_workers", "0", "--out", str(out / "run"), *more]


def short(composed: Path, folder: Path, out: Path, *more: str) -> list[str]:
    """Words for a training of two epochs of two steps."""
    return arguments(composed, folder, out, "--data.fraction", "0.3", "--train.batch_size", "2", *more)


# --- disks that are full, folders that may not be written --------------------------------------------------


@contextmanager
def full_from(write: int, monkeypatch: Patch) -> Iterator[None]:
    """The disk is full half way through the write number `write`."""
    count, original = iter(range(1, 10_000)), Path.write_bytes

    def writing(path: Path, content: bytes) -> int:
        if next(count) < write:
            return original(path, content)
        original(path, content[: len(content) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", writing)
        yield


@pytest.mark.parametrize("write", [1, 2, 4, 7])
def test_composing_on_a_full_disk_can_be_resumed(
    tmp_path: Path, monkeypatch: Patch, capsys: Capture, write: int
) -> None:
    words = ["--out", str(tmp_path / "out"), *COMPOSE.split()]
    with full_from(write, monkeypatch):
        assert compose.main(words) == 1
    assert_one_line_error(capsys, "No space left on device")
    assert not list(tmp_path.rglob("*.partial*")) and not list(tmp_path.rglob(".lock"))
    assert not list(tmp_path.rglob("s4_meta_data.csv")), "which would list what is not there"
    assert compose.main(words) == 0


@pytest.mark.parametrize("write", [1, 2, 4, 8, 9])  # config, embeddings, numbers
def test_evaluating_on_a_full_disk_can_be_resumed(
    composed: Path, tmp_path: Path, monkeypatch: Patch, capsys: Capture, write: int
) -> None:
    words = heatmap(composed, tmp_path, "--data.max_clips", "1")
    with full_from(write, monkeypatch):
        assert evaluate.main(words) == 1
    assert_one_line_error(capsys, "No space left on device")
    assert not list(tmp_path.rglob("*.partial*")) and not (tmp_path / "run" / "metrics.json").exists()
    assert evaluate.main(words) == 0


def test_evaluating_a_training_on_a_full_disk_leaves_no_metrics(
    composed: Path, folder: Path, tmp_path: Path, monkeypatch: Patch, capsys: Capture
) -> None:
    assert train.main(short(composed, folder, tmp_path / "run", "--train.epochs", "1")) == 0
    for write in (1, 2):
        with full_from(write, monkeypatch):
            assert supervised_evaluate.main(["--run-dir", str(tmp_path / "run")]) == 1
        assert_one_line_error(capsys, "No space left on device")
        assert not list(tmp_path.rglob("*.partial*")) and not (tmp_path / "run" / "metrics.json").exists()
    assert supervised_evaluate.main(["--run-dir", str(tmp_path / "run")]) == 0


def test_downloading_on_a_full_disk(
    server: Server, listed: Callable[..., Path], monkeypatch: Patch, capsys: Capture
) -> None:
    """The first file does not fit; what came of it stays for the next time. The second does."""
    to, original = listed(a={}, b={}), Path.open

    class Full(io.FileIO):
        def write(self, data: Any) -> int:
            if self.tell() + len(data) > len(CONTENT) // 2:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.name)
            return super().write(data)

    def opening(path: Path, mode: str = "r", *words: Any, **more: Any) -> Any:
        if path.name == "a.pt.partial" and mode in ("ab", "wb"):
            return Full(path, mode)
        return original(path, mode, *words, **more)

    monkeypatch.setattr(http_download, "CHUNK_BYTES", 1 << 16)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", opening)
        assert download.main(["a", "b", "--to", str(to)]) == 1
    printed = capsys.readouterr()
    assert "failed     a.pt" in printed.out and "No space left on device" in printed.out
    assert "downloaded b.pt" in printed.out and "Traceback" not in printed.err
    assert (to / "a.pt.partial").stat().st_size == len(CONTENT) // 2
    assert download.main(["a", "--to", str(to)]) == 0 and (to / "a.pt").read_bytes() == CONTENT


def test_a_file_in_place_of_the_run_folder_is_reported(
    composed: Path, folder: Path, tmp_path: Path, capsys: Capture
) -> None:
    """What a folder that may not be written gives: an error of the system, here one that even root meets."""
    (tmp_path / "taken").write_text("")
    for main, words in (
        (evaluate.main, heatmap(composed, tmp_path / "taken")),
        (train.main, short(composed, folder, tmp_path / "taken" / "run")),
    ):
        assert main(words) == 1
        assert_one_line_error(capsys, str(tmp_path / "taken"))


def test_preprocessing_into_a_folder_that_may_not_be_written(benchmark_copy: Path, capsys: Capture) -> None:
    root = benchmark_copy / "Single-source"
    sounds = root / "s4_data" / "audio_wav"
    sounds.rename(root / "elsewhere")
    sounds.write_text("")
    assert preprocess_s4.main(["--root", str(root), "--jobs", "1"]) == 1
    printed = capsys.readouterr().out
    assert printed.count("failed: ") == 14 and "cannot write: " in printed and "14 failed" in printed
    sounds.unlink()
    (root / "elsewhere").rename(sounds)
    assert preprocess_s4.main(["--root", str(root), "--jobs", "1"]) == 0


# --- files that may not be read, or are cut, or vanish -----------------------------------------------------


def refuse(monkeypatch: Patch, name: str, method: str) -> None:
    """A file may not be read. (Root may read what `chmod 0` forbids to others.)"""
    original = getattr(Path, method)

    def reading(path: Path, *words: Any, **more: Any) -> Any:
        if path.name == name:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return original(path, *words, **more)

    monkeypatch.setattr(Path, method, reading)


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_file_that_may_not_be_read(
    composed: Path, folder: Path, tmp_path: Path, monkeypatch: Patch, capsys: Capture, workers: str
) -> None:
    data = AVSBench(composed / "Single-source", "s4")
    frame = data.frames(data.split("test")[1])[2].name
    refuse(monkeypatch, frame, "read_bytes")
    assert evaluate.main(heatmap(composed, tmp_path, "--data.num_workers", workers)) == 1
    assert_one_line_error(capsys, frame, "Permission denied")
    refuse(monkeypatch, "s4_meta_data.csv", "open")
    assert train.main(short(composed, folder, tmp_path / "trained", "--data.num_workers", workers)) == 1
    assert_one_line_error(capsys, "s4_meta_data.csv", "Permission denied")


def test_a_checkpoint_that_may_not_be_read(composed: Path, folder: Path, tmp_path: Path, capsys: Capture) -> None:
    """A folder in its place: what even root cannot read."""
    run = tmp_path / "run"
    assert train.main(short(composed, folder, run, "--train.epochs", "1")) == 0
    for name, main, words in (
        ("best.safetensors", supervised_evaluate.main, ["--run-dir", str(run)]),
        ("config.yaml", supervised_evaluate.main, ["--run-dir", str(run)]),
    ):
        (run / name).rename(run / "kept")
        (run / name).mkdir()
        capsys.readouterr()
        assert main(words) == 1
        assert_one_line_error(capsys, name)
        (run / name).rmdir()
        (run / "kept").rename(run / name)


def cut_places(path: Path, chance: random.Random, count: int) -> list[int]:
    """Lengths to which to cut a file: none of it, nearly all of it, and others."""
    size = path.stat().st_size
    return [0, size - 2, *(chance.randrange(size) for _ in range(count))]


def test_truncated_files_raise_an_error_or_change_nothing(benchmark_copy: Path, capfd: Capture) -> None:
    """Never a silently wrong number: what is left of a file gives what the whole gave, or an error that names it."""
    chance, tried = random.Random(0), 0
    data = AVSBench(benchmark_copy / "Single-source", "s4")
    place, clip = 1, data.split("test")[1]
    clips = {kind: dataset.AVSDataset(data, "test", images="raw", audio=kind) for kind in ("waveform", "log_mel")}
    whole = {kind: clips[kind][place] for kind in clips}
    for path in (data.frames(clip)[3], data.wav(clip), data.log_mel(clip), data.masks(clip)[0]):
        content = path.read_bytes()
        kind = "log_mel" if path == data.log_mel(clip) else "waveform"
        for length in cut_places(path, chance, 20):
            path.write_bytes(content[:length])
            tried += 1
            try:
                found = clips[kind][place]
            except InputError as error:
                assert str(path) in str(error) and "\n" not in str(error)
            else:
                assert all(torch.equal(found[name], whole[kind][name]) for name in ("frames", "masks", kind))
        path.write_bytes(content)
    print(f"{tried} cut files")


def test_preprocessing_replaces_truncated_files_and_the_check_names_them(benchmark_copy: Path, capsys: Capture) -> None:
    chance, root = random.Random(1), benchmark_copy / "Single-source"
    data = AVSBench(root, "s4")
    clip = data.clips[4]
    for path in (data.frames(clip)[0], data.wav(clip), data.log_mel(clip)):
        content = path.read_bytes()
        for length in cut_places(path, chance, 3):
            path.write_bytes(content[:length])
            assert check.clip_problems(data, clip, raw=False, features=True), (path, length)
            assert preprocess.preprocess_clip(data, clip).status == "done", (path, length)
            assert path.read_bytes() == content
    video = data.video(clip)
    content = video.read_bytes()
    for length in cut_places(video, chance, 3):
        video.write_bytes(content[:length])
        assert check.clip_problems(data, clip, raw=True, features=False), length
        assert preprocess.preprocess_clip(data, clip, overwrite=True).status == "failed"


def test_a_clip_that_vanishes_while_others_are_preprocessed(
    benchmark_copy: Path, monkeypatch: Patch, capsys: Capture
) -> None:
    data = AVSBench(benchmark_copy / "Single-source", "s4")
    gone, original = data.clips[9], preprocess.read_clip

    def reading(path: Path, *more: Any) -> Any:
        data.video(gone).unlink(missing_ok=True)
        return original(path, *more)

    monkeypatch.setattr(preprocess, "read_clip", reading)
    assert preprocess_s4.main(["--root", str(data.root), "--jobs", "1", "--overwrite"]) == 1
    printed = capsys.readouterr().out
    assert "13 done, 0 skipped, 1 failed" in printed
    assert f"failed: {gone.name}: {data.video(gone)}: no such file" in printed


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_clip_that_vanishes_in_an_evaluation(
    benchmark_copy: Path, tmp_path: Path, monkeypatch: Patch, capsys: Capture, workers: str
) -> None:
    data, original = AVSBench(benchmark_copy / "Single-source", "s4"), Metrics.add
    gone, kept = data.wav(data.split("train")[9]), data.root / "kept.wav"

    def adding(self: Metrics, *words: Any) -> None:
        if gone.exists():
            gone.rename(kept)
        original(self, *words)

    words = heatmap(benchmark_copy, tmp_path, "--data.num_workers", workers, "--data.split", "train")
    with monkeypatch.context() as patch:
        patch.setattr(Metrics, "add", adding)
        assert evaluate.main(words) == 1
    assert_one_line_error(capsys, f"{gone}: no such file")
    assert not (tmp_path / "run" / "metrics.json").exists()
    kept.rename(gone)
    assert evaluate.main(words) == 0
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["videos"] == 10


def test_a_clip_that_vanishes_in_training(
    benchmark_copy: Path, folder: Path, tmp_path: Path, monkeypatch: Patch, capsys: Capture
) -> None:
    data, original = AVSBench(benchmark_copy / "Single-source", "s4"), objective.segmentation_loss
    gone, kept, steps = data.masks(data.split("val")[1])[2], data.root / "kept.png", iter(range(100))

    def loss(*words: Any) -> Any:
        if next(steps) == 3:  # in the second epoch
            gone.rename(kept)
        return original(*words)

    words = ["--train.checkpoint_minutes", "0", "--model.freeze", "[]", "--data.num_workers", "1"]
    assert train.main(short(benchmark_copy, folder, tmp_path / "whole", *words)) == 0
    with monkeypatch.context() as patch:
        patch.setattr(objective, "segmentation_loss", loss)
        assert train.main(short(benchmark_copy, folder, tmp_path / "cut", *words)) == 1
    assert f"error: {gone}: no such mask" in capsys.readouterr().err
    kept.rename(gone)
    assert train.main(short(benchmark_copy, folder, tmp_path / "cut", *words)) == 0
    same(tmp_path / "whole", tmp_path / "cut")


# --- lost processes ----------------------------------------------------------------------------------------


def test_a_killed_process_costs_at_most_one_item(tmp_path: Path) -> None:
    found = list(parallel_map(partial(lost.square, tmp_path / "mark"), range(7), 2))
    assert found == [None if number == 1 else number**2 for number in range(7)]


def test_an_unpicklable_result_is_not_taken_for_a_killed_process() -> None:
    with pytest.raises(Exception, match="pickle"):
        list(parallel_map(lambda number: (number, (part for part in "ab")), [1, 2], 2))


def test_preprocessing_names_the_clip_whose_process_was_killed(
    benchmark_copy: Path, monkeypatch: Patch, capsys: Capture
) -> None:
    monkeypatch.setattr(preprocess, "preprocess_clip", lost.preprocess_clip)
    root = benchmark_copy / "Single-source"
    assert preprocess_s4.main(["--root", str(root), "--jobs", "2"]) == 1
    printed = capsys.readouterr()
    gone = AVSBench(root, "s4").clips[1].name
    assert f"failed: {gone}: its process was lost twice" in printed.out and "13 done" in printed.out
    assert "Traceback" not in printed.err


def test_the_items_of_killed_processes_are_named(
    benchmark_copy: Path, tmp_path: Path, monkeypatch: Patch, capsys: Capture
) -> None:
    def losing(function: Callable[[Any], Any], items: Any, jobs: int) -> Iterator[Any]:
        return (None if place == 1 else function(item) for place, item in enumerate(items))

    monkeypatch.setattr(compose, "parallel_map", losing)
    monkeypatch.setattr(check, "parallel_map", losing)
    words = ["--out", str(tmp_path / "out"), *COMPOSE.split()]
    assert compose.main(words) == 1
    assert_one_line_error(capsys, "not composed: ", "_0001: its process was lost twice")
    assert len(list((tmp_path / "out").rglob("*.mp4"))) == 2 and not list((tmp_path / "out").rglob("*.csv"))
    root = benchmark_copy / "Single-source"
    assert check.main(["--root", str(root), "--benchmark", "s4"]) == 1
    printed = capsys.readouterr().out
    assert f"{AVSBench(root, 's4').clips[1].name}: cannot be checked" in printed and "1 with problems" in printed
    monkeypatch.undo()
    assert compose.main(words) == 0


def lose_a_worker(monkeypatch: Patch, mark: Path) -> None:
    """The first worker that reads a third clip is killed."""
    original, read = dataset.AVSDataset.__getitem__, iter(range(1, 100))

    def item(self: dataset.AVSDataset, index: int) -> dict[str, Any]:
        if torch.utils.data.get_worker_info() and next(read) == 3 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, index)

    monkeypatch.setattr(dataset.AVSDataset, "__getitem__", item)


def test_a_killed_worker_ends_an_evaluation_in_one_line(
    composed: Path, tmp_path: Path, monkeypatch: Patch, capsys: Capture
) -> None:
    lose_a_worker(monkeypatch, tmp_path / "lost")
    words = heatmap(composed, tmp_path, "--data.num_workers", "1", "--data.split", "train")
    assert evaluate.main(words) == 1
    assert_one_line_error(capsys, "a data-loading process was lost", "Killed")
    assert evaluate.main(words) == 0


def test_a_killed_worker_ends_a_training_which_resumes(
    composed: Path, folder: Path, tmp_path: Path, monkeypatch: Patch, capsys: Capture
) -> None:
    words = ["--train.checkpoint_minutes", "0", "--model.freeze", "[]", "--train.batch_size", "1"]
    assert train.main(short(composed, folder, tmp_path / "whole", *words)) == 0
    lose_a_worker(monkeypatch, tmp_path / "lost")
    capsys.readouterr()
    assert train.main(short(composed, folder, tmp_path / "cut", *words, "--data.num_workers", "1")) == 1
    assert_one_line_error(capsys, "a data-loading process was lost", "Killed")
    assert train.main(short(composed, folder, tmp_path / "cut", *words, "--data.num_workers", "1")) == 0
    same(tmp_path / "whole", tmp_path / "cut")


# --- two at once -------------------------------------------------------------------------------------------

HOLD = """
import sys, time
from pathlib import Path
from utils.lock import exclusive_lock
with exclusive_lock(Path(sys.argv[1]), "works here"):
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def held(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process holds a lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout and process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    lock = tmp_path / "new" / ".lock"
    with held(lock) as process:
        with (
            pytest.raises(InputError, match="another process works here; wait for it, or end it"),
            exclusive_lock(lock, "works here"),
        ):
            pass
        process.kill()
        process.wait()
        assert lock.exists()
        with exclusive_lock(lock, "works here"):
            pass
    assert not lock.exists()


def test_without_file_locks_every_process_may_enter(tmp_path: Path, monkeypatch: Patch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "lockf", refuse)
    with exclusive_lock(tmp_path / ".lock", "works here"), exclusive_lock(tmp_path / ".lock", "works here"):
        pass
    assert not list(tmp_path.iterdir())


def add_up(folder: Path) -> None:
    """Count to 40 in a file that others count in as well."""
    added = 0
    while added < 40:
        try:
            with exclusive_lock(folder / ".lock", "adds"):
                count = int((folder / "count").read_text())
                (folder / "count").write_text(str(count + 1))
                added += 1
        except InputError:
            pass


def test_a_lock_has_one_holder(tmp_path: Path) -> None:
    """Also while others take it, and remove its file, at every moment."""
    (tmp_path / "count").write_text("0")
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=add_up, args=(tmp_path,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert (tmp_path / "count").read_text() == "120" and not (tmp_path / ".lock").exists()


def test_a_second_run_in_a_folder_is_refused(
    composed: Path, folder: Path, tmp_path: Path, server: Server, listed: Callable[..., Path], capsys: Capture
) -> None:
    to = listed(a={})
    for main, words, lock in (
        (compose.main, ["--out", str(tmp_path / "c"), *COMPOSE.split()], tmp_path / "c" / ".lock"),
        (train.main, short(composed, folder, tmp_path / "t"), tmp_path / "t" / ".lock"),
        (evaluate.main, heatmap(composed, tmp_path, "--data.max_clips", "1"), tmp_path / "run" / ".lock"),
        (download.main, ["a", "--to", str(to)], to / ".a.pt.lock"),
    ):
        with held(lock):
            assert main(words) == 1
            printed = capsys.readouterr()
            said = [line for line in (printed.out + printed.err).splitlines() if "another process" in line]
            assert len(said) == 1 and str(lock.parent) in said[0] and "Traceback" not in printed.err
            assert [path.name for path in lock.parent.iterdir()] == [lock.name], "nothing was touched"
        assert main(words) == 0


def test_a_second_preprocessing_is_refused(benchmark_copy: Path, capsys: Capture) -> None:
    root = benchmark_copy / "Single-source"
    with held(root / ".lock"):
        assert preprocess_s4.main(["--root", str(root)]) == 1
        assert_one_line_error(capsys, "another process is preprocessing here")


@pytest.mark.slow
def test_a_second_evaluation_of_the_same_is_safe(composed: Path, tmp_path: Path, monkeypatch: Patch) -> None:
    """Evaluations share a cache and may share a folder: what they write is the same, and written whole."""
    monkeypatch.setenv("GIT_DIR", str(tmp_path))  # results tell the commit, and one may be made meanwhile
    for out in ("alone", "both"):
        words = heatmap(composed, tmp_path / out, "--data.max_clips", "2")
        runs = [
            subprocess.Popen(
                [sys.executable, "-m", "zero_shot.evaluate", *words], cwd=REPOSITORY, stderr=subprocess.PIPE
            )
            for _ in range(1 if out == "alone" else 2)
        ]
        codes = [(run.communicate()[1], run.returncode) for run in runs]
        assert all(code == 0 or (code == 1 and b"is just starting" in said) for said, code in codes), codes
        assert any(code == 0 for _, code in codes)
    alone_found, both_found = left_behind(tmp_path / "alone"), left_behind(tmp_path / "both")
    assert alone_found == both_found and "run/metrics.json" in both_found
    assert np.isfinite(both_found["run/metrics.json"]["m_j"])
