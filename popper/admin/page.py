"""A page that needs nothing else, for any screen, in light and in dark: its frame, its style, sections and tables.

It has no script, and its policy forbids the browser to fetch anything, so that a name in a log could do nothing even if
it got into the page as it stands.
"""

import datetime
import html
from string import Template

from popper import VERSION
from popper.admin.table import plain

POLICY = "default-src 'none'; style-src 'unsafe-inline'"

PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="$policy">
<meta name="color-scheme" content="light dark">
<meta name="robots" content="noindex">
<meta name="generator" content="popper $version">
<title>$title</title>
<style>
$style
</style>
</head>
<body>
<header>
<h1>$title</h1>
<p>$about</p>
</header>
<main>
<dl class="totals">
$totals
</dl>
$sections
</main>
<footer>
<p>$footer</p>
</footer>
</body>
</html>
""")

STYLE = """:root {
  --ink: #1d2329; --soft: #59636e; --page: #f6f7f9; --card: #ffffff; --line: #c9d0d8;
  --first: #1f6fb2; --second: #c77700; --bad: #c2352b;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e4e8ec; --soft: #9aa5b1; --page: #14181c; --card: #1d2329; --line: #3a444e;
    --first: #5aa9e6; --second: #e5a13a; --bad: #f0776c;
  }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1rem; background: var(--page); color: var(--ink);
  font: 1rem/1.45 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; margin: .25rem 0; }
h2 { font-size: 1.1rem; margin: 0 0 .25rem; }
header p, section > p, footer { color: var(--soft); margin: 0 0 1rem; font-size: .9rem; }
section, .totals > div { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; }
section { padding: 1rem; margin: 0 0 1rem; }
.totals { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: .75rem; margin: 0 0 1rem; }
.totals > div { padding: .6rem .8rem; }
dt { color: var(--soft); font-size: .85rem; }
dd { margin: 0; font-size: 1.35rem; font-variant-numeric: tabular-nums; }
dd small { display: block; font-size: .8rem; color: var(--soft); }
.beside { display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); gap: 1rem; align-items: start; }
.plot { display: block; width: 100%; height: auto; max-width: 31rem; margin: 0 auto; }
.plot * { stroke-linejoin: round; stroke-linecap: butt; }
.scroll { overflow: auto; max-height: 24rem; border: 1px solid var(--line); border-radius: .35rem; }
.scroll:focus-visible { outline: 2px solid var(--first); }
table { border-collapse: collapse; width: 100%; font-size: .85rem; font-variant-numeric: tabular-nums;
  overflow-wrap: normal; }
th, td { padding: .3rem .6rem; text-align: right; white-space: nowrap; box-shadow: inset 0 -1px var(--line); }
thead th { position: sticky; top: 0; background: var(--card); color: var(--soft); font-weight: 600; }
th[scope=row], .word { text-align: left; position: sticky; left: 0; background: var(--card); }
th[scope=row] { font-weight: 400; }
th span { display: inline-block; width: max-content; max-width: 10rem; white-space: normal; overflow-wrap: anywhere; }
thead .word { z-index: 1; }
tbody tr:last-child > * { box-shadow: none; }
@media (max-width: 600px) {
  body { padding: .6rem; }
  section { padding: .7rem; }
  .beside { grid-template-columns: minmax(0, 1fr); }
  .scroll { max-height: 20rem; }
}
@media print {
  body { max-width: none; }
  .scroll { max-height: none; overflow: visible; }
  section { break-inside: avoid; }
}
"""


def whole(title: str, about: str, totals: "list[tuple[str, str, str]]", sections: "list[str]", footer: str) -> bytes:
    """The page. totals: (name, value, what else) of each figure at its head; all but the sections is plain text."""
    figures = "\n".join(f"<div><dt>{text(name)}</dt><dd>{text(value)}<small>{text(more)}</small></dd></div>"
                        for name, value, more in totals)
    return PAGE.substitute(policy=POLICY, version=text(VERSION), style=STYLE, title=text(title), about=text(about),
                           totals=figures, sections="\n".join(sections), footer=text(footer)).encode()


def section(title: str, about: str, plot: str, table: str) -> str:
    inner = f'<div class="beside">\n{plot}\n{table}\n</div>' if plot else table
    return f"<section>\n<h2>{text(title)}</h2>\n<p>{text(about)}</p>\n{inner}\n</section>"


def table(about: str, titles: "dict[str, str]", rows: "list[dict]") -> str:
    """A table that scrolls within itself. titles: {key in a row: title}, the first of them what the row is about."""
    first = next(iter(titles))
    head = "".join(f'<th scope="col"{_class(key == first)}>{text(title)}</th>' for key, title in titles.items())
    body = "\n".join(f"<tr>{''.join(_cell(row[key], key == first) for key in titles)}</tr>" for row in rows)
    return (f'<div class="scroll" role="region" tabindex="0" aria-label="{text(about)}">\n<table>\n'
            f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n</div>")


def _cell(value, first: bool) -> str:
    shown = text(number(value) if isinstance(value, (int, float)) else moment(value))
    return f'<th scope="row"><span>{shown}</span></th>' if first else f"<td>{shown}</td>"


def _class(first: bool) -> str:
    return ' class="word"' if first else ""


def text(value: str) -> str:
    """Text as it may stand in a page: nothing in it is HTML, and all of it is seen."""
    return html.escape(plain(value))


def moment(value) -> str:
    """A time, to the minute; a word or nothing."""
    if isinstance(value, datetime.datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    return "–" if value is None else str(value)


def number(value: "int | float") -> str:
    """A number for a person."""
    return f"{value:,}"


def short(value: float) -> str:
    """A number in three figures: 950, 1.2k, 34M."""
    for power, letter in ((15, "P"), (12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if value >= 999.5 * 10 ** (power - 3):
            return f"{value / 10 ** power:.3g}{letter}"
    return f"{value:.3g}"


def size(octets: int) -> str:
    return f"{short(octets)}B" if octets >= 1000 else f"{octets} octets"
