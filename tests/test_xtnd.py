"""XTND XLST and XTND XMIT (ucb-popper.md 7): one header of every message, and mail on its way out."""

import os
import socket

import pytest

from dialogue import HOST, ONE, Dialogue, mbox
from popper.errors import TEMPORARY, Refused
from popper.journal import Journal
from popper.maildrop import Maildrop
from popper.options import Options
from popper.peer import Peer
from popper.channel import Channel
from popper.serve import Server
from popper.session import Session
from popper.storage.memory import Memory
from popper.tally import Tally

FIRST = (b"Received: from a\n\tby b\n  for c\nSubject: one\nSubject-Line: not\nsubject: again\n"
         b"To: x\n\nSubject: in the body\n")
CRLF = b"From: a\r\nSUBJECT: two\r\n folded\r\nX: y\r\n\r\nbody\r\n"
WITHOUT = b"From: nobody\n\nSubject: in the body\n"
HEADER_ONLY = b"Subject: nothing follows\n"
ALL = (FIRST, CRLF, WITHOUT, HEADER_ONLY)


def session(*texts):
    one = Session(HOST)
    one.receive(b"USER mrose")
    one.receive(b"PASS x")
    one.opened(Maildrop("mrose", Memory(mbox(*texts))))
    return one


def xlst(one, arguments):
    reply = one.receive(b"XTND XLST " + arguments)
    assert (reply.ok, reply.text) == (True, "xlst command accepted; headers coming.")
    return b"".join(reply.body).split(b"\r\n")[:-1]


# -- XLST ------------------------------------------------------------------------------------------------------------

def test_the_first_of_each_message():
    assert xlst(session(*ALL), b"subject") == [
        b"1 Subject: one", b"2 SUBJECT: two", b" folded", b"4 Subject: nothing follows"]


@pytest.mark.parametrize("name", [b"Subject:", b"SUBJECT", b"sUbJeCt", b"subj"])
def test_any_case_and_any_beginning(name):
    assert xlst(session(*ALL), name)[0] == b"1 Subject: one"


def test_a_longer_name_is_another():
    assert xlst(session(*ALL), b"subject-") == [b"1 Subject-Line: not"]


def test_continuation_lines_follow_as_they_are():
    assert xlst(session(*ALL), b"received") == [b"1 Received: from a", b"\tby b", b"  for c"]


def test_a_header_that_nobody_has():
    assert xlst(session(*ALL), b"Cc") == []


def test_nothing_of_a_body():
    assert xlst(session(WITHOUT), b"subject") == []


def test_one_message():
    one = session(*ALL)
    assert xlst(one, b"subject 2") == [b"2 SUBJECT: two", b" folded"]
    assert xlst(one, b"subject 3") == []


@pytest.mark.parametrize("word", [b"XLIST", b"xlist", b"xLsT"])
def test_other_names_of_the_word(word):
    reply = session(ONE).receive(b"xtnd " + word + b" from")
    assert reply.ok and b"".join(reply.body) == b"1 From: ann@example.org\r\n"


def test_deleted_messages_are_left_out():
    one = session(*ALL)
    one.receive(b"DELE 1")
    assert xlst(one, b"subject")[0] == b"2 SUBJECT: two"
    assert one.receive(b"XTND XLST subject 1").text == "Message 1 has been deleted."


@pytest.mark.parametrize("word, text", [(b"9", "Message 9 does not exist."), (b"x", '"x" is not a message number.')])
def test_numbers_that_are_none(word, text):
    reply = session(*ALL).receive(b"XTND XLST subject " + word)
    assert (reply.ok, reply.text, reply.body) == (False, text, None)


def test_an_empty_maildrop():
    assert xlst(session(), b"subject") == []


# -- XMIT ------------------------------------------------------------------------------------------------------------

class Sink:
    """Stands in for a Submission: what was written, whether it was sent, and how often abandoned."""

    def __init__(self, trouble=None):
        self.text, self.octets, self.sent, self.abandoned, self.trouble = b"", 0, False, 0, trouble

    def write(self, text):
        self.text += text
        self.octets += len(text)

    def send(self):
        if self.trouble:
            raise self.trouble
        self.sent = True

    def abandon(self):
        self.abandoned += 1


class Served:
    """A session with a Sink, over a pair of sockets; everything is sent, then it is run, then everything is read."""

    def __init__(self, octets, trouble=None, factory=True):
        ours, theirs = socket.socketpair()
        self.sink = Sink(trouble)
        self.log = os.memfd_create("log")
        options = Options()
        options.log, options.timeout, options.login_timeout = "stderr", 5, 5
        journal = Journal("popper", options, self.log)
        ours.sendall(b"USER mrose\r\nPASS x\r\n" + octets)
        ours.shutdown(socket.SHUT_WR)
        with ours, theirs:
            channel = Channel(theirs.fileno(), theirs.fileno(), 5, Tally())
            Server(channel, HOST, Peer("local"), self, options, journal,
                   (lambda account: lambda: self.sink) if factory else None).run()
            pop = Dialogue(ours)
            self.replies = pop.end().decode("ascii").split("\r\n")[3:-1]
        self.trace = os.pread(self.log, 1 << 20, 0).decode()
        os.close(self.log)

    account = None

    def __call__(self, credentials):
        return Maildrop("mrose", Memory(mbox(ONE)))


START = "+OK Start sending the message."
SENT = "+OK Message sent successfully"
BYE = f"+OK Pop server at {HOST} signing off."


def test_a_message_is_sent_and_the_session_goes_on():
    served = Served(b"XTND XMIT\r\nTo: x\r\n\r\nhello\r\n.\r\nNOOP\r\nQUIT\r\n")
    assert served.replies == [START, SENT, "+OK ", BYE]
    assert served.sink.text == b"To: x\n\nhello\n" and served.sink.sent


def test_dots_are_unstuffed():
    served = Served(b"XTND XMIT\r\n..\r\n...\r\n..x\r\na.\r\n.\r\nQUIT\r\n")
    assert served.sink.text == b".\n..\n.x\na.\n"
    assert served.replies == [START, SENT, BYE]


def test_an_empty_message():
    served = Served(b"XTND XMIT\r\n.\r\nQUIT\r\n")
    assert (served.sink.text, served.replies) == (b"", [START, SENT, BYE])


@pytest.mark.parametrize("text", [b"", b"To: x\r\n\r\nhel", b"hello\r\n", b"hello\r\n.", b"hello\r\n.\r",
                                  b"a\r\n..\r\n"])
def test_cut_off_and_nothing_is_sent(text):
    served = Served(b"XTND XMIT\r\n" + text)
    assert served.replies == [START]
    assert not served.sink.sent and served.sink.abandoned


@pytest.mark.parametrize("trouble, reply", [
    (Refused("Unable to send message", "", "it ended with 75"), "-ERR Unable to send message"),
    (Refused("Message is larger than 9 octets", TEMPORARY), "-ERR [SYS/TEMP] Message is larger than 9 octets")])
def test_sendmail_refuses_and_the_session_goes_on(trouble, reply):
    served = Served(b"XTND XMIT\r\nhello\r\n.\r\nSTAT\r\nQUIT\r\n", trouble)
    assert served.replies[0:2] == [START, reply]
    assert served.replies[2].startswith("+OK 1 ") and served.replies[3:] == [BYE]
    assert served.sink.abandoned


def test_commands_in_the_text_are_text():
    served = Served(b"XTND XMIT\r\nDELE 1\r\nQUIT\r\n.\r\nLIST 1\r\nQUIT\r\n")
    assert served.sink.text == b"DELE 1\nQUIT\n"
    assert served.replies[2].startswith("+OK 1 ") and served.replies[3:] == [BYE]


def test_where_nothing_is_sent_there_is_one_refusal():
    served = Served(b"XTND XMIT\r\nQUIT\r\n", factory=False)
    assert served.replies == ["-ERR Unable to send message", BYE]


def test_the_trace_has_the_size_and_not_the_text():
    served = Served(b"XTND XMIT\r\nTo: secretary\r\n\r\nsesame\r\n.\r\nQUIT\r\n")
    assert 'Pop transmit from "mrose" on "local": 22 octets' in served.trace
    assert "secretary" not in served.trace and "sesame" not in served.trace
