"""Show what makes the sound in a video of yours: masks, the video with them on it, and a page to look at.

    python demo.py VIDEO                                  the miniature, which knows fourteen drawn things
    python demo.py VIDEO --config zero_shot/configs/s4_no_prompt.yaml             the public weights
    python demo.py VIDEO --every frame --heat --prompts   a mask for every frame; heat maps and prompts as pictures
    python demo.py VIDEO --prompt.threshold 0.5 --out DIR           any option of zero_shot.evaluate

Any container, codec, length, size and frame rate. DIR (default runs/demo/NAME-OF-THE-VIDEO) gets index.html, which a
browser opens from the disk; overlay.mp4, the video with its sound and the masks; masks/ as PNG of the video's size.
A command that was killed resumes when it is repeated. The demo of one video never replaces that of another.
python -m pretrained.download audioclip-full sam-vit-h gets the public weights.
"""

if __name__ == "__main__":  # before imports that take seconds
    from utils.environment import prepare_process

    prepare_process()

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from utils.cli import cli_entry
from utils.config import option_parser, parse_options
from utils.device import select_device
from utils.files import sha256
from utils.video_stream import open_video
from zero_shot.demo import run
from zero_shot.demo_folder import check_folder, check_words, choose_folder, video_path
from zero_shot.methods import build_method
from zero_shot.options import Options

MINIATURE = Path(__file__).parent / "zero_shot" / "configs" / "mini" / "s4_no_prompt.yaml"


@cli_entry
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = option_parser(Options, __doc__, "python demo.py")
    parser.add_argument("video", metavar="VIDEO", help="a video file")
    parser.add_argument("--out", type=Path | None, metavar="DIR", default=None, help="folder for what is made")
    parser.add_argument("--every", type=Literal["second", "frame"], default="second", help="how often a mask is made")
    parser.add_argument("--heat", action="store_true", help="save the similarity maps as pictures")
    parser.add_argument("--prompts", action="store_true", help="save the frames with SAM's prompts as pictures")
    given = list(sys.argv[1:] if argv is None else argv)
    check_words(given)
    if not any(word == "--config" or word.startswith("--config=") for word in given):
        given = ["--config", str(MINIATURE), *given]
    options, namespace = parse_options(parser, Options, given)
    video = open_video(video_path(namespace.video))
    digest = sha256(video.path)
    if namespace.out:
        out = Path(namespace.out).expanduser()
        check_folder(out, video, digest)
    else:
        out = choose_folder(video, digest)
    setting = build_method(options, select_device(options.run.device).type)
    run(setting, options, video, digest, out, namespace.every, heat=namespace.heat, prompts=namespace.prompts)
    return 0


if __name__ == "__main__":
    sys.exit(main())
