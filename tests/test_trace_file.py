"""One trace file and many sessions: every line in it is whole, and a disk that is full under it disturbs nobody."""

import os
import re
import subprocess

import pytest

from dialogue import ONE, THREE, TWO, USER, mbox, site   # noqa: F401, a fixture

SESSIONS = 50
LINE = re.compile(r"\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d\.\d{3} \d{4} \[([\d.]+)\] ([ -~]+)", re.A)
# How a line of a session may begin; what is glued together begins otherwise, or has a stamp in its middle.
BEGINNINGS = ("Tracing session ", "The texts of messages ", "(v", "Started ", "+OK ", "-ERR ", 'Received: "',
              "Authentication took ", "Session lock of ", "Locks of ", "Scan of ", "Msg ", "Sending line ", "Sent ",
              "Update of ", "Deleting message ", "Ended by ", f"{USER}", "user")
LONG = b"\xff" * 1000          # in a line each octet is four


def said(number):
    """What one session says behind its login: (octets, the line of the trace)."""
    for turn in range(8):
        command = b"X%d.%d " % (number, turn) + LONG
        yield command, f'Received: "X{number}.{turn} ' + r"\xff" * 1000 + '"'
        yield b"NOOP", 'Received: "NOOP"'
        yield b"RETR 1", 'Received: "RETR 1"'
    yield b"DELE 1", 'Received: "DELE 1"'
    yield b"QUIT", 'Received: "QUIT"'


def test_fifty_sessions_in_one_file(site):               # noqa: F811
    """All at once, with lines of more than 4 KiB of commands and of messages."""
    trace = site.place / "trace"
    pops = []
    for number in range(SESSIONS):
        site.add(f"user{number}", f"s3cret{number}")
        site.deliver(mbox(b"Subject: %d\n\n" % number + b"\xfe" * 1024 + b"\n"), f"user{number}")
        pops.append(site.session(trace=str(trace), trace_bodies=True, lock_timeout=60))
    for number, pop in enumerate(pops):
        pop.send(f"USER user{number}\r\nPASS s3cret{number}\r\n")
        pop.send(b"".join(command + b"\r\n" for command, _ in said(number)))
    for pop in pops:
        assert pop.end().endswith(b" signing off.\r\n")
    sessions = {}
    for line in trace.read_text().splitlines():
        whole = LINE.fullmatch(line)
        assert whole and whole[2].startswith(BEGINNINGS) and not LINE.search(whole[2]), line
        sessions.setdefault(whole[1], []).append(whole[2])
    assert max(map(len, trace.read_text().splitlines())) > 4096
    assert sorted(sessions) == sorted(str(pop.child) for pop in pops)
    for number, pop in enumerate(pops):
        lines = sessions[str(pop.child)]
        assert [line for line in lines if line.startswith("Received: ")] == [
            f'Received: "USER user{number}"', 'Received: "PASS xxxxxxxxx"', *(line for _, line in said(number))]
        replies = [line[:4] for line in lines if line.startswith(("+OK ", "-ERR "))]
        assert replies == ["+OK "] * 3 + ["-ERR", "+OK ", "+OK "] * 8 + ["+OK "] * 2
        sent = 'Sending line "' + r"\xfe" * 1024 + '"'
        assert lines.count(sent) == 8 and lines.count(f'Sending line "Subject: {number}"') == 8
        assert lines[0].startswith("Tracing session ") and lines[-1].startswith("Ended by QUIT; ")


@pytest.fixture
def full(tmp_path):
    """A directory on a disk of 16 KiB that has no octet left."""
    place = tmp_path / "full"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k,mode=755", "tmpfs", place], check=True)
    fill(place)
    yield place
    subprocess.run(["umount", place], check=True)


def fill(place):
    with open(place / "filler", "ab", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError as error:
            assert error.strerror == "No space left on device"


def conversation(site, **settings):          # noqa: F811
    """A session in which much happens -> all that the client hears, and what is left of the mailbox."""
    site.deliver(mbox(ONE, TWO, THREE))
    pop = site.log_in(**settings)
    heard = [pop.text(command) for command in ("LIST", "UIDL", "RETR 2", "TOP 3 1")]
    heard += [pop.err("BOGUS"), pop.ok("DELE 2"), pop.quit(), pop.status]
    return heard, site.mailbox().read_bytes()


@pytest.mark.root
@pytest.mark.parametrize("room", [0, 4096, 8192], ids=["none", "a page", "two pages"])
@pytest.mark.parametrize("one_user", [False, True], ids=["all", "one user"])
def test_a_full_disk_under_the_trace(site, full, room, one_user):        # noqa: F811
    """As much as fits is there; nobody hears of the rest, and the log of the system goes on."""
    os.truncate(full / "filler", 16384 - room)
    trace = full / "trace"
    how = {"trace_user": (USER,), "trace_file": str(trace)} if one_user else {"trace": str(trace)}
    untraced = conversation(site)
    for _ in range(3):
        assert conversation(site, trace_bodies=True, **how) == untraced
    assert untraced[1] == mbox(ONE, THREE)
    assert trace.stat().st_size == room
    lines = trace.read_text().splitlines()
    assert all(map(LINE.fullmatch, lines[:-1])) and len(lines) >= room // 200
    assert len(site.logged("POP login")) == (4 if one_user else 1)


@pytest.mark.root
def test_a_disk_that_fills_up_and_is_emptied(site, full):                # noqa: F811
    """Sessions later are in the trace again."""
    trace = full / "trace"
    conversation(site, trace=str(trace))
    assert trace.stat().st_size == 0
    os.truncate(full / "filler", 0)
    conversation(site, trace=str(trace))
    fill(full)
    conversation(site, trace=str(trace))
    texts = [LINE.fullmatch(line)[2] for line in trace.read_text().splitlines()[:-1]]
    assert texts[0].startswith("Tracing session ")
    assert any(text.startswith("Ended by QUIT") for text in texts)
