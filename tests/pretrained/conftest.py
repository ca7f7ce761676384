"""Files in the public layout for the tests of pretrained.verify, made once."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

from pretrained.checks import Context, run_check
from pretrained.known_outputs import Inputs, read_known_outputs
from tests.helpers import public_files
from tests.helpers.plain_outputs import plain_outputs
from tests.helpers.plain_transformers import transformers_outputs
from tests.helpers.verify import COCO_AP, has_pycocotools


@pytest.fixture(scope="session")
def public_data(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Checkpoints and inputs, and "published" outputs of plain computations, where there are any. Read only."""
    folder = tmp_path_factory.mktemp("public")
    inputs = folder / "inputs"
    inputs.mkdir()
    public_files.write_checkpoints(folder)
    public_files.write_transformers_folders(folder)
    public_files.write_inputs(inputs)
    facts = public_files.known_outputs(folder / "random.yaml")
    with public_files.small_networks():
        plain = plain_outputs(folder, inputs) | transformers_outputs(folder, inputs)
    content = yaml.safe_load(facts.read_text())
    content["vectors"]["rn50_dog_embedding"] = plain.pop("dog").tolist()
    for entry in content["checks"]:
        if entry["id"] in plain:
            select = public_files.largest if entry.get("same_top") else public_files.same_structure
            entry["expected"] = select(plain[entry["id"]], entry["expected"])
    exact = folder / "exact.yaml"
    exact.write_text(yaml.safe_dump(content))
    return SimpleNamespace(weights=folder, inputs=inputs, random=facts, exact=exact, plain=sorted(plain))


@pytest.fixture
def public(public_data: SimpleNamespace) -> Iterator[SimpleNamespace]:
    """The same, with the networks of their sizes and SAM4AVS_WEIGHTS in force.

    Not by the fixture monkeypatch: a test's own patches have to be undone before these.
    """
    with pytest.MonkeyPatch.context() as patch, public_files.small_networks():
        patch.setenv("SAM4AVS_WEIGHTS", str(public_data.weights))
        patch.setattr("open_clip.IMAGENET_CLASSNAMES", ["tench", "tabby cat", "convertible"] * 2)
        yield public_data


@pytest.fixture
def recorded(public: SimpleNamespace) -> Path:
    """Published outputs as `public`'s, and recorded ones of this project for the other checks."""
    content = yaml.safe_load(public.exact.read_text())
    known = read_known_outputs(public.exact)
    for entry, check in zip(content["checks"], known.checks, strict=True):
        if "expected" in entry and check.id not in public.plain and (check.id != COCO_AP or has_pycocotools()):
            inputs, cpu = Inputs(known.inputs, public.inputs), torch.device("cpu")
            better = check.tolerance.get("at_most")  # of all checkpoints
            names = check.checkpoints if better else check.checkpoints[:1]
            runs = [run_check(Context(check, name, inputs, cpu)) for name in names]
            found = {key: max(run[key] for run in runs) for key in runs[0]} if better else runs[0]
            entry["expected"] = public_files.same_structure(found, entry["expected"])
    path: Path = public.weights / "recorded.yaml"
    path.write_text(yaml.safe_dump(content))
    return path
