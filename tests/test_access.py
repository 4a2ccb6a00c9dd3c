"""Who may come: networks, and the allow_deny file."""

import ipaddress

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from conftest import TREE
from popper import access, peer
from popper.access import (ALLOW, DENY, LATER_ON, TRY_AGAIN, Both, Missing, Networks, contents, networks_of,
                           read_networks, read_rules)
from popper.errors import ConfigError
from popper.peer import FORGED, LATER, UNKNOWN, VERIFIED

many = settings(deadline=None, max_examples=400, database=None, derandomize=True)

ADDRESS = "192.0.2.7"
NAME = "pc.example.org"


def verdict(text, address=ADDRESS, status=UNKNOWN, name="", user="joe"):
    """What a file of these lines, with `deny 203.0.113.1` behind them, says of a caller."""
    return read_rules("F", text + "\ndeny 203.0.113.1").decide(address, status, name, user)[0]


# -- networks --------------------------------------------------------------------------------------------------------

V4 = st.integers(0, 2**32 - 1).map(ipaddress.IPv4Address)
V6 = st.integers(0, 2**128 - 1).map(ipaddress.IPv6Address)


@st.composite
def network_and_address(draw):
    """A network, and an address in it, just outside of it, or anywhere."""
    four = draw(st.booleans())
    most, kind = (32, ipaddress.IPv4Address) if four else (128, ipaddress.IPv6Address)
    network = ipaddress.ip_network((draw(V4 if four else V6), draw(st.integers(0, most))), strict=False)
    first, last = int(network[0]), int(network[-1])
    near = [first, last, max(first - 1, 0), min(last + 1, 2**most - 1), draw(st.integers(first, last))]
    return network, draw(st.one_of(st.sampled_from([kind(each) for each in near]), V4, V6))


def is_mapped(address):
    """IPv4-mapped addresses and networks are IPv4 here, and IPv6 in Python."""
    return int(address) >> 32 == 0xffff and address.version == 6


@many
@given(network_and_address())
def test_a_network_holds_what_the_ipaddress_module_says(pair):
    network, address = pair
    if not is_mapped(network[0]) and not is_mapped(address):
        assert networks_of([str(network)]).has(str(address)) is (address in network)


@many
@given(network_and_address(), st.booleans())
def test_ipv4_in_ipv6_is_ipv4_in_the_list_and_at_the_door(pair, hexadecimal):
    network, address = pair
    if network.version == address.version == 4:
        written = f"::ffff:{network[0]}/{network.prefixlen + 96}"
        came = ipaddress.IPv6Address(0xffff << 32 | int(address)).exploded if hexadecimal else f"::ffff:{address}"
        for entry in (written, str(network)):
            for caller in (came, str(address)):
                assert networks_of([entry]).has(caller) is (address in network), (entry, caller)


@many
@given(V4 | V6, st.integers(0, 128))
def test_bits_behind_the_length_are_a_mistake_that_names_the_network(address, length):
    most = 32 if address.version == 4 else 128
    if length > most or is_mapped(address):
        return
    try:
        right = ipaddress.ip_network((address, length))
    except ValueError:
        right = ipaddress.ip_network((address, length), strict=False)
        with pytest.raises(ValueError) as caught:
            networks_of([f"{address}/{length}"])
        assert ipaddress.ip_network(str(caught.value).rpartition("expected ")[2]) == right
    else:
        assert networks_of([f"{address}/{length}"]).has(str(right[-1]))


@pytest.mark.parametrize("word, inside, outside", [
    ("192.0.2.7", "192.0.2.7", "192.0.2.6"),
    ("192.0.2.0/24", "192.0.2.255", "192.0.3.0"),
    ("192.0.2.6/31", "192.0.2.7", "192.0.2.5"),
    ("0.0.0.0/0", "255.255.255.255", "::1"),
    ("::/0", "2001:db8::1", "192.0.2.7"),
    ("2001:db8::/32", "2001:db8:ffff::", "2001:db9::"),
    ("[2001:db8::]/32", "2001:db8:ffff::", "2001:db9::"),
    ("[2001:db8::/32]", "2001:db8:ffff::", "2001:db9::"),
    ("[::1]", "::1", "127.0.0.1"),
    ("fe80::/10", "fe80::1%eth0", "fec0::1"),
    ("2001:DB8::7", "2001:db8:0:0::7", "2001:db8::8"),
    ("::ffff:0:0/96", "192.0.2.7", "::1"),
])
def test_networks_as_they_are_written(word, inside, outside):
    networks = networks_of([word])
    assert networks.has(inside) is True
    assert networks.has(outside) is False


@pytest.mark.parametrize("word", [
    "", "192.0.2", "192.0.2.7.", "192.0.2.007", "192.0.2.256", "0x7f000001", "192.0.2.0/", "192.0.2.0/33",
    "192.0.2.0/-1", "192.0.2.0/+8", "192.0.2.0/٢٤", "192.0.2.0/255.255.255.0", "2001:db8::/129", "2001:db8:::/32",
    "[2001:db8::", "2001:db8::]", "[2001:db8::]2", "[::/3]2", "[::/3]/2", "[192.0.2.7]", "fe80::1%eth0",
    "::ffff:0.0.0.0/95", "host", "1", "192.0.2.7 ", "192.0.2.7\0", "\udc80",
])
def test_what_is_no_network(word):
    with pytest.raises(ValueError):
        networks_of([word])


@pytest.mark.parametrize("address", ["", "local", "192.0.2", "192.0.2.7\n", "0.0.0.0/0", "\udc80"])
def test_what_is_no_address_is_in_no_network(address):
    assert networks_of(["0.0.0.0/0", "::/0"]).has(address) is False


def test_no_networks_hold_nobody():
    assert not networks_of([]).has(ADDRESS) and not Networks().has(ADDRESS)


# -- trusted ---------------------------------------------------------------------------------------------------------

def test_the_trusted_file():
    trusted = read_networks("T", "# our hosts\n192.0.2.0/24 198.51.100.1  # the office\n\n  [2001:db8::]/32\r\n")
    assert all(trusted.has(each) for each in ("192.0.2.9", "198.51.100.1", "2001:db8::9"))
    assert not trusted.has("198.51.100.2")


@pytest.mark.parametrize("word, complaint", [
    ("host.example.org", 'T:2: "host.example.org" cannot be trusted before DNS is asked for it; expected addresses and '
                         "networks like 192.0.2.0/24"),
    (".example.org", 'T:2: ".example.org" cannot be trusted before DNS'),
    ("unnamed", 'T:2: "unnamed" cannot be trusted before DNS'),
    ("192.0.2.7/24", 'T:2: "192.0.2.7/24" has bits behind its length; expected 192.0.2.0/24; expected addresses'),
    ("192.0.2.300", 'T:2: "192.0.2.300" is not an address; expected addresses'),
])
def test_a_mistake_in_the_trusted_file(word, complaint):
    with pytest.raises(ConfigError) as caught:
        read_networks("T", f"192.0.2.1\n{word}\n")
    assert str(caught.value).startswith(complaint)


# -- the allow_deny file ---------------------------------------------------------------------------------------------

def test_the_words_for_findings_are_those_of_the_look_up():
    assert (access.VERIFIED, access.UNKNOWN, access.LATER, access.FORGED) \
        == (peer.VERIFIED, peer.UNKNOWN, peer.LATER, peer.FORGED)


def test_the_first_rule_that_matches_decides_and_is_named():
    rules = read_rules("/etc/popper.allow", "# who\n\nallow  192.0.2.7   # the boss\ndeny 192.0.2.0/24\nallow all\n")
    assert rules.decide("192.0.2.7") == (ALLOW, "/etc/popper.allow:3: allow 192.0.2.7")
    assert rules.decide("192.0.2.8") == (DENY, "/etc/popper.allow:4: deny 192.0.2.0/24")
    assert rules.decide("192.0.3.8") == (ALLOW, "/etc/popper.allow:5: allow all")
    assert not rules.needs_name and rules.notes == []


def test_a_long_rule_is_shown_in_part():
    place = read_rules("F", "deny 192.0.2.7 " + "198.51.100.1 " * 1000).decide(ADDRESS)[1]
    assert place == f"F:1: {('deny 192.0.2.7 ' + '198.51.100.1 ' * 1000)[:200]}..."


@pytest.mark.parametrize("text", ["", "# nothing but this\n#deny all\n", "deny 198.51.100.1\n"])
def test_whom_no_rule_names_may_come(text):
    assert read_rules("F", text).decide(ADDRESS) == (ALLOW, "")


@pytest.mark.parametrize("who, status, name, matches", [
    ("all", UNKNOWN, "", True),
    ("local", UNKNOWN, "", False),
    ("host.example.org", VERIFIED, "host.example.org", True),
    ("Host.Example.ORG", VERIFIED, "hOST.eXAMPLE.org.", True),
    ("host.example.org", VERIFIED, "otherhost.example.org", False),
    ("host.example.org", VERIFIED, "a.host.example.org", False),
    ("host.example.org", UNKNOWN, "host.example.org", False),
    ("host.example.org", FORGED, "host.example.org", False),
    (".example.org", VERIFIED, NAME, True),
    (".example.org", VERIFIED, "a.b.example.org", True),
    (".example.org", VERIFIED, "example.org", False),
    (".example.org", VERIFIED, "badexample.org", False),
    (".example.org", VERIFIED, "pc.example.org.evil.example", False),
    (".org", VERIFIED, NAME, True),
    (".example.org", FORGED, NAME, False),
    ("forged", FORGED, ADDRESS, True),
    ("forged", UNKNOWN, ADDRESS, False),
    ("forged", LATER, ADDRESS, False),
    ("forged", VERIFIED, NAME, False),
    ("unresolved", LATER, ADDRESS, True),
    ("unresolved", FORGED, ADDRESS, False),
    ("unnamed", UNKNOWN, ADDRESS, True),
    ("unnamed", LATER, ADDRESS, False),
    ("unnamed forged", FORGED, ADDRESS, True),
    ("198.51.100.1 192.0.2.0/24", UNKNOWN, "", True),
    ("192.0.2.6 192.0.2.8", VERIFIED, NAME, False),
    *((word, VERIFIED, "", False) for word in ("forged", "unresolved", "unnamed", ".example.org")),
])
def test_whom_a_word_is_for(who, status, name, matches):
    assert verdict(f"deny {who}", status=status, name=name) == (DENY if matches else ALLOW)
    assert verdict(f"allow {who}\ndeny all", status=status, name=name) == \
        (ALLOW if matches else TRY_AGAIN if status == LATER and "." in who else DENY)


@pytest.mark.parametrize("who, found", [("all", DENY), ("local", DENY), ("0.0.0.0/0 ::/0", ALLOW), ("unnamed", ALLOW),
                                        ("unresolved", ALLOW), ("forged", ALLOW), (".example.org", ALLOW)])
def test_who_comes_without_a_network_is_local_and_nothing_else(who, found):
    for status in (None, UNKNOWN, LATER, FORGED, VERIFIED):
        assert verdict(f"deny {who}", "", status, "pc.example.org") == found


@pytest.mark.parametrize("address", ["nonsense", "192.0.2", "192.0.2.7.9", "\0", "fe80::x"])
def test_what_is_no_address_may_never_come(address):
    assert read_rules("F", "allow all\ndeny local").decide(address, UNKNOWN, "", "joe") == (DENY, "")


def test_rules_for_users():
    text = "deny 192.0.2.0/24 user joe ann\nallow 192.0.2.0/24\ndeny all"
    assert [verdict(text, user=user) for user in ("joe", "ann", "Joe", "jo", "joey", None)] \
        == [DENY, DENY, ALLOW, ALLOW, ALLOW, LATER_ON]
    assert verdict(text, "198.51.100.1", user=None) == DENY          # no rule for a user concerns that address
    assert verdict("allow all user user\ndeny all", user="user") == ALLOW


@pytest.mark.parametrize("text, status, user, found", [
    # not asked yet
    ("allow 192.0.2.7\nallow .example.org\ndeny all", None, None, ALLOW),
    ("deny 192.0.2.7\nallow .example.org", None, None, DENY),
    ("allow .example.org\ndeny all", None, "joe", LATER_ON),
    ("deny unnamed\nallow all", None, "joe", LATER_ON),
    ("allow .example.org user ann\ndeny all", None, "joe", DENY),
    ("deny .example.org user joe\nallow all", None, None, LATER_ON),
    # no answer
    ("allow .example.org\ndeny all", LATER, "joe", TRY_AGAIN),
    ("allow pc.example.org 198.51.100.1\ndeny all", LATER, "joe", TRY_AGAIN),
    ("deny all\nallow .example.org", LATER, "joe", DENY),
    ("allow .example.org\nallow all", LATER, "joe", ALLOW),
    ("allow .example.org", LATER, "joe", ALLOW),
    ("deny unresolved\nallow .example.org\ndeny all", LATER, "joe", DENY),
    ("allow unresolved\nallow .example.org\ndeny all", LATER, "joe", ALLOW),
    ("deny .bad.example\ndeny all", LATER, "joe", DENY),
    ("deny .bad.example\nallow 192.0.2.7", LATER, "joe", ALLOW),
    ("allow .example.org user ann\ndeny all", LATER, "joe", DENY),
    ("allow .example.org user ann\ndeny all", LATER, "ann", TRY_AGAIN),
    ("allow .example.org user ann\ndeny all", LATER, None, LATER_ON),
    # lies
    ("allow .example.org\ndeny all", FORGED, "joe", DENY),
    ("deny forged\nallow all", FORGED, "joe", DENY),
    ("deny unresolved unnamed\nallow all", FORGED, "joe", ALLOW),
])
def test_what_is_not_known(text, status, user, found):
    assert verdict(text, status=status, name=ADDRESS, user=user) == found


@pytest.mark.parametrize("who, needs", [("all", False), ("192.0.2.7", False), ("local", False), ("a.example", True),
                                        (".example", True), ("forged", True), ("unnamed", True), ("unresolved", True)])
def test_which_rules_need_a_name(who, needs):
    assert read_rules("F", f"deny {who}").needs_name is needs


RULE = st.tuples(st.booleans(),
                 st.sampled_from(["all", "192.0.2.7", "198.51.100.0/24", ".example.org", NAME, "forged", "unresolved",
                                  "unnamed"]),
                 st.sampled_from(["", " user joe", " user ann"]))


@many
@given(st.lists(RULE, max_size=6), st.sampled_from([VERIFIED, UNKNOWN, LATER, FORGED]), st.sampled_from(["joe", "ann"]))
@example([(True, "forged", " user joe"), (False, "all", "")], FORGED, "joe")
def test_what_was_decided_early_is_what_is_decided_late(rules, status, user):
    text = "".join(f"{'allow' if allow else 'deny'} {who}{users}\n" for allow, who, users in rules) + "deny 203.0.113.1"
    found = read_rules("F", text)
    name = NAME if status == VERIFIED else ADDRESS
    late = found.decide(ADDRESS, status, name, user)
    assert late[0] != LATER_ON
    for early in (found.decide(ADDRESS), found.decide(ADDRESS, status, name), found.decide(ADDRESS, None, "", user)):
        assert early[0] == LATER_ON or early == late


@pytest.mark.parametrize("line, complaint", [
    ("permit all", '"permit": expected allow or deny'),
    ("Allow all", '"Allow": expected allow or deny'),
    ("allow", "allow: whom? expected all, local, an address, a network like 192.0.2.0/24,"),
    ("deny user joe", "deny: whom? expected all, local"),
    ("deny all user", "user: expected one or more names"),
    ("deny all user # joe", "user: expected one or more names"),
    ("deny all user ../joe", 'user: "../joe" cannot be the name of a user'),
    ("deny all user jörg", 'user: "jörg" cannot be the name of a user'),
    ("deny ALL", 'deny: "ALL": expected all, local'),
    ("deny everyone", 'deny: "everyone": expected all, local'),
    ("deny *.example.org", 'deny: "*.example.org": expected all, local'),
    ("deny example..org", 'deny: "example..org": expected all'),
    ("deny .", 'deny: "." is not an address'),
    ("deny a.example,", 'deny: "a.example,": expected all'),
    ("deny 192.0.2.7/24", 'deny: "192.0.2.7/24" has bits behind its length; expected 192.0.2.0/24'),
    ("deny 192.0.2.0/255.255.255.0", 'deny: "192.0.2.0/255.255.255.0": expected a length of 0 to 32 behind the slash'),
    ("deny 192.0.2.256", 'deny: "192.0.2.256" is not an address'),
    ("deny 2001:db8:/32", 'deny: "2001:db8:" is not an address'),
    ("deny fe80::1%eth0", 'deny: "fe80::1%eth0": a zone has no place in a list'),
    ("deny ::ffff:0:0/80", 'deny: "::ffff:0:0/80": IPv4 in IPv6 has lengths of 96 to 128'),
    ("\0", '"\0": expected allow or deny'),
])
def test_a_mistake_names_file_and_line_and_what_was_expected(line, complaint):
    with pytest.raises(ConfigError) as caught:
        read_rules("/etc/popper.allow", f"# list\ndeny 192.0.2.9\n{line}\ndeny all")
    assert str(caught.value).startswith(f"/etc/popper.allow:3: {complaint}")


def test_a_file_that_keeps_nobody_out_is_a_mistake():
    with pytest.raises(ConfigError, match="^F:3: nobody is kept out.*expected a last line: deny all$"):
        read_rules("F", "allow 192.0.2.0/24\n\nallow .example.org\n")


def test_rules_that_are_never_looked_at_are_noted():
    assert read_rules("F", "allow all user joe\ndeny all\n#\nallow 192.0.2.7\nallow 192.0.2.8\n").notes \
        == ["F:4: never looked at: line 2 is for everybody"]
    assert read_rules("F", "deny 192.0.2.7\nallow all\n").notes == []


def test_the_sample_lets_in_everybody_until_its_rules_are_taken_up():
    sample = (TREE / "etc" / "popper.allow").read_text()
    assert read_rules("F", sample).decide(ADDRESS) == (ALLOW, "")
    taken = [line[1:] for line in sample.split("\n") if line.startswith(("#allow ", "#deny "))]
    rules = read_rules("F", "\n".join(taken))
    assert [rules.decide(*caller)[0] for caller in [(ADDRESS,), ("198.51.100.1", FORGED, "", "joe"),
                                                    ("198.51.100.1", UNKNOWN, "", "joe"),
                                                    ("198.51.100.1", UNKNOWN, "", "moe")]] == [ALLOW, DENY, ALLOW, DENY]
    assert rules.notes == []


# -- the file on disk ------------------------------------------------------------------------------------------------

def test_contents(tmp_path):
    path = tmp_path / "list"
    path.write_bytes("# für alle\n".encode())
    assert contents(str(path)) == "# für alle\n"
    path.write_bytes(b"#" * 1048576)
    assert len(contents(str(path))) == 1048576
    with pytest.raises(Missing, match=r"none: cannot be read: No such file or directory$"):
        contents(str(tmp_path / "none"))


# -- several lists ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("first, second, found", [
    ("allow all\ndeny all", "deny all", DENY),
    ("allow .example.org\ndeny all", "deny all", DENY),
    ("allow .example.org\ndeny all", "deny 203.0.113.1", LATER_ON),
    ("deny 203.0.113.1", "allow 192.0.2.7\ndeny all", ALLOW),
])
def test_each_of_several_lists_must_let_him_in(first, second, found):
    for lists in ((first, second), (second, first)):
        both = Both(*(read_rules("F", text) for text in lists))
        assert both.decide(ADDRESS)[0] == found
        assert both.needs_name is ("example" in first + second)


def test_what_several_lists_have_to_say():
    both = Both(read_rules("F", "deny all\nallow 192.0.2.7"), read_rules("G", "deny 203.0.113.1"))
    assert both.notes == ["F:2: never looked at: line 1 is for everybody"]
    assert both.decide(ADDRESS) == (DENY, "F:1: deny all")
    again = Both(read_rules("F", "allow .example.org\ndeny all"), read_rules("G", "allow 192.0.2.0/24\ndeny all"))
    assert again.decide(ADDRESS, LATER) == (TRY_AGAIN, "F:2: deny all")
    assert again.decide(ADDRESS, VERIFIED, NAME) == (ALLOW, "F:1: allow .example.org")
    assert Both().decide(ADDRESS) == (ALLOW, "")
