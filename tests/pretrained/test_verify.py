"""pretrained.verify on files in the public layout with random weights, and on files that are missing or wrong."""

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from models.weights import Checkpoint, list_checkpoints
from pretrained import download, verify
from pretrained.checks import CHECKS
from pretrained.checks.audioclip import describe_amplitude
from pretrained.compare import compare
from pretrained.known_outputs import Check, read_known_outputs
from pretrained.verify_results import Result
from tests.helpers.verify import COCO_AP, change_file, has_pycocotools, run, without_files

BETTER_OF_TWO = "audioclip/zero-shot-datasets"
FILES = {checkpoint.name: checkpoint.file for checkpoint in list_checkpoints()}


@pytest.mark.slow
def test_what_was_computed_otherwise_is_found(
    public: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, verdicts, results = run(public, *public.plain, out=tmp_path)
    out = capsys.readouterr().out
    assert code == 1  # no file is the public one, as far as checksums are published
    assert verdicts["file", "audioclip-full"] == "mismatch" and verdicts["file", "pvt-v2-b5"] == "unverified"
    assert set(without_files(verdicts).values()) == {"ok"}, out
    assert {check for check, _ in without_files(verdicts)} == set(public.plain)
    by_check = {row["check"]: row for row in results}
    assert len(by_check["audioclip-full/audio-text"]["differences"]) == 20
    assert by_check["sam-vit-h/automatic-masks"]["found"]["masks"] > 12


@pytest.mark.slow
def test_every_check_runs(public: SimpleNamespace, recorded: Path, tmp_path: Path) -> None:
    _, verdicts, _ = run(public, "--all", out=tmp_path, known=recorded)
    every = without_files(verdicts)
    expected = {
        (check.id, name): "read" if check.kind == "read" else "ok"
        for check in read_known_outputs().checks
        for name in check.checkpoints
    }
    for name in ("audioclip-full", "audioclip-partial"):  # the better of the two is published
        verdict = every[BETTER_OF_TWO, name]
        assert verdict in ("ok", "read"), verdict
        expected[BETTER_OF_TWO, name] = verdict
    if not has_pycocotools():
        expected[COCO_AP, "grounding-dino-base"] = "failed"
    assert every == expected and {check for check, _ in every} == set(CHECKS)


@pytest.mark.slow
def test_random_weights_do_not_give_the_published_outputs(public: SimpleNamespace, tmp_path: Path) -> None:
    code, verdicts, results = run(public, "--all", out=tmp_path, known=public.random)
    assert code == 1
    failing = {COCO_AP} if not has_pycocotools() else set()
    to_read = {"audioclip/amplitude", BETTER_OF_TWO}
    for (check, _), verdict in without_files(verdicts).items():
        assert verdict == ("failed" if check in failing else "read" if check in to_read else "mismatch")
    mismatches = [row for row in results if row["differences"] and row["check"] != BETTER_OF_TWO]
    assert all(not row["differences"][0]["agrees"] for row in mismatches)


def test_a_success(public: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, verdicts, _ = run(public, "pvt_v2_b5.pth", out=tmp_path)
    assert code == 0 and verdicts == {("file", "pvt-v2-b5"): "unverified", ("pvt-v2-b5/coco", "pvt-v2-b5"): "ok"}
    _, row, _, last = capsys.readouterr().out.splitlines()
    detail = r"\S+ → \S+, logits, \d \(±0\.01; worst of 3\)"
    assert re.match(rf"ok +pvt-v2-b5/coco +pvt-v2-b5 +{detail}  \[A huggingface/", row)
    assert last == f"all values: {tmp_path / 'verify.json'}"


def test_the_amplitudes_are_to_be_read(
    public: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, verdicts, results = run(public, "audioclip/amplitude", out=tmp_path)
    assert verdicts["audioclip/amplitude", "audioclip-full"] == "read" and code == 1  # nothing was proved
    found = results[1]["found"]
    assert list(found) == ["train 1", "train 32768", "eval 1", "eval 32768"]
    at_train_1 = yaml.safe_load(public.exact.read_text())["checks"][0]["expected"]
    for sound, labels in at_train_1.items():
        assert {label: found["train 1"][sound][label] for label in labels} == pytest.approx(labels, abs=0.05)
    tables = [found[setting][sound] for setting in found for sound in found[setting]]
    assert all(sum(labels.values()) == pytest.approx(100, abs=1e-3) for labels in tables) and len(tables) == 20
    assert len({json.dumps(found[setting]) for setting in found}) == 4
    out = capsys.readouterr().out
    assert "train 1" in out and out.count("In eval mode, which the study uses,") == 2


def test_what_the_amplitudes_mean() -> None:
    own = {"bark": "dog", "bell": "clock"}
    right, wrong = {"dog": 60.0, "clock": 40.0}, {"dog": 40.0, "clock": 60.0}

    def found(unit: int, int16: int) -> dict[str, dict[str, dict[str, float]]]:
        sounds = [{"bark": right, "bell": right}, {"bark": right, "bell": wrong}]
        return {"eval 1": sounds[unit - 1], "eval 32768": sounds[int16 - 1]}

    assert "1 of 2 sounds get their own label at [-1, 1] and 2 in the range" in describe_amplitude(found(1, 2), own)
    assert "audioclip.amplitude int16" in describe_amplitude(found(1, 2), own)
    assert "audioclip.amplitude unit" in describe_amplitude(found(2, 1), own)
    assert "settles nothing" in describe_amplitude(found(2, 2), own)


def make_check(expected: dict[str, Any], tolerance: dict[str, Any], **more: Any) -> Check:
    return Check("id", ["name"], "A", "exact", "w", "h", [], expected=expected, tolerance=tolerance, **more)


def test_compare() -> None:
    check = make_check({"a": [1.0, 2.0], "b": 100.0}, {"a": {"absolute": 0.1}, "b": {"relative": 0.01}})
    agrees = lambda found: [each.agrees for each in compare(check, found)]  # noqa: E731
    assert agrees({"a": [1.05, 2.0], "b": 99.5, "more": 3}) == [True] * 3
    worst = compare(check, {"a": [1.05, 2.0], "b": 102.0})[0]
    assert (worst.quantity, worst.found, worst.agrees, worst.excess) == ("b", 102.0, False, pytest.approx(2))
    for found in ({"a": [1.0], "b": 100.0}, {"a": [1.0, float("nan")], "b": 100.0}, {"a": [1.0, 2.0]}, {}):
        assert not compare(check, found)[0].agrees
    exactly = make_check({"n": 5}, {"absolute": 0})
    assert compare(exactly, {"n": 5})[0].agrees and not compare(exactly, {"n": 6})[0].agrees
    shorter = make_check({"a": [1.0, 2.0]}, {"a": {"absolute": 0.1, "shorter": True}})
    assert [each.agrees for each in compare(shorter, {"a": [1.0]})] == [True]
    partial = make_check({"esc50": 69.4, "us8k": 68.8}, {"absolute": 2.0}, partial=True)
    assert [each.quantity for each in compare(partial, {"us8k": 68.0})] == ["us8k"] and not compare(partial, {})
    top = make_check({"bark": {"dog": 51.0, "cat": 49.0}}, {"absolute": 5.0}, same_top=True)
    wrong = compare(top, {"bark": {"dog": 49.0, "cat": 51.0}})
    assert (wrong[0].expected, wrong[0].found) == ("dog", "cat")
    assert [each.agrees for each in wrong] == [False, True, True]
    bound = make_check({"esc50": 69.4, "us8k": 68.8}, {"absolute": 2.0, "at_most": True})
    verdicts = lambda found: [(each.agrees, each.inconclusive) for each in compare(bound, found)]  # noqa: E731
    assert verdicts({"esc50": 68.0, "us8k": 70.0}) == [(True, False)] * 2
    assert verdicts({"esc50": 60.0, "us8k": 70.8}) == [(True, True), (True, False)]
    assert verdicts({"esc50": 60.0, "us8k": 71.0}) == [(False, False), (True, True)]
    assert verdicts({"esc50": float("nan"), "us8k": 70.0})[0] == (False, False)


def test_a_genuine_audioclip_does_not_fail_for_what_the_other_file_gives() -> None:
    """The published accuracies are those of the better of two files."""
    (check,) = (check for check in read_known_outputs().checks if check.id == BETTER_OF_TWO)
    better = dict(check.expected)
    for found in (better, {**better, "us8k": 50.0}, dict.fromkeys(better, 0.0)):
        assert all(each.agrees for each in compare(check, found))
    assert not compare(check, {**better, "esc50": better["esc50"] + 2.5})[0].agrees
    assert any("better of the two" in caveat for caveat in check.caveats)


def test_tolerances_of_sam_do_not_contradict_each_other() -> None:
    """How many scores exceed 1 follows from the scores, which may differ by 0.01."""
    (check,) = (check for check in read_known_outputs().checks if check.id == "sam-vit-h/automatic-masks")
    scores = np.array([*check.expected["first_10"], *check.expected["others"]])
    for shift in (-0.009, 0.009):
        found = {
            "masks": len(scores),
            "masks_above_iou_1": int((scores + shift > 1).sum()),
            "first_10": (scores[:10] + shift).tolist(),
            "others": (scores[10:] + shift).tolist(),
        }
        assert all(each.agrees for each in compare(check, found)), shift


@pytest.mark.parametrize("name", ["sam2.1-tiny/truck", "edgetam/truck"])
def test_predicted_iou_may_differ_by_a_hundredth(name: str) -> None:
    (check,) = (check for check in read_known_outputs().checks if check.id == name)
    differences = compare(check, check.expected)
    assert {each.allowed for each in differences if ", iou" in each.quantity} == {0.01}


def test_the_published_outputs_are_complete() -> None:
    known = read_known_outputs()
    published = [check for check in known.checks if check.kind != "read"]
    assert len(published) == 26 and {check.id for check in known.checks} == set(CHECKS)
    files = {checkpoint.name for checkpoint in list_checkpoints() if checkpoint.file}
    for check in known.checks:
        assert set(check.checkpoints) <= files and set(check.inputs) <= set(known.inputs), check.id
        assert check.sources and all(set(source) == {"repo", "path", "commit", "what"} for source in check.sources)
        assert check.level in "AB" or check.kind == "read"
        assert (check.kind == "read") == (not check.expected) == (not check.tolerance)
        assert not check.expected or check.why
    assert all(entry.used_by and (entry.url or entry.instructions) for entry in known.inputs.values())
    assert all(len(entry.sha256) in (0, 64) for entry in known.inputs.values())
    vector = next(check for check in known.checks if "vector" in check.parameters)
    assert len(vector.parameters["vector"]) == 1024
    assert np.linalg.norm(vector.parameters["vector"]) == pytest.approx(vector.expected["norm"], abs=1e-3)


def test_missing_files(public: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "weights").mkdir()
    for path in public.weights.glob("pvt*"):
        (tmp_path / "weights" / path.name).symlink_to(path)
    places = [
        "--known",
        str(public.exact),
        "--inputs",
        str(tmp_path),
        "--out",
        str(tmp_path / "out"),
        "--device",
        "cpu",
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAM4AVS_WEIGHTS", str(tmp_path / "weights"))
        assert verify.main(["pvt-v2-b5", "vggish", "sam-vit-l", *places]) == 1
        lines = capsys.readouterr().out.splitlines()
        assert "no such input (coco-39769); python -m pretrained.download --inputs coco-39769 gets it" in lines[1]
        assert lines[2].startswith("missing") and "get it: python -m pretrained.download vggish" in lines[2]
        assert lines[3].startswith("missing") and "no output of it is published" in lines[3]
        assert lines[4].endswith(": 1 unverified, 3 missing") and len(lines) == 6
        own = f"coco-39769={public.inputs / '000000039769.jpg'}"
        assert verify.main(["pvt-v2-b5", "--input", own, *places]) == 0
        capsys.readouterr()
        # All that is there is judged; what is not is named once.
        assert verify.main(["--all", "--input", own, *places]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in lines[:2]] == ["unverified", "ok"] and len(lines) == 5
        absent = {name for check in read_known_outputs().checks for name in check.checkpoints} - {"pvt-v2-b5"}
        assert lines[2].startswith("not checked, because they are not there: audioclip-full, ")
        assert all(name in lines[2] for name in absent) and "pretrained.download NAME gets one" in lines[2]
        assert lines[3].endswith(": 1 unverified, 1 ok")
        assert verify.main(["--all", *places]) == 1, "nothing was compared"
        lines = capsys.readouterr().out.splitlines()
        assert lines[2].startswith("not checked, because inputs are missing: pvt-v2-b5/coco; ") and len(lines) == 5
        for word, message in (("cat=x", "expected NAME=FILE with one of aclp-"), ("truck=nowhere", "no such file")):
            assert verify.main(["pvt-v2-b5", "--input", word, *places]) == 1
            assert re.fullmatch(rf"error: --input {word}: {message}.*\n", capsys.readouterr().err)
    assert verify.main(["resnet51", *places]) == 1
    assert capsys.readouterr().err == "error: resnet51: no such checkpoint or check; --list shows them\n"
    assert verify.main(["vggish", "--known", str(tmp_path / "none.yaml")]) == 1
    assert "cannot be read" in capsys.readouterr().err
    (tmp_path / "odd.yaml").write_text("checks: 3")
    assert verify.main(["vggish", "--known", str(tmp_path / "odd.yaml")]) == 1
    assert "not a file of published outputs" in capsys.readouterr().err


def test_what_nobody_asked_for_may_be_missing(
    public: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, inputs = tmp_path / "weights", tmp_path / "inputs"
    known = read_known_outputs(public.exact)
    for folder, source, names in (
        (weights, public.weights, ("AudioCLIP-Full-Training.pt", "resnet50-19c8e357.pth", "clap-htsat-unfused")),
        (inputs, public.inputs, [entry.file for entry in known.inputs.values() if entry.url]),
    ):
        folder.mkdir()
        for name in names:
            (folder / str(name)).symlink_to(source / str(name))
    monkeypatch.setenv("SAM4AVS_WEIGHTS", str(weights))
    # Their files are the public ones, and their outputs those that are published.
    ok = lambda name: Result("file", name, "ok" if (weights / str(FILES[name])).exists() else "missing")  # noqa: E731
    monkeypatch.setattr("pretrained.verify_results.verify_file", ok)
    monkeypatch.setattr("pretrained.verify_results.run_check", lambda context: dict(context.check.expected))

    def verdicts(*words: str) -> tuple[int, dict[str, str]]:
        places = ["--known", str(public.exact), "--inputs", str(inputs), "--out", str(tmp_path), "--device", "cpu"]
        code = verify.main([*words, *places])
        results = json.loads((tmp_path / "verify.json").read_text())["results"]
        return code, {f"{row['check']} {row['checkpoint']}": row["verdict"] for row in results}

    monkeypatch.setattr("pretrained.verify_results.format_amplitude", lambda found: [])
    monkeypatch.setattr("pretrained.verify_results.describe_amplitude", lambda *_: "")
    # A checkpoint is named: no data set needs to be there.
    code, found = verdicts("audioclip-full")
    assert code == 0 and found[f"{BETTER_OF_TWO} audioclip-full"] == "not run"
    assert set(found.values()) == {"ok", "read", "not run"}
    assert verdicts("resnet50") == (0, {"file resnet50": "ok", "resnet50/imagenet resnet50": "not run"})
    code, found = verdicts("clap-htsat-unfused")
    assert code == 0 and set(found.values()) == {"ok", "not run"}
    assert "not run" in capsys.readouterr().out
    # A check is named: one of its checkpoints is enough, but its inputs have to be there.
    code, found = verdicts("audioclip/amplitude")
    assert code == 0 and found["file audioclip-partial"] == "not run"
    assert found["audioclip/amplitude audioclip-full"] == "read"
    for words in (
        ("sam2.1/car",),  # none of its checkpoints
        ("audioclip-partial",),
        ("audioclip/amplitude", "audioclip-partial"),
        ("audioclip/amplitude", "sam2.1/car"),
        (BETTER_OF_TWO,),
        ("resnet50/imagenet",),
        ("resnet50", "resnet50/imagenet"),
    ):
        code, found = verdicts(*words)
        assert code == 1 and "missing" in found.values(), words
    (weights / "sam2.1-hiera-small").symlink_to(public.weights / "sam2.1-hiera-small")
    code, found = verdicts("sam2.1/car")
    assert code == 0 and list(found.values()).count("not run") == 3
    # What can be downloaded has to be there, and something has to be compared.
    (inputs / "thunder_3-144891-B-19.wav").unlink()
    assert verdicts("audioclip-full")[0] == 1
    monkeypatch.setattr("pretrained.verify_results.verify_file", lambda name: replace(ok(name), verdict="unverified"))
    assert verdicts("resnet50")[0] == 1


def test_another_input_than_the_published_one(public: SimpleNamespace, tmp_path: Path) -> None:
    content = yaml.safe_load(public.exact.read_text())
    content["inputs"]["coco-39769"]["sha256"] = "0" * 64
    (tmp_path / "known.yaml").write_text(yaml.safe_dump(content))
    _, _, (_, row) = run(public, "pvt-v2-b5", out=tmp_path, known=tmp_path / "known.yaml")
    assert row["verdict"] == "failed" and "not the published input coco-39769: its sha256 is another" in row["detail"]


def test_a_checkpoint_of_another_size(
    public: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    state = torch.load(public.weights / "vggish-10086976.pth", weights_only=True)
    change_file(monkeypatch, public, tmp_path, "sam_vit_h_4b8939.pth", lambda _: state)
    code, verdicts, _ = run(public, "sam-vit-h", out=tmp_path)
    assert code == 1 and list(verdicts.values()) == ["mismatch", "failed", "failed"]
    lines = capsys.readouterr().out.splitlines()
    assert re.search(r"has \d+ bytes instead of 2564550879", lines[0])
    assert all("does not fit Sam: missing" in line for line in lines[1:3]) and len(lines) == 5
    (tmp_path / "weights" / "pvt_v2_b5.pth").unlink()
    (tmp_path / "weights" / "pvt_v2_b5.pth").write_bytes(b"<html>")
    _, verdicts, _ = run(public, "pvt-v2-b5", out=tmp_path)
    assert list(verdicts.values()) == ["mismatch", "failed"] and "a web page" in capsys.readouterr().out


def test_inputs_are_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "source").write_bytes(content := b"a sound")
    known = {
        "one": Checkpoint("one", "one.wav", (tmp_path / "source").as_uri(), sha256=hashlib.sha256(content).hexdigest()),
        "other": Checkpoint("other", "other.wav", (tmp_path / "source").as_uri(), sha256="0" * 64),
        "offline": Checkpoint("offline", "offline.jpg", "http://127.0.0.1:9/closed"),
        "set": Checkpoint("set", "SET", None, instructions="ask for it"),
    }
    files = tuple(replace(entry, option="--inputs ", used_by=["a check"]) for entry in known.values())
    monkeypatch.setattr(download, "list_inputs", lambda: files)
    monkeypatch.setenv("SAM4AVS_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("no_proxy", "*")
    assert download.main(["--inputs"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert (tmp_path / "inputs" / "one.wav").read_bytes() == content and lines[0].startswith("downloaded one.wav")
    assert lines[1].startswith("failed") and "instead of 0000" in lines[1]
    assert lines[2].startswith("failed") and "cannot be reached" in lines[2]
    assert lines[3] == f"{tmp_path / 'inputs'}: 1 downloaded, 2 failed"
    assert [path.name for path in (tmp_path / "inputs").iterdir()] == ["one.wav"]
    assert download.main(["--inputs", "--check", "offline"]) == 1
    assert "python -m pretrained.download --inputs offline" in capsys.readouterr().out
    assert download.main(["--inputs", "--list"]) == 0 and "a check" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give names, --all or --list"),
        (["--all", "vggish"], "not both"),
        (["--device", "tpu", "vggish"], "invalid"),
    ],
)
def test_bad_usage(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        verify.main(words)
    assert end.value.code == 2 and message in capsys.readouterr().err


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert verify.main(["--list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(CHECKS)
