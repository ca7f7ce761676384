"""Segment the source of the sound in your own video: masks, a video with them drawn on it, and an HTML page.

    python demo.py VIDEO                                                     small networks, which know drawings only
    python demo.py VIDEO --config zero_shot/configs/modern/demo_small.yaml   public weights, for your own videos
    python demo.py VIDEO --mask-rate frame                                   a mask per frame
    python demo.py VIDEO --method point --save-heatmaps --save-prompts       also the similarity maps and SAM's prompts
    python demo.py VIDEO --prompt.threshold 0.5 --out DIR                    any option of zero_shot.evaluate

Any container, codec, length, size and frame rate. DIR (default runs/demo/NAME-OF-THE-VIDEO) gets index.html, which a
browser opens from disk; overlay.mp4, the video with its audio and the masks; masks/ as PNG of the video's size; with
--save-heatmaps and --save-prompts also heatmaps/ and prompts/, of methods that have them: No-Prompt, the default, has
neither, the point prompts and the heat map's box have both.
Running an interrupted command again resumes it. The demo of one video never overwrites that of another.
python -m pretrained.download clap-htsat-unfused mm-grounding-dino-tiny edgetam gets the weights of demo_small.yaml
(1.4 GB), which needs pip install -e .[grounding]; demo_large.yaml beside it is for GPUs.
"""

if __name__ == "__main__":  # before imports that take seconds
    from utils.environment import prepare_process

    prepare_process()

import sys
from collections.abc import Sequence
from pathlib import Path

from utils.cli import cli_entry
from utils.config import option_parser, parse_options
from utils.device import select_device
from utils.files import sha256
from utils.video_info import open_video
from zero_shot.demo import run
from zero_shot.demo_arguments import check_arguments, video_path
from zero_shot.demo_folder import DemoOutputs, MaskRate, check_folder, choose_folder
from zero_shot.methods import build_method
from zero_shot.options import Options

DEFAULT_CONFIG = Path(__file__).parent / "zero_shot" / "configs" / "mini" / "s4_no_prompt.yaml"


@cli_entry
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = option_parser(Options, __doc__, "python demo.py")
    parser.add_argument("video", metavar="VIDEO", help="a video file")
    parser.add_argument("--out", type=Path | None, metavar="DIR", default=None, help="output folder")
    parser.add_argument("--mask-rate", type=MaskRate, default="second", help="one mask per second or per frame")
    parser.add_argument(
        "--save-heatmaps", action="store_true", help="save the similarity maps as images, if the method has any"
    )
    parser.add_argument(
        "--save-prompts", action="store_true", help="save the frames with SAM's prompts, if the method has any"
    )
    arguments = list(sys.argv[1:] if argv is None else argv)
    check_arguments(arguments)
    if not any(word == "--config" or word.startswith("--config=") for word in arguments):
        arguments = ["--config", str(DEFAULT_CONFIG), *arguments]
    options, namespace = parse_options(parser, Options, arguments)
    video = open_video(video_path(namespace.video))
    digest = sha256(video.path)
    if namespace.out:
        out = Path(namespace.out).expanduser()
        check_folder(out, video, digest)
    else:
        out = choose_folder(video, digest)
    method = build_method(options, select_device(options.run.device).type)
    outputs = DemoOutputs(namespace.mask_rate, namespace.save_heatmaps, namespace.save_prompts)
    run(method, options, video, digest, out, outputs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
