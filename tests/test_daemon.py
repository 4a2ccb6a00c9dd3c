"""popper on its own: as whoever starts it, on a port of 127.0.0.1 or ::1. Its birth, its sessions, its end."""

import os
import random
import signal
import socket

import pytest

from conftest import wait_until
from dialogue import HOST, ONE, PASSWORD, PATIENCE, TWO, USER, Dialogue, mbox, site          # noqa: F401
from on_its_own import descriptors, start                                     # noqa: F401
from processes import has_ended

ENDING = "-ERR [SYS/TEMP] This server is ending."


def has_ipv6():
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


def test_two_clients_at_once(site, start):
    site.add("other", "word")
    site.deliver(mbox(ONE))
    site.deliver(mbox(ONE, TWO), "other")
    daemon = start()
    first, second = daemon.call(), daemon.call()
    second.log_in("other", "word")
    first.log_in(USER, PASSWORD)
    assert first.ok("STAT").startswith("1 ") and second.ok("STAT").startswith("2 ")
    assert {each["user"] for each in daemon.sessions(2)} == {USER, "other"}
    first.ok("DELE 1")
    assert first.quit() == second.quit() == f"Pop server at {HOST} signing off."
    assert site.mailbox().read_bytes() == b"" and site.mailbox("other").read_bytes() == mbox(ONE, TWO)


def test_a_wrong_password_is_answered_and_nobody_is_left(site, start):
    site.deliver(mbox(ONE))
    daemon = start()
    crew = daemon.crew()
    pop = daemon.call()
    pop.ok(f"USER {USER}")
    assert pop.err("PASS not the one").startswith("[AUTH] ")
    assert pop.end() == b""
    assert daemon.lines("[AUTH] Failed attempted login") == [
        f"warning: [AUTH] Failed attempted login to {USER} from host (127.0.0.1) 127.0.0.1"]
    wait_until(lambda: daemon.children() == crew)
    counters = daemon.status["counters"]
    assert (counters["connections"], counters["logins"], counters["denied"]) == (1, 0, 1)


def test_nothing_is_sent_twice_to_who_reads_late_and_has_a_wrong_password(start):
    """What waits to be sent when the password has come leaves once, whoever of us sends it. When the system takes no
    more depends on the system: so many clients, each with some more to be answered."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)   # of whoever is accepted, too
        daemon = start(stdin=listener)
        assert daemon.listening() == listener.getsockname()
    clients = {}
    for many in (100, 200, 300, 400):
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        client.connect(daemon.listening())
        client.sendall(b"CAPA\r\n" * many + f"USER {USER}\r\nPASS wrong\r\n".encode())
        clients[many] = Dialogue(client)
    for _ in range(4):
        daemon.call().quit()                 # by now all have been heard
    for many, pop in clients.items():
        octets = pop.end()
        assert octets.count(b"\r\n.\r\n") == octets.count(b"IMPLEMENTATION") == many
        *_, wanted, refused, rest = octets.split(b"\r\n")
        assert wanted.startswith(b"+OK Password required") and refused.startswith(b"-ERR [AUTH] ") and rest == b""


def test_what_was_pipelined_behind_the_password(site, start):
    """Octets that were read together with the password are the session's."""
    site.deliver(mbox(ONE))
    pop = start().call()
    pop.send(f"USER {USER}\r\nPASS {PASSWORD}\r\nSTAT\r\nDELE 1\r\nQUIT\r\n")
    assert [pop.reply()[:3] for _ in range(5)] == ["+OK"] * 5
    assert pop.end() == b"" and site.mailbox().read_bytes() == b""


def test_several_addresses(site, start):
    wanted = ["127.0.0.1:0", "127.0.0.2:0", *(["[::1]:0"] if has_ipv6() else [])]
    site.deliver(mbox(ONE))
    daemon = start(bindto=" ".join(wanted))
    places = daemon.places(len(wanted))
    assert [address for address, port in places] == ["127.0.0.1", "127.0.0.2", "::1"][:len(wanted)]
    for place in places:
        daemon.call(place=place).log_in().quit()
    shown = [f"[{address}]:{port}" if ":" in address else f"{address}:{port}" for address, port in places]
    assert daemon.status["listening"] == shown


def test_when_one_of_several_addresses_is_taken_none_is_used(site, start):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        daemon = start(bindto=f"127.0.0.2:0 127.0.0.1:{port}")
        assert daemon.process.wait(PATIENCE) == 69
    assert daemon.log == f"popper: cannot listen on 127.0.0.1:{port}: Address already in use\n"


def test_an_address_that_is_not_ours(start):
    daemon = start(bindto="192.0.2.1:0")
    assert daemon.process.wait(PATIENCE) == 69
    assert daemon.log == "popper: cannot listen on 192.0.2.1:0: Cannot assign requested address\n"


@pytest.mark.skipif(not has_ipv6(), reason="no ::1 here")
def test_ipv6(site, start):
    site.deliver(mbox(ONE))
    daemon = start(bindto="[::1]:0")
    assert daemon.listening()[0] == "::1"
    daemon.call().log_in().quit()
    assert f'POP login by user "{USER}" at (::1) ::1' in daemon.log


def test_it_starts_again_at_once_on_the_same_port(site, start):
    first = start()
    port = first.listening()[1]
    first.call().quit()
    first.stop()
    second = start(bindto=f"127.0.0.1:{port}")
    second.logged("listening on 127.0.0.1", 2)
    second.call().quit()


# -- what is left of sessions ----------------------------------------------------------------------------------------

def test_strangers_have_no_process(start):
    daemon = start()
    crew = daemon.crew()
    strangers = [daemon.call() for _ in range(50)]
    assert daemon.crew() == crew and daemon.status["strangers"] == 50
    strangers.pop().quit()
    for each in strangers:
        each.socket.close()
    wait_until(lambda: daemon.status["strangers"] == 0)
    assert daemon.lines("127.0.0.1 ") == daemon.lines("listening on"), "who says nothing is not spoken of"


def test_clients_that_go_before_they_are_greeted(start):
    daemon = start()
    for _ in range(20):
        socket.create_connection(daemon.listening()).close()
    daemon.call().quit()
    wait_until(lambda: daemon.status["counters"]["connections"] == 21 and daemon.status["strangers"] == 0)


def test_a_session_has_nothing_of_the_daemons(site, start):
    """No listening socket, no control socket, no pipe and no line: a session holds its connection alone."""
    site.deliver(mbox(ONE))
    daemon = start()
    pop = daemon.log_in()
    child, = [each["pid"] for each in daemon.sessions(1)]
    pop.ok("NOOP")
    found = descriptors(child)
    sockets = [fd for fd, link in found.items() if link.startswith("socket:")]
    assert len(sockets) == 1 and not [link for link in found.values() if link.startswith(("pipe:", "anon_inode"))]
    pop.quit()


def test_nothing_is_left_of_two_hundred_sessions(site, start):
    """Descriptors, processes and slots come back, also of sessions that are killed. Mailboxes stay whole."""
    rng = random.Random(6)
    users = [f"user{number}" for number in range(10)]
    for user in users:
        site.add(user, "word")
        site.deliver(mbox(ONE, TWO), user)
    daemon = start(maxsessions=10)
    daemon.log_in("user0", "word").quit()    # now all files are open that it keeps open
    daemon.sessions(0)
    crew = daemon.crew()
    before = {pid: len(descriptors(pid)) for pid in (daemon.pid, *crew)}
    for _ in range(20):
        sessions = [daemon.log_in(user, "word") for user in users]
        for each in sessions:
            each.ok("DELE 1")
        for pid in rng.sample([each["pid"] for each in daemon.sessions(10)], 3):
            os.kill(pid, rng.choice([signal.SIGKILL, signal.SIGTERM]))
        for each in sessions:
            each.socket.close()
        wait_until(lambda: daemon.children() == crew, PATIENCE)
    wait_until(lambda: {pid: len(descriptors(pid)) for pid in (daemon.pid, *crew)} == before)     # some are told late
    status = daemon.status
    assert status["sessions"] == [] and status["strangers"] == 0
    assert status["counters"]["logins"] == status["counters"]["connections"] == 201
    assert all(site.mailbox(user).read_bytes() == mbox(ONE, TWO) for user in users)


# -- the end ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_when_its_last_session_has(site, start, number):
    path = site.deliver(mbox(ONE, TWO))
    daemon = start()
    pop = daemon.log_in()
    pop.ok("DELE 1")
    daemon.process.send_signal(number)
    daemon.logged("info: ending; 1 sessions go on")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(daemon.listening())
    assert daemon.status["state"] == "ending" and daemon.process.poll() is None
    assert pop.ok("STAT").startswith("1 ")
    pop.quit()
    assert daemon.process.wait(PATIENCE) == 0
    assert path.read_bytes() == mbox(TWO) and not (site.place / "control").exists()


def test_strangers_have_a_while_to_say_who_they_are(site, start):
    """Who has come before the end may still log in, and who says nothing is told."""
    site.deliver(mbox(ONE))
    daemon = start()
    user, silent = daemon.call(), daemon.call()
    daemon.process.send_signal(signal.SIGTERM)
    daemon.logged("info: ending; 0 sessions go on")
    user.log_in()
    assert silent.reply() == ENDING and silent.end() == b""
    assert user.ok("STAT").startswith("1 ")
    user.quit()
    assert daemon.process.wait(PATIENCE) == 0


def test_a_second_signal_ends_sessions_and_loses_nothing(site, start):
    path = site.deliver(mbox(ONE, TWO))
    daemon = start()
    pop, stranger = daemon.log_in(), daemon.call()
    pop.ok("DELE 1")
    crew = daemon.crew()
    session = daemon.sessions(1)[0]["pid"]
    daemon.process.send_signal(signal.SIGTERM)
    daemon.logged("info: ending; 1 sessions go on")
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.process.wait(PATIENCE) == 0
    daemon.logged("info: ending now, and 1 sessions with it")
    assert pop.end() == b"" == stranger.end()
    wait_until(lambda: all(map(has_ended, {session, *crew})))
    assert path.read_bytes() == mbox(ONE, TWO) and site.left_over() == []


def test_one_that_is_killed_leaves_no_process_but_its_sessions(site, start):
    """Its crew notices, and ends; its sessions go on, and end as they do."""
    path = site.deliver(mbox(ONE))
    daemon = start()
    pop, stranger = daemon.log_in(), daemon.call()
    crew = daemon.crew()
    daemon.process.kill()
    daemon.process.wait(PATIENCE)
    wait_until(lambda: all(map(has_ended, crew)))
    assert stranger.end() == b""
    pop.ok("DELE 1")
    pop.quit()
    assert path.read_bytes() == b""


def test_nobody_came(start):
    """autoclose counts from the last one, a stranger or a session."""
    daemon = start(autoclose=1)
    pop = daemon.call()
    with pytest.raises(TimeoutError):
        pop.socket.settimeout(1.5)
        pop.socket.recv(1)
    assert daemon.process.poll() is None
    pop.socket.close()
    assert daemon.process.wait(PATIENCE) == 0
    assert daemon.lines("nobody came") == ["info: nobody came for 1 seconds"]
