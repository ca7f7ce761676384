"""Shared fixtures: a small composed benchmark, preprocessed once for the whole session."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

from synthetic import compose
from tests.helpers.offline.block_network import LIST, block_network
from utils import preprocess
from utils.layout import AVSBench
from utils.video_writer import write_video

# Small networks on a shared machine lose more to waiting for each other's threads than a second thread gains.
torch.set_num_threads(1)
# How long an example takes is the machine's affair.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

# A job in the background of a shell ignores Ctrl-C, and so would every process that a test starts and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# No test may use the network: neither this process nor those that it starts.
block_network()
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [str(Path(__file__).parent / "helpers" / "offline"), os.environ.get("PYTHONPATH")])
)


@pytest.fixture(scope="session")
def refused_connections(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file in which tests.helpers.offline.block_network notes what it refused, a line each."""
    path = tmp_path_factory.mktemp("offline") / "refused"
    path.touch()
    os.environ[LIST] = str(path)
    return path


@pytest.fixture(autouse=True)
def no_network(refused_connections: Path) -> Iterator[None]:
    """Fail a test during which something asked for the network, even if it then did without."""
    before = refused_connections.stat().st_size
    yield
    asked = refused_connections.read_text()[before:]
    assert not asked, f"the network was asked for:\n{asked}"


@pytest.fixture(scope="session")
def composed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with Single-source and Multi-sources, preprocessed. Read only: copy it to change it."""
    out = tmp_path_factory.mktemp("composed")
    assert compose.main(["--out", str(out), "--s4", "14", "--ms3", "8", "--seed", "3", "--jobs", "2"]) == 0
    for benchmark, folder in (("s4", "Single-source"), ("ms3", "Multi-sources")):
        outcomes = preprocess.preprocess(AVSBench(out / folder, benchmark), jobs=2)
        assert {outcome.status for outcome in outcomes} == {"done"}
    return out


@pytest.fixture(scope="session")
def composed_avss(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a small AVSS with all subsets in every split, preprocessed. Read only: copy it to change it."""
    out = tmp_path_factory.mktemp("avss")
    arguments = ["--out", str(out), "--s4", "0", "--ms3", "0", "--avss", "15", "--size", "80x64", "--jobs", "1"]
    assert compose.main(arguments) == 0
    root = out / "AVSBench-semantic"
    assert {outcome.status for outcome in preprocess.preprocess(AVSBench(root, "avss"), jobs=1)} == {"done"}
    return root


@pytest.fixture
def benchmark_copy(composed: Path, tmp_path: Path) -> Path:
    """A copy of the composed folder that a test may damage."""
    return Path(shutil.copytree(composed, tmp_path / "data"))


@pytest.fixture(scope="session")
def clip_file(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Make a video whose frame n is a flat grey of level n % 250, with a 440 Hz tone; returns its path."""
    folder = tmp_path_factory.mktemp("clips")

    def make(name: str, fps: float = 25, seconds: float = 5.0, sound: bool = True, rate: int = 44_100) -> Path:
        path = folder / name
        levels = np.arange(round(fps * seconds)) % 250
        frames = (np.full((48, 64, 3), level, np.uint8) for level in levels)
        tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(round(rate * seconds)) / rate)
        write_video(path, frames, fps, tone if sound else None, rate)
        return path

    return make


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what the tests counted that count: inputs tried, processes killed."""
    for report in terminalreporter.stats.get("passed", []):
        for line in report.capstdout.splitlines():
            if line.startswith(("fuzz, ", "killed ")):
                terminalreporter.write_line(line)
