"""The register of networks and checkpoints: names, paths, small weights, and errors in one line."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from models import TPAVISegmentor, registry
from models.audioclip import AudioCLIP
from models.registry import create_model, list_models, list_weights
from models.weights import MINI_DIR, PRETRAINED, checkpoint_name, find_weights, list_checkpoints, require_weights
from tests.helpers.tiny_checkpoints import SIZES, clip
from utils.cli import InputError

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def no_weights_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SAM4AVS_WEIGHTS", raising=False)


def same_weights(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    values = other.state_dict()
    return all(torch.equal(value, values[name]) for name, value in one.state_dict().items())


# --- names and paths ----------------------------------------------------------------------------------------


def test_every_listed_weight_is_registered_or_special() -> None:
    names = {checkpoint.name for checkpoint in list_checkpoints() if checkpoint.file}
    assert set(list_weights()) <= names | {"mini", "random"}
    assert set(list_weights()) == {name for model in list_models() for name in list_weights(model)}
    assert list_weights("audioclip")[0] == "audioclip-full" and "random" not in list_weights("sam_mini")
    assert list_models("sam_vit_*") == ["sam_vit_h", "sam_vit_l", "sam_vit_b"]
    assert list_models("nothing") == []


def test_a_name_is_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_weights("vggish") == PRETRAINED / "vggish-10086976.pth"
    assert find_weights("mini", "sam") == MINI_DIR / "sam.safetensors"
    assert find_weights("random") is None
    monkeypatch.setenv("SAM4AVS_WEIGHTS", str(tmp_path / "weights"))
    assert find_weights("vggish") == tmp_path / "weights" / "vggish-10086976.pth"
    assert find_weights("mini", "sam") == MINI_DIR / "sam.safetensors", "what ships stays where it is"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SAM4AVS_WEIGHTS", "~/other")
    assert find_weights("vggish") == tmp_path / "other" / "vggish-10086976.pth"


def test_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small").mkdir()
    (tmp_path / "plain").touch()
    assert find_weights("small", "audioclip") == Path("small/audioclip.safetensors")
    assert find_weights(tmp_path / "small", "sam") == tmp_path / "small" / "sam.safetensors"
    assert find_weights("some.pth") == Path("some.pth"), "a path that does not exist is still a path"
    assert find_weights("a/b") == Path("a/b") and find_weights("plain") == Path("plain")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_weights("~/x.pth") == tmp_path / "x.pth"


def test_checkpoint_names() -> None:
    assert checkpoint_name("resnet50") == checkpoint_name("elsewhere/resnet50-19c8e357.pth") == "resnet50"
    assert checkpoint_name("mini") == "mini" and checkpoint_name("a/own.pth") == "a/own.pth"
    assert checkpoint_name(Path("vggish-10086976.pth")) == "vggish"


@pytest.mark.parametrize("call", [find_weights, create_model, list_weights])
def test_unknown_names_list_the_known_ones(call: Any) -> None:
    with pytest.raises(InputError) as error:
        call("audioclip-half")
    message = str(error.value)
    assert "\n" not in message and message.startswith("audioclip-half: no ")
    assert ("audioclip-full" in message) if call is find_weights else ("sam_vit_h" in message)


def test_missing_files_say_which_command_gets_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def problem(path: Path) -> str:
        with pytest.raises(InputError) as error:
            require_weights(path)
        return str(error.value)

    path = tmp_path / "sam_vit_b_01ec64.pth"
    assert problem(path).endswith(f"python -m pretrained.download sam-vit-b --to {tmp_path} gets it")
    monkeypatch.setenv("SAM4AVS_WEIGHTS", str(tmp_path))
    assert problem(path).endswith("python -m pretrained.download sam-vit-b gets it")
    assert "python -m synthetic.train sam --out" in problem(tmp_path / "sam.safetensors")
    assert "pretrained/README.md" in problem(tmp_path / "own.pth")
    path.touch()
    require_weights(path)


# --- networks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, weights", [("audioclip", "mini"), ("sam_mini", None), ("sam_mini", str(MINI_DIR))])
def test_the_small_weights_that_ship(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, weights: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    model = create_model(name, weights)
    assert not model.training and all(value.isfinite().all() for value in model.parameters())
    file = "audioclip" if name == "audioclip" else "sam"
    assert same_weights(model, create_model(name, MINI_DIR / f"{file}.safetensors"))


def test_a_folder_of_small_weights(tmp_path: Path) -> None:
    (tmp_path / "audioclip.json").write_text(json.dumps({"model": SIZES}))
    with pytest.raises(InputError, match=r"audioclip.safetensors: no such file; python -m synthetic.train audioclip"):
        create_model("audioclip", tmp_path)
    save_file(clip(1).state_dict(), tmp_path / "audioclip.safetensors")
    model = create_model("audioclip", tmp_path, fidelity="published")
    assert same_weights(model, clip(1)) and model.fidelity == "published" and not model.has_text


def test_published_names_and_own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default weights come from the registered file; the options of the constructor reach the network."""
    source = clip(2)
    torch.save(source.state_dict(), tmp_path / "AudioCLIP-Full-Training.pt")
    monkeypatch.setenv("SAM4AVS_WEIGHTS", str(tmp_path))
    model = create_model("audioclip", **SIZES)
    assert isinstance(model, AudioCLIP) and same_weights(model, source) and not model.training
    assert same_weights(create_model("audioclip", tmp_path / "AudioCLIP-Full-Training.pt", **SIZES), source)
    with pytest.raises(InputError, match=r"AudioCLIP-Partial-Training.pt: no such checkpoint"):
        create_model("audioclip", "audioclip-partial", **SIZES)
    with pytest.raises(InputError, match=r"does not fit VGGish: missing 18"):
        create_model("vggish", "audioclip-full")


def test_random_weights_and_segmentors(tmp_path: Path) -> None:
    assert not create_model("audioclip", "random", **SIZES).training
    model = create_model("tpavi_resnet50", channels=8, audio_features=12)
    assert isinstance(model, TPAVISegmentor) and not model.training
    torch.save({"stranger": torch.zeros(1)}, tmp_path / "own.pth")
    with pytest.raises(InputError, match=r"own.pth: does not fit TPAVISegmentor: missing"):
        create_model("tpavi_resnet50", tmp_path / "own.pth", channels=8)
    assert create_model("audioclip_fpn", fusion="skip", audioclip=SIZES, channels=8).fusion == "skip"


def test_sam_mini_takes_small_weights_only(tmp_path: Path) -> None:
    (tmp_path / "sam_vit_b_01ec64.pth").touch()
    with pytest.raises(InputError, match=r"sam_mini takes a folder of small weights, for this file --sam.model vit_b$"):
        create_model("sam_mini", tmp_path / "sam_vit_b_01ec64.pth")
    with pytest.raises(InputError, match=r"random: sam_mini takes a folder of small weights$"):
        create_model("sam_mini", "random")
    with pytest.raises(InputError, match=r"sam.safetensors: small weights do not fit sam_vit_b; use sam_mini"):
        create_model("sam_vit_b", "mini")
    shutil.copy(MINI_DIR / "sam.json", tmp_path)
    (tmp_path / "sam.safetensors").write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"sam.safetensors: damaged"):
        create_model("sam_mini", tmp_path)


def test_every_model_has_a_builder_that_is_called_with_its_path(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list_models():
        seen: list[Path | None] = []

        class Network(torch.nn.Module):
            pass

        def build(path: Path | None, seen: list[Path | None] = seen, **options: Any) -> torch.nn.Module:
            seen.append(path)
            return Network()

        entry = registry._Model(build, registry._MODELS[name].weights, registry._MODELS[name].small)
        monkeypatch.setitem(registry._MODELS, name, entry)
        monkeypatch.setattr(registry, "require_weights", lambda path: None)
        create_model(name)
        assert seen == [find_weights(list_weights(name)[0], entry.small)]


def test_names_are_looked_up_without_torch() -> None:
    """Commands that only look for files start at once."""
    program = (
        "import sys; from models.registry import find_weights; find_weights('vggish'); print('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert result.stdout == "False\n", result.stderr
