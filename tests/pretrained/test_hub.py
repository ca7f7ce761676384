"""Folders of the hub, from a local server that answers as the hub does."""

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from models.weights import Checkpoint, list_checkpoints
from pretrained import download
from pretrained.hub import SOURCE_FILE, download_repository
from utils.cli import InputError

REVISION = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "config.json": b'{"model_type": "sam2_video"}',
    "processor_config.json": b"{}",
    "model.safetensors": bytes(range(256)) * 500,
    "pytorch_model.bin": b"a pickle, which is not wanted",
    "modeling.py": b"code, which is not wanted",
    "onnx/model.json": b"of a subfolder",
}
CHECKPOINT = Checkpoint("net", "net", None, hub="someone/net")


class Hub:
    """Serves FILES as the repository someone/net, and gated/net as one whose license was not accepted."""

    def __init__(self) -> None:
        self.files, self.stated, self.requests = dict(FILES), dict(FILES), list[str]()
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.respond(self)

            do_HEAD = do_GET

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def describe(self) -> dict[str, Any]:
        siblings = []
        for name, content in self.stated.items():
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            entry: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": blob}
            if name.endswith(".safetensors"):
                digest = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"sha256": digest, "size": len(content), "pointerSize": 130}
            siblings.append(entry)
        return {"id": "someone/net", "sha": REVISION, "siblings": siblings, "tags": [], "private": False}

    def respond(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.partition("?")[0]
        self.requests.append(f"{request.command} {path}")
        if "gated/net" in path:
            self.send(request, 403, b"", {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted"})
        elif path.startswith("/api/models/someone/net"):
            self.send(request, 200, json.dumps(self.describe()).encode(), {"Content-Type": "application/json"})
        elif path.startswith(f"/someone/net/resolve/{REVISION}/"):
            content = self.files[path.rpartition("/")[2]]
            self.send(request, 200, content, {"X-Repo-Commit": REVISION, "ETag": f'"{len(content)}"'})
        else:
            self.send(request, 404, b"", {"X-Error-Code": "RepoNotFound"})

    def send(self, request: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str]) -> None:
        request.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            request.send_header(name, value)
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(body)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setenv("no_proxy", "*")
    # The library asks the public hub for a list of programs that may be using it.
    monkeypatch.setattr("huggingface_hub.utils._detect_agent._fetch_registry", lambda: None)
    running = Hub()
    yield running
    running.http.shutdown()
    running.http.server_close()


def test_a_folder_is_downloaded_at_one_revision_and_verified(hub: Hub, tmp_path: Path) -> None:
    told = download_repository(CHECKPOINT, tmp_path / "net", hub.url)
    assert told == f"someone/net at revision {REVISION[:12]}, sha256 of 3 files"
    wanted = {name: FILES[name] for name in ("config.json", "processor_config.json", "model.safetensors")}
    source = json.loads((tmp_path / "net" / SOURCE_FILE).read_text())
    assert source == {
        "repository": "someone/net",
        "revision": REVISION,
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in wanted.items()},
    }
    (tmp_path / "net" / SOURCE_FILE).unlink()
    assert {path.name: path.read_bytes() for path in (tmp_path / "net").iterdir()} == wanted
    assert [path.name for path in tmp_path.iterdir()] == ["net"]


def test_a_pinned_revision_is_asked_for(hub: Hub, tmp_path: Path) -> None:
    pinned = Checkpoint("net", "net", None, hub="someone/net", revision=REVISION)
    download_repository(pinned, tmp_path / "net", hub.url)
    assert f"GET /api/models/someone/net/revision/{REVISION}" in hub.requests
    other = Checkpoint("net", "net", None, hub="someone/net", revision="f" * 40)
    assert download.check_file(pinned, tmp_path).status == "ok"
    assert download.check_file(other, tmp_path) == ("wrong", f"is revision {REVISION[:12]} instead of {'f' * 12}")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_what_is_not_as_stated_is_refused(hub: Hub, tmp_path: Path, name: str) -> None:
    hub.files[name] = bytes(len(FILES[name]))
    with pytest.raises(InputError, match=rf"{name} does not have the stated .*deleted, run the command again"):
        download_repository(CHECKPOINT, tmp_path / "net", hub.url)
    assert not (tmp_path / "net").exists()
    hub.files = dict(FILES)
    download_repository(CHECKPOINT, tmp_path / "net", hub.url)  # the other files are still there
    assert (tmp_path / "net" / name).read_bytes() == FILES[name]


def test_a_changed_file_is_noticed(hub: Hub, tmp_path: Path) -> None:
    download_repository(CHECKPOINT, tmp_path / "net", hub.url)
    assert download.check_file(CHECKPOINT, tmp_path).status == "ok"
    (tmp_path / "net" / "model.safetensors").write_bytes(b"other")
    assert download.check_file(CHECKPOINT, tmp_path).status == "wrong"
    (tmp_path / "net" / SOURCE_FILE).write_text("[]")
    assert "source.json is damaged" in download.check_file(CHECKPOINT, tmp_path).detail
    (tmp_path / "net" / SOURCE_FILE).unlink()
    assert download.check_file(CHECKPOINT, tmp_path).status == "unverified"


@pytest.mark.parametrize(
    ("repository", "gated", "message"),
    [
        ("gated/net", False, "license must be accepted at the hub by hand; then set HF_TOKEN"),
        ("someone/other", False, "someone/other: no such repository"),
        ("someone/other", True, "license must be accepted"),  # the hub hides some gated repositories
    ],
)
def test_refusals_are_one_line(hub: Hub, tmp_path: Path, repository: str, gated: bool, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        download_repository(Checkpoint("net", "net", None, hub=repository, gated=gated), tmp_path / "net", hub.url)
    assert "\n" not in str(caught.value) and not (tmp_path / "net").exists()


def test_without_network_the_command_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.utils._detect_agent._fetch_registry", lambda: None)
    monkeypatch.setattr("pretrained.download.download_repository", _unreachable)
    assert download.main(["sam2.1-hiera-tiny", "--to", str(tmp_path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("failed     sam2.1-hiera-tiny") and "cannot be downloaded" in lines[0]
    assert len(lines) == 2 and not (tmp_path / "sam2.1-hiera-tiny").exists()


def _unreachable(checkpoint: Checkpoint, folder: Path) -> str:
    """`download_repository` from an address at which nobody answers."""
    return download_repository(checkpoint, folder, "http://127.0.0.1:9")


def test_folders_are_listed_with_repository_and_license() -> None:
    folders = [each for each in list_checkpoints() if each.hub]
    assert {"sam2.1-hiera-tiny", "sam2.1-hiera-small", "sam2.1-hiera-base-plus", "sam2.1-hiera-large"} <= {
        each.name for each in folders
    }
    for each in folders:
        assert each.file == each.name and each.url is None and each.hub.count("/") == 1
        assert each.gated == (each.name == "sam3")
