"""Traces as popper and Qpopper write them, made of what is said in them: to import.

    write(path, session(*BEGUN, 0.5, 'Received: "quit"', *ended("QUIT")))

A number among the lines is a pause in seconds. Sessions may overlap: `write` puts their lines in the order of time.
"""

import datetime

import pytest

from ctl import popperctl                    # noqa: F401, a fixture

NOON = datetime.datetime(2026, 11, 21, 12, 0, 0)
HOST = "pop.example.org"
ADDRESS = "192.0.2.1"
OURS, QPOPPER_2, QPOPPER_4 = "ours", "Qpopper 2", "Qpopper 4"
DELIVERED = (("aaa", 0, 100), ("bbb", 140, 200), ("ccc", 380, 300))        # unique-id, offset, octets


def stamp(seconds, style=OURS):
    """So many seconds after noon, as a line begins with it."""
    when = NOON + datetime.timedelta(seconds=seconds)
    part = f".{when.microsecond // 1000:03}"
    return {OURS: f"{when:%a %b} {when.day:2} {when:%H:%M:%S}{part} {when:%Y}",
            QPOPPER_2: f"{when:%a %b} {when.day:2} {when:%H:%M:%S} {when:%Y}",
            QPOPPER_4: f"{when:%b} {when.day:2} {when:%H:%M:%S}{part} {when:%Y}"}[style]


def session(*said, pid=4711, at=0.0, style=OURS):
    """[(seconds, line), ...] of one session that begins so many seconds after noon."""
    found = []
    for each in said:
        if isinstance(each, str):
            place = " [pop_log.c:123]" if style == QPOPPER_4 else ""
            found.append((at, f"{stamp(at, style)} [{pid}] {each}{place}\n"))
            if style != OURS:
                found.append((at, f"{stamp(at, style)} \n"))
        else:
            at = round(at + each, 3)
    return found


def written(*sessions):
    """What is in the file; the lines of one session stay in their order, whatever the clock does."""
    if len(sessions) == 1:
        return "".join(line for _, line in sessions[0])
    return "".join(line for _, line in sorted((each for one in sessions for each in one), key=lambda pair: pair[0]))


def write(path, *sessions):
    """Put it there; -> path"""
    path.write_text(written(*sessions))
    return path


def begun(address=ADDRESS):
    """How a session of popper's begins."""
    return [f'(v0.1.0) Servicing request from "{address}" at {address}',
            "Started out of inetd; uid 0, configuration /etc/popper.conf",
            f"+OK UCB Pop server (version 0.1.0) at {HOST} starting."]


def asked(user="joe"):
    """Name and password."""
    return [f'Received: "user {user}"', f"+OK Password required for {user}.", 'Received: "pass xxxxxxxxx"']


def opened(user="joe", messages=DELIVERED, address=ADDRESS, locks="Locks of /var/mail/{} after 0.000 s"):
    """How a login goes on that succeeds."""
    octets = sum(octets for _, _, octets in messages)
    return ["Authentication took 0.120 s; uid = 1000, gid = 1000", f"Session lock of /var/mail/{user} is taken",
            locks.format(user),
            f"Scan of /var/mail/{user}: {len(messages)} messages, {octets + 100} octets, in 0.010 s",
            *(f"Msg {number} [uidl {unique}] at offset {offset} is {octets} octets long."
              for number, (unique, offset, octets) in enumerate(messages, 1)),
            f'(v0.1.0) POP login by user "{user}" at ({address}) {address}',
            f"+OK {user} has {len(messages)} message(s) ({octets} octets)."]


def logged_in(user="joe", messages=DELIVERED, address=ADDRESS):
    return [*begun(address), 0.02, *asked(user), *opened(user, messages, address)]


def retrieved(number, octets, sent=None, seconds=0.01, waiting=0.005):
    return [f'Received: "retr {number}"', f"+OK {octets} octets", seconds,
            f"Sent {octets if sent is None else sent} octets in {seconds:.3f} s, {waiting:.3f} s of it waiting for the "
            f"client"]


def deleted(number):
    return [f'Received: "dele {number}"', f"+OK Message {number} has been deleted."]


def ended(how="QUIT", user="joe", address=ADDRESS, sent=667):
    """The last two lines."""
    return [f'(v0.1.0) Ending request from "{user}" at ({address}) {address}: 85 octets received, {sent} sent',
            f"Ended by {how}; seconds: client 0.032, DNS 0.000, authentication 0.120, locks 0.000, scan 0.010, "
            "disk 0.000, all 0.180"]


def quitted(user="joe", address=ADDRESS, update=""):
    return ['Received: "quit"', *filter(None, [update]), f"+OK Pop server at {HOST} signing off.",
            *ended("QUIT", user, address)]


@pytest.fixture
def conf(tmp_path):
    """A configuration whose traces are under tmp_path, and that knows joe, ann and bob."""
    path = tmp_path / "popper.conf"
    (tmp_path / "users").write_text("# ours\njoe:x\nann:x:1:1\nbob:x\n")
    path.write_text(f"trace_file {tmp_path}/popper.trace\ntrace_dir {tmp_path}/run/trace\n"
                    f"password_file {tmp_path}/users\n")
    return path


@pytest.fixture
def trace(popperctl, conf, tmp_path):        # noqa: F811
    """trace(WORD..., said=sessions) -> Done: popperctl trace with the configuration; these put into its trace first."""
    def call(*words, said=None, **how):
        if said is not None:
            write(tmp_path / "popper.trace", *said)
        return popperctl("trace", *words, "-C", conf, **how)
    return call


__all__ = ["ADDRESS", "DELIVERED", "HOST", "NOON", "OURS", "QPOPPER_2", "QPOPPER_4", "asked", "begun", "conf",
           "deleted", "ended", "logged_in", "opened", "popperctl", "quitted", "retrieved", "session", "stamp", "trace",
           "write", "written"]
