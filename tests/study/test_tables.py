"""The tables: their cells are exactly the results of the runs, and the same in Markdown, LaTeX and CSV."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.job import Study
from study.plan import load_study
from study.reported import load_reported, reported_result
from study.results import collect_results
from study.table_format import LATEX_ESCAPES, Table, format_score, format_scores, latex_escape
from study.tables import build_tables, write_tables
from tests.helpers.studies import FPN, finish, study_of
from utils.cli import InputError
from utils.files import write_text


def tables_of(study: Study, runs: Path) -> dict[str, Table]:
    return {table.key: table for table in build_tables(study, collect_results(study, runs))}


def table_study(folder: Path) -> tuple[Study, Path]:
    """A study with some results, several seeds, both fidelities, and a row that it cannot run."""
    rows: list[dict[str, Any]] = [
        {
            "zero_shot": "point_local",
            "tables": {"zero_shot": "Points & | 50 %"},
            "fidelities": ["published", "corrected"],
        },
        {"tables": {"zero_shot": "Boxes_"}, "unavailable": "for a reason"},
        {**FPN, "seeds": [0, 1, 2], "audio": ["original", "shuffled"]},
    ]
    study, runs = study_of(folder, *rows), folder / "runs"
    known = {"zero_shot/s4_point_local_published": (0.1234, 1.0), "zero_shot/s4_point_local": (0.9996, 0.5)}
    known |= {"supervised/s4_fpn_mini_seed0": (0.5, 0.7), "supervised/s4_fpn_mini_seed2": (0.6, 0.7)}
    for job in study.jobs:
        if job.name in known:
            finish(job, runs, *known[job.name])
    finish(study.jobs[-1], runs, 0.25, 0.5, "shuffled")
    finish(study.jobs[-1], runs, 0.6, 0.7)
    return study, runs


def test_cells_are_the_results_of_the_runs(tmp_path: Path) -> None:
    study, runs = table_study(tmp_path)
    zero_shot, fusion = tables_of(study, runs).values()
    assert list(zero_shot.cells.columns) == ["S4, published", "S4, corrected", "MS3, published", "MS3, corrected"]
    assert zero_shot.rows() == [
        ("Points & | 50 %", [".123 / 1.000", "1.000 / .500", "…", "…"]),
        ("Boxes_", ["–", "–", "–", "–"]),
    ]
    assert zero_shot.note == "metric_batch 1. Boxes_: for a reason. 2 of 4 results missing."
    assert list(fusion.cells.columns) == ["S4", "S4, shuffled audio"]
    assert fusion.rows() == [("FPN", [".550 ± .071 / .700 ± .000 (n = 2 of 3)", ".250 / .500 (n = 1 of 3)"])]
    assert fusion.note == "metric_batch 1. Fidelity: corrected. 3 of 6 results missing."
    results = collect_results(study, runs)
    done = results[(results["table"] == "fusion") & results["m_j"].notna()]
    assert list(zip(done["seed"], done["audio"], done["m_j"], strict=True)) == [
        (0, "original", 0.5),
        (2, "original", 0.6),
        (2, "shuffled", 0.25),
    ]
    assert "| Points & \\| 50 % | .123 / 1.000 | 1.000 / .500 | … | … |" in zero_shot.to_markdown().splitlines()
    assert r"Points \& | 50 \% & .123 / 1.000 & 1.000 / .500 & \ldots{} & \ldots{} \\" in zero_shot.to_latex()


def test_the_table_of_models_has_their_costs(tmp_path: Path) -> None:
    row = {**FPN, "tables": {"models": "FPN"}, "benchmarks": ["s4", "ms3"], "seeds": [0, 1]}
    study, runs = study_of(tmp_path, row), tmp_path / "runs"
    for seed, job in enumerate(job for job in study.jobs if job.benchmark == "s4"):
        finish(job, runs, 0.5, 0.7)
        cost = {"parameters": 1_260_000, "step_seconds": 0.25 + 0.1 * seed, "memory_mib": 310.4 + seed}
        write_text(job.run_dir(runs) / "cost.json", json.dumps(cost))
        silent = {"conditions": {"silent": {"mean": {"pIA": 0.01 + 0.02 * seed}}}}
        write_text(job.run_dir(runs) / "robustness.json", json.dumps(silent))
    (table,) = tables_of(study, runs).values()
    cells = dict(zip(table.cells.columns, table.rows()[0][1], strict=True))
    assert cells == {
        "S4": ".500 ± .000 / .700 ± .000 (n = 2)",
        "MS3": "…",
        "parameters": "1.3 M",
        "S4, a step": "0.3 s",
        "S4, memory": "311 MiB",
        "S4, area in silence": ".020 ± .014",
        "MS3, a step": "…",
        "MS3, memory": "…",
        "MS3, area in silence": "…",
    }
    assert "processor time on a CPU" in table.note


def test_latex_needs_no_package(tmp_path: Path) -> None:
    study, runs = table_study(tmp_path)
    assert tables_of(study, runs)["fusion"].to_latex().splitlines() == [
        r"\begin{table}",
        r"\centering",
        r"\caption{Fusion. metric\_batch 1. Fidelity: corrected. 3 of 6 results missing.}",
        r"\begin{tabular}{lcc}",
        r"\hline",
        r" & S4 & S4, shuffled audio \\",
        r"\hline",
        r"FPN & .550 $\pm$ .071 / .700 $\pm$ .000 (n = 2 of 3) & .250 / .500 (n = 1 of 3) \\",
        r"\hline",
        r"\end{tabular}",
        r"\end{table}",
    ]


def test_markdown_latex_and_csv_agree(tmp_path: Path) -> None:
    study, runs = table_study(tmp_path)
    paths = write_tables(study, runs, tmp_path / "out")
    assert [path.name for path in paths] == ["own.md", "own.csv", "own.tex"]
    markdown, tex = paths[0].read_text(), paths[2].read_text()
    assert "could not find" in markdown and "012345678" in markdown
    assert all(line.startswith("%") for line in tex.split("\\begin")[0].splitlines())
    with paths[1].open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["run"] for line in lines] == [job.run_dir(runs).as_posix() for job in study.jobs for _ in job.audio]
    for table in tables_of(study, runs).values():
        assert table.to_markdown() in markdown and table.to_latex() in tex
        for row, cells in table.rows():
            assert " & ".join(map(latex_escape, [row, *cells])) + r" \\" in tex
            for column, cell in zip(table.cells.columns, cells, strict=True):
                found = [line for line in lines if (line["row"], _column(line, table)) == (row, column)]
                known = [(float(line["m_j"]), float(line["m_f"])) for line in found if line["m_j"]]
                assert cell == (format_scores(known, len(found)) if known else "…" if found else "–")


def _column(line: dict[str, str], table: Table) -> str:
    both = any("published" in column for column in table.cells.columns)
    parts = [line["benchmark"].upper(), *([line["fidelity"]] if both else [])]
    return ", ".join(parts + ["shuffled audio"] * (line["audio"] != "original"))


def test_reported_results_are_beside_the_same_configuration_with_their_source(tmp_path: Path) -> None:
    known = load_reported()
    assert known and all(result.source and 0 < result.m_j < result.m_f < 1 for result in known.values())
    study = load_study("paper")
    assert set(known) <= {job.config.resolve() for job in study.jobs}
    tables = tables_of(study, tmp_path)
    tpavi = tables["tpavi"]
    assert list(tpavi.cells.columns) == ["S4", "S4, reported", "MS3", "MS3, reported"]
    assert dict(tpavi.rows())["TPAVI, ResNet-50"] == ["…", ".728 / .848", "…", ".479 / .578"]
    assert dict(tpavi.rows())["TPAVI, PVT-v2-B5"] == ["…", ".787 / .879", "…", ".540 / .645"]
    assert "Reported by AVSBench (ECCV 2022), main results [A]." in tpavi.note
    fractions = dict(tables["fraction"].rows())
    assert fractions["TPAVI, ResNet-50, 50 % of the clips"] == ["…", ".705 / .814", "…", "–", "4"]
    assert fractions["AudioCLIP FPN, concate, 20 % of the clips"][1::3] == ["–", "1"]
    write_tables(study, tmp_path, tmp_path)
    with (tmp_path / "paper.csv").open(newline="") as file:
        sources = [line["source"] for line in csv.DictReader(file) if line["m_j"]]
    assert len(sources) == 13 and all(sources)  # nine results, two of them in three tables


def test_a_modified_configuration_is_another(tmp_path: Path) -> None:
    known = load_reported()
    row = {"supervised": "tpavi_pvt", "tables": {"tpavi": "TPAVI"}, "benchmarks": ["s4"]}
    for options, m_j in (({}, 0.7874), ({"train.epochs": 1}, None)):
        study = study_of(tmp_path, {**row, "options": options}, configs={"supervised": "supervised/configs"})
        found = reported_result(study.jobs[0], known)
        assert (found and found.m_j) == m_j


@pytest.mark.parametrize(
    "entry, message",
    [
        ("{m_j: 1, m_f: 1, source: '', grade: A}", "field source is empty"),
        ("{m_j: 1, m_f: 1, source: x, grade: C}", "field grade"),
        ("{m_j: 1, source: x, grade: A}", "m_f"),
    ],
)
def test_a_reported_result_needs_its_source(tmp_path: Path, entry: str, message: str) -> None:
    write_text(tmp_path / "r.yaml", f"a.yaml: {entry}")
    with pytest.raises(InputError, match=rf"r\.yaml: a\.yaml: .*{message}"):
        load_reported(tmp_path / "r.yaml")


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"])))
def test_any_text_is_plain_in_latex(text: str) -> None:
    shown = latex_escape(text)
    for character in "&%#_":
        assert len(re.findall(rf"(?<!\\){character}", shown)) == 0
    assert shown.count("{") - shown.count("\\{") == shown.count("}") - shown.count("\\}")
    undone = shown
    for character, written in sorted(LATEX_ESCAPES.items(), key=lambda item: item[0] == "\\"):
        undone = undone.replace(written, character) if character not in "{}" else undone
    assert len(undone) <= len(shown)


@given(st.floats(0, 1), st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=5))
def test_scores_have_three_digits(value: float, pairs: list[tuple[float, float]]) -> None:
    assert re.fullmatch(r"\.\d{3}|1\.000", format_score(value)) and abs(float(format_score(value)) - value) <= 0.000501
    one = r"(\.\d{3}|1\.000) ± \.\d{3}"
    assert re.fullmatch(rf"{one} / {one} \(n = {len(pairs)}\)", format_scores(pairs, len(pairs)))
