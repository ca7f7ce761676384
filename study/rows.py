"""The tables of a study, and where in them each row of supervised/rows.csv stands."""

from dataclasses import dataclass
from typing import NamedTuple

from supervised.rows import Row, read_rows
from utils.layout import BenchmarkName

TABLES = {  # in the order in which they are shown
    "zero_shot": "Zero-shot",
    "tpavi": "Supervised: TPAVI",
    "fusion": "Supervised: how sound joins the AudioCLIP FPN",
    "initialisation": "Supervised: what the towers of the AudioCLIP FPN start from",
    "fraction": "Supervised: how much training data",
}
SEGMENTORS = {"resnet50": "TPAVI, ResNet-50", "pvt": "TPAVI, PVT-v2-B5"}
TOWERS = {
    "audioclip-full": "AudioCLIP",
    "clip-rn50": "CLIP",
    "resnet50": "ResNet-50 (ImageNet)",
    "esresnext-fbsp": "ESResNeXt (AudioSet)",
    "vggish": "VGGish",
    "random": "random",
}


class TableRow(NamedTuple):
    """A row of a table."""

    table: str
    row: str


@dataclass(frozen=True)
class PublicRow:
    """A row of the study: the configuration without its benchmark, and every place where it stands."""

    config: str
    benchmark: BenchmarkName
    fraction: float
    places: tuple[TableRow, ...]


def public_rows() -> list[PublicRow]:
    """The rows of supervised/rows.csv."""
    return [
        PublicRow(
            row.name.removeprefix(f"{row.benchmark}_"),
            row.benchmark,  # type: ignore[arg-type]
            row.fraction,
            places(row),
        )
        for row in read_rows()
    ]


def places(row: Row) -> tuple[TableRow, ...]:
    """Where a row stands. ValueError if nowhere."""
    model = SEGMENTORS[row.visual] if row.segmentor == "tpavi" else "AudioCLIP FPN, concate"
    found = []
    whole = row.fraction == 1
    ours = row.segmentor == "fpn" and (row.visual, row.audio) == ("audioclip-full",) * 2
    trained = ours and not row.freeze
    if row.segmentor == "tpavi" and whole:
        found.append(TableRow("tpavi", model))
    if ours and whole:
        found.append(TableRow("fusion", row.fusion + (", audio tower trained" if trained else "")))
    if row.segmentor == "fpn" and row.fusion == "concate" and whole and not trained:
        rate = ", all at the full rate" if row.name.endswith("_full_rate") else ""
        found.append(TableRow("initialisation", f"{TOWERS[row.visual]} × {TOWERS[row.audio]}{rate}"))
    if (row.visual == "resnet50" and row.segmentor == "tpavi") or (ours and row.fusion == "concate" and not trained):
        found.append(TableRow("fraction", model))
    if not found:
        raise ValueError(f"{row.name} stands in no table")
    return tuple(found)
