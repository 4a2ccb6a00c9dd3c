"""popper-bulletin(5), held against what popper does: each line of the log, and the commands that it shows."""

import errno
import os
import re
import stat

import pytest

from conftest import TREE
from popper import bulletins, popbull
from popper.errors import Refused
from popper.storage.memory import Memory
from test_bulletins_board import ENVELOPE, MAIL, groups, place          # noqa: F401

PAGE = (TREE / "man" / "popper-bulletin.5").read_text()
PARTS = {"DIR": r"/\S+", "FILE": r"/\S+", "NAME": r"[\w.@+\\-]+", "GROUP": r"[\w.@+\\-]*", "USER": r"[\w.@+-]+",
         "N": r"\d+", "TEXT": r"[ -~]+", "REASON": r"[ -~]+"}
FOREIGN = "TEXT (REASON)"                    # whatever the store says


def shapes():
    """{severity: the shapes of lines} out of the manual; a line that ends in a backslash goes on."""
    blocks = re.findall(r"^\.Dv (LOG_\w+) [,:]\n(?:[^.][^\n]*\n)*\.Bd -literal\n(.*?)^\.Ed", PAGE, re.M | re.S)
    return {severity: lines.replace(" \\e\n\t", " ").replace("\\-", "-").splitlines() for severity, lines in blocks}


SHAPES = shapes()


def expression(shape):
    return "".join(PARTS.get(word) or re.escape(word) for word in re.split(rf"\b({'|'.join(PARTS)})\b", shape))


def shape_of(severity, line):
    found = [shape for shape in SHAPES[severity] if shape != FOREIGN and re.fullmatch(expression(shape), line)]
    assert len(found) == 1, (line, found)
    return found[0]


def failing(error):
    def fail(*arguments, **more):
        raise OSError(error, os.strerror(error))
    return fail


def scenes(place, groups, monkeypatch):
    """Everything that can go wrong, one after the other; after each the log is looked at."""
    owner = os.geteuid()
    # A directory in which each bulletin is wrong in another way.
    place.put("6.first", "6.second", "7.nosuch.x", "8", "9.staff.x", "10.ALL.x")
    place.put("1.a", octets=b"x\n")
    place.put("2.b", octets=ENVELOPE)
    place.put("3.c", octets=ENVELOPE + b"x" * 1000)
    place.put("4.d", octets=b"")
    place.put("5.e")
    (place.directory / "5.e").chmod(0o646)
    os.mkfifo(place.directory / "11.ALL.f")
    (place.directory / "12.ALL.g").symlink_to("none")
    place.put(".text")
    (place.directory / "13.ALL.h").symlink_to(".text")
    place.received(0)
    monkeypatch.setattr(bulletins, "read_bulletin", reading := Reading(bulletins.read_bulletin))
    place.poll(bulletin_max=900, group_bulletins=False)
    yield
    place.received(6)
    place.poll(group_bulletins=True)
    yield
    place.received(12)
    for status in ((stat.S_IFLNK | 0o777, owner + 1), (stat.S_IFLNK | 0o777, owner)):
        reading.link = status
        place.received(12)
        place.poll()
        yield
    reading.link = None
    # A receipt that is wrong.
    for octets in b"", b"x\n":
        place.popbull.write_bytes(octets)
        place.poll()
        yield
    place.popbull.unlink()
    for trap in (lambda: place.popbull.mkdir(), lambda: place.popbull.symlink_to("none")):
        trap()
        place.poll()
        yield
        place.popbull.rmdir() if place.popbull.is_dir() else place.popbull.unlink()
    place.received(0)
    os.link(place.popbull, place.home / "other")
    place.poll()
    yield
    (place.home / "other").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(popbull, "complaint_about", lambda status: "is not owned by this user")
        place.poll()
        yield
    for name in "read", "write":
        place.received(0)
        with monkeypatch.context() as patch:
            patch.setattr(os, name, failing(errno.EIO))
            patch.setattr(bulletins, "read_bulletin", lambda *_: ENVELOPE + b"Subject: x\n\nx\n")
            place.poll()
            yield
    with monkeypatch.context() as patch:
        patch.setattr(popbull, "MAKE", os.O_WRONLY)
        patch.setattr(bulletins, "read_bulletin", lambda *_: ENVELOPE + b"Subject: x\n\nx\n")
        place.poll()
        yield
    # A directory that is wrong.
    with monkeypatch.context() as patch:
        patch.setattr(os, "listdir", failing(errno.EIO))
        place.poll()
        yield
    place.directory.chmod(0o777)
    place.poll()
    yield
    place.directory.chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", lambda descriptor: os.stat_result((0o40755, 1, 1, 1, owner + 1, 1, 0, 0, 0, 0)))
        place.poll()
        yield
    place.poll(bulletins="/nonexistent")
    yield
    place.account.home = ""
    place.poll()
    yield


class Reading:
    """read_bulletin, which can make a link look like another's, or one that is replaced."""

    def __init__(self, read):
        self.read = read
        self.link = None

    def __call__(self, directory, name, most):
        if self.link is None:
            return self.read(directory, name, most)
        told, stat_ = [], os.stat

        def looked(path, **how):
            told.append(path)
            mode, uid = self.link
            return os.stat_result((mode, len(told), 1, 1, uid, 1, 0, 0, 0, 0))
        os.stat = looked
        try:
            return self.read(directory, name, most)
        finally:
            os.stat = stat_


def test_every_line_has_a_shape_that_the_manual_shows(place, groups, monkeypatch):
    met = {"LOG_NOTICE": {FOREIGN}, "LOG_DEBUG": set()}
    for _ in scenes(place, groups, monkeypatch):
        met["LOG_NOTICE"].update(shape_of("LOG_NOTICE", line) for line in place.log.notices)
        met["LOG_DEBUG"].update(shape_of("LOG_DEBUG", line) for line in place.log.debugs)
    assert {severity: sorted(set(lines) - met[severity]) for severity, lines in SHAPES.items()} == \
        {"LOG_NOTICE": [], "LOG_DEBUG": []}


def test_what_the_store_says_is_told_with_its_reason(place):
    class Full(Memory):
        def append(self, messages, number):
            raise Refused("/var/mail/joe cannot be added to.", "", "No space left on device")
    place.put("1.a")
    place.received(0)
    place.poll(Full(MAIL))
    assert re.fullmatch(expression(FOREIGN), place.log.notices[0])


def test_the_message_of_the_manual_is_a_bulletin(place):
    lines = re.search(r"^From postmaster.*?(?=^\.Ed)", PAGE, re.M | re.S)[0].replace("\\-", "-")
    place.put("23.x", octets=lines.encode())
    place.received(22)
    assert place.poll() == ["pophost is down on Sunday, 10 March, 6:00 to 9:00"]


def test_who_wants_a_bulletin_again_gets_it_as_the_manual_says(place, monkeypatch):
    place.put("22.a", "23.b")
    place.received(23)
    command = re.search(r"^\.Dl (echo .*)$", PAGE, re.M)[1]
    monkeypatch.setenv("HOME", str(place.home))
    assert os.system(command) == 0
    assert place.poll() == ["23.b"]


@pytest.mark.parametrize("name", re.findall(r"^\d+\.\w+$", PAGE, re.M))
def test_the_names_of_the_manual_are_those_of_the_samples(name):
    assert (TREE / "bulletins" / name).exists()
