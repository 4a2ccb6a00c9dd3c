"""The mail programs of a site against popper under a real super-server, on a real mailbox in the real spool.

What a program saves is compared with the mailbox octet for octet; where a program changes header lines, the bodies.
"""

import re

import pytest

import clients
from clients import PLAIN, RAW, body, messages, pieces, stored, wire
from conftest import wait_until

pytestmark = pytest.mark.root

COUNT = len(messages())
POPLIB_LONGEST = 2000          # poplib gives up on longer lines, 2048 octets being its limit
FETCHMAIL_LONGEST = 8000       # fetchmail breaks longer lines, 8190 octets being its buffer
LATE = b"From: late@example.org\nSubject: late\nMessage-ID: <late@example.org>\n\nI am late.\n"


@pytest.fixture(params=["inetd", "tcpserver"])
def client(request, installed, spool, syslog):
    """A user's programs, and a popper for them under each super-server."""
    server = request.getfixturevalue(f"start_{request.param}")(installed / "sbin" / "popper", "-s")
    client = clients.Client(spool, server.port)
    yield client
    client.remove()


class Drop:
    """A mailbox in the spool, and what has become of it. texts: of its messages, in order."""

    def __init__(self, client, texts):
        self.client = client
        self.path = client.account.mailbox
        self.pieces = pieces(texts)
        client.account.deliver(b"".join(self.pieces))
        self.before = self.path.stat()

    def lost(self, *numbers):
        """Assert that it is the same file, without these messages, with every other octet, and no lock beside it."""
        wait_until(lambda: not self.client.left_over())
        assert self.path.read_bytes() == b"".join(p for n, p in enumerate(self.pieces, 1) if n not in numbers)
        now = self.path.stat()
        for name in "st_ino", "st_mode", "st_uid", "st_gid":
            assert getattr(now, name) == getattr(self.before, name), name

    def untouched(self):
        """Assert that nothing was written to it."""
        self.lost()
        assert self.path.stat().st_mtime_ns == self.before.st_mtime_ns

    def append(self, text):
        """Mail arrives."""
        self.pieces[-1] += b"\n\n" if not self.pieces[-1].endswith(b"\n") else b"\n"
        self.pieces += [clients.ENVELOPE + text]
        self.path.write_bytes(b"".join(self.pieces))
        self.before = self.path.stat()


@pytest.fixture
def fill(client):
    return lambda texts: Drop(client, texts)


# -- poplib --------------------------------------------------------------------------------------------------------

def test_poplib_reads_every_octet(client, fill):
    """LIST, UIDL, RETR and TOP agree with the mailbox and with each other (1939.32, .33, .50, 2449.01)."""
    texts = [RAW] + messages(POPLIB_LONGEST)
    drop = fill(texts)
    with client.session() as pop:
        assert pop.getwelcome().startswith(b"+OK UCB Pop server (version ")
        assert pop.stat() == (len(texts), sum(len(wire(text)) for text in texts))
        assert pop.list()[1] == [b"%d %d" % (n, len(wire(text))) for n, text in enumerate(texts, 1)]
        listed = [line.split()[1] for line in pop.uidl()[1]]
        assert len(set(listed)) == len(texts)
        for number, text in enumerate(texts, 1):
            _, lines, _ = pop.retr(number)
            assert b"".join(line + b"\r\n" for line in lines) == wire(text)
            header, blank, rest = wire(text).partition(b"\r\n\r\n")
            _, lines, _ = pop.top(number, 1)
            assert b"".join(line + b"\r\n" for line in lines) == \
                header + blank + rest[:rest.find(b"\n") + 1]
            assert pop.uidl(number).split()[2] == listed[number - 1]
        assert {"TOP", "UIDL", "USER", "PIPELINING", "RESP-CODES", "AUTH-RESP-CODE"} <= set(pop.capa())
        assert pop.quit().endswith(b" signing off.")
    drop.untouched()


def test_poplib_deletes_what_it_says(client, fill, syslog):
    """Any of them, RSET meanwhile, and the last one, which has no final newline (1939.43, .44, .47)."""
    texts = messages(POPLIB_LONGEST)
    drop = fill(texts)
    since = len(syslog.lines)
    with client.session() as pop:
        pop.dele(2)
        pop.rset()
        for number in 1, 3, COUNT:
            pop.dele(number)
        pop.quit()
    drop.lost(1, 3, COUNT)
    gone = sum(len(wire(texts[number - 1])) for number in (1, 3, COUNT))
    left = sum(map(len, map(wire, texts))) - gone
    syslog.wait_for(f"Stats: {client.account.name} 3 {gone} {COUNT - 3} {left} ", since)


def test_poplib_that_is_cut_off_deletes_nothing(client, fill):
    drop = fill(messages())
    with client.session() as pop:
        pop.dele(1)
    drop.untouched()


# -- curl ----------------------------------------------------------------------------------------------------------

def test_curl_lists(client, fill):
    """LIST, UIDL, TOP, and QUIT alone."""
    drop = fill([RAW] + messages())
    sizes = [b"%d %d" % (n, len(wire(text))) for n, text in enumerate([RAW] + messages(), 1)]
    assert client.curl().splitlines() == sizes
    assert client.curl("", "-X", "UIDL").splitlines()[4] == b"5 kept-from-the-old-server"
    assert client.curl("", "-X", "TOP 4 2") == wire(clients.DOTS).partition(b"...\r\n")[0]
    assert client.curl("", "-X", "TOP 2 0") == wire(PLAIN.partition(b"\n\n")[0] + b"\n\n")
    assert client.curl("", "-I", "-X", "QUIT") == b""
    drop.untouched()


def test_curl_retrieves_every_octet(client, fill):
    """One session a message, which is how it is used in scripts."""
    texts = [RAW] + messages()
    drop = fill(texts)
    for number, text in enumerate(texts, 1):
        assert client.curl(number) == wire(text)
    drop.untouched()


@pytest.mark.parametrize("number", [1, 4, COUNT], ids=["first", "middle", "last"])
def test_curl_deletes(client, fill, number):
    drop = fill(messages())
    assert client.curl(number, "-I", "-X", "DELE") == b""
    drop.lost(number)


# -- clients that leave mail on the server -------------------------------------------------------------------------

@pytest.mark.parametrize("name, longest, of_a_text", [
    ("fetchmail", FETCHMAIL_LONGEST, stored), ("mpop", clients.LONGEST, stored), ("getmail", clients.LONGEST, body)])
def test_mail_left_on_the_server_is_fetched_once(client, fill, name, longest, of_a_text):
    """The first run fetches everything, the second nothing, and the third what came meanwhile (1939.57)."""
    fetch = getattr(client, name)
    nothing = {"status": 1} if name == "fetchmail" else {}
    drop = fill(messages(longest))
    texts, _ = fetch()
    assert [of_a_text(text) for text in texts] == [of_a_text(stored(text)) for text in messages(longest)]
    drop.untouched()
    assert fetch(**nothing)[0] == []
    drop.untouched()
    drop.append(LATE)
    assert [body(text) for text in fetch()[0]] == [body(LATE)]
    drop.untouched()


def test_fetchmail_without_uidl_believes_last(client, fill):
    """It asks LAST, and fetches what comes behind the last message that a Status: line calls read (1081.01)."""
    texts = messages(FETCHMAIL_LONGEST)
    drop = fill(texts)
    assert PLAIN is texts[0] and b"\nStatus: RO\n" in PLAIN
    fetched, said = client.fetchmail(server="")
    assert "POP3> LAST" in said and "POP3< +OK 1 " in said
    assert fetched == [stored(text) for text in texts[1:]]
    drop.untouched()


def test_fetchmail_takes_mail_away(client, fill):
    """Three at a time, as fetchlimit has it, then the rest, then there is none."""
    texts = messages(FETCHMAIL_LONGEST)
    drop = fill(texts)
    fetched, _ = client.fetchmail(server="", user="fetchall no keep fetchlimit 3", status=13)
    assert fetched == texts[:3]
    drop.lost(1, 2, 3)
    assert client.fetchmail(user="no keep fetchall")[0] == [stored(text) for text in texts[3:]]
    drop.lost(*range(1, COUNT + 1))
    assert client.fetchmail(server="", user="no keep", status=1)[0] == []


def test_fetchmail_tells_a_wrong_password_from_other_trouble(client, fill, monkeypatch):
    """Its exit status 3 is `authentication failed` (3206.01)."""
    drop = fill(messages())
    monkeypatch.setattr(client.account, "password", "s3cret")
    texts, said = client.fetchmail(status=3)
    assert "POP3< -ERR [AUTH] " in said and texts == []
    drop.untouched()


def test_mpop_pipelines(client, fill):
    """PIPELINING is announced, so all commands are sent before the first reply is read (2449.12)."""
    drop = fill(messages())
    _, said = client.mpop()
    commands = "".join(f"--> RETR {number}\n" for number in range(1, COUNT + 1))
    assert commands + "<-- +OK" in said
    drop.untouched()


def test_mpop_takes_mail_away(client, fill):
    drop = fill(messages())
    texts, said = client.mpop(keep="off")
    assert texts == [stored(text) for text in messages()]
    assert f"--> DELE {COUNT}\n" in said
    drop.lost(*range(1, COUNT + 1))
    assert client.mpop(keep="off")[0] == []


def test_getmail_says_what_it_skips(client, fill):
    fill(messages())
    octets = sum(map(len, map(wire, messages())))
    assert f"{COUNT} messages ({octets} bytes) retrieved, 0 skipped" in client.getmail()[1]
    assert f"0 messages (0 bytes) retrieved, {COUNT} skipped" in client.getmail()[1]


# -- clients that read mail, or move it ----------------------------------------------------------------------------

def test_movemail_preserves(client, fill):
    """It sets its own header lines, and writes an empty line where there is no body."""
    drop = fill(messages())
    texts = client.movemail("--preserve")
    assert [body(text) for text in texts] == [body(stored(text)) or b"\n" for text in messages()]
    drop.untouched()


def test_movemail_empties_the_mailbox(client, fill):
    drop = fill(messages())
    texts = client.movemail()
    assert [body(text) for text in texts] == [body(stored(text)) or b"\n" for text in messages()]
    drop.lost(*range(1, COUNT + 1))
    assert client.account.mailbox.stat().st_size == 0


def test_s_nail_reads(client, fill):
    """It lists headers with the sizes of LIST, and shows a message."""
    drop = fill(messages())
    listing = client.s_nail("-H").decode("utf-8", "replace")
    assert re.findall(r"/(\d+) ", listing) == [str(len(wire(text))) for text in messages()]
    assert b"\n" + body(clients.DOTS) in client.s_nail("-R", "-Y", "type 3", "-Y", "xit")
    drop.untouched()


def test_s_nail_saves(client, fill):
    """It quotes lines that begin with "From ", not those quoted already, and drops empty lines at the end."""
    drop = fill(messages())
    client.s_nail("-R", "-Y", f"copy * {client.place}/nail.mbox", "-Y", "xit")
    texts = clients.saved(client.place / "nail.mbox", quoted=b"From (?!quoted)")
    assert [text.rstrip(b"\n") for text in texts] == [text.rstrip(b"\n") for text in messages()]
    drop.untouched()


def test_s_nail_deletes(client, fill):
    drop = fill(messages())
    client.s_nail("-Y", f"delete 2 4 {COUNT}", "-Y", "quit")
    drop.lost(2, 4, COUNT)


def test_nmap_reads_capabilities(client, fill):
    drop = fill(messages())
    said = client.nmap().decode()
    found = re.search(r"pop3-capabilities: (.*)", said)
    assert found, said
    assert {"TOP", "USER", "UIDL", "RESP-CODES", "AUTH-RESP-CODE", "PIPELINING", "EXPIRE(NEVER)"} <= \
        set(found[1].split())
    drop.untouched()
