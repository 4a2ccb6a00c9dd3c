"""popperctl trace on, off and list: files in trace_dir that say whose sessions are traced, and until when."""

import datetime
import os
import time

import pytest

from popper.admin import watches
from popper.journal import watched
from popper.options import settle
from processes import in_child
from tracing import conf, popperctl, trace    # noqa: F401, fixtures


@pytest.fixture
def place(tmp_path):
    """Where these files are."""
    return tmp_path / "run" / "trace"


def until(path):
    """What stands in one, as seconds from now."""
    text = path.read_text()
    assert text.endswith("\n") and text[:-1].isdigit()
    return int(text) - time.time()


@pytest.mark.parametrize("words, seconds", [([], 600), (["--for", "30s"], 30), (["--for", "2h"], 7200),
                                            (["--for", "7d"], 7 * 86400), (["--for", "168h"], 7 * 86400)])
def test_on(trace, conf, place, words, seconds):          # noqa: F811
    done = trace("on", "joe", *words)
    assert (done.status, done.err) == (0, "")
    assert seconds - 60 < until(place / "joe") <= seconds
    status = (place / "joe").stat()
    assert status.st_mode & 0o7777 == 0o644 and status.st_uid == os.geteuid()
    assert [each.stat().st_mode & 0o7777 for each in (place, place.parent)] == [0o755, 0o755]
    assert os.listdir(place) == ["joe"]
    assert "joe" in watched(settle([("config", str(conf))]))


def test_what_on_says(trace, conf, place, tmp_path):      # noqa: F811
    done = trace("on", "joe", "192.0.2.1", "2001:0DB8::1")
    end = datetime.datetime.fromtimestamp(int((place / "joe").read_text()))
    first, second, *rest = done.out.splitlines()
    assert first.startswith(f"joe is traced from the next connection on, until {end:%H:%M:%S}")
    assert first.endswith(f", into {tmp_path}/popper.trace")
    assert second == f"    popperctl trace follow -C {conf} --user joe"
    assert rest[1::2] == [f"    popperctl trace follow -C {conf} --address 192.0.2.1",
                          f"    popperctl trace follow -C {conf} --address 2001:db8::1"]
    assert sorted(os.listdir(place)) == ["192.0.2.1", "2001:db8::1", "joe"]


@pytest.mark.parametrize("who", ["12345", "1.2.3"])
def test_a_name_of_digits_is_a_name(trace, conf, place, who):              # noqa: F811
    assert trace("on", who).out.endswith(f" --user {who}\n")


def test_a_day_that_is_not_today_is_named(trace, place):  # noqa: F811
    done = trace("on", "joe", "--for", "2d")
    assert f"{datetime.date.today() + datetime.timedelta(days=2)}, into" in done.out


def test_a_program_learns_the_end_and_the_file(trace, place, tmp_path):    # noqa: F811
    (row,) = trace("on", "joe", "--json").json
    assert (row["who"], row["file"]) == ("joe", f"{tmp_path}/popper.trace")
    end = datetime.datetime.fromisoformat(row["until"])
    assert end.tzinfo and end.timestamp() == int((place / "joe").read_text())


def test_on_again_sets_the_end_anew(trace, place):        # noqa: F811
    trace("on", "joe", "--for", "2h")
    trace("on", "joe", "--for", "1m")
    assert until(place / "joe") <= 60


@pytest.mark.parametrize("umask", [0o077, 0o000])
def test_the_umask_does_not_matter(trace, place, umask):  # noqa: F811
    before = os.umask(umask)
    try:
        trace("on", "joe")
    finally:
        os.umask(before)
    assert place.stat().st_mode & 0o777 == 0o755 and (place / "joe").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("who, name", [
    ("joe", "joe"), ("j.o-e+x@example.org", "j.o-e+x@example.org"), ("::ffff:192.0.2.1", "192.0.2.1"), ("::1", "::1"),
    ("2001:DB8:0:0::1", "2001:db8::1"), ("fe80::1%eth0", "fe80::1"),
    ("12345", "12345"), ("1.2.3", "1.2.3")])
def test_names_are_those_that_the_server_compares(who, name):
    assert watches.name_of(who) == name


@pytest.mark.parametrize("who", ["../joe", "/etc/passwd", ".joe", "joe/x", "", "jo e", "joe\n", "j\u00f6", "a" * 65,
                                 "-", "x.lock",
                                 "a..b", "1.2.3.4.", "::g"])
def test_what_is_neither_a_name_nor_an_address(trace, place, who):         # noqa: F811
    if who == "1.2.3.4.":
        assert watches.name_of(who) == who               # a name like any other
        return
    for command in ("on", "off"):
        done = trace(command, "--", who) if who == "-" else trace(command, who)
        assert (done.status, done.out) == (os.EX_USAGE, "")
        assert "is neither a user name nor an address" in done.err
    assert not place.exists()


@pytest.mark.parametrize("text", ["0s", "8d", "169h", "10", "m", "-1m", "1w", "1e3s", "\u0661m", "9999999s", ""])
def test_times_to_trace_for(trace, place, text):          # noqa: F811
    done = trace("on", "joe", f"--for={text}")
    assert (done.status, done.out) == (os.EX_USAGE, "")
    assert done.err == f'popperctl: "{text}" is no time to trace for; write 30s, 10m, 2h, up to 7d\n'
    assert not place.exists()


def test_list(trace, conf, place):                        # noqa: F811
    assert trace("list").out == "WHO  UNTIL  LEFT\n"
    trace("on", "joe", "--for", "2h")
    trace("on", "ann")
    conf.write_text(conf.read_text() + "trace_user bob 192.0.2.1\n")
    who = [line.split()[0] for line in trace("list").out.splitlines()[1:]]
    assert who == ["bob", "192.0.2.1", "ann", "joe"]
    rows = trace("list", "--json").json
    assert rows[:2] == [{"who": who, "until": None, "left": None} for who in ("bob", "192.0.2.1")]
    assert 540 < rows[2]["left"] <= 600 and 7140 < rows[3]["left"] <= 7200
    assert until(place / "joe") == pytest.approx(rows[3]["left"], abs=60)
    end = datetime.datetime.fromisoformat(rows[3]["until"])
    assert end.tzinfo and end.timestamp() == int((place / "joe").read_text())


def test_list_for_a_person(trace, conf, place):           # noqa: F811
    trace("on", "joe", "--for", "2h")
    conf.write_text(conf.read_text() + "trace_user bob\n")
    _, bob, joe = (line.split(None, 3) for line in trace("list").out.splitlines())
    assert bob == ["bob", "-", "always:", "trace_user"]
    end = datetime.datetime.fromtimestamp(int((place / "joe").read_text()))
    assert joe[1:3] == f"{end:%Y-%m-%d %H:%M:%S}".split() and joe[3] in ("1 h 59 min", "2 h 0 min")


@pytest.mark.parametrize("directives, who, told", [
    ("", "nosuch", True), ("", "joe", False), ("", "root", False), ("", "jo", True), ("", "192.0.2.1", False),
    ("auth popper.auth.file\n", "nosuch", False)])
def test_who_is_nobody_is_remarked(trace, conf, place, directives, who, told):       # noqa: F811
    """And traced all the same: it may be what somebody mistypes."""
    conf.write_text(conf.read_text() + directives)
    done = trace("on", who)
    assert done.status == 0 and os.listdir(place) == [who]
    assert done.err == told * (f"popperctl: there is no user {who}, in the system or in password_file; who says that "
                               "name is traced\n")


@pytest.mark.parametrize("command", [["list"], ["on", "ann"], ["off", "ann"]], ids=" ".join)
def test_what_is_over_is_removed(trace, place, command):  # noqa: F811
    trace("on", "joe", "ann")
    (place / "joe").write_text(f"{int(time.time()) - 1}\n")
    (place / ".eve.1").write_text(f"{int(time.time()) - 1}\n")         # left by one that was killed
    (place / "README").write_text("not ours\n")
    (place / "far").write_text("9" * 30)
    (place / "sub").mkdir()
    (place / "link").symlink_to("/etc/passwd")
    trace(*command)
    assert sorted(os.listdir(place)) == sorted(["README", "far", "sub", "link"] + ["ann"] * (command[0] != "off"))


def test_off(trace, place):                               # noqa: F811
    trace("on", "joe", "ann")
    done = trace("off", "joe")
    assert (done.status, done.err) == (0, "")
    assert done.out == "joe is traced no longer; sessions under way are, to their end\n"
    assert os.listdir(place) == ["ann"]
    assert trace("off", "--json", "ann").json == [{"who": "ann", "was_on": True}]


def test_off_of_who_is_not_traced(trace, conf, place):    # noqa: F811
    for _ in range(2):
        done = trace("off", "joe")
        assert (done.status, done.out, done.err) == (os.EX_DATAERR, "", "popperctl: joe is not being traced\n")
        trace("on", "ann")
    conf.write_text(conf.read_text() + "trace_user joe\n")
    assert "joe is in trace_user of the configuration, and is traced until" in trace("off", "joe").err


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o1777])
def test_a_directory_that_others_may_write_in_is_not_used(trace, place, mode):         # noqa: F811
    place.mkdir(parents=True)
    place.chmod(mode)
    for command in (["on", "joe"], ["list"], ["off", "joe"]):
        done = trace(*command)
        assert (done.status, done.out) == (os.EX_NOPERM, "")
        assert done.err == f"popperctl: others than root may write in {place}: chown root {place}; chmod 755 {place}\n"
    assert os.listdir(place) == []


def test_a_file_in_the_place_of_the_directory(trace, place):               # noqa: F811
    place.parent.mkdir()
    place.write_text("")
    done = trace("on", "joe")
    assert done.status in (os.EX_NOINPUT, os.EX_CANTCREAT, os.EX_IOERR) and str(place) in done.err


def test_a_disk_that_is_full_leaves_nothing(trace, place, monkeypatch):    # noqa: F811
    def full(*_, **__):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(watches.os, "rename", full)
    done = trace("on", "joe")
    assert done.status == os.EX_IOERR and os.listdir(place) == []


@pytest.mark.root
@pytest.mark.parametrize("command", ["on", "off"])
def test_where_one_may_not_write_the_path_is_told(command, popperctl, tmp_path):       # noqa: F811
    place = tmp_path / "trace"
    place.mkdir()
    (place / "joe").write_text(f"{int(time.time()) + 60}\n")
    for each in (tmp_path, *tmp_path.parents):
        each.chmod(each.stat().st_mode | 0o055)
    config = tmp_path / "popper.conf"
    config.write_text(f"trace_dir {place}\n")

    def tried():
        os.setuid(4321)
        done = popperctl("trace", command, "joe", "-C", config)
        return repr((done.status, done.err))
    assert in_child(tried) == repr((os.EX_NOPERM, f"popperctl: {place}/joe: Permission denied; try as root\n"))
