"""The client's name: believed only when it holds in both directions, and never waited for at the start
(ucb-popper.md 3)."""

import _socket
import os
import signal
import time

import pytest
from conftest import wait_until

from popper import VERSION
from popper.peer import FORGED, LATER, UNKNOWN, VERIFIED, Finding, Peer, System, is_host_name, plain, verify

# popper forks the look-up; a thread of the test suite's own is no concern of it.
pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")

ADDRESS = "192.0.2.7"
V6 = "2001:db8::7"


def trouble(code, text):
    return _socket.gaierror(code, text)


NO_NAME = trouble(_socket.EAI_NONAME, "Name or service not known")
AGAIN = trouble(_socket.EAI_AGAIN, "Temporary failure in name resolution")
SYSTEM = trouble(_socket.EAI_SYSTEM, "System error")


class Zone:
    """A resolver with one answer in each direction: a value, or a trouble to raise."""

    def __init__(self, name, addresses=()):
        self.name = name
        self.addresses = addresses

    def reverse(self, address):
        return self._answer(self.name)

    def forward(self, name):
        assert name == self.name
        return self._answer(self.addresses)

    @staticmethod
    def _answer(answer):
        if isinstance(answer, Exception):
            raise answer
        return answer


def found(zone, address=ADDRESS):
    finding = verify(address, zone)
    return finding.status, finding.name, finding.complaint


# -- verify ----------------------------------------------------------------------------------------------------------

def test_a_name_that_has_the_address():
    assert found(Zone("pc.example.org", [ADDRESS])) == (VERIFIED, "pc.example.org", "")
    assert found(Zone("pc.example.org.", ["192.0.2.1", ADDRESS])) == (VERIFIED, "pc.example.org", "")
    assert found(Zone("pc.example.org", [V6]), V6) == (VERIFIED, "pc.example.org", "")


def test_no_name():
    assert found(Zone(NO_NAME)) == (
        UNKNOWN, ADDRESS,
        f"(v{VERSION}) Unable to get canonical name of client 192.0.2.7: Name or service not known (-2)")


@pytest.mark.parametrize("error", [AGAIN, SYSTEM])
def test_no_answer_for_the_address(error):
    """A DNS that is down says nothing about the client."""
    assert found(Zone(error)) == (
        LATER, ADDRESS,
        f"(v{VERSION}) Unable to get canonical name of client 192.0.2.7: {error.args[1]} ({error.args[0]})")


def test_a_name_that_does_not_exist():
    assert found(Zone("pc.example.org", NO_NAME)) == (
        FORGED, ADDRESS, 'Client at "192.0.2.7" resolves to an unknown host name "pc.example.org"')


@pytest.mark.parametrize("error", [AGAIN, SYSTEM])
def test_no_answer_for_the_name(error):
    assert found(Zone("pc.example.org", error)) == (
        LATER, ADDRESS, 'Client at "192.0.2.7" resolves to an unknown host name "pc.example.org"')


@pytest.mark.parametrize("addresses", [[], ["192.0.2.8"], ["192.0.2.70"], [V6]])
def test_a_name_that_has_other_addresses(addresses):
    assert found(Zone("mail.bank.example", addresses)) == (
        FORGED, ADDRESS, 'Client address "192.0.2.7" not listed for its host name "mail.bank.example"')


@pytest.mark.parametrize("name", [
    "10.0.0.1", "192.0.2.7", "192.0.2.7.", "7", "0xc0000207", "192.0.2.0x7", "0XC0.0.2.0X7", "::1", V6,
    "a b.example", "a\nNov 1 popper: POP login.example", "a\r.example", 'a".example', "a\x1b[2J.example",
    "%n%s.example", "a(b).example", "a..example", ".example", "", ".", "a" * 256, "a." * 150 + "example",
    "h\u00f6st.example", "host\u2028.example", "a\udcff.example", "pc.example.\u0663", "a/b.example", "a\0.example"])
def test_a_hostile_name_is_neither_asked_about_nor_shown(name):
    """sec.10, sec.13: what is no host name gets into no log line, and an address in disguise is no name."""
    class Asked(Zone):
        def forward(self, name):
            raise AssertionError("asked about it")
    assert found(Asked(name)) == (
        FORGED, ADDRESS, 'Client at "192.0.2.7" resolves to an unknown host name "(not a name)"')


@pytest.mark.parametrize("name", [
    "localhost", "pc.example.org", "pc.example.org.", "PC-7.Example.ORG", "dhcp_7.example", "7.2.0.192.isp.example",
    "3com.example", "xn--hst-sna.example", "a" * 63 + ".example", "0xc0.example"])
def test_host_names(name):
    assert is_host_name(name)


@pytest.mark.parametrize("address, shown", [
    ("192.0.2.7", "192.0.2.7"), ("::ffff:192.0.2.7", "192.0.2.7"), ("::FFFF:192.0.2.7", "192.0.2.7"),
    (V6, V6), ("fe80::1%eth0", "fe80::1"), ("::1", "::1"), ("::ffff:0:1", "::ffff:0:1")])
def test_addresses_as_they_are_shown(address, shown):
    assert plain(address) == shown
    assert Peer(address).address == shown and Peer(address).name == shown


def test_the_system_knows_this_machine():
    with open("/etc/hosts", encoding="utf-8") as hosts:
        if not any(line.split()[:2] == ["127.0.0.1", "localhost"] for line in hosts):
            pytest.skip("no localhost in /etc/hosts")
    assert System.reverse("127.0.0.1").startswith("localhost")
    assert "127.0.0.1" in System.forward("localhost")


# -- the look-up beside the session ----------------------------------------------------------------------------------

def looked_up(resolver, seconds=30, before=None):
    """A peer whose look-up is under way, and its process."""
    peer = Peer("::ffff:" + ADDRESS, 1234)
    peer.look_up(seconds, before, resolver)
    return peer, peer._child


def is_gone(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_peer_nobody_asks_about():
    peer = Peer(ADDRESS, 1234)
    assert peer.settle() is None
    assert (peer.address, peer.port, peer.name, peer.status) == (ADDRESS, 1234, ADDRESS, UNKNOWN)


def test_a_verified_peer_has_its_name_and_nothing_to_complain_of():
    peer, process = looked_up(Zone("pc.example.org", [ADDRESS]))
    assert peer.settle() is None
    assert (peer.name, peer.address, peer.status) == ("pc.example.org", ADDRESS, VERIFIED)
    assert is_gone(process)
    assert peer.settle() is None and peer.name == "pc.example.org"


@pytest.mark.parametrize("zone, status", [
    (Zone(NO_NAME), UNKNOWN), (Zone(AGAIN), LATER), (Zone("pc.example.org", []), FORGED), (Zone("a\nb"), FORGED)])
def test_any_other_peer_is_called_by_its_address(zone, status):
    peer, process = looked_up(zone)
    assert peer.settle() == verify(ADDRESS, zone).complaint
    assert (peer.name, peer.status) == (ADDRESS, status)
    assert peer.settle() is None             # a finding is told once
    assert is_gone(process)


class Stuck(Zone):
    """A DNS that never answers."""

    def reverse(self, address):
        while True:
            signal.pause()


def test_a_dns_that_hangs_delays_no_start_and_is_given_up_in_time():
    before = os.listdir("/proc/self/fd")
    peer, process = looked_up(Stuck(None), seconds=1)        # returns, though the answer never comes
    assert not is_gone(process)
    assert peer.settle() == f"(v{VERSION}) Unable to get canonical name of client 192.0.2.7: no answer in time"
    assert (peer.name, peer.status) == (ADDRESS, LATER)
    assert is_gone(process)
    assert os.listdir("/proc/self/fd") == before


def test_a_look_up_ends_by_itself_when_nobody_settles():
    """A session that was killed leaves no process behind for longer than the look-up may take."""
    class Deaf(Stuck):
        def reverse(self, address):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            return super().reverse(address)
    peer, process = looked_up(Deaf(None), seconds=1)
    ended = wait_until(lambda: os.waitpid(process, os.WNOHANG)[0] and process, seconds=30)
    assert is_gone(ended)
    os.close(peer._pipe)


def test_the_time_counts_from_the_start_not_from_settle():
    """What the client takes to send its name is not added to the limit."""
    peer, _ = looked_up(Stuck(None), seconds=600)
    assert peer._deadline <= time.monotonic() + 600
    peer._deadline = time.monotonic()
    assert "no answer in time" in peer.settle()


def test_a_slow_answer_in_time_is_waited_for(tmp_path):
    go = tmp_path / "go"

    class Slow(Zone):
        def reverse(self, address):
            while not go.exists():
                time.sleep(0.01)
            return super().reverse(address)
    peer, _ = looked_up(Slow("pc.example.org", [ADDRESS]))
    go.touch()
    assert peer.settle() is None and peer.name == "pc.example.org"


def test_a_resolver_that_breaks_is_no_answer(capfd):
    class Broken(Zone):
        def reverse(self, address):
            raise RuntimeError("bug")
    peer, _ = looked_up(Broken(None))
    assert "no answer in time" in peer.settle()
    assert (peer.name, peer.status) == (ADDRESS, LATER)
    assert capfd.readouterr() == ("", "")    # standard output may be the client


class Telling(Zone):
    """A resolver that puts what it sees around it into the name."""

    def __init__(self, what):
        super().__init__("", [ADDRESS])
        self.what = what

    def reverse(self, address):
        self.name = self.what() + ".example"
        return self.name


def told(what, before=None):
    peer, _ = looked_up(Telling(what), before=before)
    assert peer.settle() is None
    return peer.name.removesuffix(".example")


def test_privileges_are_given_up_before_anything_is_asked(tmp_path):
    mark = tmp_path / "mark"
    assert told(lambda: str(mark.exists()), mark.touch) == "True"


def test_the_look_up_holds_no_descriptor_of_the_session():
    """Else the client would not see the connection end."""
    import socket
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sockets = told(lambda: str(sum(os.readlink(f"/proc/self/fd/{fd}").startswith("socket:")
                                       for fd in range(256) if os.path.lexists(f"/proc/self/fd/{fd}"))))
        assert sockets == "0"


def test_no_search_list_makes_a_stranger_one_of_us():
    assert told(lambda: os.environ["LOCALDOMAIN"]) == "invalid"
    assert os.environ.get("LOCALDOMAIN") != "invalid"


# -- a finding of somebody else's ------------------------------------------------------------------------------------

class Log:
    def __init__(self):
        self.notices, self.debugs = [], []
        self.notice, self.debug = self.notices.append, self.debugs.append


@pytest.mark.parametrize("finding, name, complaints", [
    (Finding(VERIFIED, "pc.example.org"), "pc.example.org", []),
    (Finding(FORGED, ADDRESS, "a false name"), ADDRESS, ["a false name"])])
def test_a_finding_that_was_given_is_told_of_once(finding, name, complaints):
    peer, log, spent = Peer(ADDRESS), Log(), {"DNS": 0.0}
    peer.give(finding, 0.25)
    assert (peer.status, peer.name) == (finding.status, name) and peer.settle() is None
    for _ in range(2):
        peer.introduce(log, spent)
    assert log.notices == complaints and len(log.debugs) == 1 and "after 0.250 s" in log.debugs[0]
    assert spent == {"DNS": 0.25}


def test_without_a_finding_there_is_nothing_to_tell():
    log = Log()
    Peer(ADDRESS).introduce(log, {"DNS": 0.0})
    assert log.notices == log.debugs == []
