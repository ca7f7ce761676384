"""The page of a demo and its pictures: an HTML file that opens from the disk, without a server or the network."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import cv2
import numpy as np

from utils.figures import PREDICTION, overlay
from utils.files import jpeg_bytes, write_bytes, write_text
from utils.stream import Video
from zero_shot.figures import draw_prompt, heat_overlay
from zero_shot.prompts import Prompt
from zero_shot.settings import Answer

PICTURE = 480  # pixels: longer side of the pictures

VIEWS = {  # in the order in which a card shows them
    "frame": "the frame",
    "heat": "where the sound is likeliest to come from (red), and SAM's prompts (white yes, black no, yellow box)",
    "mask": "the mask",
}


@dataclass
class Card:
    """A second as the page shows it: pictures by view (frame, heat, mask), as paths from the page."""

    second: int
    pictures: dict[str, str]
    silent: bool
    part: float  # of the frame that is marked, 0 to 1
    words: Sequence[str] = ()


def enlarged(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A mask (H, W) bool at another (height, width), its edge smooth rather than in steps."""
    return cv2.resize(mask.astype(np.float32), size[::-1], interpolation=cv2.INTER_LINEAR) > 0.5


def fit(rgb: np.ndarray) -> np.ndarray:
    """A picture for people: its longer side PICTURE pixels."""
    scale = PICTURE / max(rgb.shape[:2])
    size = [max(1, round(side * scale)) for side in rgb.shape[1::-1]]
    return cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)


def hot(picture: np.ndarray, answer: Answer) -> np.ndarray:
    """A picture under the similarity map, if there is one."""
    if answer.heat is None:
        return picture
    return heat_overlay(picture, cv2.resize(answer.heat, picture.shape[1::-1], interpolation=cv2.INTER_LINEAR))


def prompted(picture: np.ndarray, answer: Answer) -> np.ndarray:
    """A picture with SAM's prompts on it, if there are any; they are in pixels of the answer's mask."""
    if answer.prompt is None:
        return picture
    y, x = np.array(picture.shape[:2]) / answer.mask.shape
    prompt = answer.prompt
    points = None if prompt.points is None else prompt.points * (x, y)
    boxes = None if prompt.boxes is None else prompt.boxes * (x, y, x, y)
    return draw_prompt(picture, Prompt(points, prompt.labels, boxes))


def save_pictures(out: Path, number: int, picture: np.ndarray, answer: Answer | None) -> dict[str, str]:
    """Write the pictures of a second that the page shows; returns their paths from `out` by view, as in `Card`."""
    mask = np.zeros(picture.shape[:2], bool) if answer is None else enlarged(answer.mask, picture.shape[:2])
    views = {"frame": picture, "mask": overlay(picture, mask, PREDICTION)}
    if answer and (answer.heat is not None or answer.prompt is not None):
        views["heat"] = prompted(hot(picture, answer), answer)
    paths = {view: f"pictures/{number:06d}_{view}.jpg" for view in views}
    for view, path in paths.items():
        write_bytes(out / path, jpeg_bytes(views[view]))
    return paths


def write_page(
    path: Path, video: Video, cards: Sequence[Card], notes: Sequence[str], configuration: str, every: str
) -> None:
    """Write the page beside overlay.mp4 and the pictures. configuration: YAML."""
    name = escape(video.path.name)
    shown = [what for view, what in VIEWS.items() if any(view in card.pictures for card in cards)]
    write_text(
        path,
        f"""<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name} · what makes the sound</title>
<style>{STYLE}</style>
<h1>What makes the sound in {name}?</h1>
<p class="facts">{facts(video)} · one mask for every {every} · orange marks what is taken to sound</p>
{"".join(f'<p class="note">{escape(note)}</p>' for note in notes)}
<video id="video" src="overlay.mp4" poster="{escape(cards[0].pictures["mask"])}" controls preload="metadata"></video>
<h2>Second by second</h2>
<p class="facts">From left to right: {"; ".join(shown)}. A click on a second plays the video from there.</p>
<main>
{"".join(map(_card, cards))}</main>
<details><summary>Configuration</summary><pre>{escape(configuration)}</pre></details>
<script>{SCRIPT}</script>
</html>
""",
    )


def facts(video: Video) -> str:
    """Length, size, rate and sound of a video in one line."""
    layout = "mono" if video.channels == 1 else "stereo"
    sound = f"{layout}, {video.sound_rate / 1000:g} kHz" if video.sound_rate else "no sound"
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


def _card(card: Card) -> str:
    if card.silent:
        found = "silent, so nothing is marked"
    elif card.part == 0:
        found = "nothing is marked"
    else:
        found = f"{100 * card.part:.1f} % of the frame"
    words = f" · heard as “{escape('”, “'.join(card.words))}”" if card.words else ""
    views = "".join(
        f'<img src="{escape(card.pictures[view])}" alt="{view}" loading="lazy">'
        for view in VIEWS
        if view in card.pictures
    )
    return (
        f'<section data-second="{card.second}"><h3>{_clock(card.second)}</h3><p>{found}{words}</p>'
        f"<div>{views}</div></section>\n"
    )


STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 1200px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.5em; overflow-wrap: anywhere; } h2 { margin-top: 2em; font-size: 1.2em; }
h3 { display: inline; margin: 0 .6em 0 0; font-size: 1em; }
.facts { opacity: .7; } .note { border-left: 4px solid #ff7828; padding: .2em .8em; margin: .6em 0; }
video { display: block; margin: 1em 0; max-width: 100%; max-height: 70vh; min-width: min(480px, 100%); }
video { background: #000; }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(440px, 100%), 1fr)); gap: 14px; }
section { border: 1px solid #8884; border-radius: 8px; padding: 10px; cursor: pointer; }
section:hover { border-color: #ff7828; }
section p { display: inline; opacity: .8; }
section div { display: flex; gap: 6px; margin-top: 8px; }
section img { flex: 1 1 0; min-width: 0; height: auto; border-radius: 4px; }
details { margin: 2em 0; } pre { overflow-x: auto; font-size: 13px; }
"""

SCRIPT = """
const video = document.getElementById("video");
for (const card of document.querySelectorAll("section"))
  card.addEventListener("click", () => {
    video.currentTime = Number(card.dataset.second);
    video.scrollIntoView({ behavior: "smooth", block: "nearest" });
    video.play();
  });
"""
