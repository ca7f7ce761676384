"""The list of equivalent faults of `make mutants` belongs to the code as it is."""

import csv
import re

from tests.mutation.__main__ import EQUIVALENT, ROOT, TESTS


def test_every_module_and_its_tests_exist() -> None:
    for module, stages in TESTS.items():
        assert (ROOT / module).is_file(), module
        for path in re.findall(r"tests/\S+\.py", " ".join(stages)):
            assert (ROOT / path).is_file(), path


def test_every_equivalent_fault_is_of_a_line_that_exists() -> None:
    with EQUIVALENT.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows and all(row["reason"] and row["was"] != row["becomes"] for row in rows)
    for row in rows:
        assert row["module"] in TESTS, row
        code = re.sub(r"\s+", "", (ROOT / row["module"]).read_text(encoding="utf-8"))
        assert re.sub(r"\s+", "", row["was"]) in code, row
