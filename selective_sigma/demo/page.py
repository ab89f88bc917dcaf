"""One HTML file with everything in it: pictures inside, sliders that wipe between them, no server."""

from __future__ import annotations

import base64
import html
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image


class Wipe(NamedTuple):
    """One photograph: labelled pictures of equal size, and the mask."""

    name: str
    images: dict[str, Image]
    mask: Image


class Table(NamedTuple):
    """Figures in rows, below the wipes."""

    title: str
    text: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


class Figure(NamedTuple):
    """A picture below the tables."""

    title: str
    text: str
    """One sentence that says what to look at; it also stands in place of a picture that is not seen."""
    path: str


STYLE = """
body { background: #101012; color: #ebebeb; font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1400px;
  padding: 0 1rem; }
h1 { font-weight: 600; } h2 { font-weight: 500; margin-top: 2.5rem; }
.pair { display: flex; gap: 1rem; flex-wrap: wrap; align-items: flex-start; }
.wipe { position: relative; width: min(512px, 92vw); --at: 50%; }
.wipe img { width: 100%; display: block; image-rendering: pixelated; }
.wipe .right { position: absolute; inset: 0; clip-path: inset(0 0 0 var(--at)); }
.wipe .bar { position: absolute; top: 0; bottom: 0; left: var(--at); width: 2px; background: #fff;
  pointer-events: none; }
.wipe input { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; opacity: 0; cursor: ew-resize; }
.wipe:focus-within .bar { background: #ffb454; width: 4px; }
.mask { width: min(512px, 92vw); image-rendering: pixelated; }
figure { margin: 0; } figcaption { padding: .4rem 0; color: #b8b8c0; }
select { background: #24242a; color: inherit; font: inherit; border: 1px solid #555; border-radius: 4px;
  padding: .2rem; }
table { border-collapse: collapse; } th, td { padding: .2rem 1rem .2rem 0; text-align: left; }
th { font-weight: 500; border-bottom: 1px solid #555; }
.figure { max-width: 100%; }
"""
SCRIPT = """
for (const figure of document.querySelectorAll('figure.compare')) {
  const wipe = figure.querySelector('.wipe'), slider = figure.querySelector('input');
  slider.addEventListener('input', () => wipe.style.setProperty('--at', slider.value + '%'));
  const [left, right] = figure.querySelectorAll('select'), images = JSON.parse(figure.dataset.images);
  const show = () => {
    figure.querySelector('.left').src = images[left.value];
    figure.querySelector('.right').src = images[right.value];
  };
  left.addEventListener('change', show); right.addEventListener('change', show);
}
"""


def build(introduction: str, wipes: Sequence[Wipe], table: Table, figures: Sequence[Figure]) -> str:
    """The page: a wipe for each photograph first, then the table, then the figures."""
    parts = [*map(_wipe, wipes), _table(table), *map(_figure, figures)]
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Selective Sigma</title><style>{STYLE}</style>
<h1>Selective Sigma</h1>
<p>{html.escape(introduction)}</p>
{"".join(parts)}
<script>{SCRIPT}</script></html>
"""


def _wipe(wipe: Wipe) -> str:
    data = {label: _png(picture) for label, picture in wipe.images.items()}
    labels, name = list(data), html.escape(wipe.name)
    chosen = {"left": labels[1], "right": labels[-1]}
    selects = {
        side: f'<select aria-label="{side}">'
        + "".join(f"<option{' selected' if n == chosen[side] else ''}>{html.escape(n)}</option>" for n in labels)
        + "</select>"
        for side in ("left", "right")
    }
    return f"""
<h2>{name}</h2>
<figure class="compare" data-images="{html.escape(json.dumps(data), quote=True)}"><div class="pair">
<div><div class="wipe"><img class="left" alt="{name}, left of the bar" src="{data[chosen["left"]]}">
<img class="right" alt="{name}, right of the bar" src="{data[chosen["right"]]}"><div class="bar"></div>
<input type="range" min="0" max="100" value="50" step="0.5" aria-label="wipe"></div>
<figcaption>left {selects["left"]} right {selects["right"]}</figcaption></div>
<div><img class="mask" alt="mask of {name}: white is where detail was added"
src="{_png(wipe.mask)}"><figcaption>mask: white is where detail was added</figcaption>
</div></div></figure>"""


def _table(table: Table) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    rows = "".join(line(row, "td") for row in table.rows)
    return f"""
<h2>{html.escape(table.title)}</h2><p>{html.escape(table.text)}</p>
<table>{line(table.columns, "th")}{rows}</table>"""


def _figure(figure: Figure) -> str:
    text, data = html.escape(figure.text), _data(Path(figure.path).read_bytes())
    return f'\n<h2>{html.escape(figure.title)}</h2><p>{text}</p><img class="figure" alt="{text}" src="{data}">'


def _png(picture: Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return _data(buffer.getvalue())


def _data(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
