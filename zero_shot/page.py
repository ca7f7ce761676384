"""The page of a demo and its pictures: an HTML file that opens from the disk, without a server or the network."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

import cv2
import numpy as np

from utils.figures import PREDICTION_COLOR, overlay_mask
from utils.files import jpeg_bytes, write_bytes, write_text
from utils.video_stream import VideoInfo
from zero_shot.demo_folder import MaskRecord, printable
from zero_shot.figures import draw_prompts, similarity_overlay
from zero_shot.methods import Prediction
from zero_shot.prompts import Prompt

SMALLEST, LARGEST = 480, 960  # pixels: longer side of the pictures, which is the video's own between the two

VIEWS = {  # in the order in which a card shows them
    "frame": "the frame",
    "heat": "where the sound is likeliest to come from (red), and SAM's prompts (white yes, black no, yellow box)",
    "mask": "the mask",
}


def enlarge_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A mask (H, W) bool at another (height, width), its edge smooth rather than in steps."""
    return cv2.resize(mask.astype(np.float32), size[::-1], interpolation=cv2.INTER_LINEAR) > 0.5


def fit(rgb: np.ndarray) -> np.ndarray:
    """A picture for people: its longer side from SMALLEST to LARGEST pixels."""
    side = max(rgb.shape[:2])
    scale = min(max(side, SMALLEST), LARGEST) / side
    size = [max(1, round(side * scale)) for side in rgb.shape[1::-1]]
    return cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)


def heatmap_image(picture: np.ndarray, answer: Prediction) -> np.ndarray:
    """A picture under the similarity map, if there is one."""
    if answer.similarity_map is None:
        return picture
    return similarity_overlay(
        picture, cv2.resize(answer.similarity_map, picture.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    )


def prompt_image(picture: np.ndarray, answer: Prediction) -> np.ndarray:
    """A picture with SAM's prompts on it, if there are any; they are in pixels of the answer's mask."""
    if answer.prompt is None:
        return picture
    y, x = np.array(picture.shape[:2]) / answer.mask.shape
    prompt = answer.prompt
    points = None if prompt.points is None else prompt.points * (x, y)
    boxes = None if prompt.boxes is None else prompt.boxes * (x, y, x, y)
    return draw_prompts(picture, Prompt(points, prompt.labels, boxes))


def save_images(out: Path, number: int, picture: np.ndarray, answer: Prediction | None) -> dict[str, str]:
    """Write the pictures of a second that the page shows; returns their paths from `out` by view."""
    mask = np.zeros(picture.shape[:2], bool) if answer is None else enlarge_mask(answer.mask, picture.shape[:2])
    views = {"frame": picture, "mask": overlay_mask(picture, mask, PREDICTION_COLOR)}
    if answer and (answer.similarity_map is not None or answer.prompt is not None):
        views["heat"] = prompt_image(heatmap_image(picture, answer), answer)
    paths = {view: f"pictures/{number:06d}_{view}.jpg" for view in views}
    for view, path in paths.items():
        write_bytes(out / path, jpeg_bytes(views[view]))
    return paths


def write_page(
    path: Path,
    video: VideoInfo,
    records: Sequence[MaskRecord],
    notes: Sequence[str],
    every: str,
    *,
    configuration: str,
    miniature: bool,
) -> None:
    """Write the page beside overlay.mp4 and the pictures.

    notes: what to say above all else, the first first. configuration: YAML. miniature: say in the headline that the
    networks know fourteen drawings alone.
    """
    name = escape(printable(Path(video.path.name)))
    cards = [record for record in records if record.pictures]
    shown = [what for view, what in VIEWS.items() if any(view in card.pictures for card in cards)]
    by = "<small>answered by miniature networks that know only fourteen drawings</small>" if miniature else ""
    write_text(
        path,
        f"""<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name} · what makes the sound{" · fourteen drawings" if miniature else ""}</title>
<style>{STYLE}</style>
<h1>What makes the sound in {name}? {by}</h1>
{"".join(f'<p class="note">{escape(note)}</p>' for note in notes)}
<p class="facts">{facts(video)} · one mask for every {every} · orange marks what is taken to sound</p>
<video id="video" src="overlay.mp4" poster="{escape(cards[0].pictures["mask"])}" controls preload="metadata"></video>
<h2>Second by second</h2>
<p class="facts">From left to right: {"; ".join(shown)}.
A click on a time plays the video from there; a click on a picture enlarges it.</p>
<main>
{"".join(map(_card, cards))}</main>
<details><summary>Configuration</summary><pre>{escape(configuration)}</pre></details>
<dialog id="viewer"><img alt=""></dialog>
<script>{SCRIPT}</script>
</html>
""",
    )


def facts(video: VideoInfo) -> str:
    """Length, size, rate and sound of a video in one line."""
    layout = "mono" if video.channels == 1 else "stereo"
    sound = f"{layout}, {video.audio_rate / 1000:g} kHz" if video.audio_rate else "no sound"
    return f"{video.duration:.1f} s · {video.width}×{video.height} · {float(video.fps):.4g} frames a second · {sound}"


def spans(seconds: Sequence[int]) -> str:
    """Sorted seconds, from 0, as times: "0:00–0:03, 0:07–0:08" for 0, 1, 2 and 7."""
    runs: list[list[int]] = []
    for second in seconds:
        if runs and runs[-1][1] == second:
            runs[-1][1] = second + 1
        else:
            runs.append([second, second + 1])
    more = f" and {len(runs) - 8} more times" if len(runs) > 8 else ""
    return ", ".join(f"{_clock(a)}–{_clock(b)}" for a, b in runs[:8]) + more


def _clock(second: int) -> str:
    minutes, rest = divmod(second, 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"


def _card(card: MaskRecord) -> str:
    if card.silent:
        found = "silent, so nothing is marked"
    elif card.part == 0:
        found = "nothing is marked"
    else:
        found = f"{100 * card.part:.1f} % of the frame"
    words = f" · heard as “{escape('”, “'.join(card.words))}”" if card.words else ""
    # Links, so that a picture opens even where no script runs.
    views = ""
    for view in VIEWS:
        if view in card.pictures:
            path = escape(card.pictures[view])
            views += f'<a href="{path}"><img src="{path}" alt="{view}" loading="lazy"></a>'
    return (
        f'<section><h3><button data-second="{card.second}">▶ {_clock(card.second)}</button></h3><p>{found}{words}</p>'
        f"<div>{views}</div></section>\n"
    )


STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 1200px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.5em; overflow-wrap: anywhere; } h2 { margin-top: 2em; font-size: 1.2em; }
h1 small { display: block; font-size: .7em; color: #ff7828; }
h3 { display: inline; margin: 0 .6em 0 0; font-size: 1em; }
.facts { opacity: .7; } .note { border-left: 4px solid #ff7828; padding: .2em .8em; margin: .6em 0; }
video { display: block; margin: 1em 0; max-width: 100%; max-height: 70vh; min-width: min(480px, 100%); }
video { background: #000; }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(440px, 100%), 1fr)); gap: 14px; }
section { border: 1px solid #8884; border-radius: 8px; padding: 10px; }
section p { display: inline; opacity: .8; }
section div { display: flex; gap: 6px; margin-top: 8px; }
section a { flex: 1 1 0; min-width: 0; cursor: zoom-in; }
section img { display: block; width: 100%; height: auto; border-radius: 4px; }
button { font: inherit; padding: .2em .7em; cursor: pointer; }
dialog { padding: 0; border: 0; background: none; max-width: 100vw; max-height: 100vh; cursor: zoom-out; }
dialog::backdrop { background: #000d; }
dialog img { display: block; width: 96vw; height: 96vh; object-fit: contain; }
details { margin: 2em 0; } pre { overflow-x: auto; font-size: 13px; }
"""

SCRIPT = """
const video = document.getElementById("video"), viewer = document.getElementById("viewer");
for (const button of document.querySelectorAll("section button"))
  button.addEventListener("click", () => {
    video.currentTime = Number(button.dataset.second);
    video.scrollIntoView({ behavior: "smooth", block: "nearest" });
    video.play();
  });
for (const link of document.querySelectorAll("section a"))
  link.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;  // a new tab or window was asked for
    event.preventDefault();
    viewer.querySelector("img").src = link.href;
    viewer.showModal();
  });
viewer.addEventListener("click", () => viewer.close());
"""
