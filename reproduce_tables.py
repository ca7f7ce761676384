"""Reproduce the tables of the study: run every row that has no result yet, then write the tables and a page.

    python reproduce_tables.py --study mini                       composed clips, the networks that ship
    python reproduce_tables.py --study paper --dry-run            what there is to do, how long it takes, what it lacks
    python reproduce_tables.py --study paper --only zero_shot/s4  rows with that in their names; * is anything
    python reproduce_tables.py --study paper --launcher "torchrun --nproc_per_node 4"
    python reproduce_tables.py --study FILE.yaml                  rows of your own; study/plan.py says how

The same command goes on with a study that was stopped or killed: a row runs again only if its options, weights or data
have changed, and what it had before is set aside. A row that fails is named, and the others go on.
Writes OUT/STUDY.md, .csv and .tex, RUNS/index.html, and a run folder for each row with log.txt, what its commands said.
Exit code 1 if a row failed.
"""

if __name__ == "__main__":  # before imports that take seconds
    from utils.environment import prepare_process

    prepare_process()

import os
import shlex
import sys
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import get_args

from study.job import Job, Kind, Study
from study.plan import STUDIES, load_study
from study.requirements import duration, estimates, missing_requirements
from study.results import result
from study.run import JobResult, State, bind_run_dir, run_jobs, state
from study.tables import write_tables
from utils.cli import InputError, Parser, cli_entry
from utils.fidelity import Fidelity
from utils.lock import exclusive_lock
from utils.option_ranges import POSITIVE_INT
from utils.paths import expand_user, resolve_path


def select(study: Study, patterns: Sequence[str]) -> list[Job]:
    """The jobs in whose names one of the patterns is found (* stands for anything); all if there are no patterns."""
    chosen = [job for job in study.jobs if any(fnmatchcase(job.name, f"*{pattern}*") for pattern in patterns or [""])]
    if not chosen:
        names = ", ".join(job.name for job in study.jobs[:3])
        raise InputError(f"--only {' '.join(patterns)}: no row of {study.name} is called so; some are {names}")
    return chosen


def dry_run(study: Study, jobs: Sequence[Job], runs: Path) -> None:
    """Print what there is to do, and what that lacks."""
    seconds, founded = estimates(study, runs)
    fixes: dict[tuple[str, str], int] = {}
    ready, left = 0, 0.0
    states = {job.name: state(job, runs) for job in jobs}
    lacking = missing_requirements(job for job in jobs if states[job.name] != "done")
    width = max(len(job.name) for job in jobs)
    for job in jobs:
        missing = lacking.get(job.name, [])
        for lack in missing:
            fixes[lack] = fixes.get(lack, 0) + 1
        time, names = "", f"lacks {', '.join(lack.name for lack in missing)}" if missing else ""
        if job.name in lacking:
            ready += not missing
            left += seconds[job.name]
            time = duration(seconds[job.name])
        print(f"{job.name:{width}}  {states[job.name]:6}  {time:>7}  {names}".rstrip())
    counts = [f"{list(states.values()).count(name)} {name}" for name in get_args(State) if name in states.values()]
    kinds = [f"{kind}, {fidelity}" for kind in get_args(Kind) for fidelity in get_args(Fidelity)]
    sums = {kind: sum(f"{job.kind}, {job.fidelity}" == kind for job in jobs) for kind in kinds}
    parts = "; ".join(f"{count} {kind}" for kind, count in sums.items() if count)
    print(f"\n{len(jobs)} rows ({parts}): {', '.join(counts)}")
    for (name, fix), count in fixes.items():
        print(f"  {count:3} lack {name}: {fix}")
    basis = f"by the {founded} that are done" if founded else "a guess, by study's `pace`"
    print(f"{ready} can run now. All that is left takes about {duration(left)} one after another ({basis}).")


def work(study: Study, jobs: Sequence[Job], runs: Path, count: int | None, launcher: Sequence[str]) -> list[JobResult]:
    """Run what has no result, with a line for each; returns how those ended."""
    todo = [job for job in jobs if state(job, runs) != "done"]
    if not todo:
        print(f"all {len(jobs)} rows have their results")
        return []
    seconds, founded = estimates(study, runs)
    count = min(1 if launcher else count or default_jobs(), len(todo))
    total = duration(sum(seconds[job.name] for job in todo) / count)
    basis = f"by the {founded} that are done" if founded else "a guess"
    print(f"{len(todo)} of {len(jobs)} rows to run, {count} at a time; about {total} ({basis})", flush=True)
    digits = len(str(len(todo)))

    def told(outcome: JobResult, number: int, rest: float) -> None:
        numbers = result(outcome.job, runs)
        said = f"M_J {numbers['m_j']:.3f}, M_F {numbers['m_f']:.3f}, {duration(outcome.seconds)}" if numbers else ""
        said = f"FAILED: {outcome.error}" if outcome.error else said
        left = f"; about {duration(rest)} left" if number < len(todo) else ""
        print(f"[{number:{digits}}/{len(todo)}] {outcome.job.name} … {said}{left}", flush=True)

    return run_jobs(todo, runs, seconds, count, launcher, told)


def default_jobs() -> int:
    """One process on a GPU, else one a core."""
    import torch  # a dry run does without

    return 1 if torch.cuda.is_available() else os.cpu_count() or 1


@cli_entry
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = Parser(__doc__)
    parser.add_argument("--study", required=True, help=f"{', '.join(STUDIES)}, or a YAML file")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="PATTERN", help="rows of such names; the tables show all"
    )
    parser.add_argument("--dry-run", action="store_true", help="run nothing: list the rows and what they lack")
    parser.add_argument(
        "--jobs", type=POSITIVE_INT, metavar="N", help="rows at a time (default: one a core; 1 on a GPU)"
    )
    parser.add_argument("--launcher", type=shlex.split, default=[], help="what runs a module, in place of python")
    parser.add_argument(
        "--out", type=expand_user, default=Path("docs/results"), help="folder of the tables (%(default)s)"
    )
    parser.add_argument("--runs", type=expand_user, help="folder of the runs (default: runs/STUDY)")
    parser.add_argument(
        "--s4", "--data.s4", type=resolve_path, metavar="DIR", help="S4's data, if elsewhere than the study says"
    )
    parser.add_argument("--ms3", "--data.ms3", type=resolve_path, metavar="DIR", help="MS3's")
    args = parser.parse_args(argv)
    study = load_study(args.study, {"s4": args.s4, "ms3": args.ms3})
    runs = args.runs or Path("runs") / study.name
    jobs = select(study, args.only)
    if args.dry_run:
        dry_run(study, jobs, runs)
        return 0
    with exclusive_lock(runs / ".lock", "is running this study"):
        bind_run_dir(study, runs)
        outcomes = work(study, jobs, runs, args.jobs, args.launcher)
        tables = write_tables(study, runs, args.out)
        done = sum(result(job, runs) is not None for job in study.jobs)
        print(f"{done} of {len(study.jobs)} rows have results. Tables: {', '.join(map(str, tables))}")
        if done:
            from study.page import write_page  # matplotlib, which a dry run does without

            write_page(study, runs, runs / "index.html", max(job.pictures for job in study.jobs))
            print(f"Page: {runs / 'index.html'}")
    failed = [outcome for outcome in outcomes if outcome.error]
    for outcome in failed:
        print(f"failed: {outcome.job.name}: {outcome.error}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
