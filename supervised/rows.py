"""The supervised rows of the study: rows.csv, with one line per script of the original, and one YAML file per row.

    python -m supervised.rows              list the rows
    python -m supervised.rows --write      generate supervised/configs/*.yaml from rows.csv
    python -m supervised.rows --check      list the files that differ from rows.csv; exit code 1 if there are any

Scripts with the same options are one row, whatever their folder. A script without a row cannot run, because its model
does not implement fusion "none". Source: the scripts of AVSBench and Sam4AVS.
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
BACKBONES = {  # of tpavi: name in a sentence, name in models.backbones, and weights
    "resnet50": ("ResNet-50", "resnet50", "resnet50"),
    "pvt": ("PVT-v2-b5", "pvt_v2_b5", "pvt-v2-b5"),
}


@dataclass(frozen=True)
class Row:
    """A row of the study.

    Attributes:
        visual: initial weights of the image tower.
        audio: initial weights of the audio tower.
        freeze: "audio" or "".
        avm: distance of the AVM loss.
        metric_batch: videos that share a threshold in M_F.
        scripts: those of the original, as FOLDER/SCRIPT.
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
        """A description in one sentence."""
        data = f"{self.benchmark.upper()}, {self.fraction:.0%} of the training clips".replace("%", " %")
        if self.segmentor == "tpavi":
            return f"TPAVI, {BACKBONES[self.visual][0]} on {data}."
        audio = f"audio tower from {self.audio}, {'frozen' if self.freeze else 'trained'}"
        if self.fusion == "none":
            audio = "no audio"
        return f"AudioCLIP FPN, fusion {self.fusion}, on {data}; image tower from {self.visual}, {audio}."

    def yaml(self) -> str:
        """The content of its YAML file."""
        lines = [f"# {self.title}", *(f"# Script: {script}" for script in self.scripts)]
        lines.append("# Generated from supervised/rows.csv by python -m supervised.rows --write.")
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
    """The lines of rows.csv: every script of the original with its options; `row` is empty for one that cannot run."""
    with ROWS_CSV.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_rows() -> list[Row]:
    """The rows in the order of rows.csv.

    Raises:
        ValueError: if two scripts of a row have different options.
    """
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
            raise ValueError(f"{ROWS_CSV}: the scripts of {row.name} have different options")
        found[row.name] = replace(row, scripts=(*known.scripts, f"{line['folder']}/{line['script']}"))
    return list(found.values())


def _number(value: float) -> str:
    """A learning rate as 5.0e-5, because YAML reads 5e-05 as a string."""
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}"


@cli_entry
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = Parser(__doc__)
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--write", action="store_true", help="generate the YAML files")
    action.add_argument("--check", action="store_true", help="compare the YAML files with rows.csv")
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
        extra = sorted({path.stem for path in args.out.glob("*.yaml")} - set(files))
        if wrong or extra:
            names = ", ".join(wrong + extra)
            raise InputError(f"{args.out}: differs from rows.csv: {names}; --write generates these files")
        print(f"{len(table)} rows match rows.csv")
    else:
        for row in table:
            print(f"{row.name:50} {row.title}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
