"""The benchmark: every row runs and its contestants agree, and the table says what was measured. Nothing is timed."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks import __main__ as program
from benchmarks import harness
from benchmarks.harness import BenchmarkRunner, Cost, Result, Row, relative_difference
from benchmarks.rows import ROWS

# Rows that differ in size alone are one.
KINDS = {(row.reference, row.optimized, repr(row.tiny)): row for row in ROWS if row.device == "cpu"}.values()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("benchmark")


@pytest.mark.parametrize("row", KINDS, ids=lambda row: f"{row.part}, {row.size}")
def test_contestants_agree_at_a_tiny_size(row: Row, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.data.FOLDER", folder)
    result = BenchmarkRunner(tiny=True).run(dataclasses.replace(row, reference_calls=0, optimized_calls=0))
    assert result.reference.output and all(array.size for array in result.reference.output.values())
    assert result.reference.wall > 0 and result.optimized.wall > 0


def plus(value: float) -> harness.Work:
    """A contestant: an array that hardly anything is done for."""
    return lambda: {"array": np.full(3, 1 + value)}


ROW = Row("a part", "a size", "nothing", f"{__name__}:plus", f"{__name__}:plus", {"value": 0.0}, {"value": 0.0})


def test_the_table_and_the_file_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        ROW,
        dataclasses.replace(ROW, part="another", memory=False, clock="wall"),
        dataclasses.replace(ROW, part="a slow one", slow=True),
        dataclasses.replace(ROW, part="a large one", min_gib=1e6),
    ]
    monkeypatch.setattr(program, "ROWS", rows)
    out = tmp_path / "table.md"
    assert program.main(["--quick", "--out", str(out)], tiny=True) == 0
    printed = capsys.readouterr()
    assert printed.out == out.read_text()
    assert "left out: a large one, a size: wants 1000000 GB" in printed.err
    heading, _, head, _, *lines = out.read_text().splitlines()
    assert "cores" in heading and "torch" in heading
    cells = [line.strip("|").split("|") for line in (head, *lines)]
    assert [row[0].strip() for row in cells] == ["part", "a part", "another"] and len({len(row) for row in cells}) == 1
    written = json.loads(out.with_suffix(".json").read_text())["rows"]
    assert [row["part"] for row in written] == ["a part", "another"]
    assert written[0]["plain"].keys() == {"wall", "processor", "peak_mb"} and written[1]["plain"].keys() == {"wall"}
    assert program.main(["--only", "slow"], tiny=True) == 0
    assert re.findall(r"^\| (a[\w ]*) \|", capsys.readouterr().out, re.M) == ["a slow one"]


def wrong() -> harness.Work:
    """A contestant whose result is off."""
    return lambda: {"array": np.array([1.0, 1.0, 1.1])}


def test_results_that_differ_stop_the_race() -> None:
    row = dataclasses.replace(ROW, optimized=f"{__name__}:wrong", options={}, tiny={}, reference=f"{__name__}:wrong")
    assert BenchmarkRunner(tiny=True).run(row).difference == 0
    with pytest.raises(AssertionError, match=r"a part, a size: results differ by 1\.0e-01"):
        BenchmarkRunner(tiny=True).run(dataclasses.replace(row, reference=f"{__name__}:ones"))


def ones() -> harness.Work:
    """A contestant whose result is right, and looked up late."""
    return lambda: lambda: {"array": np.ones(3)}


def test_a_baseline_that_rows_share_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[str] = []
    monkeypatch.setattr(harness, "measure", lambda name, *_: measured.append(name) or Cost(1.0, 1.0, 1.0))
    races = BenchmarkRunner(rounds=2)
    monkeypatch.setattr(races, "_apart", lambda function, *arguments: harness.measure(*arguments))
    races.run(dataclasses.replace(ROW, reference="plain", optimized="one"))
    races.run(dataclasses.replace(ROW, reference="plain", optimized="other"))
    assert measured == ["plain", "one", "plain", "one", "other", "other"]


def test_difference() -> None:
    numbers, masks = np.array([2.0, -4.0]), np.array([True, False, True, True])
    assert relative_difference({"a": numbers, "b": masks}, {"a": numbers.copy(), "b": masks.copy()}) == 0
    assert relative_difference({"a": numbers}, {"a": np.array([2.0, -3.0])}) == 0.25
    assert relative_difference({"b": masks}, {"b": ~masks}) == 1
    for other in ({"a": numbers[:1]}, {"b": numbers}, {"a": masks[:2]}):
        with pytest.raises(AssertionError):
            relative_difference({"a": numbers}, other)


def test_rows_are_told_apart() -> None:
    assert len({(row.part, row.size) for row in ROWS}) == len(ROWS)


def test_measuring_in_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "CONTESTANTS", [])
    result = BenchmarkRunner(rounds=1).run(dataclasses.replace(ROW, optimized_calls=2))
    assert isinstance(result, Result) and result.difference == 0
    assert result.reference.output["array"].tolist() == [1, 1, 1]
    assert result.optimized.peak_mb >= 0 and result.memory_ratio is not None
