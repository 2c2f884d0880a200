"""The plots, as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt

from .figure import Side

Series = Mapping[str, Sequence[tuple[float, float]]]

_OURS = ["#0b5fa5", "#2a9d8f", "#6a4c93", "#4d7fbf"]
_THEIRS = ["#8c8c8c", "#c1666b", "#d4a373", "#b08968", "#a3a380", "#7f5539", "#bc6c25", "#5c5c5c"]


def draw(
    series: Mapping[str, Series], sides: Sequence[Side], directory: Path
) -> list[tuple[str, str]]:
    """Draw what there is; titles and file names."""
    mpl.use("Agg")
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "results", "font.size": 9})
    drawn = []
    if lines := series.get("concurrency"):
        title = "Cost of a logged-in request against requests at once"
        _lines(lines, title, "requests at once", directory / "concurrency.svg")
        drawn.append((title, "concurrency.svg"))
    if lines := series.get("rows"):
        title = "Cost of a logged-in request against rows in the table"
        _lines(lines, title, "rows", directory / "rows.svg")
        drawn.append((title, "rows.svg"))
    if sides:
        title = "Latency of a logged-in request, 64 at once: p50 and p99"
        _bars(sides, title, directory / "latency.svg")
        drawn.append((title, "latency.svg"))
    return drawn


def _lines(series: Series, title: str, below: str, file: Path) -> None:
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    mine, others = iter(_OURS * 4), iter(_THEIRS * 4)
    for name, points in series.items():
        ours = name.startswith("ours") or below == "rows"
        axes.plot(
            [x for x, _ in points],
            [y for _, y in points],
            marker="o",
            markersize=3,
            linewidth=2 if ours else 1.2,
            linestyle="-" if ours else "--",
            color=next(mine if ours else others),
            label=name,
        )
    axes.set(xscale="log", yscale="log", xlabel=below, ylabel="µs a request", title=title)
    ticks = sorted({x for points in series.values() for x, _ in points})
    axes.set_xticks(ticks, [f"{x:,.0f}" for x in ticks], minor=False)
    axes.xaxis.set_minor_locator(mpl.ticker.NullLocator())
    axes.yaxis.set_major_formatter(mpl.ticker.StrMethodFormatter("{x:,.0f}"))
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    _save(figure, file)


def _bars(sides: Sequence[Side], title: str, file: Path) -> None:
    figure, axes = plt.subplots(figsize=(8, 0.4 * len(sides) + 1.2), layout="constrained")
    for place, side in enumerate(reversed(sides)):
        color = _OURS[0] if side.ours else _THEIRS[0]
        axes.barh(place, side.p99 / 1000, color=color, alpha=0.35)
        axes.barh(place, side.p50 / 1000, color=color)
        axes.text(side.p99 / 1000 * 1.05, place, f"{side.p99 / 1000:.1f}", va="center", fontsize=7)
    axes.set_yticks(range(len(sides)), [side.name for side in reversed(sides)])
    axes.set(xscale="log", xlabel="ms; dark p50, light p99", title=title)
    axes.xaxis.set_major_formatter(mpl.ticker.StrMethodFormatter("{x:g}"))
    axes.grid(visible=True, axis="x", alpha=0.3)
    _save(figure, file)


def _save(figure: mpl.figure.Figure, file: Path) -> None:
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)
