"""Plots as SVG that takes its colours from the page it stands in, drawn by matplotlib.

Each is drawn with stand-in colours that become CSS variables, text stays text, and what a screen reader needs is put
in. Nothing that a log says is given to matplotlib as mathematics, and nothing of it gets into the SVG unescaped.
"""

import contextlib
import datetime
import io
import logging
import math
import os
import re
import sys
import warnings
import xml.etree.ElementTree as tree

from popper.admin.console import Failed
from popper.admin.page import short
from popper.admin.table import cut, width
from popper.library import library

SVG, LINK = "http://www.w3.org/2000/svg", "{http://www.w3.org/1999/xlink}href"
# stand-in: CSS variable
COLOURS = {"#010101": "--ink", "#020202": "--line", "#030303": "--first", "#040404": "--second", "#050505": "--bad"}
INK, LINES, FIRST, SECOND, BAD = COLOURS
REFERENCE = re.compile(r"(?:^|url\()#([^)]+)")
WIDTH = 4.6                    # inches, on the screen 331 units: about as wide as a telephone is
POINTS = 10.5                  # of text
LONGEST_NAME = 22              # columns of a name beside a bar
TICKS = (1, 2, 3, 6, 12, 24, 48, 72, 168, 336)         # hours from one time on an axis to the next
MOST_TICKS = 6
WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
SETTINGS = {"svg.fonttype": "none", "text.parse_math": False, "font.family": "sans-serif", "font.size": POINTS,
            "axes.edgecolor": LINES, "axes.labelcolor": INK, "xtick.color": LINES, "ytick.color": LINES,
            "xtick.labelcolor": INK, "ytick.labelcolor": INK, "text.color": INK, "grid.color": LINES,
            "grid.linewidth": 0.5, "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True,
            "legend.frameon": False, "axes.unicode_minus": False}


def need() -> None:
    """Failed, with what to install, when matplotlib is missing."""
    logging.getLogger("matplotlib").setLevel(logging.CRITICAL)       # of caches and fonts nobody need hear
    try:
        with warnings.catch_warnings():      # of its own making
            warnings.simplefilter("ignore")
            library("matplotlib")
    except ImportError:
        raise Failed(f"plots need matplotlib, which is missing for {sys.executable}: apt install python3-matplotlib, "
                     f"or {sys.executable} -m pip install matplotlib", os.EX_UNAVAILABLE) from None


# -- the plots: each gives the SVG of what it is told ------------------------------------------------------------------

def over_time(name: str, title: str, told: str, steps: "list[datetime.datetime]", step: datetime.timedelta,
              panels: "list[tuple]") -> str:
    """Panels above each other, with the same times.

    steps: when each begins; step: how long it is; panels: (label, [(name of a series, colour, values)], how), where
    "bars" are stacked, and "area" is the height of something that stays until the next step.
    """
    with _figure(1.6 * len(panels) + 0.5) as (figure, finish):
        axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for one, (label, series, how) in zip(axes, panels):
            one.set_title(label, loc="left", fontsize=POINTS)
            one.grid(axis="y")
            floor = [0] * len(steps)
            for series_name, colour, values in series:
                if how == "bars":
                    one.bar(steps, values, step * 0.85, floor, align="edge", color=colour, label=series_name, lw=0)
                    floor = [below + value for below, value in zip(floor, values)]
                else:
                    one.fill_between([*steps, steps[-1] + step], [*values, values[-1]], step="post", color=colour,
                                     alpha=0.35, lw=0)
                    one.step([*steps, steps[-1] + step], [*values, values[-1]], where="post", color=colour, lw=1.5)
            _scale(one.yaxis, max(max(values) for _, _, values in series))
            one.set_ylim(bottom=0)
            one.tick_params(length=0)
            if len(series) > 1:
                one.legend(loc="lower right", bbox_to_anchor=(1.01, 0.98), ncols=len(series), borderaxespad=0,
                           handlelength=1, handleheight=1, columnspacing=1)
        _times(axes[-1], steps[0], steps[-1] + step)
        axes[-1].tick_params(axis="x", pad=6)
        return finish(name, title, told)


def week(name: str, title: str, told: str, counts: "list[list[int]]", unit: str) -> str:
    """A heat map of numbers by day of the week and hour; each cell says its number when it is pointed at."""
    most = max(map(max, counts)) or 1
    with _figure(2.5) as (figure, finish):
        axes = figure.subplots()
        rectangle = library("matplotlib.patches").Rectangle
        said = {}
        for day, hours in enumerate(counts):
            for hour, count in enumerate(hours):
                cell = axes.add_patch(rectangle((hour + 0.04, day + 0.04), 0.92, 0.92, linewidth=0, facecolor=FIRST,
                                                alpha=0.06 + 0.94 * count / most if count else 0.06))
                cell.set_gid(f"{name}-{day}-{hour}")
                said[f"{name}-{day}-{hour}"] = f"{WEEKDAYS[day]} {hour:02}:00–{hour + 1:02}:00: {count} {unit}"
        axes.set_xlim(0, 24)
        axes.set_ylim(7, 0)
        axes.set_xticks(range(0, 25, 3), [f"{hour:02}" for hour in range(0, 25, 3)])
        axes.set_yticks([day + 0.5 for day in range(7)], WEEKDAYS)
        axes.tick_params(length=0)
        for side in axes.spines.values():
            side.set_visible(False)
        return finish(name, title, told, said)


def ranking(name: str, title: str, told: str, rows: "list[tuple[str, int]]", colour: str) -> str:
    """Bars that lie on their sides, the first row above, its number at the end of its bar."""
    with _figure(0.5 + 0.28 * len(rows)) as (figure, finish):
        axes = figure.subplots()
        places = range(len(rows))
        values = [value for _, value in rows]
        axes.barh(places, values, 0.7, color=colour, lw=0)
        axes.set_yticks(places, [_label(label) for label, _ in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlim(0, max([1, *values]) * 1.2)
        for place, value in zip(places, values):
            axes.annotate(short(value), (value, place), (4, 0), textcoords="offset points", va="center")
        axes.set_xticks([])
        axes.tick_params(length=0)
        axes.spines["bottom"].set_visible(False)
        return finish(name, title, told)


def _label(name: str) -> str:
    """A name beside a bar; what is too long loses its middle, for addresses differ at their ends."""
    return name if width(name) <= LONGEST_NAME else cut(name, LONGEST_NAME - 9) + name[-9:]


# -- matplotlib --------------------------------------------------------------------------------------------------------

@contextlib.contextmanager
def _figure(height: float):
    """(an empty Figure, finish(name, title, told, said) -> its SVG)."""
    need()
    matplotlib = library("matplotlib")
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")      # of letters that its font does not have; the browser's will
        matplotlib.rcdefaults()              # whatever somebody likes his own plots to be
        matplotlib.rcParams.update(SETTINGS)
        figure = library("matplotlib.figure").Figure(figsize=(WIDTH, height), layout="constrained")

        def finish(name: str, title: str, told: str, said: "dict[str, str] | None" = None) -> str:
            file = io.BytesIO()
            matplotlib.rcParams["svg.hashsalt"] = name
            figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
            return _adapted(file.getvalue(), name, title, told, said or {})
        yield figure, finish


def _scale(axis, most: float) -> None:
    """Few whole numbers on an axis, in short."""
    ticker = library("matplotlib.ticker")
    axis.set_major_locator(ticker.MaxNLocator(4, integer=True, min_n_ticks=2 if most > 1 else 1))
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: short(value)))


def _times(axes, first: datetime.datetime, end: datetime.datetime) -> None:
    """Some times on the axis, all as far from each other: whole hours of the day, days, or Mondays."""
    hours = next((each for each in TICKS if (end - first) / datetime.timedelta(hours=each) <= MOST_TICKS), 0)
    hours = hours or 168 * math.ceil((end - first) / datetime.timedelta(hours=168) / MOST_TICKS)
    monday = datetime.datetime.combine(first.date(), datetime.time()) - datetime.timedelta(days=first.weekday())
    step = datetime.timedelta(hours=hours)
    count = range(math.ceil((first - monday) / step), math.ceil((end - monday) / step))
    ticks = [monday + each * step for each in count]
    axes.set_xlim(first, end)
    axes.set_xticks(ticks, [f"{tick:%d %b}" if tick.hour == 0 else f"{tick:%H:%M}" for tick in ticks])


# -- SVG ---------------------------------------------------------------------------------------------------------------

def _adapted(octets: bytes, name: str, title: str, told: str, said: "dict[str, str]") -> str:
    """The SVG of a figure as it goes into a page. said: {id of an element: what it says when it is pointed at}."""
    tree.register_namespace("", SVG)
    root = tree.fromstring(octets)
    meant = {each for element in root.iter() for value in element.attrib.values() for each in REFERENCE.findall(value)}
    for element in list(root.iter()):
        for child in list(element):
            if child.tag in (f"{{{SVG}}}metadata", f"{{{SVG}}}style"):       # the style would be the whole page's
                element.remove(child)
        identity = element.get("id", "")
        if identity in said:
            tree.SubElement(element, f"{{{SVG}}}title").text = said[identity]
        if identity and identity not in meant:
            del element.attrib["id"]
        _rewrite(element, name)
    del root.attrib["width"], root.attrib["height"]
    root.attrib.update({"role": "img", "aria-labelledby": f"{name}-title {name}-told", "class": "plot"})
    for place, (tag, text) in enumerate((("title", title), ("desc", told))):
        element = tree.Element(f"{{{SVG}}}{tag}", {"id": f"{name}-{'told' if place else 'title'}"})
        element.text = text
        root.insert(place, element)
    return tree.tostring(root, encoding="unicode")


def _rewrite(element, name: str) -> None:
    """Make ids unique in the page, and colours and fonts the page's."""
    for key, value in list(element.attrib.items()):
        if key == "id":
            element.set(key, f"{name}-{value}")
        elif key == LINK:
            del element.attrib[key]
            element.set("href", f"#{name}-{value[1:]}")
        elif key in ("style", "clip-path"):
            value = value.replace("url(#", f"url(#{name}-")
            for stand_in, variable in COLOURS.items():
                value = value.replace(stand_in, f"var({variable})")
            declared = [each.strip() for each in value.split(";") if not each.strip().startswith("font-family")]
            element.set(key, "; ".join(filter(None, declared)))
