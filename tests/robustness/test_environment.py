"""What stands in the environment neither changes a number nor ends a run; Ctrl-C and closed pipes end one in a line."""

import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch.distributed

from supervised import train
from tests.helpers.crash_workers import blocks_interrupts
from tests.helpers.tiny_checkpoints import arguments, folder, same
from tests.robustness.test_option_ranges import COMMANDS, FILES, REPOSITORY
from utils import cli
from utils.accelerator import LAUNCHED, check_launcher, make_accelerator
from utils.dataloader import load_batches
from utils.environment import RESULT_CHANGING, clean_environment
from utils.interrupts import INTERRUPT_MESSAGE, block_interrupts, unblock_interrupts

__all__ = ["folder"]  # a fixture

VALUES = {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4", "ACCELERATE_MIXED_PRECISION": "bf16"}
CURVES = "from utils.environment import clean_environment; clean_environment(); from utils.figures import plot_curves\n"
CURVES += "row = {'epoch': 0, 'loss': 1.0, 'val_m_j': 0.5, 'val_m_f': 0.5}; print(len(plot_curves([row])))"


def python(*words: str, cwd: Path = REPOSITORY, **environment: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, [environment.pop("BEFORE", ""), str(REPOSITORY), os.environ["PYTHONPATH"]]))
    there = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run([sys.executable, *words], cwd=cwd, env=there, capture_output=True, text=True, timeout=300)


def variables() -> dict[str, str]:
    """Every variable that accelerate names, and the others of RESULT_CHANGING, set to something."""
    sources = "".join(path.read_text() for path in Path(accelerate.__file__).parent.rglob("*.py"))
    names = set(re.findall(r"\bACCELERATE_[A-Z0-9_]*[A-Z0-9]\b", sources))
    assert set(VALUES) <= names and len(names) > 20
    names |= {name.replace("*", "ENABLED") for name in RESULT_CHANGING if not name.startswith("ACCELERATE")}
    return {name: VALUES.get(name, "1") for name in sorted(names)}


def test_no_variable_changes_a_number(
    composed: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ["--train.epochs", "1", "--train.batch_size", "2", "--data.fraction", "0.5"]
    assert train.main(arguments(composed, folder, tmp_path / "one", *few)) == 0
    assert "has no effect" not in capsys.readouterr().err
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    assert accelerate.Accelerator(cpu=True).gradient_accumulation_steps == 4  # it does read them
    for name, value in variables().items():
        monkeypatch.setenv(name, value)
    assert train.main(arguments(composed, folder, tmp_path / "two", *few)) == 0
    assert "ACCELERATE_GRADIENT_ACCUMULATION_STEPS=4" in capsys.readouterr().err
    same(tmp_path / "one", tmp_path / "two")


def test_an_accelerator_does_what_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in VALUES.items():
        monkeypatch.setenv(name, value)
    made = make_accelerator("cpu")
    assert (made.gradient_accumulation_steps, made.mixed_precision) == (1, "no")


def test_variables_that_only_choose_kernels_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_NUM_THREADS", "ATEN_CPU_CAPABILITY", "CUBLAS_WORKSPACE_CONFIG", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.setenv(name, "1")
    before = dict(os.environ)
    clean_environment()
    assert dict(os.environ) == before


def test_plots_are_files_whatever_the_notebook_and_the_matplotlibrc_say(tmp_path: Path) -> None:
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nbackend: nonsense_backend\n")
    backend = "module://matplotlib_inline.backend_inline"
    drawn = python("-c", CURVES, cwd=tmp_path, MPLBACKEND=backend, PATH="/nowhere", JOBLIB_MULTIPROCESSING="no")
    assert drawn.returncode == 0 and int(drawn.stdout) > 1000, drawn.stderr


@pytest.mark.parametrize(
    "given, said",
    [
        ({"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0"}, None),
        ({"LOCAL_RANK": "0"}, None),
        ({"PMI_SIZE": "1", "MASTER_PORT": "1234"}, None),
        ({"WORLD_SIZE": "4"}, "WORLD_SIZE=4 is set in the environment, but not RANK, LOCAL_RANK, MASTER_ADDR"),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "start several processes with torchrun"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE=two in the environment is not a number"),
        (dict(zip(LAUNCHED, ("2", "2", "0", "localhost", "1"), strict=True)), "RANK=2 is not below WORLD_SIZE=2"),
    ],
)
def test_one_process_or_those_of_torchrun(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], said: str | None
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    if said is None:
        check_launcher()
        assert not set(given) & set(os.environ)
    else:
        with pytest.raises(cli.InputError, match=said):
            check_launcher()


def test_a_command_closes_its_process_group(tmp_path: Path) -> None:
    """Open connections of a process that leaves first have made the other one abort at exit."""

    @cli.cli_entry
    def main(argv: Sequence[str] | None = None) -> int:
        torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
        return 0

    assert main() == 0
    assert not torch.distributed.is_initialized()


def test_what_torchrun_sets_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in zip(LAUNCHED, ("2", "1", "1", "localhost", "29500"), strict=True):
        monkeypatch.setenv(name, value)
    check_launcher()
    assert set(LAUNCHED) <= set(os.environ)


def test_a_terminal_without_the_signs_gets_replacements(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))

    @cli.cli_entry
    def main(argv: Any = None) -> int:
        print("run · 5×5 é \udce9")
        return 0

    assert main([]) == 0 and raw.getvalue() == b"run ? 5?5 ? ?\n"


def test_files_are_utf8_in_any_locale(tmp_path: Path) -> None:
    (tmp_path / "é.yaml").write_text("# größer\ndata: {root: données}\n", encoding="utf-8")
    program = "from utils.environment import prepare_process; prepare_process()\n"
    program += "import pathlib; from utils.config import from_yaml\n"
    program += "from zero_shot.options import Options; (path,) = pathlib.Path().glob('*.yaml')\n"
    program += "print(ascii(str(from_yaml(Options, path).data.root)))"
    done = python("-c", program, cwd=tmp_path, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert done.returncode == 0 and done.stdout.strip() == r"'donn\xe9es'", done.stderr


# --- ends ------------------------------------------------------------------------------------------------


def test_a_closed_pipe_is_quiet() -> None:
    words = [sys.executable, "-m", "pretrained.download", "--list"]
    with subprocess.Popen(words, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout and process.stderr
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait(120) == 141


@pytest.mark.parametrize("module", COMMANDS)
def test_an_interruption_during_imports_is_a_line(module: str, tmp_path: Path) -> None:
    for name in ("torch", "numpy", "yaml", "tqdm", "cv2", "pandas"):
        (tmp_path / f"{name}.py").write_text("import os, time\nos.kill(os.getpid(), 2); time.sleep(9)")
    ended = python("-m", module, BEFORE=str(tmp_path))
    assert ended.stderr == f"{INTERRUPT_MESSAGE}\n" and ended.returncode in (130, -signal.SIGINT)


def test_processes_started_while_it_is_put_off_are_not_interrupted() -> None:
    program = "import os; os.kill(os.getpid(), 2); print('alive')"
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with block_interrupts():
        child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert child.stdout == "alive\n" and signal.pthread_sigmask(signal.SIG_BLOCK, []) == before


def test_readers_of_clips_leave_ctrl_c_to_the_first() -> None:
    class Items:
        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> dict[str, int]:
            return {"blocked": int(blocks_interrupts(index))}

    assert [batch["blocked"].tolist() for batch in load_batches(Items(), [[0]], workers=1)] == [[1]]  # type: ignore[arg-type]
    with block_interrupts():
        unblock_interrupts()
        assert not blocks_interrupts(0)


def test_bars_in_a_file_are_a_line_a_minute(capsys: pytest.CaptureFixture[str]) -> None:
    from tqdm import tqdm

    for _ in tqdm(range(1000), **cli.progress_bar_options()):
        pass
    assert capsys.readouterr().err == ""
    bar = tqdm(total=2, **cli.progress_bar_options())
    bar.start_t -= 2 * cli.LOG_INTERVAL
    bar.last_print_t -= 2 * cli.LOG_INTERVAL
    bar.update()
    bar.update()
    bar.close()
    assert 1 <= capsys.readouterr().err.count("it/s") + 1 <= 4


def test_every_bar_is_quiet() -> None:
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        for place in (match.end() for match in re.finditer(r"\btqdm\(", text)):
            depth, end = 1, place
            while depth:
                depth += {"(": 1, ")": -1}.get(text[end], 0)
                end += 1
            assert "**progress_bar_options()" in text[place:end] or "disable=None" in text[place:end], path
