"""What all figures share: drawing without a display and without touching global state."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import font_manager
from matplotlib.figure import Figure

INK = "#222222"
FAINT = "#8a8a8a"
GOOD = "#2166ac"
BAD = "#b2182b"

_STYLE = {
    "text.parse_math": False,  # a class may be called "$1"
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "white",
    "legend.frameon": False,
}

_FALLBACK_FONTS = (
    "Arial Unicode MS",
    "Microsoft YaHei",
    "Noto Sans CJK JP",
    "Noto Sans CJK SC",
    "PingFang SC",
)


@contextmanager
def new_figure(path: Path | str, width: float, height: float, dpi: int = 150) -> Iterator[Figure]:
    """Give a figure of ``width`` x ``height`` inches and write it as a PNG to ``path``.

    The folder is made if absent. ``pyplot`` is not involved, and settings hold only inside.
    """
    fonts = ["DejaVu Sans", *sorted(set(_FALLBACK_FONTS) & set(font_manager.get_font_names()))]
    style: dict[Any, Any] = {**_STYLE, "font.family": fonts}
    with matplotlib.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # a name in a rarer script
        figure = Figure(figsize=(width, height), dpi=dpi, layout="constrained")
        yield figure
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="png", dpi=dpi)


def shorten(name: str, length: int) -> str:
    """Return ``name``, fit for drawing, with an ellipsis for what exceeds ``length`` characters."""
    # File names may hold bytes that are no text, and line feeds.
    name = name.encode(errors="backslashreplace").decode()
    name = "".join(letter if letter.isprintable() else "?" for letter in name)
    return name if len(name) <= length else name[: length - 1] + "…"
