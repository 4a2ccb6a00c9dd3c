"""The lists of who may come, against those who would like to (security.md, sec.13)."""

import os
import sys

import pytest

from popper.access import ALLOW, DENY, TRY_AGAIN, Missing, contents, networks_of, read_networks, read_rules
from popper.errors import ConfigError
from popper.peer import VERIFIED, Peer, verify
from popper.wrappers import hosts_access

# popper forks the look-up; a thread of the test suite's own is no concern of it.
pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")

INSIDE = "allow 192.0.2.0/24 ::1\ndeny all\n"


class Zone:
    """What DNS says: the name of every address, and the addresses of every name."""

    def __init__(self, name, *addresses):
        self.name = name
        self.addresses = addresses

    def reverse(self, address):
        return self.name

    def forward(self, name):
        return self.addresses


@pytest.mark.parametrize("address", ["::ffff:192.0.2.7", "::FFFF:192.0.2.7", "::ffff:c000:207",
                                     "0:0:0:0:0:ffff:c000:0207", "::ffff:192.0.2.7%eth0"])
def test_ipv4_mapped_addresses_are_ipv4(address):
    """sec.13: who is kept out, or let in, by IPv4 address is so over an IPv6 socket, however it is written."""
    assert read_rules("F", "deny 192.0.2.7\nallow all").decide(address)[0] == DENY
    assert read_rules("F", "deny ::ffff:192.0.2.0/120\nallow all").decide(address)[0] == DENY
    assert read_rules("F", INSIDE).decide(address)[0] == ALLOW
    assert networks_of(["192.0.2.7"]).has(address) and not networks_of(["::/0"]).has(address)
    assert Peer(address).address in ("192.0.2.7", address.partition("%")[0])


@pytest.mark.parametrize("address", ["::192.0.2.7", "64:ff9b::192.0.2.7", "2002:c000:207::1", "::fffe:192.0.2.7",
                                     "::1:ffff:c000:207"])
def test_other_ways_to_put_ipv4_into_ipv6_are_not(address):
    """sec.13: only ::ffff:0:0/96 is IPv4."""
    assert read_rules("F", INSIDE).decide(address)[0] == DENY


def test_the_loopback_of_ipv6_is_that_and_no_other():
    """sec.13: ::1 is not 127.0.0.1, nor no network at all, nor the other way round."""
    for who, they in [("::1", ("::1", "0:0:0:0:0:0:0:1")), ("127.0.0.0/8", ("127.0.0.1", "::ffff:127.0.0.1")),
                      ("local", ("",))]:
        rules = read_rules("F", f"allow {who}\ndeny all")
        for caller in ("::1", "0:0:0:0:0:0:0:1", "127.0.0.1", "::ffff:127.0.0.1", "::", "::127.0.0.1", ""):
            assert rules.decide(caller)[0] == (ALLOW if caller in they else DENY), (who, caller)


@pytest.mark.parametrize("network, inside, outside", [
    ("192.0.2.0/24", ["192.0.2.0", "192.0.2.255"], ["192.0.1.255", "192.0.3.0"]),
    ("192.0.2.128/25", ["192.0.2.128", "192.0.2.255"], ["192.0.2.127", "192.0.3.0"]),
    ("192.0.2.7/32", ["192.0.2.7"], ["192.0.2.6", "192.0.2.8"]),
    ("128.0.0.0/1", ["128.0.0.0", "255.255.255.255"], ["127.255.255.255", "0.0.0.0"]),
    ("0.0.0.0/0", ["0.0.0.0", "255.255.255.255"], ["::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"]),
    ("::/0", ["::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "::192.0.2.7"], ["0.0.0.0", "255.255.255.255"]),
    ("2001:db8::/33", ["2001:db8::", "2001:db8:7fff:ffff:ffff:ffff:ffff:ffff"], ["2001:db8:8000::", "2001:db7:ffff::"]),
    ("2001:db8::7/128", ["2001:db8::7"], ["2001:db8::6", "2001:db8::8"]),
])
def test_edges_of_networks(network, inside, outside):
    """sec.13: the first and the last address of a network are in it, their neighbours are not."""
    rules, networks = read_rules("F", f"allow {network}\ndeny all"), read_networks("T", network)
    for address in inside + outside:
        assert rules.decide(address)[0] == (ALLOW if address in inside else DENY), address
        assert networks.has(address) is (address in inside), address


@pytest.mark.parametrize("name, addresses", [
    ("trusted.example.org", ["198.51.100.1"]),                 # the name is somebody else's
    ("trusted.example.org.", ["198.51.100.1"]),
    ("192.0.2.7", ["203.0.113.66"]),                           # an address for a name
    ("192.0.2.evil.example", ["203.0.113.66"]),                # holds in both directions, and looks like an address
    ("trusted.example.org.evil.example", ["203.0.113.66"]),
    ("eviltrusted.example.org\n", ["203.0.113.66"]),
    ("trusted.example.org\0.evil.example", ["203.0.113.66"]),
    *((word, ["203.0.113.66"]) for word in ("unknown", "all", "local", "paranoid")),
])
def test_a_name_of_ones_own_making_lets_nobody_in(name, addresses):
    """sec.13: whoever answers for his own reverse zone gets no further with it, in either language."""
    found = verify("203.0.113.66", Zone(name, *addresses))
    own = read_rules("F", "allow trusted.example.org .trusted.example.org 192.0.2.0/24 local\ndeny all")
    assert own.decide("203.0.113.66", found.status, found.name)[0] == DENY

    def read(path):
        return {"A": "popper: trusted.example.org .trusted.example.org 192.0.2. 192.0.* 192.0.2.? 192.0.2.7 UNKNOWN\n",
                "D": "ALL: ALL\n"}[path]
    tables = hosts_access(("popper",), "A", "D", read)
    assert tables.decide("203.0.113.66", found.status, found.name)[0] == DENY


def test_who_lies_is_told_apart_from_a_name_server_that_is_down():
    """sec.13: a name that does not hold is refused for good; where DNS was silent, the client may try again."""
    rules = read_rules("F", "allow .example.org\ndeny all")
    liar = verify("203.0.113.66", Zone("pc.example.org", "192.0.2.7"))
    assert rules.decide("203.0.113.66", liar.status, liar.name) == (DENY, "F:2: deny all")
    silent = Peer("203.0.113.66")
    silent.look_up(1, resolver=None)         # its child cannot even ask
    assert silent.settle().endswith("no answer in time")
    assert rules.decide(silent.address, silent.status, silent.name) == (TRY_AGAIN, "F:2: deny all")


def unreadable(place, kind):
    """A path at which no list can be read."""
    path = place / "list"
    if kind == "directory":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)                      # opening it must not wait for a writer
    elif kind == "device":
        return "/dev/zero"
    elif kind == "mode 0":
        path.touch(0)
    elif kind == "too long":
        path.write_bytes(b"#" * 1048577)
    elif kind == "not UTF-8":
        path.write_bytes(b"deny all\xff\n")
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "below a file":
        (place / "file").touch()
        return str(place / "file" / "list")
    return str(path)


KINDS = ["directory", "pipe", "device", "mode 0", "too long", "not UTF-8", "loop", "below a file"]


@pytest.mark.parametrize("kind", [*KINDS, "missing"])
def test_a_list_that_cannot_be_read_is_never_an_empty_one(tmp_path, kind):
    """sec.13: an unreadable list is a complaint that names it, and not a list of no rules."""
    if kind == "mode 0" and os.geteuid() == 0:
        pytest.skip("root reads everything")
    path = unreadable(tmp_path, kind)
    with pytest.raises(ConfigError) as caught:
        contents(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert isinstance(caught.value, Missing) is (kind == "missing")


@pytest.mark.parametrize("which", ["allow", "deny", "patterns"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_table_of_tcp_wrappers_that_cannot_be_read_is_not_taken_for_missing(tmp_path, kind, which):
    """sec.13: hosts.allow, hosts.deny and files of patterns likewise; only one that is not there is empty."""
    if kind == "mode 0" and os.geteuid() == 0:
        pytest.skip("root reads everything")
    path = unreadable(tmp_path, kind)
    table = tmp_path / "table"
    table.write_text(f"popper: {path}\n" if which == "patterns" else "ALL: ALL\n")
    paths = {"allow": (path, table), "deny": (table, path), "patterns": (table, tmp_path / "none")}[which]
    with pytest.raises(ConfigError, match=f"^{path}: "):
        hosts_access(("popper",), *map(str, paths))


def test_long_names_and_patterns_do_not_take_long():
    """sec.13: no name that a client can have makes wildcards slow; counted in steps of the interpreter, not in time."""
    steps = 0

    def count(frame, event, argument):
        nonlocal steps
        steps += 1
        return count
    tables = {"A": "popper: " + "*a" * 20 + "b*.example\n", "D": "ALL: ALL\n"}
    rules = hosts_access(("popper",), "A", "D", tables.__getitem__)
    name = ".".join(["a" * 60] * 4)
    sys.settrace(count)
    try:
        found = rules.decide("192.0.2.7", VERIFIED, name)[0]
    finally:
        sys.settrace(None)
    assert (found, steps < 100000) == (DENY, True)
