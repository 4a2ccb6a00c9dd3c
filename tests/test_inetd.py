"""One session on descriptors that somebody else opened, by a parent that left odd things behind."""

import os
import signal
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest

from conftest import wait_until
from dialogue import HOST, PASSWORD, UID, USER, mbox, site          # noqa: F401  site is a fixture
from popper.handover import pack, pack_lines
from popper.peer import Peer
from popper.separate import Separate

ONE = b"Subject: one\n\nOne.\n"


def test_children_are_ours_to_bury_whatever_our_parent_thought_of_its_own(site):
    """SIG_IGN for SIGCHLD survives exec, and would take the child that asks DNS out of our hands."""
    site.deliver(mbox(ONE))
    pop = site.session(tcp=True, lookup=True, before=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN))
    pop.log_in()
    pop.quit()


def test_signals_that_our_parent_blocked_are_heard(site):
    site.deliver(mbox(ONE))
    pop = site.session(before=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,)))
    pop.log_in()
    os.kill(pop.child, signal.SIGTERM)
    assert pop.end() == b"" and pop.status == 0
    assert site.left_over() == []


@pytest.mark.parametrize("trace", (False, True))
def test_debugging_says_so_first(site, trace):
    file = site.place / "trace"
    site.session(**({"trace": str(file)} if trace else {"debug": True})).quit()
    lines = [line.partition("] ")[2] for line in file.read_text().splitlines()] if trace else site.log()
    first = f'Tracing session and debugging information in file "{file}"' if trace else "notice: Debugging turned on"
    assert lines[0] == first and USER not in lines[0]


# -- AUTHORIZATION in a child of its own, for root -------------------------------------------------------------------

def who_speaks(pop):
    """The children of a session that live: uid of each."""
    children = Path(f"/proc/{pop.child}/task/{pop.child}/children").read_text().split()
    told = [Path(f"/proc/{child}/status").read_text() for child in children]
    return [each.split("Uid:\t")[1].split()[0] for each in told if "State:\tZ" not in each]


@pytest.mark.root
def test_root_reads_nothing_of_a_stranger(site):
    """Somebody without rights does, and is not there any more once it is the user's session."""
    pop = site.session()
    (uid,) = who_speaks(pop)
    assert uid not in ("0", str(UID))
    pop.log_in()
    wait_until(lambda: not who_speaks(pop))
    pop.ok("NOOP")                           # the look at it behind that buries it
    wait_until(lambda: Path(f"/proc/{pop.child}/task/{pop.child}/children").read_text() == "")
    pop.quit()


@pytest.mark.root
def test_a_child_that_is_killed_ends_the_session_and_is_told_of(site):
    pop = site.session()
    child, = Path(f"/proc/{pop.child}/task/{pop.child}/children").read_text().split()
    os.kill(int(child), signal.SIGKILL)
    assert pop.end() == b"" and pop.status == 0
    assert site.log() == ["critical: The process that spoke to local has ended without a word"]


def test_a_wrong_password_is_answered_by_who_heard_it_and_ends_the_session(site):
    pop = site.session()
    pop.send(f"USER {USER}\r\nPASS wrong\r\nSTAT\r\n")
    assert pop.reply().startswith("+OK ") and pop.reply().startswith("-ERR [AUTH] ")
    assert pop.end() == b"" and pop.status == 0
    assert len(site.logged("Failed attempted login")) == 1


@pytest.mark.parametrize("many", range(1900, 2001, 10))
def test_nothing_is_sent_twice_to_who_reads_late_and_has_a_wrong_password(site, many):
    """What waits to be sent when the password has come leaves once, whoever of us sends it."""
    pop = site.session(before=take_little)
    pop.send(b"CAPA\r\n" * many + f"USER {USER}\r\nPASS wrong\r\n".encode())
    octets = pop.end()
    assert octets.count(b"\r\n.\r\n") == octets.count(b"IMPLEMENTATION") == many
    *_, wanted, refused, rest = octets.split(b"\r\n")
    assert wanted.startswith(b"+OK Password required") and refused.startswith(b"-ERR [AUTH] ") and rest == b""
    assert len(site.logged("Failed attempted login")) == 1


def take_little():
    """In a session's process: have the system take little before it is read."""
    connection = socket.socket(fileno=0)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    connection.detach()


def test_everything_at_once(site):
    site.deliver(mbox(ONE))
    pop = site.session(greeting=False)
    pop.send(f"USER {USER}\r\nPASS {PASSWORD}\r\nSTAT\r\nQUIT\r\n")
    replies = pop.end().split(b"\r\n")
    assert len(replies) == 6 and all(reply.startswith(b"+OK ") for reply in replies[:5])


def test_who_is_traced_and_goes_before_he_says_his_password(site):
    """A mail program that hangs there is what a trace is asked for."""
    trace = site.place / "trace"
    for user in (USER, "somebody"):
        pop = site.session(trace_user=(USER,), trace_file=str(trace))
        pop.ok(f"USER {user}")
        pop.hang_up()
    text = trace.read_text()
    assert f'Received: "USER {USER}"' in text and "Ended by the client" in text and "somebody" not in text


def test_what_was_said_before_something_was_left_unread_is_heard():
    """The child ends while it is answered: its line is reset, which is told before what it has said."""
    told = SimpleNamespace(critical=[], replayed=[])
    log = SimpleNamespace(debugging=True, trace=None, critical=told.critical.append, concerns=lambda who: None,
                          replay=lambda lines, name: told.replayed.extend(lines))
    one = Separate(None, HOST, log, Peer("192.0.2.1", 4000), 0, 1, claimed=lambda: None)
    one.line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    lines = [(1.0, 5, "what the stranger did")]
    with one.line, theirs:
        one.line.send(b"never read")
        theirs.send(pack(b"E", b"1", pack_lines(lines), b"joe"))
        theirs.close()
        assert one._listen({}) is None
    assert told.critical == [] and told.replayed == lines
