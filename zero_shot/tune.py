"""Choose the options of a zero-shot method on a validation split.

    python -m zero_shot.tune --config zero_shot/configs/s4_point_local.yaml --split val
    python -m zero_shot.tune --config FILE --budget 500                 500 option sets, drawn at random
    python -m zero_shot.tune --config FILE --budget 0 --search audioclip.reverse prompt.threshold=0.5,0.6    the grid
    python -m zero_shot.tune --config FILE --heatmap prompt.threshold audioclip.noise

Without --search: what the method has of amplitude, reverse, surgery, noise, interpolation, rules, thresholds and choice
of mask, each with a list of values. Embeddings and proposals are computed once, similarity maps once for each
combination of their options, and SAM decodes each prompt once.

The set with the highest M_J on the validation split is written to OUT/tuned.yaml, which zero_shot.evaluate takes.
OUT (default runs/tune/NAME-OF-THE-CONFIG) also gets sets.csv with all sets, heatmap.png, and tune.json. At the end the
row and the tuned options are evaluated once on the row's own split (test): OUT/test_row and OUT/test_tuned.
Running an interrupted command again resumes it.
"""

if __name__ == "__main__":  # before imports that take seconds
    from utils.environment import prepare_process

    prepare_process()

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import Namespace

from utils.accelerator import make_accelerator
from utils.cli import InputError, cli_entry
from utils.config import option_parser, parse_options, to_yaml
from utils.files import write_bytes, write_text
from utils.lock import exclusive_lock
from utils.option_ranges import SEED_INT, bounded_number
from utils.paths import expand_user
from utils.words import counted
from zero_shot.encoders.audioclip import amplitude
from zero_shot.options import Options
from zero_shot.search import Search
from zero_shot.search_space import MAX_SETS, Values, option_sets, parse_values, set_options
from zero_shot.tune_report import best_per_cell, heatmap_options, heatmap_png, ranking, results_csv, top_table

DEFAULT_BUDGET = 200


def report(search: Search, values: Values, heatmap: Sequence[str], split: str, row_split: str) -> None:
    """Choose the best set, write the files of the folder, and print what was found."""
    out, sets, results = search.out, search.sets, search.results()
    best = ranking(results)[0]
    write_text(out / "sets.csv", results_csv(sets, results))
    tuned = set_options(search.options[best], {"data.split": row_split})
    write_text(out / "tuned.yaml", to_yaml(tuned))
    if len(heatmap) == 2:
        cells = best_per_cell(values, heatmap, sets, results)
        write_bytes(out / "heatmap.png", heatmap_png(cells, values, heatmap, split))
    compared = f"{counted(len(sets), 'option set')} on {counted(len(search.dataset), 'clip')} of {split}"
    print(f"{compared}:\n{top_table(sets, results)}")
    on_row_split = {"row": search.evaluate(0, row_split, f"{row_split}_row")}
    on_row_split["tuned"] = search.evaluate(best, row_split, f"{row_split}_tuned") if best else on_row_split["row"]
    summary = {
        "options": sets[best],
        split: {"row": results[0], "tuned": results[best]},
        row_split: on_row_split,
        "sets": len(sets),
    }
    write_text(out / "tune.json", json.dumps(summary, indent=2) + "\n")
    for name, metrics in on_row_split.items():
        print(f"{row_split}, {name}: M_J {metrics['m_j']:.4f}, M_F {metrics['m_f']:.4f}")
    next_step = f"python -m zero_shot.evaluate --config {out / 'tuned.yaml'}"
    print(next_step if best else "no set is better than the row's own options")


def parse_arguments(argv: Sequence[str] | None) -> tuple[Options, Namespace]:
    """The row's options, and the arguments of the search."""
    parser = option_parser(Options, __doc__, "python -m zero_shot.tune")
    parser.add_argument("--split", choices=("train", "val"), default="val", help="split on which options are compared")
    parser.add_argument(
        "--budget",
        type=bounded_number(int, 0, MAX_SETS),
        default=DEFAULT_BUDGET,
        metavar="N",
        help="option sets, drawn at random from the grid, the row's own among them; 0 takes the whole grid",
    )
    parser.add_argument(
        "--search", nargs="+", default=[], metavar="OPTION=VALUES", help="options, with values separated by commas"
    )
    parser.add_argument("--seed", type=SEED_INT, default=0, help="of the draw")
    parser.add_argument("--heatmap", nargs=2, metavar="OPTION", help="the two options of the heat map")
    parser.add_argument("--out", type=Path | None, default=None, help="folder (default: runs/tune/NAME-OF-THE-CONFIG)")
    return parse_options(parser, Options, argv)


@cli_entry
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    row, namespace = parse_arguments(argv)
    stem = Path(str(namespace.config[-1])).stem if namespace.config else f"{row.data.benchmark}_{row.method}"
    published = "_published" if row.fidelity == "published" else ""
    out = expand_user(namespace.out or Path("runs/tune") / f"{stem}{published}")
    if row.data.split == namespace.split:
        raise InputError(f"data.split is {row.data.split}, on which options are chosen; it must be the split to report")
    if row.track != "none":
        raise InputError(
            f"--track {row.track}: options are chosen by the masks of single seconds; add it to tuned.yaml"
        )
    # by_fidelity stands for one of the two amplitudes that are searched.
    base = set_options(row, {"audioclip.amplitude": {"published": "unit", "corrected": "int16"}[amplitude(row)]})
    values = parse_values(namespace.search, base)
    heatmap = heatmap_options(values, namespace.heatmap)
    sets = option_sets(values, base, namespace.budget, namespace.seed)
    accelerator = make_accelerator(row.run.device)
    if accelerator.num_processes > 1:
        raise InputError("zero_shot.tune runs in one process; start it without torchrun")
    with exclusive_lock(out / ".lock", "is searching in it"):
        search = Search(base, sets, namespace.split, accelerator, out)
        search.run()
        report(search, values, heatmap, namespace.split, row.data.split)
    return 0


if __name__ == "__main__":
    sys.exit(main())
