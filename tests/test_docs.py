"""What docs/ claims, computed: the example of metrics.md, and who imports whom in architecture.md."""

import ast
import importlib
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from study.estimates import estimate_seconds, format_duration
from study.plan import load_study
from utils.metrics import Metrics
from zero_shot.options import RECOMMENDED_CONFIG

ROOT = Path(__file__).parent.parent
PACKAGES = {path.parent.name for path in ROOT.glob("*/__init__.py")}


def tables(page: str) -> list[list[list[str]]]:
    """The cells of the tables of a page in docs/, without their heads."""
    found: list[list[list[str]]] = [[]]
    for line in (ROOT / "docs" / page).read_text(encoding="utf-8").splitlines():
        if line.startswith("|"):
            found[-1].append([cell.strip() for cell in line.strip("|").split("|")])
        elif found[-1]:
            found.append([])
    return [table[2:] for table in found if table]


def numbers(cell: str) -> Tensor:
    return torch.tensor([float(number) for number in cell.split()])


def test_the_example_of_the_metrics_is_right() -> None:
    frames, results = tables("metrics.md")[-2:]
    truth = torch.stack([numbers(row[1]) for row in frames]).view(2, 2, 1, 4)
    p = torch.stack([numbers(row[2]) for row in frames]).view(2, 2, 1, 4)
    assert [row[0] for row in frames] == ["A1", "A2", "B1", "B2"] and len(results) == 4
    for answer, batch, *values in results:
        metrics = Metrics()
        for video in (0, 1):
            metrics.add(video, p[video].logit() if answer == "p" else (p[video] > 0.5).float(), truth[video])
        found = metrics.result(int(batch))
        named = [found[name] for name in ("m_j", "m_f", "m_f_whole_set", "iou_dataset")]
        assert [f"{value:.4f}" for value in named] == values
        iou = [f"{value:.4f}" for video in (0, 1) for value in metrics.videos[video].iou().tolist()]
        assert iou == [row[3] for row in frames]


def test_the_thresholds_of_the_example_are_right() -> None:
    """A's is between 0.6 and 0.9, B's between 0.2 and 0.3."""
    frames = tables("metrics.md")[-2]
    for video, low, high in ((0, 0.6, 0.9), (1, 0.2, 0.3)):
        rows = frames[2 * video : 2 * video + 2]
        metrics = Metrics()
        p, truth = (torch.stack([numbers(row[column]) for row in rows])[:, None] for column in (2, 1))
        metrics.add(0, p.logit(), truth)
        counts = metrics.videos[0]
        f = counts.f_scores()[counts.positives > 0].mean(0)
        best = np.flatnonzero(f == f.max()) / 254
        assert low < best.min() < low + 1 / 254 and high - 1 / 254 < best.max() < high + 1e-6


def imported(package: str) -> set[str]:
    """The packages here that the modules of one import."""
    found = set()
    for path in (ROOT / package).glob("**/*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {name.name.split(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.split(".")[0])
    return found & (PACKAGES | {"tests"}) - {package}


def test_every_folder_is_described() -> None:
    assert {row[0].strip("`") for row in tables("architecture.md")[0]} == PACKAGES - {"tests"}


@pytest.mark.parametrize("package", sorted(PACKAGES - {"tests"}))
def test_a_folder_imports_what_it_says(package: str) -> None:
    says = next(row[2] for row in tables("architecture.md")[0] if row[0] == f"`{package}`")
    assert imported(package) == set(re.findall(r"`(\w+)`", says))


@pytest.mark.parametrize("page", ["metrics.md", "architecture.md", "robustness.md", "scoring.md", "modern.md"])
def test_what_a_page_names_is_there(page: str) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    linked = re.findall(r"\]\(([^)#]+)\)", text)
    files = re.findall(r"`((?:\w+/)+[\w.]+\.(?:py|csv|yaml|md))`", text)
    assert files or linked
    for name in linked:
        assert (ROOT / "docs" / name).exists(), name
    for name in files:
        assert (ROOT / name).is_file(), name


def test_the_readme_says_how_long_a_row_takes_as_the_dry_run_does(tmp_path: Path) -> None:
    nowhere = {benchmark: tmp_path / benchmark for benchmark in ("s4", "ms3")}
    study = load_study("paper", nowhere)
    seconds, founded = estimate_seconds(study, tmp_path)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    said = {
        row[0]: row[2] for row in re.findall(r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \| [^|]+ \|$", readme, re.MULTILINE)
    }
    jobs = {
        "No-Prompt, S4 test (3700 frames)": "zero_shot/s4_no_prompt",
        "another zero-shot row, S4 test": "zero_shot/s4_point_dense",
        "No-Prompt, MS3 test (320 frames)": "zero_shot/ms3_no_prompt",
        "TPAVI ResNet-50, S4, 15 epochs (12 945 steps)": "supervised/s4_tpavi_resnet50",
        "AudioCLIP FPN, S4, 70 epochs (60 410 steps)": "supervised/s4_fpn_concate",
    }
    assert {name: said[name] for name in jobs} == {name: format_duration(seconds[job]) for name, job in jobs.items()}
    assert founded == 0 and f"are {format_duration(sum(seconds.values()))} of one GPU" in readme


COMMAND = re.compile(r"(?:python|torchrun)\b[^\n`]*?(?:-m ((?!torch)[\w.]+)|(\w+)\.py)([^\n`]*)")


def commands() -> dict[tuple[str, ...], dict[str, set[str]]]:
    """The options and configurations in the commands that pages and modules show, by program, and where they stand."""
    found: dict[tuple[str, ...], dict[str, set[str]]] = {}
    for path in (
        path for pattern in ("*.md", "*/*.md", "docs/*/*.md", "*.py", "*/*.py") for path in ROOT.glob(pattern)
    ):
        if path.parent.name == "tests":
            continue
        for module, script, words in COMMAND.findall(path.read_text(encoding="utf-8")):
            task = re.match(r"\s+(audioclip|sam)\b", words) if module == "synthetic.train" else None
            program = found.setdefault((module or script, *(task.groups() if task else ())), {})
            for word in re.findall(r"(?<![\w-])--[a-z][\w.-]*\w|(?<=--config )(?![A-Z…])\S+\.yaml", words):
                if not word.startswith("--slurm."):
                    program.setdefault(word, set()).add(path.name)
    return found


def test_commands_have_options_and_configurations_that_exist(capsys: pytest.CaptureFixture[str]) -> None:
    shown = commands()
    assert len(shown) > 15 and sum(map(len, shown.values())) > 80
    unknown = {}
    for (program, *task), words in shown.items():
        if not words:
            continue
        name = f"{program}.__main__" if (ROOT / program / "__main__.py").is_file() else program
        with pytest.raises(SystemExit):
            importlib.import_module(name).main([*task, "--help"])
        shown_help = capsys.readouterr().out
        assert max(map(len, shown_help.splitlines())) <= 120, program
        known = set(re.findall(r"--[a-z][\w.-]*", shown_help))
        unknown |= {word: where for word, where in words.items() if word not in known and not (ROOT / word).is_file()}
    assert not unknown


def test_one_configuration_is_recommended_for_the_public_weights() -> None:
    assert (ROOT / RECOMMENDED_CONFIG).is_file()
    found = set()
    for path in (path for pattern in ("*.md", "*/*.md", "*.py", "*/*.py") for path in ROOT.glob(pattern)):
        if path.parent.name != "tests":
            text = path.read_text(encoding="utf-8")
            found |= {(path.name, name) for name in re.findall(r"demo\.py VIDEO.*--config (\S+\.yaml)", text)}
    assert {config for _, config in found} == {RECOMMENDED_CONFIG}
    assert {"README.md", "demo.py"} <= {name for name, _ in found}


def test_an_installation_brings_no_package_of_a_common_name() -> None:
    """`pip install .` must leave nobody with a `utils` or `models` in site-packages."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    section = text.split("[tool.setuptools]\n")[1].split("\n[")[0]
    assert "packages = []" in section and "py-modules = []" in section and "package-data" not in text
