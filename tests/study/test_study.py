"""A study as a list of jobs: what YAML makes of it, which results count, what it lacks, and its tables."""

import csv
import json
import re
import shutil
import subprocess
import sys
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import reproduce_tables
from study.fingerprint import WITHOUT_EFFECT, matches
from study.job import Job, Study
from study.plan import load_study
from study.requirements import estimates, missing_requirements
from study.results import write_record
from study.rows import TABLES, public_rows
from study.run import STALE, choose, prepare, shared, state
from study.table_format import LATEX, Table, format_score, format_scores, latex
from study.tables import build_tables, load_reported, reported, write_tables
from supervised.rows import read_rows
from utils.cli import InputError
from utils.config import to_yaml
from utils.files import write_text
from utils.layout import AVSBench

REPOSITORY = Path(__file__).parents[2]
CONFIGS = {"zero_shot": "zero_shot/configs/mini", "supervised": "supervised/configs/mini"}
HEAT = {"zero_shot": "point_global", "name": "heat", "row": "map", "options": {"setting": "heatmap"}}


def write_study(path: Path, *entries: dict[str, Any], **fields: Any) -> Path:
    """A study of composed clips in a YAML file."""
    data = {"s4": str(path.parent / "Single-source"), "ms3": str(path.parent / "Multi-sources")}
    content = {"title": "A title", "data": data, "configs": CONFIGS, "rows": list(entries), **fields}
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


def study_of(folder: Path, *entries: dict[str, Any], **fields: Any) -> Study:
    return load_study(write_study(folder / "own.yaml", *entries, **fields))


def finish(job: Job, runs: Path, m_j: float, m_f: float, sound: str = "real", **facts: Any) -> None:
    """Leave what a finished job leaves."""
    numbers = {"m_j": m_j, "m_f": m_f, "metric_batch": 1, "commit": "0123456789abcdef", "seconds": 2.5, **facts}
    name = "metrics.json" if sound == "real" else f"metrics_test_{sound}.json"
    write_text(job.folder(runs) / name, json.dumps(numbers))
    write_record(job, runs, done=True, seconds=10.0)


def test_the_papers_study_has_every_row_once() -> None:
    study = load_study("paper")
    kinds = [(job.kind, job.fidelity) for job in study.jobs]
    assert [kinds.count(kind) for kind in (("zero_shot", "published"), ("zero_shot", "corrected"))] == [12, 12]
    trained = [job for job in study.jobs if job.kind == "supervised"]
    assert sorted(job.config.stem for job in trained) == sorted(row.name for row in read_rows()) and len(trained) == 48
    assert all(job.config.is_file() and job.options.fidelity == job.fidelity for job in study.jobs)
    for job in trained:
        assert job.fraction == job.options.data.fraction and job.benchmark == job.options.data.benchmark
    assert len({job.key for job in study.jobs}) == len({job.name for job in study.jobs}) == 72
    tables = {table.title: [row for row, _ in table.rows] for table in build_tables(study, Path("nowhere"))}
    assert {title: len(names) for title, names in tables.items()} == dict(
        zip(TABLES.values(), (6, 2, 7, 12, 6), strict=True)
    )
    assert tables[TABLES["fraction"]][0] == "TPAVI, ResNet-50, 20 % of the clips"


def test_a_row_of_the_table_stands_where_its_settings_say() -> None:
    found = {f"{row.benchmark}_{row.config}": [place.table for place in row.places] for row in public_rows()}
    assert found["s4_fpn_concate"] == ["fusion", "initialisation", "fraction"]
    assert found["s4_tpavi_resnet50"] == ["tpavi", "fraction"] and found["ms3_tpavi_resnet50_20_percent"] == [
        "fraction"
    ]
    assert found["ms3_fpn_concate_train_audio"] == ["fusion"]
    assert found["s4_fpn_concate_audioclip_random"] == ["initialisation"]


def test_the_miniatures_study_can_be_read() -> None:
    study = load_study("mini")
    assert all(job.config.is_file() and job.options.data.num_workers == 0 for job in study.jobs)
    assert len({job.key for job in study.jobs}) == len(study.jobs)
    assert {(job.benchmark, job.fidelity) for job in study.jobs if job.row == "Point-Prompt local"} == {
        (benchmark, fidelity) for benchmark in ("s4", "ms3") for fidelity in ("published", "corrected")
    }


def test_an_entry_stands_for_several_jobs(tmp_path: Path) -> None:
    entry: dict[str, Any] = {
        "supervised": "fpn_mini",
        "table": ["fusion", "fraction"],
        "row": "FPN",
        "benchmarks": "s4",
        "seeds": [0, 1],
    }
    entry |= {
        "fractions": [0.2, 1],
        "options": {"train.epochs": 4},
        "s4": {"train.lr": 0.001},
        "sounds": ["real", "shuffled"],
    }
    study = study_of(tmp_path, entry, options={"supervised": {"train.epochs": 2, "train.batch_size": 3}}, pictures=2)
    assert [job.name for job in study.jobs] == [
        f"supervised/s4_fpn_mini{part}_seed{seed}" for part in ("_20_percent", "") for seed in (0, 1)
    ]
    first = study.jobs[0]
    train = first.options.train
    assert (train.epochs, train.batch_size, train.lr, train.seed) == (4, 3, 0.001, 0)
    assert (
        first.options.data.fraction == first.fraction == 0.2
        and [place.table for place in first.table_rows] == entry["table"]
    )
    training, real, shuffled = first.commands(Path("R"))
    assert training[:3] == ["python", "-m", "supervised.train"] and training[-2:] == ["--out", "R/" + first.name]
    assert real[-2:] == ["--strips", "2"] and shuffled[-2:] == ["--audio", "shuffled"]
    assert real[3:5] == ["--run-dir", "R/" + first.name]


@pytest.mark.parametrize(
    "change, said",
    [
        ({"rows": "none"}, "no list of rows"),
        ({"rows": [{"zero_shot": "point_global", "sedes": [1]}]}, "no field sedes"),
        ({"rows": [{"row": "x"}]}, "names a zero_shot or supervised configuration"),
        ({"rows": ["x"]}, "must be a mapping"),
        ({"rows": [{"supervised": "fpn_mini"}]}, "names no table"),
        ({"rows": [{"supervised": "fpn_mini", "table": "fusions"}]}, "table 'fusions'"),
        ({"rows": [{"zero_shot": "point_global", "fidelities": ["true"]}]}, "'true'"),
        ({"rows": [HEAT, HEAT]}, "give one of them another `name`"),
        ({"data": {"s4": "x"}, "rows": [HEAT]}, "`data` has no folder"),
        ({"data": ["x"]}, "data cannot be ['x']"),
        ({"configs": {}}, "`configs` has no folder of zero_shot"),
        ({"rows": [{**HEAT, "options": "x"}]}, "options cannot be 'x'"),
        ({"rows": [{**HEAT, "pace": "fast"}]}, "pace cannot be 'fast'"),
        ({"seeds": [1]}, "no field seeds"),
    ],
)
def test_a_study_that_cannot_be_is_refused_in_a_line(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        study_of(tmp_path, HEAT, **change)
    assert said in str(caught.value) and "\n" not in str(caught.value) and "own.yaml" in str(caught.value)


@pytest.mark.parametrize(
    "options, said",
    [({"prompt.treshold": 1}, "treshold"), ({"setting": "telepathy"}, "telepathy"), ({"sam": 3}, "sam")],
)
def test_an_option_that_there_is_not_is_told_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: dict[str, Any], said: str
) -> None:
    path = write_study(tmp_path / "own.yaml", HEAT, {**HEAT, "name": "other", "options": options})
    assert reproduce_tables.main(["--study", str(path), "--runs", str(tmp_path / "runs"), "--out", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and not (tmp_path / "runs" / "zero_shot").exists()
    assert reproduce_tables.main(["--study", str(tmp_path / "none.yaml")]) == 1
    assert reproduce_tables.main(["--study", str(path), "--only", "nothing"]) == 1
    assert "no row of own is called so; some are zero_shot/s4_heat" in capsys.readouterr().err


OPTIONS = {"prompt.threshold": 0.5, "audioclip.image_size": 256, "metric_batch": 2, "setting": "heatmap"}


@settings(max_examples=10, deadline=None)
@given(st.permutations(list(OPTIONS)), st.sampled_from(["", "# a comment\n"]), st.booleans())
def test_a_key_knows_options_not_how_they_are_written(tmp_path_factory, order, comment, quoted) -> None:
    folder = tmp_path_factory.mktemp("study")
    plain = study_of(folder, {**HEAT, "options": OPTIONS}).jobs[0]
    written = {name: str(OPTIONS[name]) if quoted else OPTIONS[name] for name in order}
    path = write_study(folder / "own.yaml", {"benchmarks": ["s4"], **HEAT, "row": "renamed", "options": written})
    path.write_text(comment + path.read_text())
    assert load_study(path).jobs[0].key == plain.key


def test_a_key_changes_with_options_weights_and_data(tmp_path: Path) -> None:
    weights = Path(shutil.copytree(REPOSITORY / "pretrained" / "mini", tmp_path / "weights"))
    data = tmp_path / "Single-source" / "s4_meta_data.csv"
    write_text(data, "name,start,category,split\na,0,x,test\n")

    def key(**changes: Any) -> tuple[str, ...]:
        options = {"setting": "heatmap", "audioclip.weights": str(weights), **changes}
        return study_of(tmp_path, {**HEAT, "benchmarks": "s4", "options": options}).jobs[0].key

    keys = [key()]
    assert key(**{"data.num_workers": 3, "run.cache": "elsewhere", "run.device": "cpu"}) == keys[0]
    keys += [key(**{"prompt.threshold": 0.7}), key(**{"run.precision": "bf16"})]
    for path in (weights / "audioclip.safetensors", data):
        path.write_bytes(path.read_bytes() + b"\n")
        keys.append(key())
    write_text(tmp_path / "compose.json", "{}")  # composed of other things, under the same names
    keys.append(key())
    assert len(set(keys)) == 6 and key(fidelity="published") == keys[-1]  # which the study sets itself
    for place, one in enumerate(keys):
        assert [matches(one, list(before)) for before in keys[: place + 1]] == [False] * place + [True]
    data.unlink()  # tables can be made of runs without the data and the weights
    (weights / "audioclip.safetensors").unlink()
    assert matches(key(), list(keys[-1])) and not matches(keys[-1], list(key())) and not matches(key(), list(keys[1]))


def test_options_without_effect_are_options() -> None:
    for job in load_study("paper").jobs[::24]:
        for name in WITHOUT_EFFECT[job.kind]:
            assert attrgetter(name)(job.options) is not None or name == "data.cache"


def test_a_result_counts_only_under_its_own_key(tmp_path: Path) -> None:
    runs, entry = tmp_path / "runs", {**HEAT, "benchmarks": "s4"}
    job = study_of(tmp_path, entry).jobs[0]
    assert state(job, runs) == "to run"
    finish(job, runs, 0.5, 0.6)
    assert state(job, runs) == "done"
    changed = study_of(tmp_path, {**entry, "options": {"setting": "heatmap", "prompt.threshold": 0.9}}).jobs[0]
    assert state(changed, runs) == "stale" and build_tables(study_of(tmp_path, entry), runs)[0].rows[0][1] == [
        ".500 / .600"
    ]
    for turn in (1, 2):  # what is stale is kept apart
        finish(job, runs, 0.5, 0.6)
        prepare(changed, runs)
        assert (runs / STALE / f"{job.name}.{turn}" / "metrics.json").is_file() and state(changed, runs) == "begun"
        shutil.rmtree(changed.folder(runs))
    finish(job, runs, 0.5, 0.6)
    (job.folder(runs) / "metrics.json").unlink()
    assert state(job, runs) == "begun"
    write_text(job.folder(runs) / "job.json", "{dam")
    assert state(job, runs) == "stale"


def test_a_training_goes_on_where_its_own_command_would(tmp_path: Path) -> None:
    runs, entry = tmp_path / "runs", {"supervised": "fpn_mini", "table": "fusion", "benchmarks": "s4"}
    for folder, device, kept in (("a", "auto", True), ("b", "auto", True), ("a", "cpu", True)):
        job = study_of(tmp_path, entry, data={"s4": "a"}).jobs[0]
        prepare(job, runs)
        write_text(job.folder(runs) / "state.pt", "")
        write_text(job.folder(runs) / "config.yaml", to_yaml(job.options))
        other = study_of(tmp_path, {**entry, "options": {"train.device": device}}, data={"s4": folder}).jobs[0]
        assert other.key == job.key and state(other, runs) == "begun"
        prepare(other, runs)
        assert (job.folder(runs) / "state.pt").is_file() == kept


def test_another_sound_needs_no_other_training(tmp_path: Path) -> None:
    runs, entry = tmp_path / "runs", {"supervised": "fpn_mini", "table": "fusion", "benchmarks": "s4"}
    finish(study_of(tmp_path, entry).jobs[0], runs, 0.5, 0.6)
    job = study_of(tmp_path, {**entry, "sounds": ["real", "shuffled"]}).jobs[0]
    assert state(job, runs) == "begun"
    assert build_tables(study_of(tmp_path, entry), runs)[0].rows[0][1] == [".500 / .600"]
    prepare(job, runs)
    assert (job.folder(runs) / "metrics.json").is_file()
    finish(job, runs, 0.4, 0.5, "shuffled")
    assert state(job, runs) == "done"


def test_two_studies_do_not_share_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out"), "--jobs", "1"]
    for name in ("one", "two"):
        write_study(tmp_path / f"{name}.yaml", HEAT)  # whose data are missing
        assert reproduce_tables.main(["--study", str(tmp_path / f"{name}.yaml"), *words]) == 1
    error = capsys.readouterr().err
    assert "lacks S4 data" in error and "holds the runs of study one; choose another --runs" in error
    assert "… |" in (tmp_path / "out" / "one.md").read_text() and not (tmp_path / "out" / "two.md").exists()


NAMED = st.lists(st.tuples(st.sampled_from(["zero_shot", "supervised"]), st.sampled_from("ab")), min_size=1, max_size=8)


@given(NAMED, st.integers(1, 4), st.randoms())
def test_zero_shot_jobs_of_one_data_set_follow_the_first(named, count: int, chance) -> None:
    jobs = [
        Job(str(n), kind, "", "", "s4", "corrected", None, Path(), (), Path(root))
        for n, (kind, root) in enumerate(named)
    ]
    waiting, running, order = list(jobs), list[Job](), list[Job]()
    warm: set[object] = set()
    while waiting or running:
        while len(running) < count and (job := choose(waiting, running, warm)):
            assert shared(job) is None or shared(job) in warm or shared(job) not in map(shared, running)
            waiting.remove(job)
            running.append(job)
            order.append(job)
        ended = running.pop(chance.randrange(len(running)))  # some job always runs
        warm.add(shared(ended))
    assert sorted(order, key=lambda job: int(job.name)) == jobs
    free = [job for job in order if job.kind == "supervised"]
    assert free == sorted(free, key=lambda job: int(job.name))


def test_what_is_missing_is_named_with_what_mends_it(benchmark_copy: Path) -> None:
    entries: list[dict[str, Any]] = [HEAT, {"supervised": "tpavi", "table": "tpavi", "benchmarks": "s4"}]
    entries.append({**HEAT, "name": "h", "options": {"audioclip.weights": "pretrained/AudioCLIP-Full-Training.pt"}})
    entries.append({"zero_shot": "box_prompt", "options": {"grounding.clap": "pretrained/clap"}})

    def names() -> dict[str, list[str]]:
        found = missing_requirements(study_of(benchmark_copy, *entries).jobs)
        return {job: [lack.name for lack in missing] for job, missing in found.items()}

    before = names()
    assert before["zero_shot/s4_heat"] == before["supervised/s4_tpavi"] == []
    assert before["zero_shot/s4_h"] == ["audioclip-full"] and "clap" in before["zero_shot/s4_box_prompt"]
    data = AVSBench(benchmark_copy / "Single-source", "s4")
    data.wav(data.split("test")[0]).unlink()
    data.log_mel(data.split("train")[0]).unlink()
    data.masks(data.split("val")[0])[0].unlink()
    after = names()
    assert after["zero_shot/s4_heat"] == ["S4 preprocessed"]
    assert after["supervised/s4_tpavi"] == ["S4 masks", "S4 preprocessed"] and after["zero_shot/ms3_heat"] == []
    fixes = [
        lack.fix
        for missing in missing_requirements(study_of(benchmark_copy, *entries).jobs).values()
        for lack in missing
    ]
    assert f"1 of 2 clips are not; python preprocess_s4.py --root {data.root}" in fixes
    assert "python -m pretrained.download audioclip-full" in fixes


def test_the_dry_run_of_the_paper_names_everything_without_torch() -> None:
    program = "import sys, reproduce_tables as r\n"
    program += "code = r.main(['--study', 'paper', '--dry-run', '--data.s4', 'nowhere'])\n"
    program += "sys.exit(code or 'torch' in sys.modules or 'pandas' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    names = re.findall(r"^((?:zero_shot|supervised)/\S+)", run.stdout, re.MULTILINE)
    assert len(names) == len(set(names)) == 24 + 48
    assert "72 rows (12 zero_shot, published; 12 zero_shot, corrected; 48 supervised, corrected)" in run.stdout
    for said in (
        "36 lack S4 data: no nowhere/s4_meta_data.csv; see avsbench_data/README.md",
        "about 22.8 h",
        "a guess",
    ):
        assert said in run.stdout
    for name in ("audioclip-full", "sam-vit-h", "vggish", "resnet50", "pvt-v2-b5", "esresnext-fbsp", "clip-rn50"):
        here = not any(line.endswith(f"pretrained.download {name}") for line in run.stdout.splitlines())
        assert not here, name


def test_estimates_learn_from_what_is_done(tmp_path: Path) -> None:
    clips = {name: {"train": 10, "val": 3, "test": 4} for name in ("s4", "ms3")}
    trained = {"supervised": "fpn_mini", "table": "fusion", "fractions": [0.5], "options": {"train.epochs": 2}}
    pace = {"zero_shot": 2, "supervised": 3, "start": 1}
    study = study_of(tmp_path, HEAT, {**HEAT, "name": "slow", "pace": 5}, trained, clips=clips, pace=pace)
    seconds, founded = estimates(study, tmp_path)
    s4 = {job.name: seconds[job.name] for job in study.jobs if job.benchmark == "s4"}
    assert list(s4.values()) == [1 + 4 * 2, 1 + 4 * 5, 1 + 3 * (2 * 0.5 * 10 + (2 * 3 + 4) / 3)] and founded == 0
    finish(study.jobs[0], tmp_path, 0.1, 0.1)  # in 10 s
    seconds, founded = estimates(study, tmp_path)
    assert founded == 1 and seconds["zero_shot/s4_slow"] == pytest.approx(21 * 10 / 9)
    assert seconds["supervised/s4_fpn_mini_50_percent"] == s4["supervised/s4_fpn_mini_50_percent"]


def table_study(folder: Path) -> tuple[Study, Path]:
    """A study with some results: seeds, two fidelities, a row that it has not, other people's figures."""
    entries: list[dict[str, Any]] = [
        {"zero_shot": "point_local", "row": "Points & | 50 %", "fidelities": ["published", "corrected"]},
        {"row": "Boxes_", "table": "zero_shot", "why": "for a reason"},
        {"supervised": "fpn_mini", "table": "fusion", "row": "FPN", "benchmarks": "s4", "seeds": [0, 1, 2]},
    ]
    entries[2]["sounds"] = ["real", "shuffled"]
    study, runs = study_of(folder, *entries), folder / "runs"
    known = {"zero_shot/s4_point_local_published": (0.1234, 1.0), "zero_shot/s4_point_local": (0.9996, 0.5)}
    known |= {"supervised/s4_fpn_mini_seed0": (0.5, 0.7), "supervised/s4_fpn_mini_seed2": (0.6, 0.7)}
    for job in study.jobs:
        if job.name in known:
            finish(job, runs, *known[job.name])
    finish(study.jobs[-1], runs, 0.25, 0.5, "shuffled")
    finish(study.jobs[-1], runs, 0.6, 0.7)
    return study, runs


def test_tables_say_exactly_what_the_runs_found(tmp_path: Path) -> None:
    study, runs = table_study(tmp_path)
    zero_shot, fusion = build_tables(study, runs)
    assert zero_shot.columns == ["", "S4, published", "S4, corrected", "MS3, published", "MS3, corrected"]
    assert zero_shot.rows == [
        ("Points & | 50 %", [".123 / 1.000", "1.000 / .500", "…", "…"]),
        ("Boxes_", ["–", "–", "–", "–"]),
    ]
    assert zero_shot.note == "metric_batch 1. Boxes_: for a reason. 2 of 4 results are missing."
    assert fusion.columns == ["", "S4", "S4, another clip's sound"]
    assert fusion.rows == [("FPN", [".550 ± .071 / .700 ± .000 (n = 2 of 3)", ".250 / .500 (n = 1 of 3)"])]
    assert fusion.note == "metric_batch 1. Fidelity: corrected. 3 of 6 results are missing."
    assert fusion.values == {("FPN", "S4"): [0.5, 0.6], ("FPN", "S4, another clip's sound"): [0.25]}
    assert "| Points & \\| 50 % | .123 / 1.000 | 1.000 / .500 | … | … |" in zero_shot.to_markdown().splitlines()
    assert r"Points \& | 50 \% & .123 / 1.000 & 1.000 / .500 & \ldots{} & \ldots{} \\" in zero_shot.to_latex()
    assert "<th>Points &amp; | 50 %</th><td>.123 / 1.000</td>" in zero_shot.to_html()


def test_markdown_latex_and_csv_agree(tmp_path: Path) -> None:
    study, runs = table_study(tmp_path)
    paths = write_tables(study, runs, tmp_path / "out")
    assert [path.name for path in paths] == ["own.md", "own.csv", "own.tex"]
    markdown, tex = paths[0].read_text(), paths[2].read_text()
    assert "could not be found" in markdown and "012345678" in markdown
    assert all(line.startswith("%") for line in tex.split("\\begin")[0].splitlines())
    with paths[1].open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["run"] for line in lines] == [
        job.folder(runs).as_posix() for job in study.jobs for _ in job.audio_conditions
    ]
    for table in build_tables(study, runs):
        assert table.to_markdown() in markdown and table.to_latex() in tex
        for row, cells in table.rows:
            assert " & ".join(map(latex, [row, *cells])) + r" \\" in tex
            for head, cell in zip(table.columns[1:], cells, strict=True):
                found = [line for line in lines if (line["row"], _column(line, table)) == (row, head)]
                known = [(float(line["m_j"]), float(line["m_f"])) for line in found if line["m_j"]]
                assert cell == (format_scores(known, len(found)) if known else "…" if found else "–")


def _column(line: dict[str, str], table: Table) -> str:
    both = any("published" in head for head in table.columns)
    parts = [line["benchmark"].upper(), *([line["fidelity"]] if both else [])]
    return ", ".join(parts + ["another clip's sound"] * (line["sound"] != "real"))


def test_reported_figures_stand_beside_the_very_row_with_their_source(tmp_path: Path) -> None:
    known = load_reported()
    assert known and all(figure["source"] and figure["grade"] in "AB" for figure in known.values())
    assert set(known) <= {job.config.as_posix() for job in load_study("paper").jobs}
    tables = {table.title: table for table in build_tables(load_study("paper"), tmp_path)}
    tpavi = tables[TABLES["tpavi"]]
    assert tpavi.columns == ["", "S4", "S4, reported", "MS3", "MS3, reported"]
    assert dict(tpavi.rows)["TPAVI, ResNet-50"] == ["…", ".728 / .848", "…", ".479 / .578"]
    assert dict(tpavi.rows)["TPAVI, PVT-v2-B5"] == ["…", ".787 / .879", "…", ".540 / .645"]
    assert "Reported by AVSBench (ECCV 2022), main results [A]." in tpavi.note
    half = dict(tables[TABLES["fraction"]].rows)["TPAVI, ResNet-50, 50 % of the clips"]
    assert half == ["…", ".705 / .814", "…", "–", "4"]
    assert dict(tables[TABLES["fraction"]].rows)["AudioCLIP FPN, concate, 20 % of the clips"][1::3] == ["–", "1"]
    write_tables(load_study("paper"), tmp_path, tmp_path)
    with (tmp_path / "paper.csv").open(newline="") as file:
        sources = [line["source"] for line in csv.DictReader(file) if line["m_j"]]
    assert len(sources) == 7 and all(sources)  # five figures, two of them in two tables
    # A changed row is another row.
    entry = {"supervised": "tpavi_pvt", "table": "tpavi", "benchmarks": "s4"}
    for options, wanted in (({}, known["supervised/configs/s4_tpavi_pvt.yaml"]), ({"train.epochs": 1}, None)):
        study = study_of(tmp_path, {**entry, "options": options}, configs={"supervised": "supervised/configs"})
        assert reported(study.jobs[0], known) == wanted
    write_text(tmp_path / "r.yaml", "a.yaml: {m_j: 1, m_f: 1, source: '', grade: A}")
    with pytest.raises(InputError, match=r"a\.yaml must have m_j, m_f, source, and grade"):
        load_reported(tmp_path / "r.yaml")


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"])))
def test_any_text_is_plain_in_latex(text: str) -> None:
    shown = latex(text)
    for sign in "&%#_":
        assert len(re.findall(rf"(?<!\\){sign}", shown)) == 0
    assert shown.count("{") - shown.count("\\{") == shown.count("}") - shown.count("\\}")
    undone = shown
    for sign, written in sorted(LATEX.items(), key=lambda item: item[0] == "\\"):
        undone = undone.replace(written, sign) if sign not in "{}" else undone
    assert len(undone) <= len(shown)


@given(st.floats(0, 1), st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=5))
def test_figures_have_three_digits(value: float, pairs: list[tuple[float, float]]) -> None:
    assert re.fullmatch(r"\.\d{3}|1\.000", format_score(value)) and abs(float(format_score(value)) - value) <= 0.000501
    one = r"(\.\d{3}|1\.000) ± \.\d{3}"
    assert re.fullmatch(rf"{one} / {one} \(n = {len(pairs)}\)", format_scores(pairs, len(pairs)))
