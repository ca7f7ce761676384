"""Checks of the command line of demo.py."""

import re
from collections.abc import Sequence
from pathlib import Path

from utils.cli import InputError

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")


def video_path(argument: str) -> Path:
    """The path that the argument VIDEO stands for.

    Raises:
        InputError: for a folder or a URL.
    """
    path = Path(argument).expanduser()
    if path.is_dir():
        videos = (f" such as {child}" for child in sorted(path.iterdir()) if child.suffix.lower() in (".mp4", ".mov"))
        raise InputError(f"{path}: a folder; name one video file{next(videos, ' in it')}")
    if URL.match(argument) and not path.exists():
        raise InputError(f"{argument}: a URL; videos are not downloaded, save it and pass the path of the file")
    return path


def check_arguments(argv: Sequence[str]) -> None:
    """Check for a file name that begins with a dash, which would be parsed as an option.

    Raises:
        InputError: if there is one.
    """
    for word in argv[: argv.index("--")] if "--" in argv else argv:
        if word.startswith("-") and (Path(word).is_file() or re.fullmatch(r"-[^-].*\.(?!\d+$)\w{2,4}", word)):
            raise InputError(f"{word}: begins with a dash, like an option; if it is the video, write ./{word}")
