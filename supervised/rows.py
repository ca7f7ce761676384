"""The supervised rows of the study: one table (rows.csv, a line for each script of the original) and one YAML file for
each row, made of it.

    python -m supervised.rows              list the rows
    python -m supervised.rows --write      write supervised/configs/*.yaml anew
    python -m supervised.rows --check      name the files that are not as the table says; exit code 1 if there are any

Scripts with the same settings are the same row, whatever folder they lie in. A script without a row cannot run: the
model that it asks for has no fusion "none". Source: the scripts of AVSBench and Sam4AVS.
"""

if __name__ == "__main__":  # before imports that take seconds
    from utils.environment import prepare_process

    prepare_process()

import csv
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from utils.cli import InputError, Parser, cli_entry
from utils.files import write_text
from utils.layout import BENCHMARKS
from utils.paths import expand_user

HERE = Path(__file__).parent
ROWS_CSV, CONFIGS = HERE / "rows.csv", HERE / "configs"
BACKBONES = {  # of tpavi: its name in a sentence, in models.backbones, and its weights
    "resnet50": ("ResNet-50", "resnet50", "resnet50"),
    "pvt": ("PVT-v2-b5", "pvt_v2_b5", "pvt-v2-b5"),
}


@dataclass(frozen=True)
class Row:
    """A row of the study.

    visual, audio: what the towers start from. freeze: "audio" or "". avm: the distance of the audio-visual mapping
    loss. metric_batch: videos that share a threshold in M_F. scripts: the original's, by folder.
    """

    name: str
    benchmark: str
    segmentor: str
    fusion: str
    visual: str
    audio: str
    freeze: str
    lr: float
    backbone_lr_mult: float
    batch_size: int
    epochs: int
    fraction: float
    avm: str
    metric_batch: int
    scripts: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """What it is, in a sentence."""
        data = f"{self.benchmark.upper()}, {self.fraction:.0%} of the training clips".replace("%", " %")
        if self.segmentor == "tpavi":
            return f"TPAVI, {BACKBONES[self.visual][0]} on {data}."
        audio = f"audio tower from {self.audio}, {'frozen' if self.freeze else 'trained'}"
        if self.fusion == "none":
            audio = "no sound"
        return f"AudioCLIP FPN, fusion {self.fusion}, on {data}; image tower from {self.visual}, {audio}."

    def yaml(self) -> str:
        """Its configuration."""
        lines = [f"# {self.title}", *(f"# Script: {script}" for script in self.scripts)]
        lines.append("# Written by python -m supervised.rows --write; the table is supervised/rows.csv.")
        root = f"avsbench_data/{BENCHMARKS[self.benchmark].root}"
        lines.append(f"data: {{benchmark: {self.benchmark}, root: {root}, fraction: {self.fraction}}}")
        rates = f"lr: {_number(self.lr)}"
        if self.segmentor == "tpavi":
            _, backbone, weights = BACKBONES[self.visual]
            lines.append(
                f"model: {{segmentor: tpavi, freeze: [{self.freeze}], backbone: {backbone}, weights: {weights}}}"
            )
        else:
            towers = f"visual: {self.visual}, audio: {self.audio}"
            lines += ["model:", "  segmentor: fpn", f"  freeze: [{self.freeze}]"]
            lines.append(f"  fpn: {{fusion: {self.fusion}, upsample: bilinear, {towers}}}")
            rates += f", backbone_lr_mult: {self.backbone_lr_mult}"
        if self.avm != "none":
            lines.append(f"loss: {{distance: {self.avm}, weight: 0.5, stages: [0, 1, 2, 3]}}")
        lines.append(f"train: {{epochs: {self.epochs}, batch_size: {self.batch_size}, {rates}, seed: 123}}")
        lines.append(f"metric_batch: {self.metric_batch}")
        return "\n".join(lines) + "\n"


def read_table() -> list[dict[str, str]]:
    """The table: every script of the original with its settings, `row` empty where it cannot run."""
    with ROWS_CSV.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_rows() -> list[Row]:
    """The rows, in the order of the table. Raises ValueError if two scripts of a row have different settings."""
    found: dict[str, Row] = {}
    for line in read_table():
        if not line["row"]:
            continue
        row = Row(
            name=line["row"],
            benchmark=line["benchmark"],
            segmentor=line["segmentor"],
            fusion=line["fusion"],
            visual=line["visual"],
            audio=line["audio"],
            freeze=line["freeze"],
            lr=float(line["lr"]),
            backbone_lr_mult=float(line["backbone_lr_mult"]),
            batch_size=int(line["batch"]),
            epochs=int(line["epochs"]),
            fraction=float(line["fraction"]),
            avm=line["avm"],
            metric_batch=int(line["metric_batch"]),
        )
        known = found.get(row.name, row)
        if replace(known, scripts=()) != row:
            raise ValueError(f"{ROWS_CSV}: the scripts of {row.name} differ in their settings")
        found[row.name] = replace(row, scripts=(*known.scripts, f"{line['folder']}/{line['script']}"))
    return list(found.values())


def _number(value: float) -> str:
    """A rate as YAML reads a number: 5.0e-5, for it takes 5e-05 for a word."""
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}"


@cli_entry
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = Parser(__doc__)
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--write", action="store_true", help="write the YAML files")
    action.add_argument("--check", action="store_true", help="compare the YAML files with the table")
    parser.add_argument("--out", type=expand_user, default=CONFIGS, help="folder of the YAML files")
    args = parser.parse_args(argv)
    table = read_rows()
    if args.write:
        for row in table:
            write_text(args.out / f"{row.name}.yaml", row.yaml())
        print(f"{len(table)} rows written to {args.out}")
    elif args.check:
        files = {row.name: args.out / f"{row.name}.yaml" for row in table}
        wrong = [
            row.name
            for row in table
            if not files[row.name].is_file() or files[row.name].read_text(encoding="utf-8") != row.yaml()
        ]
        strange = sorted({path.stem for path in args.out.glob("*.yaml")} - set(files))
        if wrong or strange:
            raise InputError(f"{args.out}: not as the table says: {', '.join(wrong + strange)}; see --write")
        print(f"{len(table)} rows are as the table says")
    else:
        for row in table:
            print(f"{row.name:50} {row.title}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
