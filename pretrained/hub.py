"""Folders of transformers' networks from the hub that hosts them, at one revision, with every file verified.

The revision is the one that checkpoints.yaml pins, or else the newest, which is then recorded: SOURCE_FILE in the
folder names repository, revision and the sha256 of each file, and `--check` compares the files with it. The hub states
the sha256 of large files and git's checksum of small ones; both are verified before the folder gets its name.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from models.weights import Checkpoint
from utils.cli import InputError
from utils.files import read_json, sha256, write_text
from utils.words import counted

SOURCE_FILE = "source.json"
WANTED = ("*.json", "*.safetensors", "*.txt", "*.model")  # weights, configurations and tokenizers; no code, no pickles
GATED = "its license must be accepted at the hub by hand; then set HF_TOKEN to your token and run the command again"


def download_repository(checkpoint: Checkpoint, folder: Path, endpoint: str | None = None) -> str:
    """Download the repository of a checkpoint into a folder, which appears only when everything is verified.

    Args:
        checkpoint: with a repository of the hub.
        folder: its final folder; an interrupted download is resumed from one beside it.
        endpoint: address of the hub; default: the public one, or that of HF_ENDPOINT.

    Returns:
        A description of what was verified.

    Raises:
        InputError: if the hub cannot be reached, refuses, or sends something else than it announces.
    """
    from huggingface_hub import HfApi, hf_hub_download  # takes a second to import
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    partial = folder.with_name(f"{folder.name}.partial")
    try:
        info = HfApi(endpoint).model_info(checkpoint.hub, revision=checkpoint.revision or None, files_metadata=True)
        stated = {each.rfilename: each for each in info.siblings or [] if _wanted(each.rfilename)}
        for name in stated:
            hf_hub_download(checkpoint.hub, name, revision=info.sha, local_dir=partial, endpoint=endpoint)
    except (GatedRepoError, RepositoryNotFoundError) as error:
        reason = GATED if isinstance(error, GatedRepoError) or checkpoint.gated else "no such repository"
        raise InputError(f"{checkpoint.hub}: {reason}") from error
    except Exception as error:  # of many types: the library's own and those of its transport
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(
            f"{checkpoint.hub}: cannot be downloaded ({reason}); run the command again to resume"
        ) from error
    files = {}
    for name, each in stated.items():
        if problem := _difference(partial / name, each):
            (partial / name).unlink(missing_ok=True)
            raise InputError(f"{checkpoint.hub}: {name} {problem}; it was deleted, run the command again")
        files[name] = sha256(partial / name)
    shutil.rmtree(partial / ".cache", ignore_errors=True)  # the library's notes about the download
    source = {"repository": checkpoint.hub, "revision": info.sha, "files": files}
    write_text(partial / SOURCE_FILE, json.dumps(source, indent=2) + "\n")
    partial.replace(folder)
    return describe_source(source)


def check_repository(checkpoint: Checkpoint, folder: Path) -> tuple[str, str]:
    """Compare a folder with what was recorded when it was downloaded.

    Returns:
        "ok", "unverified" (for a folder that was obtained otherwise) or "wrong", and a description.
    """
    if not (folder / SOURCE_FILE).is_file():
        return "unverified", "a folder that was not downloaded by this command"
    try:
        source = read_json(folder / SOURCE_FILE)
        files = dict(source["files"])
        wrong = [name for name, digest in files.items() if _digest(folder / name) != digest]
    except (InputError, KeyError, TypeError, ValueError):
        return "wrong", f"{SOURCE_FILE} is damaged; delete the folder and download it again"
    if wrong:
        return "wrong", f"{', '.join(wrong[:3])} differs from the download; delete the folder and download it again"
    if checkpoint.revision and source["revision"] != checkpoint.revision:
        return "wrong", f"is revision {source['revision'][:12]} instead of {checkpoint.revision[:12]}"
    return "ok", describe_source(source)


def describe_source(source: Mapping[str, Any]) -> str:
    """Revision and number of files in a line."""
    files = counted(len(source["files"]), "file")
    return f"{source['repository']} at revision {source['revision'][:12]}, sha256 of {files}"


def _wanted(name: str) -> bool:
    return "/" not in name and any(fnmatch(name, pattern) for pattern in WANTED)


def _digest(path: Path) -> str:
    return sha256(path) if path.is_file() else ""


def _difference(path: Path, stated: Any) -> str:
    """How a file differs from what the hub states; empty if it does not."""
    if not path.is_file():
        return "is missing"
    if stated.lfs is not None:
        return "" if sha256(path) == stated.lfs.sha256 else "does not have the stated sha256"
    content = path.read_bytes()
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()  # git's name of a file's content
    return "" if stated.blob_id in (None, blob) else "does not have the stated checksum"
