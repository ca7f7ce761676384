"""Reproduce the tables of the study: run every row that has no result yet, then write the tables and a page.

    python reproduce_tables.py --study mini                       synthetic clips and the small weights that ship
    python reproduce_tables.py --study paper --dry-run            list the runs, their time, and what they need
    python reproduce_tables.py --study paper --only zero_shot/s4  the runs whose names contain that; * matches anything
    python reproduce_tables.py --study paper --launcher "torchrun --nproc_per_node 4"
    python reproduce_tables.py --study paper --executor slurm --slurm.partition gpu --slurm.gpus_per_node 1
                                                                  a Slurm job for each row
    python reproduce_tables.py --study FILE.yaml                  your own rows (study/study_file.py describes the file)

With --executor, each row is a job of submitit (pip install -e .[cluster]), on this machine (local) or on a cluster
(slurm); --slurm.NAME VALUE are parameters of submitit's SlurmExecutor. The jobs go on if the command is ended; running
it again waits for them. A row whose job dies is submitted once more.

Running it again resumes: a row runs again only if its options, weights or data have changed, and its previous run is
moved to RUNS/stale. If a row fails, the others still run.
Writes OUT/STUDY.md, .csv and .tex, RUNS/index.html, and a run folder for each run, with the output of its commands in
log.txt. Exit code 1 if a run failed.
"""

if __name__ == "__main__":  # before imports that take seconds
    from utils.environment import prepare_process

    prepare_process()

import shlex
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from study.executor import PREFIX, ClusterExecutor, parse_slurm_options
from study.plan import load_study
from study.results import result
from study.run import bind_run_dir
from study.study_file import STUDIES, DatasetName
from study.tables import write_tables
from study.terminal import print_dry_run, run_with_progress, select_jobs
from utils.cli import Parser, cli_entry
from utils.lock import exclusive_lock
from utils.option_ranges import POSITIVE_INT
from utils.paths import expand_user, resolve_path
from utils.words import counted

STARTUP_SECONDS = 10.0  # in which other commands with --executor let go of the folder


@cli_entry
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = Parser(__doc__)
    parser.add_argument("--study", required=True, help=f"{', '.join(STUDIES)}, or a YAML file")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="PATTERN", help="run only these; the tables show all rows"
    )
    parser.add_argument("--dry-run", action="store_true", help="run nothing: list the runs and what they need")
    parser.add_argument(
        "--jobs", type=POSITIVE_INT, metavar="N", help="runs at a time (default: one per core; 1 on a GPU)"
    )
    parser.add_argument("--executor", choices=("local", "slurm"), help="run each row as a job of submitit")
    parser.add_argument("--launcher", type=shlex.split, default=[], help="command in place of python, such as torchrun")
    parser.add_argument(
        "--out", type=expand_user, default=Path("docs/results"), help="folder of the tables (%(default)s)"
    )
    parser.add_argument("--runs", type=expand_user, help="folder of the runs (default: runs/STUDY)")
    parser.add_argument(
        "--s4", "--data.s4", type=resolve_path, metavar="DIR", help="data of S4, in place of the study's"
    )
    parser.add_argument(
        "--ms3", "--data.ms3", type=resolve_path, metavar="DIR", help="data of MS3, in place of the study's"
    )
    args, words = parser.parse_known_args(argv)
    if words and (args.executor != "slurm" or not words[0].startswith(PREFIX)):
        parser.error(f"unrecognized arguments: {' '.join(words)}")
    slurm = parse_slurm_options(words)
    data: dict[DatasetName, Path | None] = {"s4": args.s4, "ms3": args.ms3}
    study = load_study(args.study, data)
    runs = args.runs or Path("runs") / study.name
    jobs = select_jobs(study, args.only)
    if args.dry_run:
        print_dry_run(study, jobs, runs)
        return 0
    executor = None
    if args.executor:
        executor = ClusterExecutor(args.executor, runs, args.study, data, args.launcher, slurm)
    with ExitStack() as stack:
        stack.enter_context(exclusive_lock(runs / ".lock", "is running this study", STARTUP_SECONDS if executor else 0))
        bind_run_dir(study, runs)
        if executor:
            stack.close()  # several commands may wait for the same jobs
        outcomes = run_with_progress(study, jobs, runs, args.jobs, args.launcher, executor)
        tables = write_tables(study, runs, args.out)
        done = sum(result(job, runs) is not None for job in study.jobs)
        print(f"{done} of {counted(len(study.jobs), 'run')} finished. Tables: {', '.join(map(str, tables))}")
        if done:
            from study.page import write_page  # imports matplotlib and pandas, which a dry run does without

            write_page(study, runs, runs / "index.html", max(job.gallery_clips for job in study.jobs))
            print(f"Page: {runs / 'index.html'}")
    failed = [outcome for outcome in outcomes if outcome.error]
    for outcome in failed:
        print(f"failed: {outcome.job.name}: {outcome.error}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
