"""Numbers with their nouns, and that messages use them."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

from utils.words import counted

REPOSITORY = Path(__file__).parents[2]
COUNTED = re.compile(r" (?!of )(?:\w+ )?(?!this|has|was|is)\w+s\b")  # a plural, perhaps with an adjective
NEVER_ONE = ("synthetic/training/sam_task.py", "utils/masks.py", "utils/robustness_report.py", "zero_shot/pipeline.py")


@pytest.mark.parametrize(
    ("number", "words", "text"),
    [
        (0, ("clip",), "0 clips"),
        (1, ("clip",), "1 clip"),
        (2, ("more object",), "2 more objects"),
        (1, ("category", "categories"), "1 category"),
        (3, ("category", "categories"), "3 categories"),
    ],
)
def test_a_number_agrees_with_its_noun(number: int, words: tuple[str, ...], text: str) -> None:
    assert counted(number, *words) == text


def test_no_message_counts_one_in_the_plural() -> None:
    """No f-string has `len(...)` or `sum(...)` before a plural: of one thing it would say "1 clips"."""
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    found = [
        f"{name}:{part.lineno}: {{{ast.unparse(part.value)}}}{following.value}"
        for name in listed.stdout.split()
        if not name.startswith("tests/") and name not in NEVER_ONE
        for string in ast.walk(ast.parse((REPOSITORY / name).read_text(encoding="utf-8")))
        if isinstance(string, ast.JoinedStr)
        for part, following in zip(string.values, string.values[1:], strict=False)
        if isinstance(part, ast.FormattedValue)
        and isinstance(following, ast.Constant)
        and isinstance(part.value, ast.Call)
        and ast.unparse(part.value.func) in ("len", "sum")
        and COUNTED.match(str(following.value))
    ]
    assert not found
