"""RFC 1939 section 6, UPDATE, and what may be left in the spool (inv). Each test cites its checklist line."""

import os
import resource
import signal
import socket
import struct
import subprocess

import pytest

from conftest import wait_until
from dialogue import HOST, ONE, PASSWORD, THREE, TWO, USER, mbox, site, wire          # noqa: F401

MANY = [b"Subject: %d\n\n" % n + b"%d\n" % n * (50 * n) for n in range(1, 13)]


def take_dotlock(site):
    """A lock as another program makes it that goes on living."""
    lock = site.spool / f"{USER}.lock"
    lock.write_text(f"{os.getpid()}\n{os.uname().nodename}\n")
    return lock


@pytest.mark.parametrize("gone", [(1,), (12,), (2, 5, 6, 11), (1, 2, 3), (10, 11, 12), tuple(range(1, 13)), ()])
def test_quit_removes_the_marked(site, gone):
    """1939.44 QUIT after login removes exactly the marked messages; 1939.47 never an unmarked one."""
    path = site.deliver(mbox(*MANY))
    pop = site.log_in()
    for number in gone:
        pop.ok(f"DELE {number}")
    assert pop.quit() == f"Pop server at {HOST} signing off."
    assert path.read_bytes() == mbox(*[text for n, text in enumerate(MANY, 1) if n not in gone])


def test_unmarked_again_is_unmarked(site):
    """1939.47 what RSET unmarked stays."""
    path = site.deliver(mbox(ONE, TWO, THREE))
    pop = site.log_in()
    for command in ("DELE 1", "DELE 3", "RSET", "DELE 2"):
        pop.ok(command)
    pop.quit()
    assert path.read_bytes() == mbox(ONE, THREE)


def finished(pop):
    pop.socket.close()


def reset(pop):
    pop.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    pop.socket.close()


def half_a_line(pop):
    pop.send("QUIT")
    pop.socket.close()


def half_a_line_and_half_open(pop):
    pop.send("QUIT")
    pop.socket.shutdown(socket.SHUT_WR)
    assert pop.end() == b""


def carriage_return_only(pop):
    pop.send("QUIT\r")
    pop.socket.close()


def in_the_middle_of_retr(pop):
    pop.send("RETR 1\r\n" * 100)
    pop.reply()
    pop.socket.close()


def hangup(pop):
    os.kill(pop.child, signal.SIGHUP)


def terminated(pop):
    os.kill(pop.child, signal.SIGTERM)


def interrupted(pop):
    os.kill(pop.child, signal.SIGINT)


def killed(pop):
    os.kill(pop.child, signal.SIGKILL)


@pytest.mark.parametrize("end", [finished, reset, half_a_line, half_a_line_and_half_open, carriage_return_only,
                                 in_the_middle_of_retr, hangup, terminated, interrupted, killed])
def test_any_other_end_removes_nothing(site, end):
    """1939.45 FIN, RST, half a line, a signal: without QUIT nothing is removed; 1939.48 and nobody is locked out."""
    path = site.deliver(mbox(*MANY))
    inode = path.stat().st_ino
    pop = site.log_in(tcp=True)
    for number in range(1, 13):
        pop.ok(f"DELE {number}") if number != 1 else None
    end(pop)
    pop.wait()
    assert path.read_bytes() == mbox(*MANY) and path.stat().st_ino == inode
    again = site.log_in(lock_timeout=0)
    assert len(again.lines("LIST")) == 12
    again.quit()


def test_timeout_removes_nothing(site):
    """1939.45 so with the timer; see 1939.15."""
    path = site.deliver(mbox(ONE))
    pop = site.log_in(timeout=0.2)
    pop.ok("DELE 1")
    assert pop.end() == b""
    assert path.read_bytes() == mbox(ONE)


def test_update_on_abort_is_the_sites_choice(site):
    """1939.45 is bent only where the administrator says `update_on_abort yes`."""
    path = site.deliver(mbox(ONE, TWO))
    pop = site.log_in(update_on_abort=True)
    pop.ok("DELE 1")
    pop.hang_up()
    assert path.read_bytes() == mbox(TWO)


def test_update_while_another_has_the_lock(site):
    """1939.46 an UPDATE that cannot lock is -ERR and removes nothing; 1939.48 it ends the session all the same."""
    path = site.deliver(mbox(ONE, TWO))
    pop = site.log_in(lock_timeout=0)
    pop.ok("DELE 1")
    lock = take_dotlock(site)
    assert "lock busy" in pop.err("QUIT")
    assert pop.end() == b""
    assert path.read_bytes() == mbox(ONE, TWO)
    assert site.left_over() == [lock.name]
    lock.unlink()
    site.log_in().quit()


@pytest.mark.parametrize("limit", [0, 100, 2000, 6000])
def test_update_past_the_limit_of_a_file(site, limit):
    """1939.46 an UPDATE that may not write is -ERR, wherever the limit lies; 1939.47 no unmarked message suffers."""
    path = site.deliver(mbox(*MANY))
    assert len(mbox(*MANY[1:])) > 6000

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    pop = site.log_in(before=limited, log="syslog")
    pop.ok("DELE 1")
    assert pop.err("QUIT").startswith("[SYS/TEMP] ")
    assert pop.end() == b""
    assert path.read_bytes() == mbox(*MANY)
    assert site.left_over() == []


@pytest.mark.root
@pytest.mark.parametrize("call", ["pwrite64", "ftruncate"])
@pytest.mark.parametrize("error", ["ENOSPC", "EIO", "EDQUOT"])
def test_update_on_a_failing_disk(site, call, error):
    """1939.46 an error of the disk in UPDATE is -ERR; 1939.48 the locks go.

    1939.47 the next session finds every message that was not marked, and ends with nothing left over.
    """
    path = site.deliver(mbox(*MANY))
    pop = site.log_in()
    pop.ok("DELE 1")
    inject = ("-e", f"inject={call}:error={error}", "-e", f"trace={call}")
    with subprocess.Popen(["strace", "-qq", "-o", os.devnull, *inject, "-p", str(pop.child)]) as strace:
        wait_until(lambda: pop.proc("TracerPid") != "0")
        assert pop.err("QUIT").startswith("[SYS/TEMP] ")
        assert pop.end() == b""
        strace.wait()
    assert not {f"{USER}.lock", f".{USER}.pop"} & set(site.left_over())
    site.log_in(lock_timeout=0).quit()
    assert path.read_bytes() in (mbox(*MANY), mbox(*MANY[1:]))
    assert site.left_over() == []


def test_an_update_that_failed_is_not_signed_off(site):
    """1939.46 there is no +OK for an UPDATE that was not done: the mailbox was changed by somebody else meanwhile."""
    path = site.deliver(mbox(ONE, TWO))
    pop = site.log_in()
    pop.ok("DELE 1")
    path.write_bytes(mbox(THREE, ONE, TWO))
    assert pop.err("QUIT") == "[SYS/TEMP] Mailbox changed by another program; nothing was deleted."
    assert pop.end() == b""
    assert path.read_bytes() == mbox(THREE, ONE, TWO)
    assert site.left_over() == []


def test_mail_that_arrives_meanwhile(site):
    """1939.79 mail delivered during a session is not in it, survives its UPDATE, and is there in the next."""
    path = site.deliver(mbox(ONE, TWO))
    pop = site.log_in()
    with path.open("ab") as mailbox:
        mailbox.write(mbox(THREE))
    assert len(pop.lines("LIST")) == 2
    pop.err("RETR 3")
    pop.ok("DELE 1")
    pop.ok("DELE 2")
    pop.quit()
    assert path.read_bytes() == mbox(THREE)
    pop = site.log_in()
    assert pop.text("RETR 1") == wire(THREE)
    pop.quit()


@pytest.mark.parametrize("first_ends", ["QUIT", "hang up"])
def test_second_session(site, first_ends):
    """1939.80 a second session is refused while the first lasts; 1939.81 after QUIT, or a cut, it is let in at once."""
    site.deliver(mbox(ONE))
    first = site.log_in()
    second = site.session(lock_timeout=0)
    second.ok("USER mrose")
    assert second.err(f"PASS {PASSWORD}").startswith("[IN-USE] ")
    assert second.end() == b""
    first.text("RETR 1")
    if first_ends == "QUIT":
        assert first.ok("QUIT")              # who reads the sign-off may come back at once
    else:
        first.hang_up()
    site.log_in(lock_timeout=0).quit()


def test_lock_of_a_killed_session(site):
    """1939.82 a session that was killed, or whose client died, locks nobody out."""
    site.deliver(mbox(ONE))
    pop = site.log_in()
    pop.kill()
    assert pop.status == -signal.SIGKILL
    pop = site.log_in(lock_timeout=0)
    pop.hang_up()
    site.log_in(lock_timeout=0).quit()
    assert site.left_over() == []


def test_renumbered_next_time(site):
    """1939.83 in the next session the numbers run from 1 again."""
    site.deliver(mbox(ONE, TWO, THREE))
    pop = site.log_in()
    pop.ok("DELE 1")
    pop.quit()
    pop = site.log_in()
    assert pop.lines("LIST") == [f"1 {len(wire(TWO))}", f"2 {len(wire(THREE))}"]
    assert pop.text("RETR 1") == wire(TWO)
    pop.quit()


@pytest.mark.parametrize("commands", [("DELE 1",), ("DELE 1", "DELE 2", "DELE 3"), ()])
def test_nothing_is_left_in_the_spool(site, commands):
    """inv.01 after an update the mailbox is all that is in the spool."""
    site.deliver(mbox(ONE, TWO, THREE))
    pop = site.log_in()
    for command in commands:
        pop.ok(command)
    pop.quit()
    assert os.listdir(site.spool) == [USER]


def test_nothing_is_left_after_a_reset(site):
    """inv.02 a connection that is reset in TRANSACTION leaves nothing in the spool."""
    site.deliver(mbox(ONE, TWO, THREE))
    pop = site.log_in(tcp=True)
    pop.ok("DELE 1")
    reset(pop)
    pop.wait()
    assert os.listdir(site.spool) == [USER]


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o640, 0o644])
def test_owner_mode_and_inode_are_kept(site, mode):
    """inv.03 an update leaves owner, group and mode as they were; inv.04 and the inode."""
    path = site.deliver(mbox(ONE, TWO, THREE))
    path.chmod(mode)
    old = path.stat()
    pop = site.log_in()
    pop.ok("DELE 2")
    pop.quit()
    new = path.stat()
    assert path.read_bytes() == mbox(ONE, THREE)
    assert (new.st_uid, new.st_gid, new.st_mode, new.st_ino) == (old.st_uid, old.st_gid, old.st_mode, old.st_ino)


def test_nothing_deleted_nothing_written(site):
    """inv.05 when nothing was deleted the file is not touched: no octet, no time of change."""
    path = site.deliver(b"\r\n" + mbox(ONE, TWO)[:-1])
    old = path.stat()
    pop = site.log_in()
    assert len(pop.lines("UIDL")) == 2
    for command in ("RETR 1", "TOP 2 1"):
        pop.text(command)
    for command in ("DELE 1", "RSET", "LAST"):
        pop.ok(command)
    pop.quit()
    assert path.read_bytes() == b"\r\n" + mbox(ONE, TWO)[:-1]
    assert (path.stat().st_mtime_ns, path.stat().st_ctime_ns) == (old.st_mtime_ns, old.st_ctime_ns)
