"""The page of popperctl stats --html in Chromium: on a telephone and on a desk, in light and in dark; its figures; and
the picture of it that the README shows, which is made anew by

    POPPER_GOLDEN=write python -m pytest tests/admin/test_report_browser.py
"""

import collections
import io
import os
import re
import struct
import zlib
from pathlib import Path

import pytest

import chromium
import corpus
from popper.admin import main
from popper.admin.console import Console
from popper.admin.page import size

if chromium.PROGRAM is None:
    pytest.skip("Chromium is not installed", allow_module_level=True)

SIZES = [(390, 844), (1280, 900)]
SCHEMES = ["light", "dark"]
# For every text of the plots: how tall its letters are on the screen, and its colour.
TEXTS = """[...document.querySelectorAll('svg text')].map(each =>
    [parseFloat(getComputedStyle(each).fontSize) * each.getScreenCTM().a, getComputedStyle(each).fill])"""
COVERED = """[...document.querySelectorAll('svg')].filter(svg => [...svg.querySelectorAll('text')].some(each => {
    const [a, b] = [each.getBoundingClientRect(), svg.getBoundingClientRect()];
    return a.left < b.left - 2 || a.right > b.right + 2 || a.top < b.top - 2 || a.bottom > b.bottom + 2 })).length"""


@pytest.fixture(scope="module")
def browser():
    with chromium.Chromium() as one:
        yield one


@pytest.fixture(scope="module", params=["month", "hostile", "one"])
def address(request, tmp_path_factory):
    """Where the page of a log is."""
    lines = {"month": corpus.busy_month, "hostile": corpus.hostile,
             "one": lambda: [corpus.classic(corpus.at(), corpus.stats("joe", 0, 0, 1, 1))]}[request.param]()
    place = tmp_path_factory.mktemp(request.param)
    (place / "log").write_bytes(lines if isinstance(lines, bytes) else corpus.octets(lines))
    console = Console(io.StringIO(), io.StringIO())
    assert main.main(["stats", "--html", str(place / "page.html"), str(place / "log")], console) == 0
    return (place / "page.html").as_uri()


def page_of(lines, place):
    """Make the page of a log -> its address."""
    place.mkdir(exist_ok=True)
    (place / "log").write_bytes(corpus.octets(lines))
    assert main.main(["stats", "--html", str(place / "page.html"), str(place / "log")],
                     Console(io.StringIO(), io.StringIO())) == 0
    return (place / "page.html").as_uri()


def luminance(colour):
    parts = [int(part) / 255 for part in colour[colour.index("(") + 1:-1].split(",")[:3]]
    return sum(weight * (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4)
               for weight, part in zip((0.2126, 0.7152, 0.0722), parts))


def contrast(one, other):
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def pixel(octets):
    """The first pixel of a PNG that has 8 bits to a channel, and how large the picture is."""
    width, height, _, kind = struct.unpack(">IIBB", octets[16:26])
    assert kind in (2, 6)
    data, at = b"", 8
    while at < len(octets):
        length, name = struct.unpack(">I4s", octets[at:at + 8])
        data += octets[at + 8:at + 8 + length] if name == b"IDAT" else b""
        at += length + 12
    return tuple(zlib.decompress(data)[1:4]), (width, height)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width, height", SIZES, ids=["telephone", "desk"])
def test_the_page_in_a_browser(browser, address, width, height, scheme):
    browser.console.clear()
    browser.requests.clear()
    browser.show(address, width, height, scheme)
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert browser.value(chromium.OUTSIDE % width) == []
    assert browser.value(COVERED) == 0
    sizes = browser.value(TEXTS)
    assert min(size for size, _ in sizes) >= 9.5
    card = browser.value("getComputedStyle(document.querySelector('section')).backgroundColor")
    assert min(contrast(colour, card) for _, colour in sizes) >= 7
    colour, _ = pixel(browser.picture())
    assert (sum(colour) > 600) == (scheme == "light") and (sum(colour) < 150) == (scheme == "dark")
    columns = browser.value("getComputedStyle(document.querySelector('.beside')).gridTemplateColumns").split()
    assert len(columns) == (1 if width < 600 else 2)
    assert browser.console == [] and browser.requests == [address]
    assert browser.value("document.scripts.length + document.images.length + document.links.length") == 0


def test_the_checks_find_what_is_wrong(browser, tmp_path):
    """A page that overflows, fetches and complains: nothing of that may stay unseen."""
    bad = tmp_path / "bad.html"
    bad.write_text("<html><head><meta name=viewport content='width=device-width'></head><body>"
                   "<div style='width: 900px'>x</div><img src='http://192.0.2.1/x.png'>"
                   "<script>console.error('x'); nothing()</script></body></html>")
    browser.console.clear()
    browser.requests.clear()
    browser.ask("Network.setBlockedURLs", urls=["*192.0.2.1*"])
    browser.show(bad.as_uri(), 390, 844, "light")
    assert browser.value("document.documentElement.scrollWidth") > 390
    assert len(browser.value(chromium.OUTSIDE % 390)) == 1
    assert len(browser.console) >= 2 and browser.requests == [bad.as_uri(), "http://192.0.2.1/x.png"]


# -- figures -----------------------------------------------------------------------------------------------------------

# {title of a table: [[text of each cell] of each row]}, and what stands at the head: {name: [value, what else]}
TABLES = """Object.fromEntries([...document.querySelectorAll('.scroll')].map(each => [each.getAttribute('aria-label'),
    [...each.querySelectorAll('tbody tr')].map(row => [...row.children].map(cell => cell.innerText))]))"""
TOTALS = """Object.fromEntries([...document.querySelectorAll('.totals > div')].map(each => [each.children[0].innerText,
    [each.children[1].firstChild.data, each.children[1].lastChild.innerText]]))"""
# How wide and how high what has this colour is drawn in a plot, from above and from the left.
DRAWN = """[...document.querySelectorAll('svg[aria-labelledby^="%s-title"] path')].filter(each =>
    (each.getAttribute('style') || '').includes('fill: var(%s)')).map(each => each.getBoundingClientRect())
    .filter(box => box.height > 0).map(box => [box.width, box.height])"""
DAY = re.compile(r"(\w{3} [ \d]\d) ")


def counted(lines):
    """What is in the log of `corpus.office`, counted here and in another way."""
    found = collections.defaultdict(collections.Counter)
    left = {}
    for line in lines:
        day = DAY.match(line)[1]
        if "Stats: " in line:
            user, gone, octets, stay, rest = line.partition("Stats: ")[2].split()[:5]
            polled = gone == "0" and stay != "0"
            found["sessions"].update([day])
            found["polls"].update([day] * polled)
            found["deleted"].update({day: int(gone)})
            found["octets"].update({day: int(octets)})
            found["polled octets of"].update({user: int(rest) * polled})
            found["octets of"].update({user: int(octets)})
            left[user] = int(stay), int(rest)
        elif "Failed " in line:
            found["failures"].update([day])
            found["failures from"].update([line.rpartition(" ")[2]])
    return found, left


def proportional(drawn, values):
    """Whether what is drawn is as long as these values say, to a pixel."""
    assert len(drawn) == len(values)
    most = max(zip(values, drawn))
    return all(abs(length - most[1] * value / most[0]) <= 1 for length, value in zip(drawn, values))


def test_the_figures_are_those_of_the_log(browser, tmp_path):
    lines = corpus.office()
    found, left = counted(lines)
    browser.show(page_of(lines, tmp_path), 1280, 900, "light")
    tables, totals = browser.value(TABLES), browser.value(TOTALS)
    whole = {name: f"{sum(each.values()):,}" for name, each in found.items()}
    assert totals == {
        "Sessions": [whole["sessions"], f"users: {len(left)}"],
        "Polls": [whole["polls"], "deleted nothing, left mail"],
        "Failed logins": [whole["failures"], "probes: 0"],
        "Messages deleted": [whole["deleted"], size(sum(found["octets"].values()))],
        "Messages left": [f"{sum(stay for stay, _ in left.values()):,}", size(sum(rest for _, rest in left.values()))]}
    days = sorted(found["sessions"].keys() | found["failures"].keys(), key=lambda day: (day[:3] != "Oct", day))
    rows = tables["Sessions for each day"]
    assert [row[1:] for row in rows] == [[f"{found[name][day]:,}" for name in ("sessions", "polls", "failures")]
                                         for day in days]
    assert [row[1:3] for row in tables["Octets for each day"]] == [[f"{found[name][day]:,}"
                                                                    for name in ("deleted", "octets")] for day in days]
    assert sum(int(cell) for row in tables["Polls by hour and day of the week"] for cell in row[1:]) == sum(
        found["polls"].values())
    failed = found["failures from"].most_common()
    assert [row[:2] for row in tables["Failed logins by address"]] == [[name, f"{count:,}"] for name, count in failed]
    assert [(row[0], row[4]) for row in tables["Users who deleted most"] if row[4] != "0"] == [
        (user, f"{octets:,}") for user, octets in found["octets of"].most_common(10) if octets]
    largest = sorted(((rest, user, stay) for user, (stay, rest) in left.items() if rest), reverse=True)
    assert [row[:3] for row in tables["Largest mailboxes"]] == [
        [user, f"{stay:,}", f"{rest:,}"] for rest, user, stay in largest]
    polling = [(user, count) for user, count in found["polled octets of"].most_common() if count]
    # and what is drawn is as long as that
    for plot, colour, values in (("plot-failed", "--bad", [count for _, count in failed]),
                                 ("plot-largest", "--first", [rest for rest, *_ in largest]),
                                 ("plot-polling", "--second", [count for _, count in polling])):
        assert proportional([width for width, _ in browser.value(DRAWN % (plot, colour))], values), plot
    for colour, values in (("--bad", [found["failures"][day] for day in days]),
                           ("--second", [found["polls"][day] for day in days])):
        heights = [height for width, height in browser.value(DRAWN % ("plot-sessions", colour))]
        # the second colour has a square in the legend, too, which comes last
        assert proportional(heights[:sum(map(bool, values))], list(filter(None, values))), colour


# -- the picture in the README -----------------------------------------------------------------------------------------

TREE = Path(__file__).resolve().parent.parent.parent
PICTURE = TREE / "man" / "popperctl-stats.png"
PICTURE_WIDTH = 1180
# Where its second section ends.
LOW = "Math.ceil(document.querySelectorAll('section')[1].getBoundingClientRect().bottom + 16)"


def test_the_picture_in_the_readme(browser, tmp_path):
    browser.ask("Emulation.setScrollbarsHidden", hidden=True)
    browser.show(page_of(corpus.office(), tmp_path), PICTURE_WIDTH, 800, "light")
    octets = browser.picture(browser.value(LOW))
    if os.environ.get("POPPER_GOLDEN") == "write":
        image = pytest.importorskip("PIL.Image").open(io.BytesIO(octets)).convert("RGB").quantize(128, dither=0)
        image.save(PICTURE, optimize=True)
    (width, height), (_, now) = struct.unpack(">II", PICTURE.read_bytes()[16:24]), pixel(octets)[1]
    assert width == PICTURE_WIDTH and abs(height - now) < 100          # fonts may differ
    assert PICTURE.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" and PICTURE.stat().st_size < 150000
    alt = re.search(r"!\[([^]]+)\]\(man/popperctl-stats\.png\)", (TREE / "README.md").read_text())
    assert alt and len(alt[1].split()) > 5
