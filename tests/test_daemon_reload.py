"""A daemon that is told to read its configuration anew, or to become the program that is there now; and its crew when
one of it is killed. Whoever is there notices nothing."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from conftest import wait_until
from dialogue import HOST, ONE, PASSWORD, PATIENCE, TWO, USER, Dialogue, mbox, site          # noqa: F401
from on_its_own import GREETING, descriptors, start                                   # noqa: F401
from popper import takeover
from popper.guessers import Guessers
from processes import has_ended


@pytest.fixture
def there(site, start):
    """A daemon, a session of its with a message deleted, and a stranger half way."""
    site.add("other", "word")
    site.deliver(mbox(ONE, TWO))
    site.deliver(mbox(ONE), "other")
    daemon = start()
    session, stranger = daemon.log_in(), daemon.call()
    session.ok("DELE 1")
    stranger.ok("USER other")
    return daemon, session, stranger


def go_on(site, session, stranger):
    stranger.ok("PASS word")
    assert stranger.ok("STAT").startswith("1 ") and session.ok("STAT").startswith("1 ")
    session.quit()
    stranger.quit()
    assert site.mailbox().read_bytes() == mbox(TWO)


# -- reload ----------------------------------------------------------------------------------------------------------

def test_a_new_configuration(site, there):
    daemon, session, stranger = there
    old = daemon.crew()
    daemon.configure(hostname="new.example.org", maxsessions=7)
    daemon.hang_up()
    daemon.logged("info: reloaded")
    pop = daemon.call(greeted=False)
    assert pop.reply() == GREETING.replace(HOST, "new.example.org")
    assert daemon.status["limits"]["maxsessions"] == 7
    go_on(site, session, stranger)
    pop.quit()
    wait_until(lambda: all(map(has_ended, old)))         # they had strangers until now
    assert len(daemon.crew()) == len(old)


@pytest.mark.parametrize("wrong, complaint", [
    ({"maxsessions": "many"}, 'maxsessions: "many" is not what is expected'),
    ({"allow_deny": "/nonexistent/list"}, "/nonexistent/list"),
    ({"bindto": "127.0.0.1:0 192.0.2.1:0"}, "cannot listen on 192.0.2.1:0: Cannot assign requested address"),
    ({"trace": "/nonexistent/trace"}, "Unable to open trace file"),
])
def test_a_wrong_one_changes_nothing(site, there, wrong, complaint):
    daemon, session, stranger = there
    crew, before, listening = daemon.crew(), descriptors(daemon.pid), daemon.status["listening"]
    daemon.configure(hostname="new.example.org", **wrong)
    daemon.hang_up()
    line, = daemon.logged("not reloaded: ")
    assert line.startswith("critical: ") and complaint in line
    assert daemon.ask("reload")["ok"] is False and complaint in daemon.ask("reload")["error"]
    daemon.call().quit()
    assert (daemon.crew(), daemon.status["listening"]) == (crew, listening)
    wait_until(lambda: descriptors(daemon.pid) == before)
    go_on(site, session, stranger)


def test_other_addresses(site, there):
    daemon, session, stranger = there
    old = daemon.listening()
    daemon.configure(bindto="127.0.0.2:0")
    daemon.hang_up()
    daemon.logged("info: reloaded")
    assert daemon.listening()[0] == "127.0.0.2"
    daemon.call().quit()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(old)
    go_on(site, session, stranger)


def test_a_trace_file_that_was_renamed(site, start):
    site.deliver(mbox(ONE))
    site.own(site.place)
    trace = site.place / "trace"
    daemon = start(trace=trace)
    address = wait_until(lambda: trace.exists() and "listening on" in trace.read_text() and trace.read_text()).split()
    port = int(address[address.index("port") + 1])
    pop = daemon.call(place=("127.0.0.1", port))
    trace.rename(site.place / "trace.1")
    daemon.hang_up()
    wait_until(lambda: trace.exists() and "reloaded" in trace.read_text())
    daemon.call(place=("127.0.0.1", port)).log_in().quit()
    pop.quit()
    wait_until(lambda: trace.read_text().count("Ending request") == 2)
    assert "POP login" in trace.read_text() and "POP login" not in (site.place / "trace.1").read_text()
    assert not [link for link in descriptors(daemon.pid).values() if link.endswith("trace.1")]


def test_often(site, there):
    """Reload after reload leaves nothing behind."""
    daemon, session, stranger = there
    daemon.ask("reload")
    daemon.call().quit()
    before = len(descriptors(daemon.pid)), len(daemon.crew())
    for _ in range(10):
        assert daemon.ask("reload") == {"ok": True}
        daemon.call().quit()
    wait_until(lambda: (len(descriptors(daemon.pid)), len(daemon.crew())) == before)
    go_on(site, session, stranger)


def test_a_module_of_ones_own_with_a_mistake(site, start):
    """Whoever is there stays, and so does who checked passwords before."""
    (site.place / "ours").mkdir()
    site.deliver(mbox(ONE))
    daemon = start(environ={"PYTHONPATH": str(site.place)})
    stranger = daemon.call()
    mistakes = [("def authenticate(:\n", "ours.own0: SyntaxError: invalid syntax"),
                ("raise ValueError('no such realm')\n", "ours.own1: ValueError: no such realm"),
                ("def prepare():\n    raise ValueError('no such realm')\n", "no such realm")]
    for number, (text, complaint) in enumerate(mistakes):
        (site.place / "ours" / f"own{number}.py").write_text(text)
        daemon.configure(auth=f"ours.own{number}")
        daemon.hang_up()
        assert f": auth: {complaint}" in daemon.logged("critical: not reloaded: ", number + 1)[-1]
        assert f"auth: {complaint}" in daemon.ask("upgrade")["error"]
    stranger.log_in().quit()
    daemon.log_in().quit()


def test_what_failed_leaves_no_descriptor(site, start):
    """Neither a trace that was opened for nothing, nor a socket."""
    daemon = start("-t", str(site.place / "trace"))
    assert daemon.ask("reload") == {"ok": True}
    wait_until(lambda: len(daemon.children()) == 2)      # those of before have gone, and who answered
    before = descriptors(daemon.pid)
    assert str(site.place / "trace") in before.values()
    daemon.configure(bindto="127.0.0.1:0 127.0.0.2:0 192.0.2.1:0")
    for command in ["reload"] * 5 + ["upgrade"]:
        assert "cannot listen on 192.0.2.1:0" in daemon.ask(command)["error"]
    daemon.configure(bindto="127.0.0.1:0", allow_deny="/nonexistent/list")
    for command in ["reload"] * 5 + ["upgrade"]:
        assert "/nonexistent/list" in daemon.ask(command)["error"]
    wait_until(lambda: descriptors(daemon.pid) == before)


# -- upgrade ---------------------------------------------------------------------------------------------------------

class Clients:
    """Clients that come one after the other; none may be refused."""

    def __init__(self, place):
        self.place = place
        self.served = 0
        self.trouble = None
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._come)
        self.thread.start()

    def _come(self):
        try:
            while not self.over.is_set():
                pop = Dialogue(socket.create_connection(self.place))
                assert pop.reply() == GREETING
                pop.log_in("busy", "word").quit()
                self.served += 1
        except Exception as trouble:
            self.trouble = trouble

    def come(self, more):
        wanted = self.served + more
        wait_until(lambda: self.trouble or self.served >= wanted, PATIENCE)
        assert self.trouble is None

    def end(self):
        self.over.set()
        self.thread.join()
        assert self.trouble is None


@pytest.mark.parametrize("way", ["signal", "control"])
def test_the_program_takes_its_own_place(site, there, way):
    daemon, session, stranger = there
    site.add("busy", "word")
    site.deliver(mbox(ONE), "busy")
    pid, since, listening = daemon.pid, daemon.status["since"], daemon.status["listening"]
    clients = Clients(daemon.listening())
    clients.come(3)
    for times in range(1, 4):
        if way == "signal":
            daemon.process.send_signal(signal.SIGUSR2)
        else:
            assert daemon.ask("upgrade") == {"ok": True}
        daemon.logged("info: becoming ", times)
        daemon.logged("info: listening on ", times + 1)
        clients.come(5)
    clients.end()
    daemon.sessions(1)
    status = daemon.status
    assert (status["pid"], status["since"], status["listening"]) == (pid, since, listening)
    assert [each["user"] for each in status["sessions"]] == [USER] and status["strangers"] == 1
    assert status["counters"]["logins"] == clients.served + 1
    go_on(site, session, stranger)
    wait_until(lambda: len(daemon.children()) == 2)
    assert daemon.status["counters"]["logins"] == clients.served + 2


def test_an_end_that_comes_before_the_upgrade(there):
    """Whoever is told to end ends, though he was about to become another."""
    daemon, session, stranger = there
    assert daemon.ask("upgrade") == {"ok": True}
    daemon.process.send_signal(signal.SIGTERM)
    daemon.logged("info: ending")
    session.socket.settimeout(0.5)           # by then it would have become another
    with pytest.raises(TimeoutError):
        session.socket.recv(1)
    session.socket.settimeout(PATIENCE)
    session.quit()
    stranger.quit()
    assert daemon.process.wait(PATIENCE) == 0
    assert "becoming" not in daemon.log


@pytest.mark.parametrize("wait", [0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3])
def test_an_end_that_comes_with_the_upgrade(start, wait):
    """Before it, in the midst of it, or behind it: a signal is never lost."""
    daemon = start()
    daemon.listening()
    daemon.process.send_signal(signal.SIGUSR2)
    try:
        daemon.process.wait(wait)
    except subprocess.TimeoutExpired:
        pass
    assert daemon.stop() == 0


def test_no_upgrade_to_what_would_not_start(site, there):
    daemon, session, stranger = there
    daemon.configure(maxsessions="many")
    answer = daemon.ask("upgrade")
    assert answer["ok"] is False and "maxsessions" in answer["error"]
    daemon.process.send_signal(signal.SIGUSR2)
    assert daemon.logged("critical: not upgraded: ", 2)[1].count("maxsessions") == 1
    daemon.call().quit()
    go_on(site, session, stranger)


def test_no_upgrade_where_it_could_not_listen(site, there):
    daemon, session, stranger = there
    before = descriptors(daemon.pid)
    daemon.configure(bindto="127.0.0.1:0 192.0.2.1:0")
    assert daemon.ask("upgrade") == {
        "ok": False, "error": "cannot listen on 192.0.2.1:0: Cannot assign requested address"}
    daemon.process.send_signal(signal.SIGUSR2)
    assert daemon.logged("critical: not upgraded: cannot listen on 192.0.2.1:0", 2)
    wait_until(lambda: descriptors(daemon.pid) == before)
    daemon.call().quit()
    go_on(site, session, stranger)
    assert "becoming" not in daemon.log


def test_a_program_that_took_over_and_can_have_neither_sockets_nor_pid_file_serves_where_it_served(site, start):
    """As when they were taken away in the very moment of an upgrade."""
    site.deliver(mbox(ONE))
    note, sessions = os.memfd_create("note"), os.memfd_create("sessions")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        told = {"form": takeover.FORM, "since": 1790000000.0, "last": 0, "counted": 0, "turned_away": {},
                "counters": {}, "listeners": [[["127.0.0.1", 0], listener.fileno()]], "sessions": sessions,
                "children": [], "crew": [], "connections": []}
        os.write(note, json.dumps(told).encode())
        daemon = start(before=["sh", "-c", f'{takeover.VARIABLE}=$$:{note} exec "$@"', "sh"],
                       pass_fds=(note, sessions, listener.fileno()), bindto="192.0.2.1:0", pid_file=site.place)
        assert daemon.listening() == listener.getsockname()
    assert daemon.lines("critical: ") == [
        "critical: cannot listen on 192.0.2.1:0: Cannot assign requested address",
        f"critical: {site.place}: cannot be opened: Is a directory"]
    daemon.log_in().quit()
    assert daemon.status["since"] == 1790000000.0
    os.close(note)
    os.close(sessions)


# popper, which waits for less time than it is used to for who is held back
HURRIED = [sys.executable, "-c", "import sys; from popper import daemon; daemon.HELD_LONGEST = 0.3; "
           "sys.argv[:] = ['popper', *sys.argv[4:]]; from popper.launch import run; run()"]


def test_an_upgrade_does_not_wait_long_for_who_is_held_back(site, start):
    """He is told to come again, by who spoke to him before."""
    site.deliver(mbox(ONE))
    memory = Guessers(str(site.place / "guessers"), 30)
    for _ in range(12):
        memory.failed("127.0.0.2", USER.encode())
    memory.close()
    daemon = start(before=HURRIED, guess_delay_max=30)
    guesser = daemon.call("127.0.0.2")
    guesser.ok(f"USER {USER}")
    guesser.send(f"PASS {PASSWORD}\r\n")
    wait_until(lambda: daemon.status["waiting"] == 1)
    assert daemon.ask("upgrade") == {"ok": True}
    assert guesser.reply() == "-ERR [SYS/TEMP] This server is being renewed, try again."
    assert guesser.end() == b""
    daemon.logged("info: listening on ", 2)
    daemon.call().quit()
    wait_until(lambda: daemon.status["strangers"] == daemon.status["waiting"] == 0)
    assert daemon.status["counters"]["denied"] == 0


# -- the crew --------------------------------------------------------------------------------------------------------

def test_a_front_that_is_killed(site, there):
    """Its strangers are gone with it; sessions and other fronts' strangers are not. Another takes its place."""
    daemon, session, stranger = there
    crew = daemon.crew()
    strangers = [stranger, *(daemon.call() for _ in range(3))]
    of = {len([link for link in descriptors(pid).values() if link.startswith("socket:")]): pid for pid in crew}
    assert len(of) == 2, "the one of the session has one more"
    one, other = of[max(of)], of[min(of)]
    os.kill(one, signal.SIGKILL)
    assert daemon.logged("of this server has ended; another takes its place") == [
        f"critical: process {one} of this server has ended; another takes its place"]
    wait_until(lambda: daemon.status["strangers"] == 2)
    gone = [pop for pop in strangers if has_gone(pop)]
    assert len(gone) == 2
    wait_until(lambda: len(daemon.crew()) == 2 and one not in daemon.crew())
    assert other in daemon.crew()
    for pop in strangers:
        if pop not in gone:
            pop.quit()
    for _ in range(4):
        daemon.call().quit()
    assert session.ok("STAT").startswith("1 ")


def has_gone(pop):
    """Whether a connection has been closed."""
    pop.socket.setblocking(False)
    try:
        return pop.socket.recv(1) == b""
    except BlockingIOError:
        return False
    finally:
        pop.socket.settimeout(PATIENCE)


def test_all_fronts_killed_again_and_again(site, start):
    site.deliver(mbox(ONE))
    daemon = start()
    for _ in range(3):
        crew = daemon.crew()
        for pid in crew:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: len(daemon.children() - crew) == 2)
        wait_until(lambda: not daemon.children() & crew)
        daemon.log_in().quit()


def test_the_looker_killed(site, start):
    """Clients come without a name for a moment, then there is another one."""
    site.deliver(mbox(ONE))
    daemon = start(lookup="yes", dns_timeout=1)
    daemon.log_in().quit()
    assert f'POP login by user "{USER}" at (localhost) 127.0.0.1' in daemon.log
    stranger, crew = daemon.call(), daemon.crew()
    fronts = {pid for pid in crew if "[eventpoll]" in "".join(descriptors(pid).values())}
    looker, = crew - fronts
    os.kill(looker, signal.SIGKILL)
    daemon.logged(f"critical: process {looker} of this server has ended; another takes its place")
    stranger.log_in().quit()
    wait_until(lambda: len(daemon.crew()) == 3)
    assert fronts < daemon.crew()
    daemon.log_in().quit()
    assert daemon.log.count(f'POP login by user "{USER}" at (localhost) 127.0.0.1') >= 2


@pytest.mark.root
def test_fronts_that_may_not_do_what_they_must(start):
    """They are tried again once a second, the log has the reason once, and who asks is answered."""
    begun = time.monotonic()
    daemon = start(before=["setpriv", "--bounding-set", "-sys_chroot"])
    reason, = daemon.logged("PermissionError")
    daemon.call(greeted=False).end()
    assert daemon.status["state"] == "running"
    lines = daemon.logged("of this server has ended; another takes its place", 4)
    assert time.monotonic() - begun >= 1 and len(lines) <= 6
    assert daemon.lines("PermissionError") == [reason] and reason.startswith("warning: process ")
    assert reason.endswith(": PermissionError: [Errno 1] Operation not permitted: '.'")
