"""The page of a demo: an HTML file that opens from disk, without a server or the network."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from utils.files import write_text
from utils.video_info import VideoInfo
from zero_shot.demo_folder import DemoOutputs, MaskRecord, printable
from zero_shot.demo_notes import describe_video, format_time

VIEWS = {  # in the order in which a card shows them
    "frame": "the frame",
    "heatmap": "the similarity map (red is high) and SAM's prompts (white foreground, black background, yellow box)",
    "mask": "the mask",
}


def write_page(
    path: Path,
    video: VideoInfo,
    records: Sequence[MaskRecord],
    notes: Sequence[str],
    outputs: DemoOutputs,
    *,
    configuration: str,
    small_weights: bool,
) -> None:
    """Write the page next to overlay.mp4 and the images.

    Args:
        path: of the page.
        video: by `utils.video_info.open_video`.
        records: the masks, of which those with images are shown.
        notes: sentences shown above the video, the most important first.
        outputs: what the demo consists of.
        configuration: the options as YAML.
        small_weights: state in the headline that the networks know fourteen drawings only.
    """
    name = escape(printable(Path(video.path.name)))
    cards = [record for record in records if record.images]
    shown = [what for view, what in VIEWS.items() if any(view in card.images for card in cards)]
    by = "<small>predicted by small networks that know only fourteen drawings</small>" if small_weights else ""
    write_text(
        path,
        f"""<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name} · what makes the sound{" · fourteen drawings" if small_weights else ""}</title>
<style>{STYLE}</style>
<h1>What makes the sound in {name}? {by}</h1>
{"".join(f'<p class="note">{escape(note)}</p>' for note in notes)}
<p class="facts">{describe_video(video)} · one mask per {outputs.mask_rate} · orange marks the prediction</p>
<video id="video" src="overlay.mp4" poster="{escape(cards[0].images["mask"])}" controls preload="metadata"></video>
<h2>Second by second</h2>
<p class="facts">From left to right: {"; ".join(shown)}.
A click on a time plays the video from there; a click on an image enlarges it.</p>
<main>
{"".join(map(_card, cards))}</main>
<details><summary>Configuration</summary><pre>{escape(configuration)}</pre></details>
<dialog id="viewer"><img alt=""></dialog>
<script>{SCRIPT}</script>
</html>
""",
    )


def _card(card: MaskRecord) -> str:
    if card.silent:
        found = "silent, so the mask is empty"
    elif card.area == 0:
        found = "the mask is empty"
    else:
        found = f"{100 * card.area:.1f} % of the frame"
    labels = f" · labels “{escape('”, “'.join(card.labels))}”" if card.labels else ""
    # Links, so that an image opens even without scripts.
    views = ""
    for view in VIEWS:
        if view in card.images:
            path = escape(card.images[view])
            views += f'<a href="{path}"><img src="{path}" alt="{view}" loading="lazy"></a>'
    button = f'<button data-second="{card.second}">▶ {format_time(card.second)}</button>'
    return f"<section><h3>{button}</h3><p>{found}{labels}</p><div>{views}</div></section>\n"


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
