"""Traces that popper itself writes: what popperctl trace makes of them."""

import os
import signal
import socket
import threading

import pytest

from conftest import wait_until
from dialogue import ONE, THREE, TWO, mbox, site         # noqa: F401, a fixture
from on_its_own import start                             # noqa: F401, a fixture
from popper.guessers import Guessers
from tracing import popperctl                            # noqa: F401, a fixture

USER, PASSWORD = "mrose", "tanstaaf"


class Traced:
    """A site whose sessions are traced."""

    def __init__(self, site, popperctl, tmp_path):       # noqa: F811
        self.site = site
        self.popperctl = popperctl
        self.file = site.place / "trace"
        self.conf = tmp_path / "popper.conf"
        self.conf.write_text(f"trace_file {self.file}\ntrace_dir {tmp_path}/on\npassword_file {site.passwords}\n")
        site.deliver(mbox(ONE, TWO, THREE))

    def session(self, **settings):
        return self.site.session(**{"trace": str(self.file), **settings})

    def log_in(self, **settings):
        return self.session(**settings).log_in()

    def trace(self, *words):
        done = self.popperctl("trace", *words, "-C", self.conf)
        assert (done.status, done.err) == (0, "")
        return done

    def table(self):
        return self.trace("--json").json

    def told(self):
        """What is said of the last session."""
        return [each["text"] for each in self.trace("explain", "--json").json[-1]["findings"]]


@pytest.fixture
def traced(site, popperctl, tmp_path):                   # noqa: F811
    return Traced(site, popperctl, tmp_path)


def test_the_table(traced):
    pop = traced.log_in()
    pop.text("RETR 1")
    pop.ok("DELE 1")
    pop.quit()
    (row,) = traced.table()
    assert (row["user"], row["outcome"], row["commands"], row["logged_in"]) == (USER, "quit", 5, True)
    assert set(row["waits"]) >= {"client", "DNS", "authentication", "locks", "scan", "disk"}
    assert row["pid"] == pop.child and traced.told() == ["The session deleted 1 message."]


def test_the_session_of_a_daemon_tells_its_process(traced, start):         # noqa: F811
    """Not that of the master, by which its name begins: a signal to it would end the server."""
    daemon = start(trace_file=traced.file, trace_user=USER)
    daemon.log_in()
    (process,) = [each["pid"] for each in daemon.sessions(1)]
    other = daemon.call()
    other.ok(f"USER {USER}")
    other.err(f"PASS {PASSWORD}")
    assert [(row["session"], row["pid"]) for row in traced.table()][:1] == [(f"{daemon.pid}.1", process)]
    (sentence, *_) = traced.told()
    assert sentence.startswith(f"Another session holds the mailbox: {daemon.pid}.1 (process {process}) from 127.0.0.1,")
    assert f"{daemon.pid}.1, process {process}: {USER} from " in traced.trace("show", f"{daemon.pid}.1").out


@pytest.mark.parametrize("by_daemon", [False, True], ids=["inetd", "daemon"])
def test_a_login_that_is_held_back(traced, start, by_daemon):              # noqa: F811
    memory = Guessers(str(traced.site.place / "guessers"), 1)
    for _ in range(20):
        memory.failed("127.0.0.1", b"nobody-there")
    memory.close()
    if by_daemon:
        start(trace_file=traced.file, trace_user=USER, guess_delay_max=1).log_in().quit()
    else:
        traced.log_in(tcp=True, guessers=str(traced.site.place / "guessers"), guess_delay_max=1).quit()
    (row,) = wait_until(lambda: [row for row in traced.table() if row["outcome"] == "quit"])
    assert row["longest_for"] == "guessers" and 0.9 < row["waits"]["guessers"] < 1.2
    assert all(row["waits"].get(what, 0.0) < 0.5 for what in ("authentication", "popper"))
    assert traced.told() == [
        "The login was held back for 1.0 s, because many wrong passwords had come from this address, or for this name; "
        "`guess_delay_max` in popper.conf."]


def test_a_login_that_no_session_is_left_for(traced, start):               # noqa: F811
    daemon = start(trace_file=traced.file, trace_user=USER, maxsessions=1)
    first = daemon.log_in()
    second = daemon.call()
    second.ok(f"USER {USER}")
    second.err(f"PASS {PASSWORD}")
    second.end()
    (row,) = wait_until(lambda: [row for row in traced.table() if row["outcome"] == "refused"])
    assert row["ended"] == "refused (SYS/TEMP)" and traced.told() == [
        "The password was not tried: as many sessions were under way as there may be at a time, `maxsessions` in "
        "popper.conf."]
    first.quit()


def test_the_screen(traced):
    pop = traced.log_in()
    pop.text("RETR 2")
    pop.err("BOGUS")
    pop.quit()
    out = traced.trace("show", str(pop.child)).out
    sides = [line[24:].rstrip() for line in out.splitlines()[4:]]
    for line in ("C: USER mrose", "C: PASS xxxxxxxxx", "S: +OK mrose has 3 message(s) (300 octets).", "C: RETR 2",
                 "S: +OK 107 octets", "C: BOGUS", 'S: -ERR Unknown command: "bogus".', "C: QUIT",
                 "S: +OK Pop server at pop.example.org signing off."):
        assert line in sides
    assert PASSWORD not in out


def test_texts_of_messages_are_left_out(traced):
    traced.log_in(trace_bodies=True).text("RETR 2")
    assert "second line" in traced.file.read_text()
    out = traced.trace("show", str(traced.site.sessions[-1].child)).out
    assert "second line" not in out and "lines are left out: texts of messages" in out


def test_passwords_and_names(traced):
    for user, sentence in ((USER, f"The password given for {USER} is wrong."), ("nobody", "There is no user nobody.")):
        pop = traced.session()
        pop.ok(f"USER {user}")
        pop.err("PASS wrong")
        pop.end()
        assert traced.told() == [sentence] and traced.table()[-1]["ended"] == "refused (AUTH)"


def test_who_holds_the_mailbox(traced):
    holding = traced.log_in()
    pop = traced.session()
    pop.ok(f"USER {USER}")
    pop.err(f"PASS {PASSWORD}")
    pop.end()
    (row,) = (row for row in traced.trace("explain", "--outcome", "in-use", "--json").json)
    (finding,) = row["findings"]
    assert (finding["kind"], finding["session"]) == ("in-use", str(holding.child))
    assert finding["text"].startswith(f"Another session holds the mailbox: {holding.child} from local, since ")
    assert finding["text"].endswith("; the trace does not have its end.")
    holding.quit()
    (row,) = (row for row in traced.trace("explain", "--outcome", "in-use", "--json").json)
    assert ", by QUIT." in row["findings"][0]["text"]


def test_a_dotlock_in_the_way(traced):
    lock = traced.site.spool / f"{USER}.lock"
    lock.write_text(f"{os.getpid()} mx1\n")
    pop = traced.session(lock_timeout=1)
    pop.ok(f"USER {USER}")
    pop.err(f"PASS {PASSWORD}")
    pop.end()
    lock.unlink()
    (sentence,) = traced.told()
    assert sentence.startswith(f"The mailbox was locked: {lock} was there by process {os.getpid()} on mx1, ")
    assert traced.table()[-1]["longest_for"] == "locks"


def test_sessions_that_break_off(traced):
    pop = traced.log_in()
    pop.ok("DELE 1")
    pop.hang_up()
    assert traced.told() == [
        "The client closed the connection without QUIT, so the message that was marked as deleted stays."]
    pop = traced.log_in(timeout=1)
    pop.ok("DELE 1")
    pop.end()
    assert traced.told() == [
        'The client paused for longer than 1 s after "DELE 1", so the message that was marked as deleted stays. RFC '
        '1939 wants '
        "600 s at least, `timeout` in popper.conf."]
    pop = traced.log_in()
    os.kill(pop.child, signal.SIGTERM)
    pop.end()
    assert traced.told() == ["popper was told to end by a signal; nothing was marked as deleted."]
    assert [row["outcome"] for row in traced.table()] == ["closed", "timeout", "signal"]


def test_a_client_that_stops_reading(traced):
    text = b"Subject: long\n\n" + b"x" * 79 + b"\n"
    traced.site.deliver(mbox(text * 100000))
    pop = traced.log_in(timeout=1, tcp=True)
    pop.send("RETR 1\r\n")
    pop.wait()
    (sentence,) = traced.told()
    assert sentence.startswith("The client stopped reading: it took nothing of message 1, ")
    assert sentence.endswith(" octets, for 1 s; nothing was marked as deleted.")


def test_mailboxes_that_are_damaged_or_changed(traced):
    mailbox = traced.site.mailbox()
    pop = traced.log_in()
    mailbox.write_bytes(b"x")
    pop.err("RETR 1")
    pop.end()
    assert traced.told()[0].startswith(f"During the session {mailbox} was cut short by another program; nothing was "
                                       f"deleted.")
    pop = traced.session()
    pop.ok(f"USER {USER}")
    pop.err(f"PASS {PASSWORD}")
    pop.end()
    assert traced.told()[0].startswith(f"The mailbox {mailbox} is damaged at octet 0: ")


def test_unique_ids_that_changed(traced):
    traced.log_in().quit()
    changed = mbox(ONE, TWO, THREE).replace(b"subject: one", b"Subject: one").replace(b"<1@", b"<9@")
    traced.site.deliver(changed)
    pop = traced.log_in()
    pop.quit()
    (sentence,) = traced.told()
    first = traced.site.sessions[0].child
    assert sentence.startswith(f"Unique-ids have changed since session {first} at ")
    assert "those of 1 of 3 messages: number 1 had " in sentence


def test_everything_is_retrieved_again(traced):
    for _ in range(2):
        pop = traced.log_in()
        for number in (1, 2, 3):
            pop.text(f"RETR {number}")
        pop.quit()
    assert traced.told()[0].startswith("The client retrieved 3 of 3 messages, 300 octets, again, which session ")


def test_only_who_is_traced_is_there(traced, tmp_path):
    traced.trace("on", USER)
    for user in (USER, "nobody"):
        pop = traced.site.session(trace_file=str(traced.file), trace_dir=f"{tmp_path}/on")
        pop.ok(f"USER {user}")
        pop.err("PASS wrong")
        pop.end()
    assert [(row["user"], row["ended"]) for row in traced.table()] == [(USER, "refused (AUTH)")]
    traced.trace("off", USER)
    pop = traced.site.log_in(trace_file=str(traced.file), trace_dir=f"{tmp_path}/on")
    pop.quit()
    assert len(traced.table()) == 1


def test_a_session_said_again(traced, tmp_path):
    pop = traced.log_in()
    for command in ("CAPA", "LIST", "UIDL", "RETR 1", "TOP 2 1", "XTND XLST subject"):
        pop.text(command)
    pop.ok("UIDL 3")
    pop.err("BOGUS \1\xff")
    pop.ok("DELE 2")
    pop.quit()
    pid, before = str(pop.child), traced.site.mailbox().read_bytes()
    traced.site.deliver(mbox(ONE, TWO, THREE))
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        def serve():
            connection, _ = listener.accept()
            with connection:
                os.waitpid(traced.site.fork(connection, traced.site.options(), None), 0)
        thread = threading.Thread(target=serve)
        thread.start()
        done = traced.trace("replay", pid, f"127.0.0.1:{listener.getsockname()[1]}", "--password-file",
                            tmp_path / "password")
        thread.join()
    assert done.out.endswith("replies, none of them different\n") and "differs" not in done.out
    assert traced.site.mailbox().read_bytes() == mbox(ONE, TWO, THREE) != before
