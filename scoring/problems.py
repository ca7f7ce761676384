"""Masks that are missing or cannot be scored: collected while scoring, then reported with one line for each kind."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from utils.cli import InputError

ProblemKind = Literal["missing", "unreadable", "size", "values", "colors", "classes", "frames", "duplicate", "stray"]
MAX_NAMED = 3  # files named in a line
WORDS: dict[ProblemKind, tuple[str, str]] = {  # singular, plural
    "missing": ("mask is missing", "masks are missing"),
    "unreadable": ("mask cannot be read", "masks cannot be read"),
    "size": ("mask has another size", "masks have another size"),
    "values": ("mask has unexpected values", "masks have unexpected values"),
    "colors": ("mask has colors outside the palette", "masks have colors outside the palette"),
    "classes": ("mask has class indices above 70", "masks have class indices above 70"),
    "frames": ("clip has a wrong number of frames", "clips have a wrong number of frames"),
    "duplicate": ("mask is of the same second as another", "masks are of the same seconds as others"),
    "stray": ("file is no mask of these clips and was ignored", "files are no masks of these clips and were ignored"),
}
HARMLESS: tuple[ProblemKind, ...] = ("stray",)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        kind: what is wrong.
        where: the file, or the clip.
        detail: what it holds and what to do.
    """

    kind: ProblemKind
    where: str
    detail: str = ""


class MaskError(InputError):
    """A mask that cannot be scored."""

    def __init__(self, problem: Problem):
        super().__init__(f"{problem.where}: {problem.detail}")
        self.problem = problem


def describe(problems: Sequence[Problem]) -> list[str]:
    """One line for each kind of problem: how many, and the first few."""
    lines = []
    for kind, words in WORDS.items():
        found = [problem for problem in problems if problem.kind == kind]
        if not found:
            continue
        named = "; ".join(f"{p.where} {p.detail}".rstrip() for p in found[:MAX_NAMED])
        more = f"; and {len(found) - MAX_NAMED} more" if len(found) > MAX_NAMED else ""
        lines.append(f"{len(found)} {words[len(found) > 1]}: {named}{more}")
    return lines


def serious(problems: Sequence[Problem]) -> list[Problem]:
    """The problems that leave a frame without a score."""
    return [problem for problem in problems if problem.kind not in HARMLESS]
