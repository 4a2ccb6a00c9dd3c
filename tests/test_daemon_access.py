"""Who may come to popper on its own: lists, tables, proxies, and those who guess passwords."""

import os
import re
import socket
import struct

import pytest

from conftest import wait_until
from dialogue import ONE, PASSWORD, USER, mbox, site           # noqa: F401
from on_its_own import start                                   # noqa: F401
from popper.guessers import Guessers

NO_ACCESS = "-ERR [SYS/PERM] You may not come in from your address."
WRONG = '[AUTH] Password supplied for "{}" is incorrect.'


def by_list(site, start, text, **directives):
    """A daemon whose allow_deny is this text."""
    rules = site.place / "rules"
    rules.write_text(text)
    site.deliver(mbox(ONE))
    return start(allow_deny=rules, **directives)


# -- lists -----------------------------------------------------------------------------------------------------------

def test_an_address_that_is_denied(site, start):
    daemon = by_list(site, start, "deny 127.0.0.2\nallow all\n")
    for _ in range(5):
        daemon.turned_away(NO_ACCESS, "127.0.0.2")
    daemon.log_in().quit()
    line, = daemon.lines("Refused connection")
    assert line.startswith("warning: Refused connection from 127.0.0.2 by ")
    counters = daemon.status["counters"]
    assert counters["turned_away"]["allow_deny"] == 5 and counters["connections"] == 6


def test_a_list_that_is_changed(site, start):
    """The list in force is the one that was read last; a wrong one is not taken."""
    daemon = by_list(site, start, "deny 127.0.0.2\n")
    daemon.log_in().quit()
    (site.place / "rules").write_text("deny 127.0.0.1\n")
    daemon.log_in().quit()
    assert daemon.ask("reload") == {"ok": True}
    daemon.turned_away(NO_ACCESS)
    (site.place / "rules").write_text("let everybody in\n")
    assert "rules" in daemon.ask("reload")["error"]
    daemon.turned_away(NO_ACCESS)


@pytest.mark.root
def test_rules_by_user_and_by_name(site, start):
    """What cannot be decided before the password is decided behind it, in the same words."""
    before = with_files(site, {"hosts": "127.0.0.1 good.example.org\n127.0.0.2 bad.example.org\n"})
    site.add("other", "word")
    site.deliver(mbox(ONE), "other")
    daemon = by_list(site, start, f"deny all user {USER}\nallow good.example.org\ndeny all\n", before=before,
                     lookup="yes", dns_timeout=1)
    daemon.log_in("other", "word").quit()
    for address, user, password in (("127.0.0.1", USER, PASSWORD), ("127.0.0.2", "other", "word")):
        pop = daemon.call(address)
        pop.ok(f"USER {user}")
        assert "-ERR " + pop.err(f"PASS {password}") == NO_ACCESS and pop.end() == b""


def with_files(site, files):
    """The beginning of a command line that has these texts in place of files of /etc."""
    for name, text in files.items():
        (site.place / name).write_text(text)
    mounts = " && ".join(f"mount --bind {site.place}/{name} /etc/{name}" for name in files)
    return ["unshare", "-m", "sh", "-c", f'{mounts} && exec "$@"', "sh"]


def test_a_name_is_not_asked_for_when_the_address_is_trusted(site, start):
    trusted = site.place / "trusted"
    trusted.write_text("127.0.0.2\n")
    site.deliver(mbox(ONE))
    daemon = start(trusted=trusted, lookup="yes", dns_timeout=1)
    daemon.log_in(address="127.0.0.2").quit()
    daemon.log_in().quit()
    logins = [line.partition(" at ")[2] for line in daemon.logged("POP login", 2)]
    assert logins == ["(127.0.0.2) 127.0.0.2", "(localhost) 127.0.0.1"]


@pytest.mark.root
def test_the_tables_of_tcp_wrappers(site, start):
    before = with_files(site, {"hosts.allow": "popper: 127.0.0.1\n", "hosts.deny": "ALL: ALL\n"})
    site.deliver(mbox(ONE))
    daemon = start(before=before, hosts_access="yes")
    daemon.log_in().quit()
    daemon.turned_away(NO_ACCESS, "127.0.0.2")


# -- proxies ---------------------------------------------------------------------------------------------------------

def version_2(address, port):
    """The header for a client of IPv4 (proxy-protocol.txt, 2.2)."""
    return b"\r\n\r\n\0\r\nQUIT\n" + struct.pack(">BBH4s4sHH", 0x21, 0x11, 12, socket.inet_aton(address),
                                               socket.inet_aton("192.0.2.99"), port, 110)


HEADERS = {"1": b"PROXY TCP4 192.0.2.7 192.0.2.99 4000 110\r\n", "2": version_2("192.0.2.7", 4000)}


@pytest.mark.parametrize("version", HEADERS)
@pytest.mark.parametrize("pieces", [1, 7])
def test_a_proxy_tells_who_it_is(site, start, version, pieces):
    """The greeting waits for the header; log and status have the client's address. What came behind the header is
    not lost."""
    site.deliver(mbox(ONE))
    daemon = start(proxy_from="127.0.0.2")
    octets = HEADERS[version] + f"USER {USER}\r\n".encode()
    pop = daemon.call("127.0.0.2", greeted=False)
    for at in range(0, len(octets), len(octets) // pieces):
        pop.send(octets[at:at + len(octets) // pieces])
    assert pop.reply().startswith("+OK UCB Pop server")
    assert pop.reply() == f"+OK Password required for {USER}."
    pop.ok(f"PASS {PASSWORD}")
    assert [each["address"] for each in daemon.sessions(1)] == ["192.0.2.7"]
    pop.quit()
    assert f'POP login by user "{USER}" at (192.0.2.7) 192.0.2.7' in daemon.log


def test_what_is_no_header(site, start):
    daemon = start(proxy_from="127.0.0.2")
    pop = daemon.call("127.0.0.2", greeted=False)
    pop.send(b"CAPA\r\n")
    assert pop.reply() == "-ERR A PROXY header must come first: this port is for the proxy in front of it."
    assert pop.end() == b""


def test_only_a_proxy_may_tell_who_it_is(site, start):
    site.deliver(mbox(ONE))
    daemon = start(proxy_from="127.0.0.2")
    pop = daemon.call()
    pop.err(HEADERS["1"].rstrip())
    pop.log_in().quit()
    assert "192.0.2.7" not in "".join(daemon.lines("POP login"))


def test_a_client_of_a_proxy_that_is_denied(site, start):
    """The rules are for the client, and the proxy itself is none."""
    daemon = by_list(site, start, "deny 192.0.2.7\nallow 192.0.2.0/24\ndeny all\n", proxy_from="127.0.0.2")
    pop = daemon.call("127.0.0.2", greeted=False)
    pop.send(HEADERS["2"])
    assert pop.reply() == NO_ACCESS and pop.end() == b""
    pop = daemon.call("127.0.0.2", greeted=False)
    pop.send(version_2("192.0.2.8", 1))
    pop.reply()
    pop.log_in().quit()


# -- guessers --------------------------------------------------------------------------------------------------------

def guess(pop, user=USER):
    """A wrong password; -> what is said of it."""
    pop.ok(f"USER {user}")
    said = pop.err("PASS not the one")
    assert pop.end() == b""
    return said


def failures(site, kind, what):
    """How often an address or a name was wrong lately, as the file has it."""
    return sum(round(count) for each, text, count, _ in Guessers(str(site.place / "guessers"), 30).held()
               if (each, text) == (kind, what))


def test_all_see_the_same_guesses(site, start):
    """The daemon, another one, and a session under inetd, in one file."""
    first = start()
    guess(first.call())
    wait_until(lambda: failures(site, "name", USER) == 1)
    second = start(control=site.place / "second")
    second.logged("listening on", 2)
    guess(second.call())
    wait_until(lambda: failures(site, "name", USER) == 2)
    guess(site.session(tcp=True, guessers=str(site.place / "guessers"), guess_delay_max=30))
    assert failures(site, "name", USER) == failures(site, "address", "127.0.0.1") == 3
    held = {(each["kind"], each["what"]): each["wait"] for each in first.ask("status")["guessers"]}
    assert set(held) == {("name", USER), ("address", "127.0.0.1")} and min(held.values()) > 0


def guessed_often(site, address):
    memory = Guessers(str(site.place / "guessers"), 30)
    for _ in range(20):
        memory.failed(address, b"nobody-there")
    return memory


def test_who_guesses_waits_and_nobody_else(site, start):
    """A login that is held back holds up neither other connections nor other addresses; nothing is said to it yet."""
    site.deliver(mbox(ONE))
    guessed_often(site, "127.0.0.2")
    daemon = start()
    guesser = daemon.call("127.0.0.2")
    guesser.send(f"USER {USER}\r\nPASS {PASSWORD}\r\n")
    guesser.reply()
    wait_until(lambda: daemon.status["waiting"] == 1)
    for _ in range(3):
        daemon.log_in().quit()
    daemon.call("127.0.0.2").quit()
    assert daemon.status["waiting"] == 1 and not daemon.sessions(0)
    guesser.socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        guesser.socket.recv(1)


def test_too_many_wait_already(site, start):
    """Each waits for the one before it. What cannot have its turn in time is not tried at all, right or wrong, and is
    told so in words of its own."""
    site.deliver(mbox(ONE))
    guessed_often(site, "127.0.0.2")
    daemon = start(guess_delay_max=1)
    first, second = daemon.call("127.0.0.2"), daemon.call("127.0.0.2")
    for number, pop in enumerate((first, second), 1):
        pop.send(f"USER {USER}\r\nPASS {PASSWORD}\r\n")
        pop.reply()
        wait_until(lambda: daemon.status["waiting"] == number)
    assert first.reply().startswith("+OK ")
    assert second.reply() == "-ERR [SYS/TEMP] Too many wrong passwords, try again later." and second.end() == b""
    first.quit()


def test_a_crowd_of_guesses_is_no_crowd_of_tries(site, start):
    """What is being tried has not failed yet: only so many of one address are tried at a time."""
    daemon = start(fail_delay=0)
    crowd = [daemon.call("127.0.0.2") for _ in range(12)]
    for pop in crowd:
        pop.send(f"USER {USER}\r\nPASS wrong\r\n")
    told = wait_until(lambda: daemon.status["counters"]["denied"] >= 3 and daemon.status)
    assert told["counters"]["denied"] + told["waiting"] <= 12 and told["counters"]["denied"] <= 5
    assert told["waiting"] >= 7


def test_who_is_not_tried_is_in_the_trace(site, start):
    """What the mail program was told, and why: the person on the telephone has nothing else."""
    site.deliver(mbox(ONE))
    trace = site.place / "trace"
    daemon = start(maxsessions=1, trace_user=USER, trace_file=trace)
    with daemon.log_in().socket:
        late = daemon.call()
        late.ok(f"USER {USER}")
        assert late.err(f"PASS {PASSWORD}") == "[SYS/TEMP] Too many sessions, try again later."
        assert late.end() == b""
        mark = wait_until(lambda: re.search(r"(\[\d+\.\d+\] )-ERR \[SYS/TEMP\] Too many sessions", trace.read_text()))[1]
        said = [line.partition(mark)[2] for line in trace.read_text().splitlines() if mark in line]
    assert f'Received: "USER {USER}"' in said and 'Received: "PASS xxxxxxxxx"' in said
    assert said[-1].startswith("Ended by a refusal; ")


def test_a_server_that_ends_makes_room_for_the_next(site, start):
    """popperctl reaches the new one, though the old one waits for its last session."""
    site.deliver(mbox(ONE))
    old = start()
    pop = old.log_in()
    assert old.ask("stop") == {"ok": True}
    new = start()
    wait_until(lambda: new.status["pid"] == new.process.pid)
    pop.quit()
    assert old.process.wait(20) == 0
    assert new.status["pid"] == new.process.pid


def test_a_guesser_who_has_gone(site, start):
    """What waited for its turn is forgotten at the end, and the end does not wait for it."""
    guessed_often(site, "127.0.0.2")
    daemon = start()
    pop = daemon.call("127.0.0.2")
    pop.send(f"USER {USER}\r\nPASS {PASSWORD}\r\n")
    wait_until(lambda: daemon.status["waiting"] == 1)
    pop.socket.close()
    daemon.call().quit()
    assert daemon.process.poll() is None


def test_names_that_are_there_and_names_that_are_not(site, start):
    """The same words, neither sooner nor later: `fail_delay` behind the password (security.md rows 14, sec.08)."""
    daemon = start(fail_delay=1, guess_delay_max=0)
    times = {}
    for user in (USER, "nobody-there", "root", "a" * 31):
        pop = daemon.call()
        pop.ok(f"USER {user}")
        asked = os.times().elapsed
        words = pop.err("PASS not the one")
        times[user] = os.times().elapsed - asked
        assert words == WRONG.format(user)
        assert pop.end() == b""
    assert min(times.values()) >= 0.99 and max(times.values()) - min(times.values()) < 0.25, times


def test_who_is_traced_and_goes_before_he_says_his_password(site, start):
    """A mail program that hangs there is what a trace is asked for."""
    trace = site.place / "trace"
    daemon = start(trace_user=USER, trace_file=trace)
    for user in (USER, "somebody"):
        pop = daemon.call()
        pop.ok(f"USER {user}")
        pop.socket.close()
    wait_until(lambda: trace.exists() and "Ended by the client" in trace.read_text())
    wait_until(lambda: daemon.status["strangers"] == 0)
    assert f'Received: "USER {USER}"' in trace.read_text() and "somebody" not in trace.read_text()
