"""Hostile meta CSVs: every clip they list stays below the root, or they are refused in a line."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from avsbench_data.check import clip_problems
from tests.robustness.mutations import mutated
from tests.robustness.sandbox import Guard, guarded
from utils.cli import InputError
from utils.dataset import AVSDataset
from utils.layout import AVSBench
from utils.preprocess import preprocess_clip, write_report

HEAD = {"s4": "name,start,category,split\n", "ms3": "video_id,split\n"}
ROW = {"s4": "{},0,dog,test\n", "ms3": "{},test\n"}
NAMES = (
    *(
        "..",
        ".",
        "../../escape",
        "/etc/passwd",
        "a/b",
        "a\\b",
        "C:x",
        "nul\0byte",
        "new\nline",
        "tab\tname",
        "\x1b[31m",
    ),
    *("{k}", "{name.__class__}", "%s%n", "-rf", "~root", "$HOME", "`touch x`", "concat:a|b", "http:x", "%03d", " "),
    *("ü" * 90, "x" * 200, "x" * 300, "名" * 300, "\u202etxt", "\u2028", "e\u0301", "\ufeffa", "🦆", "a\u00a0b"),
)

# Always the same examples, and nothing kept: this runs in a process that may write in one folder only.
PLAIN = settings(
    derandomize=True, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
)


def quoted(fields: Sequence[str]) -> str:
    """A line of CSV; Python's own writer refuses some signs."""
    return ",".join(f'"{field.replace(chr(34), chr(34) * 2)}"' for field in fields) + "\n"


def corpus() -> dict[str, tuple[str, bytes]]:
    """Tables by what is odd about them: benchmark and content."""
    found = {}
    for benchmark, head in HEAD.items():
        row = ROW[benchmark]
        for name in NAMES:
            line = quoted([name, "0", "dog", "test"] if benchmark == "s4" else [name, "test"])
            found[f"{benchmark}, the name {name[:20]!r}"] = (benchmark, (head + line).encode())
            if benchmark == "s4":
                line = quoted(["a", "0", name, "test"])
                found[f"the category {name[:20]!r}"] = (benchmark, (head + line).encode())
        for what, content in {
            "nothing": "",
            "a mark only": "\ufeff",
            "a mark": "\ufeff" + head + row.format("a"),
            "DOS lines": (head + row.format("a")).replace("\n", "\r\n"),
            "Mac lines": (head + row.format("a")).replace("\n", "\r"),
            "blank lines": head + "\n\n" + row.format("a") + "\n\n",
            "100 000 rows": head + "".join(row.format(f"clip_{n}") for n in range(100_000)),
            "a clip twice": head + row.format("a") * 2,
            "no columns of ours": "x\n1\n",
            "columns the wrong way round": "split,category\ntrain\n",
            "a column twice": "name,split,category,split\na,test,dog,train\n",
            "too short a row": head + "a\n",
            "a category that is lacking": "name,start,split,category\na,0,test\n",
            "too long a row": head + row.format("a").strip() + ",,,,\n",
            "an open quote": head + '"' + row.format("a") * 5,
            "a huge field": head + row.format("x" * 200_000),
            "a huge number": head + "a," + "9" * 5000 + ",dog,test\n",
            "a number of many scripts": head + "a,٣,dog,test\n",
            "no UTF-8": head + "\udcff\udcfe" + row.format("a"),
        }.items():
            found[f"{benchmark}, {what}"] = (benchmark, content.encode("utf-8", "surrogateescape"))
        found[f"{benchmark} in UTF-16"] = (benchmark, (head + row.format("a")).encode("utf-16"))
    return found


def use(root: Path, benchmark: str) -> None:
    """What all commands do with a table of clips that are not there."""
    data = AVSBench(root, benchmark)
    for clip in data.clips[:3]:
        for path in (data.video(clip), data.wav(clip), data.log_mel(clip), *data.frames(clip), *data.masks(clip)):
            assert path.resolve().is_relative_to(root.resolve()) and len(path.relative_to(root).parts) <= 6
        outcome = preprocess_clip(data, clip)
        assert outcome.status == "failed" and outcome.reason.isprintable() and "no such file" in outcome.reason
        problems = clip_problems(data, clip, raw=True, features=True)
        assert len(problems) >= 8 and all(map(str.isprintable, problems))
        write_report(root / "report.csv", [outcome])
        with pytest.raises(InputError, match="no such file"):
            AVSDataset(data, clip.split)[0]


def work(guard: Guard, count: int, seed: int) -> None:
    def attempt(name: str, benchmark: str, content: bytes) -> None:
        (guard.inside / f"{benchmark}_meta_data.csv").write_bytes(content)
        guard.attempt(name, partial(use, guard.inside, benchmark))

    known = corpus()
    for name, (benchmark, content) in known.items():
        attempt(name, benchmark, content)
    whole = {
        "s4": HEAD["s4"] + "a_1,0,dog,train\nb,2,male speech,val\nc,0,dog,test\n",
        "ms3": HEAD["ms3"] + "a,train\n",
    }
    for name, content in mutated({name: text.encode() for name, text in whole.items()}, count, seed):
        attempt(name, name.rpartition(".")[2], content)

    field = st.one_of(
        st.sampled_from(["train", "test", "dog", "0", "..", "name", "split", *NAMES]), st.text(max_size=8)
    )
    table = st.lists(st.lists(field, max_size=6), max_size=5)

    @settings(PLAIN, max_examples=count)
    @given(st.sampled_from(["s4", "ms3"]), st.booleans(), table)
    def tables(benchmark: str, headed: bool, rows: list[list[str]]) -> None:
        content = (HEAD[benchmark] if headed else "") + "".join(map(quoted, rows))
        attempt(repr(content), benchmark, content.encode("utf-8", "surrogatepass"))

    tables()


@pytest.mark.parametrize("count, seed", [(100, 0), pytest.param(1000, 1, marks=pytest.mark.slow)])
def test_tables(tmp_path: Path, count: int, seed: int) -> None:
    tally = guarded(partial(work, count=count, seed=seed), tmp_path, memory=512)
    print(f"fuzz, tables: {tally}")
    assert not tally.faults, "\n\n".join(tally.faults)
    assert tally.tried > 2 * count and 50 < tally.refused < tally.tried - 20
    assert tally.grown < 400
