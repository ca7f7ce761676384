"""Only pretrained.download uses a network: tests run without one, and no library downloads anything."""

import json
import multiprocessing
import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from synthetic.random_grounding import save_detector
from tests.helpers.offline.block_network import LIST, is_here
from utils.cli import InputError
from zero_shot.detectors.grounding_dino import GroundingDinoDetector

REPOSITORY = Path(__file__).parents[2]
FAR = "192.0.2.1"  # an address that is kept for examples: nobody has it


@pytest.fixture
def refused() -> Iterator[Path]:
    """The list of what this test is refused, which it empties by `told`."""
    place = Path(os.environ[LIST])
    before = place.stat().st_size
    yield place
    os.truncate(place, before)


def ask(how: str) -> None:
    if how == "connect":
        socket.socket().connect((FAR, 443))
    elif how == "connect_ex":
        socket.socket().connect_ex((FAR, 443))
    elif how == "version 6":
        socket.socket(socket.AF_INET6).connect(("2001:db8::1", 443))
    elif how == "datagram":
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", (FAR, 53))
    elif how == "name":
        socket.getaddrinfo("example.org", 443)
    else:
        urllib.request.urlopen("http://example.org/", timeout=5)


@pytest.mark.parametrize("how", ["connect", "connect_ex", "version 6", "datagram", "name", "url"])
def test_connections_are_refused_and_recorded(refused: Path, how: str) -> None:
    before = refused.read_text()
    with pytest.raises(OSError, match="tests run without a network") as caught:
        ask(how)
    assert isinstance(caught.value, ConnectionError) or how == "url"  # urllib wraps what stops it
    assert refused.read_text().removeprefix(before).count("\n") == 1


def test_processes_that_tests_start_have_no_network_either(refused: Path) -> None:
    with multiprocessing.get_context("fork").Pool(1) as pool, pytest.raises(ConnectionError, match="without a network"):
        pool.apply_async(ask, ["connect"]).get(timeout=60)
    program = f"import socket; socket.create_connection(('{FAR}', 443), 5)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert run.returncode == 1 and "tests run without a network" in run.stderr
    assert refused.read_text().splitlines()[-1] == f"socket.getaddrinfo '{FAR}' -c"


def test_connections_to_this_machine_are_allowed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname(), 5):
        pass
    here = ("localhost", "127.0.0.1", "127.8.9.1", "::1", "0.0.0.0", "", None, b"localhost", socket.gethostname())
    assert all(is_here(host) for host in here)
    there = ("example.org", "10.0.0.1", "::2", "fe80::1%eth0", FAR, b"localhost.example.org")
    assert not any(is_here(host) for host in there)


WORK = """
import sys
from pathlib import Path
import huggingface_hub
from models.audioclip import tokenize
from models.backbones import build_backbone
from models.registry import create_model
assert not huggingface_hub.constants.HF_HUB_OFFLINE
tokenize(["a dog barks"])
for name in ("resnet18", "resnet50", "pvt_v2_b0"):
    build_backbone(name)
create_model("audioclip", "mini")
create_model("sam_mini")
print("done")
"""


@pytest.mark.slow
def test_models_are_built_without_asking_the_hub(tmp_path: Path) -> None:
    """On a machine that never fetched anything: an empty home, and nothing that tells libraries to stay offline."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS", "TORCH_"))}
    places = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache"), LIST: str(tmp_path / "refused")}
    run = subprocess.run(
        [sys.executable, "-c", WORK], cwd=REPOSITORY, env=kept | places, capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0 and run.stdout.strip() == "done", run.stderr[-2000:]
    assert not (tmp_path / "refused").exists(), (tmp_path / "refused").read_text()


def test_the_folder_of_a_detector_cannot_make_it_download(tmp_path: Path) -> None:
    """A config.json may ask for code of its own, or for a backbone with weights from elsewhere."""
    save_detector(tmp_path / "detector")
    config = tmp_path / "detector" / "config.json"
    kept = json.loads(config.read_text())
    for hostile, said in (
        ({"auto_map": {"AutoModel": "evil--modeling.Evil"}}, "auto_map would be downloaded"),
        ({"backbone": "microsoft/resnet-50", "backbone_config": None}, "backbone would be downloaded"),
        ({"use_timm_backbone": True}, "use_timm_backbone would be downloaded"),
        ({"backbone_config": {"model_type": "evil"}}, str(tmp_path / "detector")),
    ):
        config.write_text(json.dumps(kept | hostile))
        with pytest.raises(InputError, match=said) as caught:
            GroundingDinoDetector(config.parent)
        assert "\n" not in str(caught.value)
    config.write_text(json.dumps(kept | {"_name_or_path": "someone/elsewhere"}))
    GroundingDinoDetector(config.parent)
