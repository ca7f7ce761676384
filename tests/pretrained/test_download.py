"""pretrained.download, with a local server."""

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from models.weights import Checkpoint, list_checkpoints
from pretrained import download
from utils import http_download

REPOSITORY = Path(__file__).parents[2]
CONTENT = bytes(range(256)) * 4096  # 1 MiB


class Server:
    """Serves CONTENT under every name; `cuts` lists after how many bytes each of the next connections ends."""

    def __init__(self, ranges: bool = True):
        self.ranges, self.content, self.content_type = ranges, CONTENT, "application/octet-stream"
        self.cuts: list[int] = []
        self.requests: list[str | None] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.respond(self)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def respond(self, request: BaseHTTPRequestHandler) -> None:
        wanted = request.headers.get("Range")
        self.requests.append(wanted)
        begin = int(wanted[6:-1]) if wanted and self.ranges else 0
        if request.path == "/gone":
            request.send_error(404)
        elif begin and begin >= len(self.content):
            request.send_response(416)
            request.send_header("Content-Range", f"bytes */{len(self.content)}")
            request.end_headers()
        else:
            body = self.content[begin:]
            request.send_response(206 if wanted and self.ranges else 200)
            request.send_header("Content-Type", self.content_type)
            request.send_header("Content-Length", str(len(body)))
            if wanted and self.ranges:
                end = len(self.content)
                request.send_header("Content-Range", f"bytes {begin}-{end - 1}/{end}")
            request.end_headers()
            request.wfile.write(body[: self.cuts.pop(0)] if self.cuts else body)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(http_download, "RETRY_DELAY", 0.0)
    running = Server()
    yield running
    running.http.shutdown()
    running.http.server_close()


@pytest.fixture
def listed(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Lists checkpoints, each given by the fields that differ from a valid one; returns the download folder."""

    def make(**files: dict[str, Any]) -> Path:
        good = {"size": len(CONTENT), "sha256": hashlib.sha256(CONTENT).hexdigest(), "used_by": ["a configuration"]}
        entries = [
            {"name": name, "file": f"{name}.pt", "url": server.url + name, **good, **fields}
            for name, fields in files.items()
        ]
        monkeypatch.setattr(download, "list_checkpoints", lambda: tuple(Checkpoint(**fields) for fields in entries))
        return tmp_path / "weights"

    return make


def test_download_then_skip(server: Server, listed: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    to = listed(a={}, b={"sha256": "", "sha256_prefix": hashlib.sha256(CONTENT).hexdigest()[:8]}, c={"used_by": []})
    assert download.main(["--all", "--to", str(to)]) == 0
    assert {path.name: path.read_bytes() == CONTENT for path in to.iterdir()} == {"a.pt": True, "b.pt": True}
    assert "2 downloaded" in capsys.readouterr().out
    requests = len(server.requests)
    assert download.main(["a", "b.pt", "--to", str(to)]) == 0
    assert "2 ok" in capsys.readouterr().out and len(server.requests) == requests


def test_a_lost_connection_is_resumed_at_once(server: Server, listed: Callable[..., Path]) -> None:
    to = listed(a={})
    server.cuts = [300_000, 0, 400_000]
    assert download.main(["a", "--to", str(to)]) == 0
    assert server.requests == [None, "bytes=300000-", "bytes=300000-", "bytes=700000-"]
    assert [path.name for path in to.iterdir()] == ["a.pt"] and (to / "a.pt").read_bytes() == CONTENT


def test_an_interrupted_download_is_resumed_by_the_next_call(
    server: Server, listed: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    to = listed(a={}, unverified={"size": None, "sha256": ""})
    server.cuts = [1000, 0, 0, 0]
    assert download.main(["a", "--to", str(to)]) == 1
    assert "ended at 1000 of 1048576 bytes; run the command again to resume" in capsys.readouterr().out
    assert [path.name for path in to.iterdir()] == ["a.pt.partial"]
    server.requests.clear()
    (to / "unverified.pt.partial").write_bytes(b"of another version")
    assert download.main(["a", "unverified", "--to", str(to)]) == 0
    assert server.requests == ["bytes=1000-", None]
    assert (to / "a.pt").read_bytes() == (to / "unverified.pt").read_bytes() == CONTENT
    assert hashlib.sha256(CONTENT).hexdigest() in capsys.readouterr().out


def test_a_server_without_ranges_starts_from_zero(server: Server, listed: Callable[..., Path]) -> None:
    to = listed(a={})
    server.ranges, server.cuts = False, [5000]
    assert download.main(["a", "--to", str(to)]) == 0
    assert server.requests == [None, "bytes=5000-"] and (to / "a.pt").read_bytes() == CONTENT


def test_partial_files_of_a_killed_download(server: Server, listed: Callable[..., Path]) -> None:
    to = listed(whole={}, long={}, unsized={"size": None})
    to.mkdir()
    (to / "whole.pt.partial").write_bytes(CONTENT)
    (to / "long.pt.partial").write_bytes(CONTENT + b"more")
    (to / "unsized.pt.partial").write_bytes(CONTENT)
    assert download.main(["--all", "--to", str(to)]) == 0
    assert server.requests == ["bytes=1048580-", None, "bytes=1048576-"]
    assert {path.name: path.read_bytes() == CONTENT for path in to.iterdir()} == {
        "whole.pt": True, "long.pt": True, "unsized.pt": True,
    }  # fmt: skip


def test_wrong_content_is_rejected_and_the_rest_is_downloaded(
    server: Server, listed: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    to = listed(
        hash={"sha256": "0" * 64},
        prefix={"sha256": "", "sha256_prefix": "00000000"},
        size={"size": 12},
        gone={},
        hand={"url": None, "instructions": "ask its authors by the form"},
        closed={"url": "http://127.0.0.1:9/closed"},
        absent={"url": "file:///nowhere/absent"},
        good={},
    )
    assert download.main(["hash", "prefix", "size", "gone", "hand", "closed", "absent", "good", "--to", str(to)]) == 1
    assert [path.name for path in to.iterdir()] == ["good.pt"]
    *lines, summary = capsys.readouterr().out.splitlines()
    by_file = {line.split()[1]: line for line in lines}
    assert "instead of 0000000000000000..." in by_file["hash.pt"] and "instead of 00000000;" in by_file["prefix.pt"]
    assert "announces 1048576 bytes instead of 12" in by_file["size.pt"]
    assert "404" in by_file["gone.pt"] and "ask its authors by the form" in by_file["hand.pt"]
    assert "cannot be reached" in by_file["closed.pt"] and "cannot be reached" in by_file["absent.pt"]
    assert by_file["good.pt"].startswith("downloaded") and summary == f"{to}: 7 failed, 1 downloaded"


def test_a_web_page_in_place_of_a_file(server: Server, listed: Callable[..., Path]) -> None:
    to = listed(a={"size": None, "sha256": ""})
    server.content, server.content_type = b"<!DOCTYPE html>", "text/html; charset=utf-8"
    assert download.main(["a", "--to", str(to)]) == 1 and not list(to.iterdir())
    server.content_type = "application/octet-stream"
    assert download.main(["a", "--to", str(to)]) == 1 and not list(to.iterdir())


def test_local_file_urls(listed: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "mirror").write_bytes(CONTENT)
    to = listed(a={"url": (tmp_path / "mirror").as_uri()})
    to.mkdir()
    (to / "a.pt.partial").write_bytes(b"stale")  # file URLs have no ranges
    assert download.main(["a", "--to", str(to)]) == 0 and (to / "a.pt").read_bytes() == CONTENT


def test_check(listed: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    files: dict[str, dict] = {"good": {}, "cut": {}, "changed": {}, "missing": {}, "unverified": {"sha256": ""}}
    to = listed(**files, hand={"file": None, "url": None, "instructions": "open it in a browser"})
    to.mkdir()
    for name in ("good", "unverified"):
        (to / f"{name}.pt").write_bytes(CONTENT)
    (to / "cut.pt").write_bytes(CONTENT[:-1])
    (to / "changed.pt").write_bytes(CONTENT[:-1] + b"x")
    assert download.main(["--check", "--to", str(to)]) == 1
    lines = capsys.readouterr().out.splitlines()
    status = {line[11:].split()[0]: line[:10].strip() for line in lines[:-1]}
    assert status == {
        "good.pt": "ok", "cut.pt": "wrong", "changed.pt": "wrong", "missing.pt": "missing",
        "unverified.pt": "unverified", "hand": "manual",
    }  # fmt: skip
    assert "has 1048575 bytes instead of 1048576" in lines[1] and "sha256" in lines[2]
    assert lines[-1] == f"{to}: 1 ok, 2 wrong, 1 missing, 1 unverified, 1 manual"
    (to / "cut.pt").unlink()
    (to / "changed.pt").unlink()
    assert download.main(["--check", "--to", str(to)]) == 0  # missing files are no error unless named
    assert download.main(["--check", "missing", "--to", str(to)]) == 1
    assert download.main(["--check", "good", "--to", str(to)]) == 0


def test_an_existing_wrong_file_is_not_overwritten(
    server: Server, listed: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    to = listed(a={})
    to.mkdir()
    (to / "a.pt").write_bytes(b"the user's own")
    assert download.main(["a", "--to", str(to)]) == 1
    assert "delete it and download it again" in capsys.readouterr().out
    assert (to / "a.pt").read_bytes() == b"the user's own" and not server.requests


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["resnet51"], "unknown: resnet51; choose from audioclip-full"),
        ([], "give names, --all, --check or --list"),
        (["--all", "vggish"], "not both"),
        (["--all", "--check"], "not allowed with"),
        (["--fast"], "unrecognized"),
    ],
)
def test_bad_usage(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    with pytest.raises(SystemExit) as end:
        download.main(arguments)
    assert end.value.code == 2 and message in capsys.readouterr().err


def test_bad_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert download.main(["--check", "--to", str(tmp_path / "file")]) == 1
    assert capsys.readouterr().err == f"error: {tmp_path / 'file'}: not a folder\n"


def test_checkpoints_yaml(capsys: pytest.CaptureFixture[str]) -> None:
    known = list_checkpoints()
    for field in ("name", "file"):
        given = [getattr(entry, field) for entry in known if getattr(entry, field)]
        assert len(set(given)) == len(given)
    for entry in known:
        assert entry.url or entry.hub or entry.instructions, entry.name
        assert not (entry.gated or entry.non_commercial) or (not entry.used_by and not entry.recipes), entry.name
        assert not entry.hub or entry.license, entry.name
        assert len(entry.sha256) in (0, 64) and len(entry.sha256_prefix) in (0, 8)
        assert set(entry.digest) <= set("0123456789abcdef")
        assert entry.sha256_prefix in (entry.file or ""), "the prefix is what the file's name says"
    assert download.main(["--list"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split()[-2:] == ["needed", "by"] and [line.split()[0] for line in lines] == [c.name for c in known]
    needs = {line.split()[0]: line[70:] for line in lines}
    assert needs["edgetam"] == "demo_small; --segmenter edgetam" and needs["clap"] == "nothing"
    assert needs["grounding-dino-tiny"] == "only pretrained.verify"
    used = {entry.name for entry in known if entry.used_by}
    configs = " ".join(path.read_text() for path in (REPOSITORY / "supervised" / "configs").glob("*.yaml"))
    for name in ("resnet50", "pvt-v2-b5"):
        assert f"weights: {name}" in configs and name in used


def test_as_a_command_with_another_weights_folder(tmp_path: Path) -> None:
    run = [sys.executable, "-m", "pretrained.download", "--check", "vggish", "avss-trained"]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "SAM4AVS_WEIGHTS": str(tmp_path / "weights")}
    result = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1 and result.stderr == ""
    assert "python -m pretrained.download vggish" in result.stdout and f"{tmp_path / 'weights'}:" in result.stdout
