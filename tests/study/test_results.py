"""Which results count: fingerprints of options, weights and data, the states of run folders, and the order of jobs."""

import shutil
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import reproduce_tables
from study.fingerprint import IGNORED_OPTIONS, matches
from study.job import Job, Study
from study.plan import load_study
from study.results import collect_results
from study.run import STALE, cache_group, job_state, next_job, prepare_run_dir
from study.tables import build_tables
from tests.helpers.studies import FPN, HEAT, finish, study_of, write_study
from utils.config import to_yaml
from utils.files import write_text

REPOSITORY = Path(__file__).parents[2]
OPTIONS = {"prompt.threshold": 0.5, "audioclip.image_size": 256, "metric_batch": 2, "method": "heatmap"}


def first_cell(study: Study, runs: Path) -> str:
    return build_tables(study, collect_results(study, runs))[0].cells.iloc[0, 0]


@settings(max_examples=10, deadline=None)
@given(st.permutations(list(OPTIONS)), st.sampled_from(["", "# a comment\n"]), st.booleans())
def test_a_fingerprint_is_of_options_not_of_how_they_are_written(tmp_path_factory, order, comment, quoted) -> None:
    folder = tmp_path_factory.mktemp("study")
    plain = study_of(folder, {**HEAT, "options": OPTIONS}).jobs[0]
    written = {name: str(OPTIONS[name]) if quoted else OPTIONS[name] for name in order}
    row = {"benchmarks": ["s4"], **HEAT, "tables": {"zero_shot": "renamed"}, "options": written}
    path = write_study(folder / "own.yaml", row)
    path.write_text(comment + path.read_text())
    assert load_study(path).jobs[0].fingerprint == plain.fingerprint


def test_a_fingerprint_changes_with_options_weights_and_data(tmp_path: Path) -> None:
    weights = Path(shutil.copytree(REPOSITORY / "pretrained" / "mini", tmp_path / "weights"))
    data = tmp_path / "Single-source" / "s4_meta_data.csv"
    write_text(data, "name,start,category,split\na,0,x,test\n")

    def fingerprint(**changes: Any) -> tuple[str, ...]:
        options = {"method": "heatmap", "audioclip.weights": str(weights), **changes}
        return study_of(tmp_path, {**HEAT, "benchmarks": ["s4"], "options": options}).jobs[0].fingerprint

    found = [fingerprint()]
    assert fingerprint(**{"data.num_workers": 3, "run.cache": "elsewhere", "run.device": "cpu"}) == found[0]
    found += [fingerprint(**{"prompt.threshold": 0.7}), fingerprint(**{"run.precision": "bf16"})]
    for path in (weights / "audioclip.safetensors", data):
        path.write_bytes(path.read_bytes() + b"\n")
        found.append(fingerprint())
    write_text(tmp_path / "compose.json", "{}")  # composed of other things, under the same names
    found.append(fingerprint())
    assert len(set(found)) == 6 and fingerprint(fidelity="published") == found[-1]  # the study sets fidelity itself
    for place, one in enumerate(found):
        assert [matches(one, list(before)) for before in found[: place + 1]] == [False] * place + [True]
    data.unlink()  # tables can be written without the data and the weights
    (weights / "audioclip.safetensors").unlink()
    assert matches(fingerprint(), list(found[-1])) and not matches(found[-1], list(fingerprint()))
    assert not matches(fingerprint(), list(found[1]))


def test_ignored_options_exist() -> None:
    for job in load_study("paper").jobs[::24]:
        for name in IGNORED_OPTIONS[job.regime]:
            attrgetter(name)(job.options)  # raises AttributeError if it does not


def test_a_result_counts_only_under_its_own_fingerprint(tmp_path: Path) -> None:
    runs, row = tmp_path / "runs", {**HEAT, "benchmarks": ["s4"]}
    job = study_of(tmp_path, row).jobs[0]
    assert job_state(job, runs) == "pending"
    finish(job, runs, 0.5, 0.6)
    assert job_state(job, runs) == "done"
    changed = study_of(tmp_path, {**row, "options": {"method": "heatmap", "prompt.threshold": 0.9}}).jobs[0]
    assert job_state(changed, runs) == "stale" and first_cell(study_of(tmp_path, row), runs) == ".500 / .600"
    for turn in (1, 2):  # stale runs are kept
        finish(job, runs, 0.5, 0.6)
        prepare_run_dir(changed, runs)
        assert (runs / STALE / f"{job.name}.{turn}" / "metrics.json").is_file()
        assert job_state(changed, runs) == "interrupted"
        shutil.rmtree(changed.run_dir(runs))
    finish(job, runs, 0.5, 0.6)
    (job.run_dir(runs) / "metrics.json").unlink()
    assert job_state(job, runs) == "interrupted"
    write_text(job.run_dir(runs) / "job.json", "{dam")
    assert job_state(job, runs) == "stale"


def test_a_training_resumes_where_its_own_command_would(tmp_path: Path) -> None:
    """On another device or with moved data it does; without its options it begins anew."""
    runs = tmp_path / "runs"
    for folder, device, config, kept in (
        ("a", "auto", True, True),
        ("b", "auto", True, True),
        ("a", "cpu", True, True),
        ("a", "auto", False, False),
    ):
        job = study_of(tmp_path, FPN, data={"s4": "a"}).jobs[0]
        prepare_run_dir(job, runs)
        write_text(job.run_dir(runs) / "state.pt", "")
        write_text(job.run_dir(runs) / "config.yaml", to_yaml(job.options) if config else "{}")
        other = study_of(tmp_path, {**FPN, "options": {"train.device": device}}, data={"s4": folder}).jobs[0]
        assert other.fingerprint == job.fingerprint and job_state(other, runs) == "interrupted"
        prepare_run_dir(other, runs)
        assert (job.run_dir(runs) / "state.pt").is_file() == kept


def test_another_audio_condition_needs_no_other_training(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    finish(study_of(tmp_path, FPN).jobs[0], runs, 0.5, 0.6)
    job = study_of(tmp_path, {**FPN, "audio": ["original", "shuffled"]}).jobs[0]
    assert job_state(job, runs) == "interrupted" and first_cell(study_of(tmp_path, FPN), runs) == ".500 / .600"
    prepare_run_dir(job, runs)
    assert (job.run_dir(runs) / "metrics.json").is_file()
    finish(job, runs, 0.4, 0.5, "shuffled")
    assert job_state(job, runs) == "done"


def test_two_studies_do_not_share_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out"), "--jobs", "1"]
    for name in ("one", "two"):
        write_study(tmp_path / f"{name}.yaml", HEAT)  # its data are missing
        assert reproduce_tables.main(["--study", str(tmp_path / f"{name}.yaml"), *words]) == 1
    error = capsys.readouterr().err
    assert "missing S4 data" in error and "holds the runs of study one; choose another --runs" in error
    assert "… |" in (tmp_path / "out" / "one.md").read_text() and not (tmp_path / "out" / "two.md").exists()


JOBS = st.lists(st.tuples(st.sampled_from(["zero_shot", "supervised"]), st.sampled_from("ab")), min_size=1, max_size=8)


@given(JOBS, st.integers(1, 4), st.randoms())
def test_zero_shot_jobs_of_one_data_set_follow_the_first(drawn, count: int, random) -> None:
    jobs = [
        Job(str(n), regime, (), "s4", "corrected", None, Path(), (), Path(root))
        for n, (regime, root) in enumerate(drawn)
    ]
    waiting, running, order = list(jobs), list[Job](), list[Job]()
    cached: set[object] = set()
    while waiting or running:
        while len(running) < count and (job := next_job(waiting, running, cached)):
            group = cache_group(job)
            assert group is None or group in cached or group not in map(cache_group, running)
            waiting.remove(job)
            running.append(job)
            order.append(job)
        ended = running.pop(random.randrange(len(running)))  # some job always runs
        cached.add(cache_group(ended))
    assert sorted(order, key=lambda job: int(job.name)) == jobs
    free = [job for job in order if job.regime == "supervised"]
    assert free == sorted(free, key=lambda job: int(job.name))
