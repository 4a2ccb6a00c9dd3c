"""Mail readers that rewrite a mailbox while popper serves it."""

import subprocess

import pytest

from clients import wire
from conftest import wait_until
from others import as_owner, unread, without_dovecots
from test_delivery import client, in_order, letter, octets_of, procmail, serve                # noqa: F401  fixtures

pytestmark = pytest.mark.root
READERS = {"s-nail": ["s-nail", "-n", "-f"], "mailutils": ["mail.mailutils", "-f"]}
NEW_ENVELOPES = "mailutils"    # writes envelope lines in its own way, and unique-ids hang on them


@pytest.fixture(params=READERS)
def reader(request, spool):
    """reader(commands): what the owner of the mailbox does with it."""
    def read(commands):
        subprocess.run([*as_owner(spool), *READERS[request.param], str(spool.mailbox)], input=commands, text=True,
                       stdout=subprocess.DEVNULL, check=True, timeout=100)
    return read


def texts(pop):
    """The texts of a maildrop without marks of what was read."""
    return [without_dovecots(text) for text in in_order(pop)]


def wires(*numbers):
    return [wire(letter(number)) for number in numbers]


@pytest.mark.parametrize("asked", ["RETR 3", "QUIT"])
@pytest.mark.parametrize("commands, kept", [("set hold\ntype 2\nquit\n", (1, 2, 3)), ("delete 2\nquit\n", (1, 3))],
                         ids=["reads", "deletes"])
def test_what_a_reader_changed_during_a_session(client, reader, request, syslog, commands, kept, asked):
    """Our session ends with nothing deleted and one line in the log; the mailbox is as the reader left it. They put the
    mailbox's time back so that it shows no new mail."""
    account = client.account
    for number in (1, 2, 3):
        procmail(account, letter(number))
    with client.session() as pop:
        before = pop.uidl()[1]
        pop.dele(1)
        reader(commands)
        after = octets_of(account)
        since = len(syslog.lines)
        pop.sock.sendall(asked.encode() + b"\r\n")
        assert pop.file.read() == b"-ERR [SYS/TEMP] Mailbox changed by another program; nothing was deleted.\r\n"
    syslog.wait_for("by another program", since)
    wait_until(lambda: not client.left_over())
    assert len([text for text in syslog.texts[since:] if "by another program" in text]) == 1
    assert octets_of(account) == after
    with client.session() as pop:
        assert texts(pop) == wires(*kept)
        after = [line.split()[1] for line in pop.uidl()[1]]
        assert NEW_ENVELOPES in request.node.name or after == [before[number - 1].split()[1] for number in kept]


def test_turn_by_turn(client, reader):
    """Mail arrives, a reader deletes the first of it or a session the last, and what is left comes out whole."""
    account = client.account
    waiting = []
    for number in range(6):
        unread(account)
        procmail(account, letter(number))
        waiting.append(number)
        if number % 2:
            reader("delete 1\nquit\n")
        else:
            with client.session() as pop:
                assert texts(pop) == wires(*waiting)
                pop.dele(len(waiting))
                pop.quit()
        del waiting[0 if number % 2 else -1]
    with client.session() as pop:
        assert texts(pop) == wires(*waiting)
