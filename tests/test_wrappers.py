"""The tables of tcp_wrappers (hosts_access(5), hosts_options(5)), and the library that reads them."""

import ctypes
import fnmatch
import os
import shutil
import subprocess

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from popper.access import ALLOW, DENY, LATER_ON, TRY_AGAIN, Missing
from popper.peer import FORGED, LATER, UNKNOWN, VERIFIED
from popper.wrappers import hosts_access, wild_matches

many = settings(deadline=None, max_examples=400, database=None, derandomize=True)

ADDRESS = "192.0.2.7"
NAME = "pc.example.org"


def tables(allow=None, deny=None, daemon=("popper",), **files):
    """Rules of these two tables, and files of patterns by name."""
    texts = {"A": allow, "D": deny, **{f"/{name}": text for name, text in files.items()}}

    def read(path):
        if texts.get(path) is None:
            raise Missing("cannot be read", path)
        return texts[path]
    return hosts_access(daemon, "A", "D", read)


def lets_in(line, address=ADDRESS, status=UNKNOWN, name="", **other):
    """Whether hosts.allow with this line lets somebody in, while hosts.deny shuts out everybody."""
    return tables(line + "\n", "ALL: ALL\n", **other).decide(address, status, name)[0] == ALLOW


# line of hosts.allow, address, name as tcp_wrappers knows it, whether it matches
CLIENTS = [
    ("popper: ALL", ADDRESS, "unknown", True),
    ("popper: all", ADDRESS, "unknown", True),
    ("ALL: ALL", ADDRESS, "unknown", True),
    ("POPPER: ALL", ADDRESS, "unknown", True),
    ("in.popper: ALL", ADDRESS, "unknown", False),
    ("sshd, popper ftpd: ALL", ADDRESS, "unknown", True),
    ("ALL EXCEPT popper: ALL", ADDRESS, "unknown", False),
    ("ALL EXCEPT sshd: ALL", ADDRESS, "unknown", True),
    ("popp*: ALL", ADDRESS, "unknown", True),
    ("?opper: ALL", ADDRESS, "unknown", True),
    ("popper@ALL: ALL", ADDRESS, "unknown", True),
    ("KNOWN: ALL", ADDRESS, "unknown", True),
    ("popper: UNKNOWN", ADDRESS, "unknown", True),
    ("popper: UNKNOWN", ADDRESS, NAME, False),
    ("popper: UNKNOWN", ADDRESS, "paranoid", False),
    ("popper: KNOWN", ADDRESS, "unknown", False),
    ("popper: KNOWN", ADDRESS, "paranoid", False),
    ("popper: KNOWN", ADDRESS, NAME, True),
    ("popper: PARANOID", ADDRESS, "paranoid", True),
    ("popper: PARANOID", ADDRESS, "unknown", False),
    ("popper: PARANOID", ADDRESS, NAME, False),
    ("popper: LOCAL", ADDRESS, "pc", True),
    ("popper: LOCAL", ADDRESS, NAME, False),
    ("popper: LOCAL", ADDRESS, "unknown", False),
    ("popper: LOCAL", ADDRESS, "paranoid", False),
    ("popper: .example.org", ADDRESS, "PC.Example.org", True),
    ("popper: .Example.org", ADDRESS, NAME, True),
    ("popper: .example.org", ADDRESS, "example.org", False),
    ("popper: pc.example.org", ADDRESS, NAME, True),
    ("popper: pc", ADDRESS, "pc", True),
    ("popper: pc", ADDRESS, NAME, False),
    ("popper: 192.0.2.", ADDRESS, "unknown", True),
    ("popper: 192.", ADDRESS, "unknown", True),
    ("popper: 192.0.", "192.1.2.7", "unknown", False),
    ("popper: 19.", ADDRESS, "unknown", False),
    ("popper: 192.0.2", ADDRESS, "unknown", False),
    ("popper: 192.0.2.7", ADDRESS, "unknown", True),
    ("popper: 192.0.2.07", ADDRESS, "unknown", False),
    ("popper: 192.0.2.0/24", ADDRESS, "unknown", True),
    ("popper: 192.0.2.0/024", ADDRESS, "unknown", True),
    ("popper: 192.0.2.0/29", "192.0.2.8", "unknown", False),
    ("popper: 192.0.2.1/24", ADDRESS, "unknown", False),
    ("popper: 192.0.2.7/32", ADDRESS, "unknown", True),
    ("popper: 192.0.2.7/33", ADDRESS, "unknown", False),
    ("popper: 192.0.2.0/255.255.255.0", ADDRESS, "unknown", True),
    ("popper: 192.0.2.0/255.0.255.0", "192.99.2.7", "unknown", True),
    ("popper: 192.0.2.1/255.255.255.0", ADDRESS, "unknown", False),
    ("popper: 192.0.2.7/255.255.255.255", ADDRESS, "unknown", False),
    ("popper: 0.0.0.0/0.0.0.0", ADDRESS, "unknown", True),
    ("popper: 192.0.2.7", "::ffff:192.0.2.7", "unknown", True),
    ("popper: [2001:db8::]/32", "2001:db8::7", "unknown", True),
    ("popper: [2001:db8::1]/32", "2001:db8::7", "unknown", True),
    ("popper: [2001:db8::]/33", "2001:db8:8000::7", "unknown", False),
    ("popper: [2001:db8:0::7]", "2001:db8::7", "unknown", True),
    ("popper: [::]/0", "2001:db8::7", "unknown", True),
    ("popper: [::]/0", ADDRESS, "unknown", False),
    ("popper: [192.0.2.7]", ADDRESS, "unknown", False),
    ("popper: [2001:db8::7", "2001:db8::7", "unknown", False),
    ("popper: 2001\\:db8\\:\\:7", "2001:db8::7", "unknown", False),
    ("popper: *.example.org", ADDRESS, NAME, True),
    ("popper: p?.example.*", ADDRESS, NAME, True),
    ("popper: p?.example", ADDRESS, NAME, False),
    ("popper: 192.0.2.?", ADDRESS, "unknown", True),
    ("popper: 192.*.7", ADDRESS, "unknown", True),
    ("popper: *", ADDRESS, "unknown", True),
    ("popper: 198.51.100.1, 192.0.2.7", ADDRESS, "unknown", True),
    ("popper: 198.51.100.1\t192.0.2.7,", ADDRESS, "unknown", True),
    ("popper: ALL EXCEPT 192.0.2.7", ADDRESS, "unknown", False),
    ("popper: ALL EXCEPT 192.0.2.7", "192.0.2.8", "unknown", True),
    ("popper: ALL except 192.0.2.0/24 Except 192.0.2.7", ADDRESS, "unknown", True),
    ("popper: ALL EXCEPT 192.0.2.0/24 EXCEPT 192.0.2.7", "192.0.2.8", "unknown", False),
    ("popper: 198.51.100.1 192.0.2.7 EXCEPT .example.org", ADDRESS, NAME, False),
    ("popper: ALL EXCEPT", ADDRESS, "unknown", True),
    ("popper: EXCEPT 198.51.100.1", ADDRESS, "unknown", False),
    ("popper: ALL@192.0.2.7", ADDRESS, "unknown", True),
    ("popper: UNKNOWN@192.0.2.0/24", ADDRESS, "unknown", True),
    ("popper: *@192.0.2.7", ADDRESS, "unknown", True),
    ("popper: KNOWN@ALL", ADDRESS, "unknown", False),
    ("popper: joe@ALL", ADDRESS, "unknown", False),
    ("popper: joe@192.0.2.7 ALL@192.0.2.7", ADDRESS, "unknown", True),
    ("# popper: ALL", ADDRESS, "unknown", False),
    ("  # popper: ALL", ADDRESS, "unknown", True),
    ("# a comment that goes on \\\npopper: ALL", ADDRESS, "unknown", False),
    ("popper: 198.51.100.1 \\\n  192.0.2.7", ADDRESS, "unknown", True),
    ("pop\\\nper: ALL", ADDRESS, "unknown", True),
    ("popper: 192.0.2.7 # pc", "192.0.2.9", "pc", True),
    ("popper ALL", ADDRESS, "unknown", False),
    (": ALL", ADDRESS, "unknown", False),
    ("popper:", ADDRESS, "unknown", False),
    ("popper: 192.0.2.7\r", ADDRESS, "unknown", True),
    ("sshd: ALL\n\npopper: ALL", ADDRESS, "unknown", True),
]
OPTIONS = [
    ("popper: ALL: deny", False), ("popper: ALL: ALLOW", True), ("popper: ALL :allow ", True),
    ("popper: ALL: allow=", True), ("popper: ALL:", False), ("popper: ALL: : allow", False),
    ("popper: ALL: allow yes", False),
    ("popper: ALL: allow : severity mail.info", False), ("popper: ALL: deny : allow", False),
    ("popper: ALL: severity mail.info : allow", True), ("popper: ALL: severity=mail.info", True),
    ("popper: ALL: severity = mail.info", True), ("popper: ALL: severity", False), ("popper: ALL: nice", True),
    ("popper: ALL: nice 5 : deny", False), ("popper: ALL: rfc931 : allow", True), ("popper: ALL: keepalive yes", False),
    ("popper: ALL: setenv A b\\:allow : allow", True), ("popper: ALL: frobnicate", False),
    ("popper: ALL: frobnicate : allow", False), ("popper: 198.51.100.1: deny\npopper: ALL", True),
    ("popper: ALL: deny\npopper: ALL", False),
]


def as_found(name):
    """What tcp_wrappers knows as a name, in our words."""
    return {"unknown": (UNKNOWN, ADDRESS), "paranoid": (FORGED, ADDRESS)}.get(name, (VERIFIED, name))


@pytest.mark.parametrize("line, address, name, matches", CLIENTS)
def test_patterns_of_tcp_wrappers(line, address, name, matches):
    assert lets_in(line, address, *as_found(name)) is matches


@pytest.mark.parametrize("line, matches", OPTIONS)
def test_options_of_tcp_wrappers(line, matches):
    assert lets_in(line) is matches


def test_allow_comes_before_deny_and_nothing_is_leave():
    assert tables().decide(ADDRESS) == (ALLOW, "")
    assert tables(deny="popper: 192.0.2.7\n").decide(ADDRESS) == (DENY, "D:1: popper: 192.0.2.7")
    assert tables("popper: 192.0.2.\n", "ALL: ALL\n").decide(ADDRESS) == (ALLOW, "A:1: popper: 192.0.2.")
    assert tables("popper: 192.0.2.\n", "# all\nALL:\\\n ALL\n").decide("192.0.3.1") == (DENY, "D:2: ALL: ALL")
    assert tables(deny="ALL: ALL: allow\n").decide(ADDRESS)[0] == ALLOW
    assert tables(deny="sshd: ALL\n").decide(ADDRESS) == (ALLOW, "")
    assert tables(deny="ALL: ALL").decide(ADDRESS)[0] == DENY         # the newline was forgotten
    assert tables(deny="ALL: ALL\\\n").decide(ADDRESS)[0] == DENY


def test_the_names_that_the_program_has():
    assert lets_in("qpopper: ALL", daemon=("popper", "qpopper"))
    assert lets_in("popper: ALL", daemon=("popper", "QPopper"))
    assert not lets_in("ALL EXCEPT popper: ALL", daemon=("popper", "qpopper"))


def test_only_what_concerns_us_needs_a_name_or_a_note():
    rules = tables("sshd: .example.org\nsshd: joe@ALL: spawn x\n", "ALL: 192.0.2.7\n")
    assert (rules.needs_name, rules.notes) == (False, [])
    assert tables(deny="ALL: PARANOID\n").needs_name
    assert tables(deny="ALL: ALL EXCEPT LOCAL\n").needs_name
    assert tables(deny="ALL: *.example\n").needs_name and not tables(deny="ALL: 192.*\n").needs_name


@pytest.mark.parametrize("line, note", [
    ("popper: ALL: spawn /bin/echo %h : allow", "spawn is not done"),
    ("popper: ALL: twist /bin/echo no", "twist is not run: whom the rule matches is refused"),
    ("popper: ALL: aclexec checkdnsbl %a", "aclexec is not run: whom the rule matches is refused"),
    ("popper: ALL: (echo %h) &", 'option "(echo %h) &" is not understood: whom the rule matches is refused'),
    ("popper: joe@pc.example.org", "joe@pc.example.org: who the user there is, is not asked: matches nobody"),
    ("popper: @office", '@office matches nobody: "@office" is not an address'),
    ("popper: 192.0.2.1/24",
     '192.0.2.1/24 matches nobody: "192.0.2.1/24" has bits behind its length; expected 192.0.2.0/24'),
    ("popper@192.0.2.1: ALL", "is for one address of this host: left out"),
    ("popper@192.0.2.1: ALL: deny", "is for one address of this host: taken as for all"),
    ("popper: 192.0.2.1/255.255.255.0",
     '192.0.2.1/255.255.255.0 matches nobody: "192.0.2.1/255.255.255.0" has bits that its mask has not'),
    ("  # popper: ALL", "a comment begins with the line: this is a rule"),
    ("popper ALL", "no colon: left out"),
    ("popper: /none", "/none is not there: taken as empty"),
])
def test_what_is_not_done_is_noted_once(line, note):
    assert tables(f"# table\n{line}\n").notes == [f"A:2: {note}"]


@pytest.mark.parametrize("line, found", [
    ("popper: ALL: twist /bin/echo no", DENY),
    ("popper: ALL: aclexec checkdnsbl %a", DENY),
    ("popper: ALL: aclexec checkdnsbl %a : allow", DENY),
    ("popper: ALL: spawn /bin/echo %h", ALLOW),
])
def test_what_runs_programs_lets_nobody_in_whom_they_might_not(line, found):
    assert tables(line + "\n").decide(ADDRESS)[0] == found


def test_rules_for_one_address_of_this_host_only_keep_out():
    assert not lets_in("popper@192.0.2.1: ALL")
    assert tables(deny="popper@192.0.2.1: ALL\n").decide(ADDRESS)[0] == DENY
    assert tables(deny="sshd@192.0.2.1: ALL\n").decide(ADDRESS)[0] == ALLOW
    assert tables(deny="ALL EXCEPT popper@192.0.2.1: ALL\n").decide(ADDRESS)[0] == DENY
    assert not lets_in("ALL EXCEPT popper@192.0.2.1: ALL")


@pytest.mark.parametrize("word", ["@office", "192.0.2.7/33", "joe.", "#"])
def test_what_is_not_understood_lets_nobody_in_as_an_exception_either(word):
    assert not lets_in(f"popper: ALL EXCEPT {word}")
    assert tables(deny=f"ALL: ALL EXCEPT {word}\n").decide(ADDRESS, LATER)[0] == DENY
    assert tables(f"popper: ALL EXCEPT {word}\n", "ALL: ALL\n").decide(ADDRESS, None)[0] == DENY


def test_files_of_patterns():
    files = {"hosts": "198.51.100.1 192.0.2.9\n.example.org\n/more", "more": "2001:db8::7 /hosts\n192.0.3."}
    for address, status, name, matches in [("192.0.2.9", UNKNOWN, "", True), (ADDRESS, VERIFIED, NAME, True),
                                           ("2001:db8::7", UNKNOWN, "", True), ("192.0.3.1", UNKNOWN, "", True),
                                           (ADDRESS, UNKNOWN, "", False)]:
        assert lets_in("popper: /hosts", address, status, name, **files) is matches
        assert lets_in("popper: ALL EXCEPT /hosts", address, status, name, **files) is False   # /hosts goes round
    files["more"] = "2001:db8::7"
    assert lets_in("popper: ALL EXCEPT /hosts", **files)


def test_files_of_patterns_that_go_round_are_read_once():
    texts = {"A": "popper: /hosts\n", "D": "ALL: ALL\n", "/hosts": "/hosts " * 3}
    asked = []
    rules = hosts_access(("popper",), "A", "D", lambda path: asked.append(path) or texts[path])
    assert rules.notes == ["A:1: /hosts: files of patterns that go round, or too deep: left out"]
    assert (asked, rules.decide(ADDRESS)[0]) == (["A", "/hosts", "D"], DENY)


@pytest.mark.parametrize("allow, deny, status, found", [
    ("popper: .example.org", "ALL: ALL", None, LATER_ON),
    ("popper: .example.org", "ALL: ALL", LATER, TRY_AGAIN),
    ("popper: .example.org", "ALL: ALL", UNKNOWN, DENY),
    ("popper: .example.org", "sshd: ALL", LATER, ALLOW),
    ("popper: 192.0.2.7 .example.org", "ALL: ALL", None, ALLOW),
    ("popper: KNOWN", "ALL: ALL", LATER, TRY_AGAIN),
    ("popper: LOCAL", "ALL: ALL", LATER, TRY_AGAIN),
    ("popper: *.example.org", "ALL: ALL", LATER, TRY_AGAIN),
    ("popper: ALL EXCEPT .example.org", "ALL: ALL", LATER, TRY_AGAIN),
    ("popper: ALL EXCEPT .example.org", "ALL: ALL", None, LATER_ON),
    ("", "ALL: .example.org", LATER, ALLOW),
    ("", "ALL: PARANOID", LATER, ALLOW),
    ("", "ALL: UNKNOWN", LATER, TRY_AGAIN),
    ("", "ALL: ALL EXCEPT .example.org", LATER, TRY_AGAIN),
    ("", "ALL: ALL EXCEPT KNOWN", LATER, TRY_AGAIN),
    ("", "ALL: ALL EXCEPT KNOWN", UNKNOWN, DENY),
    ("", "ALL: ALL EXCEPT 192.0.2.7 .example.org", LATER, ALLOW),
])
def test_names_that_are_not_known(allow, deny, status, found):
    assert tables(allow + "\n", deny + "\n").decide(ADDRESS, status)[0] == found


@pytest.mark.parametrize("who, matches", [("ALL", True), ("UNKNOWN", True), ("KNOWN", False), ("LOCAL", False),
                                          ("*", True), ("PARANOID", False), (".example.org", False),
                                          ("0.0.0.0/0.0.0.0", False)])
def test_who_comes_without_a_network(who, matches):
    for status in (None, UNKNOWN, VERIFIED):
        assert lets_in(f"popper: {who}", "", status, NAME) is matches


@many
@given(st.text("ab.*?", max_size=8), st.text("ab.", max_size=8))
@example("*a*b*?", "aabbab.")
def test_wildcards(pattern, text):
    assert wild_matches(pattern, text) is fnmatch.fnmatchcase(text, pattern)


# -- beside the library itself ---------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def wrapped(tmp_path_factory):
    """What libwrap says of (text of hosts.allow, of hosts.deny, address, name)."""
    place = tmp_path_factory.mktemp("tables")
    library = ctypes.CDLL("libwrap.so.0")
    paths = [os.fsencode(place / name) for name in ("hosts.allow", "hosts.deny")]
    for path, name in zip(paths, ("hosts_allow_table", "hosts_deny_table")):
        ctypes.c_char_p.in_dll(library, name).value = path

    def ask(allow, deny, address, name, daemon="popper"):
        for path, text in zip(paths, (allow, deny)):
            with open(path, "w", encoding="utf-8", newline="") as file:
                file.write(text)
        return bool(library.hosts_ctl(*map(str.encode, (daemon, name, address, "unknown"))))
    return ask


@pytest.mark.root
@pytest.mark.parametrize("line, address, name, matches",
                         [*CLIENTS, *((line, ADDRESS, "unknown", matches) for line, matches in OPTIONS)])
def test_the_library_says_the_same(wrapped, line, address, name, matches):
    """The tables above are what the library does."""
    assert wrapped(line + "\n", "ALL: ALL\n", address, name) is matches


WORDS = st.sampled_from(["ALL", "LOCAL", "KNOWN", "UNKNOWN", "PARANOID", ".example.org", "pc.example.org", "pc",
                         "192.0.2.", "192.0.2.7", "192.0.2.0/24", "192.0.0.0/255.255.0.0", "[2001:db8::]/32",
                         "[2001:db8::7]", "*.org", "ALL@192.0.2.", "joe@ALL"])
LISTS = st.lists(st.lists(WORDS, max_size=3).map(" ".join), min_size=1, max_size=4).map(" EXCEPT ".join)
DAEMONS = st.sampled_from(["popper", "ALL", "sshd", "sshd popper", "ALL EXCEPT sshd", "ALL EXCEPT popper",
                           "popper@ALL"])
CHOICES = st.sampled_from(["", ": allow", ": deny", ": nice : allow", ": what"])
TABLE = st.lists(st.tuples(DAEMONS, LISTS, CHOICES), max_size=4)


@pytest.mark.root
@settings(many, max_examples=1500)
@given(TABLE, TABLE, st.sampled_from(["192.0.2.7", "192.0.9.9", "198.51.100.1", "2001:db8::7", "2001:db9::7"]),
       st.sampled_from(["unknown", "paranoid", "pc", "pc.example.org", "a.pc.example.org", "example.net"]))
def test_the_library_and_we_agree(wrapped, allow, deny, address, name):
    texts = ["".join(f"{daemons} : {clients} {options}\n" for daemons, clients, options in table)
             for table in (allow, deny)]
    found = tables(*texts).decide(address, *as_found(name))[0]
    assert (found == ALLOW) is wrapped(*texts, address, name)
    assert found in (ALLOW, DENY)


@pytest.mark.root
@pytest.mark.parametrize("allow, deny", [
    ("popper: 192.0.2.0/24\n", "ALL: ALL\n"),
    ("popper: ALL EXCEPT 192.0.2.0/255.255.255.0 EXCEPT 192.0.2.7\n", "ALL: ALL\n"),
    ("", "ALL EXCEPT sshd: 192.0.2. [2001:db8::]/32\n"),
    ("ALL: 192.0.2.7: deny\n", ""),
    ("popper: /LIST\n", "ALL: ALL\n"),
])
def test_tcpdmatch_predicts_the_same(tmp_path, allow, deny):
    (tmp_path / "list").write_text("198.51.100.1 192.0.2.7\n")
    (tmp_path / "inetd.conf").write_text("pop3 stream tcp nowait root /usr/sbin/tcpd /usr/sbin/popper\n")
    allow = allow.replace("/LIST", str(tmp_path / "list"))
    (tmp_path / "hosts.allow").write_text(allow)
    (tmp_path / "hosts.deny").write_text(deny)
    rules = hosts_access(("popper",), str(tmp_path / "hosts.allow"), str(tmp_path / "hosts.deny"))
    for address in (ADDRESS, "192.0.2.8", "198.51.100.1", "198.51.100.2"):
        done = subprocess.run([shutil.which("tcpdmatch"), "-d", "-i", "inetd.conf", "popper", address],
                              cwd=tmp_path, capture_output=True, text=True)
        assert ("access:   granted" in done.stdout) != ("access:   denied" in done.stdout), done
        assert (rules.decide(address, UNKNOWN)[0] == ALLOW) is ("access:   granted" in done.stdout), done
