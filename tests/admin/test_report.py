"""The page of popperctl stats --html as octets: whole, from nowhere else, safe, and readable by more than eyes."""

import datetime
import html.parser
import os
import re
import subprocess
import sys

import pytest

import corpus
from conftest import TREE
from corpus import HOSTILE, at, classic, log       # noqa: F401, log is a fixture
from ctl import popperctl                    # noqa: F401, a fixture
from popper.admin import page, plots, report, sums
from popper.admin.logins import FAILED, UPDATE, Event

ALLOWED = {"html", "head", "meta", "title", "style", "body", "header", "h1", "h2", "p", "main", "dl", "div", "dt", "dd",
           "small", "section", "table", "thead", "tbody", "tr", "th", "td", "span", "footer", "svg", "desc", "defs",
           "g", "path", "use", "text", "rect", "clippath"}
VOID = {"meta"}


class Page(html.parser.HTMLParser):
    """tags: [(tag, attributes)]; text: all that is shown; open elements must be closed in order."""

    def __init__(self, octets):
        super().__init__()
        self.tags, self.text, self.open = [], "", []
        self.feed(octets.decode())
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        if self.open[-1:] != ["style"]:
            self.text += text


@pytest.fixture
def make(popperctl, tmp_path):
    """make(log, *words) -> the octets of the page."""
    def call(path, *words):
        done = popperctl("stats", "--html", tmp_path / "page.html", *words, path)
        assert (done.status, done.err) == (0, "") and done.out.startswith(f"{tmp_path}/page.html: ")
        return (tmp_path / "page.html").read_bytes()
    return call


@pytest.fixture
def month(log):
    return log(corpus.busy_month())


def test_the_page_has_every_section_with_its_plot_and_its_table(make, month):
    found = Page(make(month))
    titles = re.findall(r"^(?:Sessions over time|Octets over time|When mail is polled and left|Users|Largest mailboxes|"
                        r"Growing mailboxes|Mail left on the server: who costs most|Failed logins by address)$",
                        found.text, re.M)
    assert len(set(titles)) == 8
    tags = [tag for tag, _ in found.tags]
    assert (tags.count("section"), tags.count("svg"), tags.count("table")) == (8, 6, 8)
    assert "2026-10-17 09:00 to 2026-11-15" in found.text
    assert "198.51.100.0" in found.text and "192.0.2" not in found.text


def test_the_page_needs_nothing_from_elsewhere(make, month):
    octets = make(month)
    found = Page(octets)
    assert {tag for tag, _ in found.tags} <= ALLOWED
    for tag, attributes in found.tags:
        for name, value in attributes.items():
            assert not name.startswith("on") and name not in ("src", "srcset", "action", "data")
            assert not re.search(r"url\((?!#)|expression|javascript:|@import", value or "")
            assert name not in ("href", "xlink:href") or value.startswith("#")
    addresses = set(re.findall(rb'https?://[^\s"<>]+', octets))
    assert addresses <= {b"http://www.w3.org/2000/svg", b"http://www.w3.org/1999/xlink"}
    policy = next(each["content"] for tag, each in found.tags if each.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"


def test_the_page_can_be_read_by_everybody(make, month):
    octets = make(month)
    found = Page(octets)
    assert found.tags[0] == ("html", {"lang": "en"})
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in found.tags
    assert ("meta", {"name": "color-scheme", "content": "light dark"}) in found.tags
    ids = [attributes["id"] for _, attributes in found.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for svg in (attributes for tag, attributes in found.tags if tag == "svg"):
        assert svg["role"] == "img" and set(svg["aria-labelledby"].split()) <= set(ids)
    told = re.findall(r"<desc id=[^>]+>([^<]{30,})</desc>", octets.decode())
    assert len(told) == 6 and len(set(told)) == 6
    for tag, attributes in found.tags:
        if attributes.get("class") == "scroll":
            assert attributes["tabindex"] == "0" and attributes["role"] == "region" and attributes["aria-label"]
    assert all(each.get("scope") in ("col", "row") for tag, each in found.tags if tag == "th")
    for reference in re.findall(r'(?:url\(|href=")#([^)"]+)', octets.decode()):
        assert reference in ids


def test_the_colours_of_plots_are_those_of_the_page(make, month):
    octets = make(month).decode()
    plots_only = "".join(re.findall(r"<svg.*?</svg>", octets, re.S))
    assert not re.search(r"#[0-9a-f]{6}|rgb\(", plots_only)
    used = set(re.findall(r"var\((--\w+)\)", octets))
    for scheme in re.findall(r":root \{(.*?)\}", octets, re.S):
        assert used <= set(re.findall(r"(--\w+):", scheme))
    assert "font-family" not in plots_only and octets.count("<style>") == 1


def test_names_cannot_become_anything_but_text(make, log):
    octets = make(log(corpus.hostile()), "--top", "0")
    found = Page(octets)
    assert {tag for tag, _ in found.tags} <= ALLOWED
    assert all(line.isprintable() for line in octets.decode().split("\n"))
    for name in HOSTILE:
        if name.isprintable() and len(name) < 65:
            assert name in found.text


def test_a_log_without_logins_makes_a_page(make, log):
    found = Page(make(log(corpus.noise(5))))
    assert "no lines of logins" in found.text and "svg" not in [tag for tag, _ in found.tags]


def test_top_bounds_the_tables_and_the_bars(make, log, monkeypatch):
    monkeypatch.setattr(report, "MOST_BARS", 7)
    lines = log([classic(at(), corpus.stats(f"user{number:02}", 0, 0, 1, 1000 + number)) for number in range(30)])
    for top, rows, bars in ("5", 5, 5), ("0", 30, 7):
        largest = re.search(r"Largest mailboxes</h2>.*?</section>", make(lines, "--top", top).decode(), re.S)[0]
        assert (largest.count('<th scope="row"'), len(re.findall(r">user\d+</text>", largest))) == (rows, bars)


def test_the_summary_says_what_could_not_be_read(make, log):
    said = corpus.dovecot_login("joe"), corpus.dovecot_end("joe", 1, 4, 100)
    text = Page(make(log([*(classic(at(), each, "dovecot", 0) for each in said), "Stats: x"]))).text
    assert "Lines that looked like a login and could not be read: 1." in text
    assert "Sessions of Dovecot's whose octets deleted and left are an estimate: 1." in text


def test_json_and_a_page_at_once(popperctl, month, tmp_path):
    done = popperctl("stats", "--json", "--html", tmp_path / "page.html", month)
    assert done.json["totals"]["users"] == 12 and (tmp_path / "page.html").read_bytes().endswith(b"</html>\n")


def test_the_same_log_makes_the_same_page(make, month):
    unstamped = [re.sub(rb"Made \S+ \S+", b"", make(month)) for _ in range(2)]
    assert unstamped[0] == unstamped[1]


def test_the_settings_of_somebodys_own_plots_change_nothing(make, month, tmp_path):
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nsvg.fonttype: path\nfont.size: 40\nlines.linewidth: 9\n")
    page = tmp_path / "other.html"
    done = subprocess.run([sys.executable, "-m", "popper.admin", "stats", "--html", page, month], cwd=TREE, text=True,
                          env={**os.environ, "MATPLOTLIBRC": str(tmp_path), "MPLCONFIGDIR": "/dev/null/x"},
                          capture_output=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.sub(rb"Made \S+ \S+", b"", page.read_bytes()) == re.sub(rb"Made \S+ \S+", b"", make(month))


def test_without_matplotlib_it_says_what_to_install(popperctl, month, tmp_path, monkeypatch):
    def missing(name):
        raise ImportError(name)
    monkeypatch.setattr(plots, "library", missing)
    done = popperctl("stats", "--html", tmp_path / "page.html", month)
    assert (done.status, done.out, os.listdir(tmp_path)) == (os.EX_UNAVAILABLE, "", ["mail.log"])
    assert done.err == (f"popperctl: plots need matplotlib, which is missing for {sys.executable}: apt install "
                        f"python3-matplotlib, or {sys.executable} -m pip install matplotlib\n")


# -- steps of time -----------------------------------------------------------------------------------------------------

def update(left):
    return Event(UPDATE, "joe", "a", "", 1, 0, 0, 1, left)


@pytest.mark.parametrize("last, what, count", [
    (0, "hour", 1), (3, "hour", 73), (3.05, "day", 4), (119, "day", 120), (120, "week", 18), (839, "week", 120),
    (840, "30 days", 29), (13000, "120 days", 109),
])
def test_steps_are_as_narrow_as_there_is_room_for(last, what, count):
    found = sums.Sums()
    found.add(at(), update(100))
    found.add(at(days=last), Event(FAILED, "joe", "a"))
    rows, step, name = report._steps(found)
    assert (name, len(rows)) == (what, count)
    assert rows[0]["from"] <= at() and rows[-1]["from"] <= found.last < rows[-1]["from"] + step
    assert {after["from"] - before["from"] for before, after in zip(rows, rows[1:])} <= {step}
    assert (rows[0]["polls"], rows[-1]["failures"]) == (1, 1)
    if what != "hour":
        assert {row["left_octets"] for row in rows} == {100}             # it stays where nothing happens


def test_weeks_begin_on_monday():
    found = sums.Sums()
    for days in 2, 8, 200:
        found.add(at(days=days), update(days))
    rows = report._steps(found)[0]
    assert [row["at"] for row in rows[:2]] == ["2026-11-16", "2026-11-23"]
    assert [row["left_octets"] for row in rows[:3]] == [2, 8, 8]


# -- words and numbers -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("number, shown", [
    (0, "0"), (7, "7"), (999, "999"), (1000, "1k"), (1234, "1.23k"), (99949, "99.9k"), (999499, "999k"), (999500, "1M"),
    (10 ** 9, "1G"), (2.5 * 10 ** 12, "2.5T"), (10 ** 15, "1P")])
def test_numbers_in_short(number, shown):
    assert page.short(number) == shown


def test_size():
    assert [page.size(octets) for octets in (0, 999, 1000, 1536000)] == ["0 octets", "999 octets", "1kB", "1.54MB"]


def test_long_names_beside_bars_keep_their_ends():
    assert plots._label("joe") == "joe"
    assert plots._label("2001:db8:1234:5678:9abc:def0:1234:0001") == "2001:db8:123…1234:0001"
    assert plots._label("x" * 22) == "x" * 22


@pytest.mark.parametrize("hours", [1, 2, 7, 30, 72, 24 * 9, 24 * 21, 24 * 31, 24 * 100, 24 * 365, 24 * 2000])
@pytest.mark.parametrize("later", [0, 5, 100])
def test_times_on_an_axis_are_as_far_from_each_other(hours, later):
    figure = pytest.importorskip("matplotlib.figure").Figure()
    axes = figure.subplots()
    first = at(hours=later - 9)
    plots._times(axes, first, first + datetime.timedelta(hours=hours))
    ticks = list(axes.get_xticks())
    assert 1 <= len(ticks) <= plots.MOST_TICKS + 1
    assert len({round(after - before, 6) for before, after in zip(ticks, ticks[1:])}) <= 1
    left, right = axes.get_xlim()
    assert left <= ticks[0] and ticks[-1] < right and right - left == pytest.approx(hours / 24)
    assert hours < 3 or len(ticks) > 1
