"""The page of popperctl stats --html in Chromium: on a telephone and on a desk, in light and in dark."""

import io
import struct
import zlib

import pytest

import chromium
import corpus
from popper.admin import main
from popper.admin.console import Console

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
