"""A study as a list of jobs: each row stands for one run per benchmark, fidelity, fraction and seed."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from study.job import Job, Study, TableRow
from study.study_file import DatasetName, RowEntry, StudyFile, benchmark_of, read_study_file
from utils.cli import InputError
from utils.paths import resolve_path


def load_study(name_or_path: str | Path, data: Mapping[DatasetName, Path | None] | None = None) -> Study:
    """Read a study.

    Args:
        name_or_path: mini, paper, modern, or a YAML file (study/study_file.py describes it).
        data: folders of benchmarks, in place of the file's.

    Returns:
        The study, with its jobs in the order of the file.

    Raises:
        InputError: naming the file and what is wrong with it.
    """
    path, content, entries = read_study_file(name_or_path)
    folders: dict[DatasetName, str | Path] = {**content.data}
    folders.update({dataset: root for dataset, root in (data or {}).items() if root})
    roots = {dataset: resolve_path(folder) for dataset, folder in folders.items()}
    jobs, unavailable = [], []
    for entry in entries:
        rows = tuple(TableRow(*item) for item in entry.tables.items())
        if entry.unavailable is None and (missing := set(entry.benchmarks) - set(roots)):
            raise InputError(f"{path}: data: has no folder of {missing.pop()}, which row {entry.config} needs")
        if entry.unavailable is None:
            jobs += list(_jobs(content, roots, entry, rows))
        else:
            unavailable += [(row, entry.unavailable) for row in rows]
    names = [job.name for job in jobs]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"{path}: two rows have the run folder {repeated[0]}; give one of them another `name`")
    return Study(
        path.stem,
        content.title or path.stem,
        data=roots,
        tables=content.tables,
        jobs=jobs,
        unavailable=unavailable,
        clips=content.clips,
        startup_seconds=content.startup_seconds,
    )


def _jobs(
    study: StudyFile, roots: Mapping[DatasetName, Path], entry: RowEntry, rows: tuple[TableRow, ...]
) -> Iterator[Job]:
    """The jobs of one row."""
    fractions: Sequence[float | None] = entry.fractions or [None]
    seeds: Sequence[int | None] = entry.seeds or [None]
    sounds = resolve_path(study.offscreen_sounds) if study.offscreen_sounds else None
    audio = tuple(entry.audio or study.audio)
    for dataset, fidelity, fraction, seed in product(entry.benchmarks, entry.fidelities, fractions, seeds):
        benchmark = benchmark_of(dataset)
        changes = {**entry.options, **(entry.s4 if benchmark == "s4" else entry.ms3)}
        changes |= {"data.fraction": fraction} if fraction is not None else {}
        changes |= {"train.seed": seed} if seed is not None else {}
        options = {**study.options.get(entry.regime, {}), **changes, "fidelity": fidelity}
        options["data.root"] = roots[dataset]
        parts = [dataset, entry.name or entry.config]
        parts += [f"{fraction * 100:g}_percent"] if fraction not in (None, 1) else []
        parts += ["published"] if fidelity == "published" else []
        parts += [f"seed{seed}"] if seed is not None else []
        yield Job(
            name=f"{entry.regime}/{'_'.join(parts)}",
            regime=entry.regime,
            rows=rows,
            dataset=dataset,
            fidelity=fidelity,
            seed=seed,
            config=resolve_path(Path(study.configs[entry.regime]) / f"{benchmark}_{entry.config}.yaml"),
            overrides=tuple(word for name, value in options.items() for word in (f"--{name}", _word(value))),
            root=roots[dataset],
            audio=audio,
            audio_seeds=tuple(study.audio_seeds),
            offscreen_sounds=sounds if "offscreen" in audio else None,
            modified=bool(changes) or dataset != benchmark,
            gallery_clips=study.gallery_clips,
            seconds_per_clip=_seconds_per_clip(study, entry),
            preprocess_fidelity=study.preprocess_fidelity,
        )


def _seconds_per_clip(study: StudyFile, entry: RowEntry) -> float | None:
    """The row's own estimate, else that of the longest key which its configuration begins with, else None."""
    if entry.seconds_per_clip is not None:
        return entry.seconds_per_clip
    known = study.seconds_per_clip
    begins = [name for name in known if entry.config.startswith(name)]
    return known[max(begins, key=len)] if begins else known.get(entry.regime)


def _word(value: Any) -> str:
    """A value as jsonargparse reads it on a command line."""
    if isinstance(value, Path | str):
        return str(value)
    return yaml.safe_dump(value, default_flow_style=True, width=10**6).split("\n")[0]
