"""Hostile YAML: options come out of it, or a line that says what is wrong; nothing it names is imported or opened."""

from dataclasses import is_dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from supervised.options import Options as Supervised
from tests.robustness.mutations import mutated
from tests.robustness.sandbox import Guard, guarded
from tests.robustness.test_fuzz_tables import PLAIN
from utils.config import from_yaml, option_parser, parse_options, to_yaml
from zero_shot.options import Options as ZeroShot

LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
CODE = (
    "!!python/object/apply:os.system [touch ran]",
    "!!python/object/new:os.system [touch ran]",
    "!!python/name:os.system",
    "!!python/module:this",
    "{class_path: this, init_args: {}}",
    "{class_path: os.system, init_args: {command: touch ran}}",
    "${oc.env:HOME}",
    "!!python/object:supervised.options.Options {}",
)


def corpus() -> dict[str, str]:
    """YAML by what is odd about it."""
    found = {
        "nothing": "",
        "null": "null",
        "a word": "data",
        "a list": "- a\n- b",
        "a number": "7",
        "two documents": "metric_batch: 1\n---\nmetric_batch: 2\n",
        "a billion laughs": LAUGHS,
        "a billion laughs in an option": LAUGHS + "data: *i\n",
        "laughs of maps": "a: &a {x: 1}\nb: &b {x: *a, y: *a}\ndata: *b\n",
        "itself": "data: &d {root: *d}",
        "a merged key": "data: &d {root: x}\nmodel:\n  <<: *d\n",
        "deep lists": "data: " + "[" * 20_000,
        "deep lists that end": "data: " + "[" * 5000 + "]" * 5000,
        "deep maps": "data: " + "{a: " * 5000 + "1" + "}" * 5000,
        "deep blocks": "".join(" " * n + "a:\n" for n in range(1500)),
        "an unknown key": "speed: 9",
        "an unknown key below": "data: {speed: 9}",
        "a key twice": "metric_batch: 1\nmetric_batch: 2",
        "a key that is a list": "[a, b]: c",
        "a key that is a number": "1: 2",
        "a tab": "data:\n\troot: x",
        "an open quote": "data: {root: 'x}",
        "control signs": "fidelity: \x01\x02",
        "a nul": "fidelity: \0",
        "a long word": f"fidelity: {'x' * 100_000}",
        "a long number": f"metric_batch: {'9' * 5000}",
        "infinity": "metric_batch: .inf",
        "not a number": "data: {fraction: .nan}",
        "a date": "metric_batch: 2020-01-01",
        "bytes": "metric_batch: !!binary aGVsbG8=",
        "a set": "data: !!set {a, b}",
        "an order": "data: !!omap [a: 1]",
        "a file": "data: /etc/passwd",
        "a device": "data: /dev/zero",
        "an address": "data: http://192.0.2.1/x.yaml",
        "an empty group": "data:",
        "an empty group below": "model: {fpn: , ear: []}",
        "a group that is a list": "train: [{}, {}]",
        "a config": "config: other.yaml",
        "itself as a config": "config: config.yaml",
        "a print": "print_config: true",
        "help": "help: true",
    }
    for number, code in enumerate(CODE):
        found[f"code {number}"] = code
        for key in ("fidelity", "metric_batch", "data", "data.root"):
            found[f"code {number} as {key}"] = f"{key}: {code}"
    return found


def use(path: Path, options: type) -> None:
    """Options as a run folder gives them; what is read can be written and read again."""
    built: Any = from_yaml(options, path)
    assert is_dataclass(built) and from_yaml(options, rewritten(path, built)) == built


def rewritten(path: Path, options: Any) -> Path:
    path.write_text(to_yaml(options), encoding="utf-8")
    return path


def as_command(path: Path, options: type) -> None:
    parse_options(option_parser(options, None), options, ["--config", str(path)])


def work(guard: Guard, count: int, seed: int) -> None:
    path = guard.inside / "config.yaml"

    def attempt(name: str, content: bytes, command: bool = False) -> None:
        for options in (Supervised, ZeroShot):
            path.write_bytes(content)
            guard.attempt(f"{options.__module__}: {name}", partial(use, path, options))
            if command and options is ZeroShot:
                path.write_bytes(content)
                guard.attempt(f"{options.__module__} command: {name}", partial(as_command, path, options))

    for name, text in corpus().items():
        attempt(name, text.encode(), command=True)
    attempt("no UTF-8", b"fidelity: \xff\xfe", command=True)
    wholes = {f"{options.__module__}.yaml": to_yaml(options()).encode() for options in (Supervised, ZeroShot)}
    for name, content in mutated(wholes, count, seed):
        attempt(name, content)

    leaf = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.sampled_from(CODE))
    key = st.sampled_from(
        ["data", "model", "train", "run", "root", "workers", "freeze", "fidelity", "metric_batch", "x"]
    )
    tree = st.recursive(
        leaf, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(key, inner, max_size=4), max_leaves=8
    )

    @settings(PLAIN, max_examples=count)
    @given(st.dictionaries(key, tree, max_size=4))
    def trees(content: dict[str, Any]) -> None:
        attempt(repr(content), yaml.safe_dump(content).encode("utf-8", "surrogatepass"))

    trees()


@pytest.mark.parametrize("count, seed", [(20, 0), pytest.param(150, 1, marks=pytest.mark.slow)])
def test_configs(tmp_path: Path, count: int, seed: int) -> None:
    tally = guarded(partial(work, count=count, seed=seed), tmp_path, memory=512)
    print(f"fuzz, configs: {tally}")
    assert not tally.faults, "\n\n".join(tally.faults)
    assert tally.tried > 4 * count and 100 < tally.refused < tally.tried - 10
    assert tally.grown < 400
