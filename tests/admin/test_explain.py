"""popperctl trace explain: every sentence it has, what it takes to say it, and when it keeps silent."""

import pytest

from popper.admin import facts
from tracing import (ADDRESS, DELIVERED, HOST, QPOPPER_2, QPOPPER_4, asked, begun, deleted, ended, logged_in, opened,
                     quitted, retrieved, session)
from tracing import conf, popperctl, trace    # noqa: F401, fixtures

WHO = f"joe at {ADDRESS} ({ADDRESS})"
BUSY = "/var/mail/joe lock busy!  Is another session active?"
PERFECT = session(*logged_in(), *retrieved(1, 100), *deleted(1), *quitted(
    update="Update of /var/mail/joe: 1 deleted, 2 left, in 0.024 s"))


HELD_BACK = "Too many logins failed: this one waits for 3.9 s"
GUESSED = ("The login was held back for 3.9 s, because many wrong passwords had come from this address, or for this "
           "name; `guess_delay_max` in popper.conf.")


def refused(text, reason="", user="joe", address=ADDRESS, how="a refusal"):
    """The lines of a refusal, and of the end that follows it."""
    return [f"{user} at {address} ({address}): -ERR {text}" + (f" ({reason})" if reason else ""), f"-ERR {text}",
            *ended(how, user, address)]


@pytest.fixture
def told(trace):                             # noqa: F811
    """told(session, ...) -> the sentences on the last one that is given; the others are in the trace besides."""
    def call(*sessions):
        pid, at = sessions[-1][0][1].partition("[")[2].partition("]")[0], sessions[-1][0][0]
        done = trace("explain", f"{pid}@12:{int(at) // 60:02}:{int(at) % 60:02}", said=sessions)
        assert (done.status, done.err) == (0, "")
        head, *sentences = done.out.splitlines()
        assert f" {pid}" in head and all(sentence.startswith("    ") for sentence in sentences)
        return [sentence[4:] for sentence in sentences]
    return call


# -- one sentence each -------------------------------------------------------------------------------------------------

SENTENCES = {
    "nothing": (session(*logged_in(), *retrieved(1, 100), *quitted()), "Nothing went wrong."),
    "wrong password": (
        session(*begun(), *asked(), "Login of joe failed: wrong password", 2,
                *refused('[AUTH] Password supplied for "joe" is incorrect.')),
        "The password given for joe is wrong."),
    "no such user": (
        session(*begun(), *asked(), "Login of joe failed: no such user", 2,
                *refused('[AUTH] Password supplied for "joe" is incorrect.')),
        "There is no user joe."),
    "not let in": (
        session(*begun(), *asked(), "Login of joe failed: uid 3", 2,
                *refused("[AUTH] Access is blocked for UIDs below 11")),
        "joe may not log in: uid 3."),
    "a name and no password": (
        session(*begun(), *asked()[:2], *quitted()), "The client gave the name joe and left without a password."),
    "no login": (
        session(*begun(), *ended("the client, without QUIT", "(null)")), "The client left without logging in."),
    "in use by somebody unknown": (
        session(*begun(), *asked(), *refused(f"[IN-USE] {BUSY}", "/var/mail/.joe.pop: held by process 4242")),
        "Another session holds the mailbox: process 4242, of which nothing is in this trace."),
    "in use, and no more is known": (
        session(*begun(), *asked(), *refused(f"[IN-USE] {BUSY}")),
        "Another session holds the mailbox; nothing of it is in this trace."),
    "locked by a delivery": (
        session(*begun(), *asked(), "Session lock of /var/mail/joe is taken", 10.1,
                'Locks of /var/mail/joe after 10.052 s; /var/mail/joe.lock said "4242 mx1" and was 3 s old',
                *refused(f"[IN-USE] {BUSY}", '/var/mail/joe.lock said "4242 mx1" and was 3 s old')),
        "The mailbox was locked: /var/mail/joe.lock was there by process 4242 on mx1, 3.0 s old, as delivery agents "
        "and mail "
        "readers make it. popper waited 10 s for it, `lock_timeout` in popper.conf."),
    "locked by fcntl": (
        session(*begun(), *asked(), "Session lock of /var/mail/joe is taken", 10.1,
                "Locks of /var/mail/joe after 10.052 s; process 4242 had a lock",
                *refused(f"[IN-USE] {BUSY}", "process 4242 had a lock")),
        "The mailbox was locked: process 4242 had a lock. popper waited 10 s for it, `lock_timeout` in popper.conf."),
    "locked at QUIT": (
        session(*logged_in(), *deleted(1), 'Received: "quit"', "Locks of /var/mail/joe after 10.010 s",
                *refused(f"[IN-USE] {BUSY}")),
        "At QUIT the mailbox was locked: by a delivery agent or a mail reader. popper waited 10 s for it, "
        "`lock_timeout` in "
        "popper.conf."),
    "locks that came late": (
        session(*begun(), *asked(), *opened(locks='Locks of /var/mail/{0} after 6.200 s; /var/mail/{0}.lock said "0" '
                                                  'and was '
                                            "70 s old"), *quitted()),
        "The locks of /var/mail/joe took 6.2 s: /var/mail/joe.lock was there by process 0, 1 min 10 s old, as delivery "
        "agents and mail readers make it."),
    "DNS without a name": (
        session(*begun(), *asked(), "Client 192.0.2.1 has no name to go by, after 5.000 s", *opened(), *quitted()),
        "DNS took 5.0 s for 192.0.2.1, which has no name to go by. Whoever keeps the reverse zone can mend that; "
        "`lookup no` "
        "in popper.conf does without."),
    "DNS with a name": (
        session(*begun(), *asked(), "Client 192.0.2.1 is mail.example.org, after 4.000 s", *opened(), *quitted()),
        "DNS took 4.0 s for 192.0.2.1, which is mail.example.org. Whoever keeps the reverse zone can mend that; "
        "`lookup no` "
        "in popper.conf does without."),
    "slow authentication": (
        session(*begun(), *asked(), "Authentication took 4.500 s; uid = 1000, gid = 1000", *opened()[1:], *quitted()),
        "Checking the password took 4.5 s."),
    "held back after wrong passwords": (
        session(*begun(), *asked(), HELD_BACK, 3.9, "Authentication took 4.050 s; uid = 1000, gid = 1000",
                *opened()[1:], *quitted()),
        GUESSED),
    "held back by a daemon": (
        session(*begun(), *asked(), HELD_BACK, 3.9, "Handed to process 4812", *opened(), *quitted(), pid="4700.7"),
        GUESSED),
    "too many wrong passwords": (
        session(*begun(), *asked(), *refused("[SYS/TEMP] Too many wrong passwords, try again later.")),
        "The password was not tried: so many wrong ones had come from this address, or for this name, that no more "
        "logins could wait; `guess_delay_max` in popper.conf."),
    "too many sessions": (
        session(*begun(), *asked(), *refused("[SYS/TEMP] Too many sessions, try again later."), pid="4700.7"),
        "The password was not tried: as many sessions were under way as there may be at a time, `maxsessions` in "
        "popper.conf."),
    "a slow scan": (
        session(*logged_in(), "Scan of /var/mail/joe: 3 messages, 700 octets, in 12.000 s", *quitted()),
        "Looking through /var/mail/joe took 12 s."),
    "a slow update": (
        session(*logged_in(), *quitted(update="Update of /var/mail/joe: 0 deleted, 3 left, in 75.500 s")),
        "The update of /var/mail/joe took 1 min 15 s."),
    "an update that failed behind the client's back": (
        session(*logged_in(), *deleted(1), "Update of /var/mail/joe: failed, in 0.500 s", *quitted()),
        "The update of /var/mail/joe failed; popper's log may say why."),
    "damaged": (
        session(*begun(), *asked(), "Session lock of /var/mail/joe is taken", "Locks of /var/mail/joe after 0.000 s",
                *refused("[SYS/PERM] Unable to process From lines (envelopes), change recognition modes.",
                         "/var/mail/joe: no envelope line at octet 4711")),
        "The mailbox /var/mail/joe is damaged at octet 4711: a message should begin there. popperctl mailbox repair -n "
        "/var/mail/joe says more."),
    "changed by another program": (
        session(*logged_in(), 'Received: "retr 1"', "+OK 100 octets",
                *refused("[SYS/TEMP] Mailbox changed by another program; nothing was deleted.",
                         "/var/mail/joe was cut short by another program", how="the maildrop")),
        "During the session /var/mail/joe was cut short by another program; nothing was deleted. Does that program "
        "take the "
        "same locks, `locks` in popper.conf?"),
    "trouble of the system": (
        session(*logged_in(), *deleted(1), 'Received: "quit"',
                *refused("[SYS/TEMP] Error updating mailbox.",
                         "update of /var/mail/joe failed: No space left on device")),
        '"quit" was refused: Error updating mailbox. (update of /var/mail/joe failed: No space left on device)'),
    "a fault of ours": (
        session(*logged_in(), f"{WHO}: internal error at mbox.py:12: KeyError: 3",
                *refused("[SYS/TEMP] Internal error, closing.", how="an error of ours")),
        "popper has a fault, at mbox.py:12: KeyError: 3. Its makers should know."),
    "a fault of ours that nothing is known of": (
        session(*logged_in(), *ended("an error of ours")), "popper has a fault; its makers should know."),
    "sent away": (
        session(*begun(), "-ERR Input without a line end, closing.", *ended("a refusal", "(null)")),
        "popper ended the session: Input without a line end, closing."),
    "a mistake": (
        session(*logged_in(), 'Received: "xsender"', '-ERR Unknown command: "xsender".', *quitted()[:-2],
                f'{WHO}: -ERR Unknown command: "xsender".', *ended()),
        '"xsender" was refused: Unknown command: "xsender".'),
    "mistakes": (
        session(*logged_in(), 'Received: "retr 9"', "-ERR Message 9 does not exist.", 'Received: "xsender"',
                '-ERR Unknown command: "xsender".', *quitted()),
        '2 commands were refused, "retr 9" first: Message 9 does not exist.'),
    "too few octets": (
        session(*logged_in(), *retrieved(2, 200, 190), *quitted()),
        "Message 2 was announced with 200 octets, and 190 were sent."),
    "too many octets": (
        session(*logged_in(), *retrieved(2, 200, 267), *quitted()),
        "Message 2 was announced with 200 octets, and 267 were sent."),
    "a slow client": (
        session(*logged_in(), *retrieved(2, 200, 200, 65.2, 64.9), *quitted()),
        "The client read slowly: of 1 min 5 s for message 2, 200 octets, 1 min 4 s were spent waiting for it."),
    "stopped reading": (
        session(*logged_in(), *deleted(1), *deleted(3), 'Received: "retr 2"', "+OK 200 octets", 120,
                f"(v0.1.0) Timeout (120 secs) during nw write from {WHO}", *ended("a timeout")),
        "The client stopped reading: it took nothing of message 2, 200 octets, for 120 s, and the 2 messages that were "
        "marked "
        "as deleted stay."),
    "stopped reading a list": (
        session(*logged_in(), 'Received: "uidl"', "+OK uidl command accepted.", 120,
                f"(v0.1.0) Timeout (120 secs) during nw write from {WHO}", *ended("a timeout")),
        "The client stopped reading: it took nothing for 120 s; nothing was marked as deleted."),
    "a pause too long": (
        session(*logged_in(), *deleted(1), 120, f"(v0.1.0) Timeout (120 secs) during nw read from {WHO}",
                *ended("a timeout")),
        'The client paused for longer than 120 s after "dele 1", so the message that was marked as deleted stays. RFC '
        '1939 '
        "wants 600 s at least, `timeout` in popper.conf."),
    "a pause too long for anybody": (
        session(*logged_in(), 600, f"(v0.1.0) Timeout (600 secs) during nw read from {WHO}", *ended("a timeout")),
        'The client paused for longer than 600 s after "pass xxxxxxxxx"; nothing was marked as deleted.'),
    "no login in time": (
        session(*begun(), *asked()[:2], 120, f"(v0.1.0) Timeout (120 secs) during nw read from {WHO}",
                *ended("a timeout")),
        "The client had not logged in after 120 s, `login_timeout` in popper.conf."),
    "without QUIT": (
        session(*logged_in(), *deleted(1), *deleted(2), f"{WHO}: -ERR POP EOF or I/O Error",
                *ended("the client, without QUIT")),
        "The client closed the connection without QUIT, so the 2 messages that were marked as deleted stay."),
    "without QUIT, and nothing lost": (
        session(*logged_in(), *deleted(1), 'Received: "rset"', "+OK Maildrop has 3 messages (600 octets)",
                f"{WHO}: -ERR POP EOF or I/O Error", *ended("the client, without QUIT")),
        "The client closed the connection without QUIT; nothing was marked as deleted."),
    "without QUIT amid a message": (
        session(*logged_in(), *deleted(1), 'Received: "retr 2"', "+OK 200 octets", f"{WHO}: -ERR POP EOF or I/O Error",
                *ended("the client, without QUIT")),
        "The client closed the connection without QUIT while message 2 was sent, so the message that was marked as "
        "deleted "
        "stays."),
    "without QUIT, where that deletes": (
        session(*logged_in(), *deleted(1), f"{WHO}: -ERR POP EOF or I/O Error",
                "Update of /var/mail/joe: 1 deleted, 2 left, in 0.024 s", *ended("the client, without QUIT")),
        "The client closed the connection without QUIT; what was marked was deleted all the same, 1 message "
        "(`update_on_abort`)."),
    "QUIT whose answer nobody heard": (
        session(*logged_in(), 'Received: "quit"', f"+OK Pop server at {HOST} signing off.",
                f"{WHO}: -ERR POP EOF or I/O Error", *ended("the client, without QUIT")),
        "The client sent QUIT and closed the connection without waiting for the answer; nothing was marked as "
        "deleted."),
    "a signal": (
        session(*logged_in(), *deleted(1), f"{WHO}: -ERR POP hangup", *ended("a signal 15")),
        "popper was told to end by a signal, and the message that was marked as deleted stays."),
    "no end": (
        session(*logged_in()), "The trace does not have its end: it is under way yet, or its process was killed."),
}


@pytest.mark.parametrize("what", SENTENCES)
def test_what_is_said(told, what):
    said, sentence = SENTENCES[what]
    deletes = what == "without QUIT, where that deletes"
    assert told(said) == [sentence] + ["The session deleted 1 message, which it had not retrieved."] * deletes


def test_what_was_not_tried_is_nobodys_fault(trace):     # noqa: F811
    for what, kind in (("held back after wrong passwords", "guessers"), ("held back by a daemon", "guessers"),
                       ("too many wrong passwords", "guessers"), ("too many sessions", "maxsessions")):
        (row,) = trace("explain", "--json", said=[SENTENCES[what][0]]).json
        assert [(each["kind"], each["fault"]) for each in row["findings"]] == [(kind, False)]


def test_a_password_that_is_checked_slowly_after_it_was_held_back(told):
    assert told(session(*begun(), *asked(), HELD_BACK, 8.4, "Authentication took 8.400 s; uid = 1000, gid = 1000",
                        *opened()[1:], *quitted())) == [GUESSED, "Checking the password took 4.5 s."]
    assert told(session(*begun(), *asked(), HELD_BACK, 3.9, "Handed to process 4812", 4.5,
                        "Authentication took 4.500 s; uid = 1000, gid = 1000", *opened()[1:], *quitted(),
                        pid="4700.7")) == [GUESSED, "Checking the password took 4.5 s."]


def test_quit_whose_answer_nobody_heard_deletes(told):
    assert told(session(*logged_in(), *retrieved(1, 100), *deleted(1), *deleted(2), 'Received: "quit"',
                        "Update of /var/mail/joe: 2 deleted, 1 left, in 0.024 s", f"{WHO}: -ERR POP EOF or I/O Error",
                        *ended("the client, without QUIT"))) == [
        "The client sent QUIT and closed the connection without waiting for the answer; 2 messages were deleted.",
        "The session deleted 2 messages, 1 of which it had not retrieved."]


def test_all_that_went_wrong_is_said(told):
    assert told(session(
        *begun(), *asked(), "Client 192.0.2.1 has no name to go by, after 5.000 s", *opened(), *retrieved(2, 200, 190),
        *deleted(2), f"{WHO}: -ERR POP EOF or I/O Error", *ended("the client, without QUIT"))) == [
            SENTENCES["DNS without a name"][1], SENTENCES["too few octets"][1],
            "The client closed the connection without QUIT, so the message that was marked as deleted stays."]


@pytest.mark.parametrize("sent", [200, 201, 266])
def test_stuffed_dots_make_more_octets_than_were_announced(told, sent):
    assert told(session(*logged_in(), *retrieved(2, 200, sent), *quitted())) == ["Nothing went wrong."]


# -- of Qpopper --------------------------------------------------------------------------------------------------------

QPOPPER = ['(v2.53) Servicing request from "pc" at 192.0.2.1', "+OK QPOP (version 2.53) at pop.example.org starting.  ",
           'Received: "user joe"', "+OK Password required for joe.", 'Received: "pass xxxxxxxxx"']
QPOPPER_IN = [*QPOPPER, "+OK joe has 3 messages (600 octets)."]
QPOPPER_END = ["+OK Pop server at pop.example.org signing off.", '(v2.53) Ending request from "joe" at (pc) 192.0.2.1']


@pytest.mark.parametrize("style", [QPOPPER_2, QPOPPER_4])
@pytest.mark.parametrize("said, sentence", [
    ([*QPOPPER, 'joe at pc (192.0.2.1): -ERR Password supplied for "joe" is incorrect.', *QPOPPER_END],
     "The password given for joe is wrong, or there is no such user; the trace does not say which."),
    ([*QPOPPER, f"joe@pc: -ERR {BUSY} (11)", *QPOPPER_END],
     "Another session holds the mailbox; nothing of it is in this trace."),
    ([*QPOPPER_IN, 'Received: "dele 1"', "+OK Message 1 has been deleted.", "-ERR POP timeout", *QPOPPER_END],
     'The client paused for longer than the timeout after "dele 1"; the message that was marked as deleted may be gone '
     'or '
     "not."),
    ([*QPOPPER_IN, 'Received: "dele 1"', "+OK Message 1 has been deleted.", "-ERR POP EOF received",
      "Deleting message 1 at offset 0 of length 100", *QPOPPER_END],
     "The client closed the connection without QUIT; what was marked was deleted all the same, 1 message "
     "(`update_on_abort`)."),
    ([*QPOPPER_IN, 'Received: "retr 1"', "+OK 100 octets", 'Received: "quit"', *QPOPPER_END], "Nothing went wrong."),
], ids=range(5))
def test_what_is_said_of_a_session_of_qpoppers(told, style, said, sentence):
    more = ["The session deleted 1 message, which it had not retrieved."] * ("update_on_abort" in sentence)
    assert told(session(*said, style=style)) == [sentence, *more]


# -- another session holds the mailbox ---------------------------------------------------------------------------------

HELD = [*begun(), *asked(), *refused(f"[IN-USE] {BUSY}", "/var/mail/.joe.pop: held by process 4690")]


def holder(*end, pid=4690, at=0.0, user="joe"):
    return session(*logged_in(user, address="192.0.2.9"), *retrieved(1, 100), 600, *end, pid=pid, at=at)


@pytest.mark.parametrize("end, sentence", [
    (["(v0.1.0) Timeout (600 secs) during nw read from joe at x (x)", *ended("a timeout", address="192.0.2.9")],
     "; it ended at 12:10:00, by a timeout."),
    (quitted(address="192.0.2.9"), "; it ended at 12:10:00, by QUIT."),
    ([], "; the trace does not have its end."),
])
def test_how_the_other_session_ended(told, end, sentence):
    assert told(holder(*end), session(*HELD, at=300)) == [
        "Another session holds the mailbox: 4690 from 192.0.2.9, since 12:00:00, 4 min 59 s before this; it had been "
        "silent "
        "for 4 min 59 s" + sentence]


def test_a_session_that_is_busy_is_not_silent(told):
    busy = session(*logged_in(address="192.0.2.9"), *[5, *retrieved(1, 100)] * 100, *quitted(address="192.0.2.9"),
                   pid=4690)
    (sentence,) = told(busy, session(*HELD, at=300))
    assert "since 12:00:00, 4 min 59 s before this; it ended at 12:08:" in sentence


@pytest.mark.parametrize("other", [
    holder(*quitted(), user="ann"), holder(at=301), session(*begun("192.0.2.9"), *asked(), pid=4690),
    session(*logged_in(address="192.0.2.9"), *quitted(), pid=4690),
], ids=["another's", "later", "not logged in", "over"])
def test_who_does_not_hold_the_mailbox(told, other):
    assert told(other, session(*HELD, at=300)) == [
        "Another session holds the mailbox: process 4690, of which nothing is in this trace."]


def test_who_came_later_does_not_hold_it(told):
    """Qpopper, or a popper that lets a client try again: the session goes on, and another one logs in meanwhile."""
    goes_on = [*begun(), *asked(), *HELD[6:8], 60, *ended("a refusal")]
    assert told(holder(at=330), session(*goes_on, at=300)) == [
        "Another session holds the mailbox: process 4690, of which nothing is in this trace."]


@pytest.mark.parametrize("handed, reason, end, process", [
    (["Handed to process 4812"], "held by process 4811", quitted(), "process 4812"),     # 4811 may be its keeper
    (["Handed to process 4810", 1, "Handed to process 4812"], "", [], "process 4812"),   # a wrong password at first
    ([], "held by process 4811", [], "process 4811"),
    (["Handed to process 4811x"], "", [], ""),
    ([], "", quitted(), ""),
])
def test_a_holder_whose_process_is_not_in_its_name(told, handed, reason, end, process):
    """As with sessions of a daemon, whose mark has the master's number: who wants to end it needs another."""
    holder = session(*begun(), 0.02, *asked(), *handed, *opened(), 60, *end, pid="4700.7", at=0)
    late = session(*begun(), *asked(), *refused(f"[IN-USE] {BUSY}", reason), pid="4700.8", at=30)
    sentence = next(each for each in told(holder, late) if each.startswith("Another "))
    process = process and f" ({process})"
    assert sentence.startswith(f"Another session holds the mailbox: 4700.7{process} from 192.0.2.1, since 12:00:0")
    assert sentence.endswith("; it ended at 12:01:00, by QUIT." if end else "; the trace does not have its end." if process
                             else "; the trace does not have its end; popperctl status has its process.")


def test_the_process_of_a_daemons_session_decides_between_two(told):
    def holder(mark, process, at):
        return session(*begun(), *asked(), f"Handed to process {process}", *opened(), 600, *quitted(), pid=mark, at=at)
    both = holder("4690.1", 4801, 0), holder("4690.2", 4802, 1)
    for mark, process in (("4690.1", 4801), ("4690.2", 4802)):
        late = session(*begun(), *asked(), *refused(f"[IN-USE] {BUSY}", f"held by process {process}"), pid="4690.3",
                       at=30)
        assert f"mailbox: {mark} (process {process}) from" in told(*both, late)[0]


def test_there_is_nothing_to_explain(trace):             # noqa: F811
    done = trace("explain", "--user", "nobody", said=[PERFECT])
    assert (done.status, done.err) == (0, "")
    assert done.out == ("There is no such session: was it traced (popperctl trace list), and does the mail program get "
                        "here?\n")


def test_the_process_decides_between_two(told):
    """A keeper holds the lock under a number of its own; then the user has to do."""
    others = holder(pid=4600), holder(pid=4690, at=1), holder(pid=4800, at=2)
    assert "mailbox: 4690 from" in told(*others, session(*HELD, at=300))[0]
    assert "mailbox: 4600 from" in told(others[0], session(*HELD, at=300))[0]


def test_a_holder_from_the_day_before_has_its_day_named(told):
    (sentence,) = told(holder(at=-86400), session(*HELD))
    assert "since 2026-11-20 12:00:00, 23 h 59 min before this" in sentence


# -- the session before ------------------------------------------------------------------------------------------------

FIRST = session(*logged_in(), 'Received: "uidl"', "+OK uidl command accepted.", *quitted(), pid=4600)
CHANGED = "Clients take such messages for new, and retrieve them again."


def second(messages, *said):
    return session(*logged_in(messages=messages), *said, *quitted(), pid=4700, at=600)


def test_unique_ids_that_changed(told):
    assert told(FIRST, second([("xxx", 0, 100), ("bbb", 140, 200), ("yyy", 380, 300), ("new", 700, 10)])) == [
        "Unique-ids have changed since session 4600 at 12:00:00, those of 2 of 4 messages: number 1 had aaa and has "
        "xxx. "
        + CHANGED]


def test_all_unique_ids_changed_and_the_places_too(told):
    assert told(FIRST, second([("x", 0, 100), ("y", 150, 200), ("z", 420, 300)])) == [
        "Unique-ids have changed since session 4600 at 12:00:00, those of 1 of 3 messages: number 1 had aaa and has x. "
        + CHANGED]
    assert told(FIRST, second([("x", 10, 100), ("y", 150, 200), ("z", 420, 300)])) == [
        f"All unique-ids have changed since session 4600 at 12:00:00. {CHANGED}"]


@pytest.mark.parametrize("messages", [
    DELIVERED, [], DELIVERED[1:], [("bbb", 0, 200), ("ccc", 240, 300), ("new", 700, 10)],
    [("new", 0, 50), ("newer", 90, 60)],
    [("bbb", 0, 100), ("ccc", 140, 200)],       # others have come to the place of what was deleted, of the same size
    [("new", 140, 200), ("aaa", 0, 100), ("bbb", 900, 1)],
], ids=range(7))
def test_unique_ids_that_did_not_change(told, messages):
    assert told(FIRST, second(messages)) == ["Nothing went wrong."]


def test_a_session_between_them_that_lists_nothing_changes_nothing(told):
    between = session(*begun(), *asked(), "Login of joe failed: wrong password",
                      *refused('[AUTH] Password supplied for "joe" is incorrect.'), pid=4650, at=300)
    assert "since session 4600" in told(FIRST, between, second([("xxx", 0, 100)]))[0]


def test_other_users_have_other_unique_ids(told):
    anns = session(*logged_in("ann", [("xxx", 0, 100)]), *quitted("ann"), pid=4600)
    assert told(anns, second(DELIVERED)) == ["Nothing went wrong."]


ALL = [*retrieved(1, 100), *retrieved(2, 200), *retrieved(3, 300)]


def test_everything_is_retrieved_again(told):
    first = session(*logged_in(), *ALL, *quitted(), pid=4600)
    between = session(*logged_in(), *quitted(), pid=4650, at=300)
    assert told(first, between, second(DELIVERED, *ALL)) == [
        "The client retrieved 3 of 3 messages, 600 octets, again, which session 4600 at 12:00:00 had retrieved and "
        "left on the "
        "server. It did not ask for unique-ids, by which it could know them."]
    assert told(first, second((*DELIVERED, ("new", 700, 10)), 'Received: "UIDL"', "+OK uidl command accepted.", *ALL,
                              *retrieved(4, 10))) == [
        "The client retrieved 3 of 4 messages, 600 octets, again, which session 4600 at 12:00:00 had retrieved and "
        "left on the "
        "server."]


def test_two_clients_with_one_mailbox(told):
    first = session(*logged_in(address="192.0.2.9"), *ALL, *quitted(address="192.0.2.9"), pid=4600)
    assert told(first, second(DELIVERED, *ALL)) == [
        "Of what was retrieved, 3 of 3 messages, 600 octets, are those that session 4600 at 12:00:00 had retrieved and "
        "left on "
        "the server for 192.0.2.9: two clients read this mailbox."]


@pytest.mark.parametrize("messages, said", [
    ((*DELIVERED, ("d", 700, 1), ("e", 710, 2)), [*retrieved(3, 300), *retrieved(4, 1), *retrieved(5, 2)]),
    ([("d", 0, 7)], retrieved(1, 7)), (DELIVERED, ['Received: "retr 1"', "+OK 100 octets"]), (DELIVERED, []),
], ids=["some", "new", "not to the end", "nothing"])
def test_what_is_not_retrieved_again(told, messages, said):
    first = session(*logged_in(), *ALL, *quitted(), pid=4600)
    assert told(first, second(messages, *said)) == ["Nothing went wrong."]


def test_messages_without_unique_ids_are_known_by_their_places(told):
    def plain(*said, **how):
        return session(*[each.replace(" [uidl bbb]", "").replace(" [uidl aaa]", "").replace(" [uidl ccc]", "")
                         if isinstance(each, str) else each for each in said], **how)
    first = plain(*logged_in(), *ALL, *quitted(), pid=4600)
    assert told(first, plain(*logged_in(), *ALL, *quitted(),
                             at=60))[0].startswith("The client retrieved 3 of 3 messages")


# -- many sessions -----------------------------------------------------------------------------------------------------

def test_of_all_sessions_those_are_told_of_which_there_is_something_to_say(trace):         # noqa: F811
    done = trace("explain", said=[PERFECT, session(*logged_in(), pid=4712, at=60)])
    assert done.out == f"""\
2026-11-21 12:01:00     4712  joe from {ADDRESS}: open after 0.0 s, 2 commands, 137 octets sent
    The trace does not have its end: it is under way yet, or its process was killed.
2 sessions; there is nothing to say of 1
"""


def test_sessions_are_chosen_and_the_others_are_still_known(trace):                         # noqa: F811
    done = trace("explain", "--user", "joe", "--outcome", "in-use", said=[holder(), session(*HELD, at=300)])
    assert done.out.count("\n") == 3 and "mailbox: 4690 from 192.0.2.9" in done.out
    assert done.out.endswith("1 session; there is nothing to say of 0\n")


def test_a_program_gets_kinds_and_sessions(trace):                                          # noqa: F811
    done = trace("explain", "--json", said=[holder(), session(*HELD, at=300), PERFECT])
    findings = {row["session"]: row["findings"] for row in done.json}
    assert [each["kind"] for each in findings["4711@12:00:00"]] == ["deleted"]
    assert [(each["kind"], each["fault"], each["session"]) for each in findings["4711@12:05:00"]] == [
        ("in-use", True, "4690")]
    assert findings["4711@12:05:00"][0]["text"].startswith("Another session holds the mailbox: 4690 from")


def test_a_file_may_stand_in_the_place_of_the_session(trace, tmp_path):                     # noqa: F811
    (tmp_path / "t").write_text("".join(line for _, line in PERFECT))
    assert trace("explain", tmp_path / "t").out == "1 session; there is nothing to say of 1\n"
    assert trace("explain", "4711", tmp_path / "t").out.endswith(
        "\n    The session deleted 1 message.\n    Nothing went wrong.\n")


@pytest.mark.parametrize("limit, value", [("MOST_USERS", 2), ("MOST_MESSAGES", 12)])
def test_what_is_remembered_is_bounded(monkeypatch, limit, value):
    monkeypatch.setattr(facts, limit, value)
    history = facts.History(None)
    for number in [each // 3 for each in range(150)]:
        one = facts.Session("1", 0.0, True)
        one.user, one.logged_in = f"user{number}", 1.0
        found = facts.Facts()
        found.messages = {1: ("a", 0, 1), 2: ("b", 1, 1)}
        for each in found.messages:
            found.retrieved[each] = facts.Retrieval(each, 1)
            found.retrieved[each].sent = 1
        history.add(one, found)
        assert len(history.users) <= 3 and history.weight <= 12
        assert history.weight == sum(past.weight for past in history.users.values())
    assert history.of("user49").recent and not history.of("user1").recent


# -- what a session deleted --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("got, gone, rest", [
    ((1, 2, 3), (1,), "1 message"), ((1, 2, 3), (1, 2, 3), "3 messages"),
    ((), (2,), "1 message, which it had not retrieved"),
    ((3,), (1, 2, 3), "3 messages, 2 of which it had not retrieved"),
    ((3,), (1, 2), "2 messages, none of which it had retrieved"),
])
def test_what_was_deleted_and_had_not_been_retrieved(told, got, gone, rest):
    said = [line for number in got for line in retrieved(number, number * 100)]
    said += [line for number in gone for line in deleted(number)]
    update = f"Update of /var/mail/joe: {len(gone)} deleted, {3 - len(gone)} left, in 0.024 s"
    assert told(session(*logged_in(), *said, *quitted(update=update))) == [
        f"The session deleted {rest}.", "Nothing went wrong."]


def test_more_was_deleted_than_the_trace_tells_of(told):
    """Its beginning is in another file: nobody knows what was retrieved there."""
    assert told(session(*logged_in(), *deleted(2), *quitted(
        update="Update of /var/mail/joe: 2 deleted, 1 left, in 0.024 s")))[0] == "The session deleted 2 messages."


def test_a_message_that_was_not_sent_to_its_end_is_not_retrieved(told):
    said = ['Received: "retr 1"', "+OK 100 octets"]
    assert told(session(*logged_in(), *said, *deleted(1), *quitted(
        update="Update of /var/mail/joe: 1 deleted, 2 left, in 0.024 s")))[0] == (
            "The session deleted 1 message, which it had not retrieved.")


def test_what_was_deleted_is_said_to_who_asks_for_a_user(trace):           # noqa: F811
    """Most sessions delete: of all of them this is not said, and they count as fine."""
    assert trace("explain", said=[PERFECT]).out == "1 session; there is nothing to say of 1\n"
    assert trace("explain", "--address", ADDRESS).out == "1 session; there is nothing to say of 1\n"
    out = trace("explain", "--user", "joe").out
    assert out.endswith("\n    The session deleted 1 message.\n1 session; there is nothing to say of 0\n")
    (finding,) = trace("explain", "--json").json[0]["findings"]
    assert finding == {"kind": "deleted", "fault": False, "text": "The session deleted 1 message.", "session": None}


DELETED = ['Received: "dele 1"', "+OK Message 1 has been deleted."]


def test_what_comes_to_the_place_of_what_was_deleted_is_new(told):
    """Mail of a kind is of one size: what the next session finds at octet 0 is not the message that was there."""
    first = session(*logged_in(messages=[("aaa", 0, 100)]), *DELETED, *quitted(), pid=4600)
    assert told(first, second([("bbb", 0, 100)])) == ["Nothing went wrong."]
    kept = session(*logged_in(messages=[("aaa", 0, 100)]), *DELETED, *ended("the client, without QUIT"),
                   pid=4600)                 # nothing was deleted
    assert told(kept, second([("bbb", 0, 100)]))[0].startswith("Unique-ids have changed since session 4600")


def test_what_was_deleted_is_not_retrieved_again(told):
    def plain(*said, **how):
        return session(*[each.replace(" [uidl aaa]", "") if isinstance(each, str) else each for each in said], **how)
    first = plain(*logged_in(messages=[("aaa", 0, 100)]), *retrieved(1, 100), *DELETED, *quitted(), pid=4600)
    again = plain(*logged_in(messages=[("aaa", 0, 100)]), *retrieved(1, 100), *quitted(), pid=4700, at=600)
    assert told(first, again) == ["Nothing went wrong."]


def test_who_was_killed_yesterday_holds_nothing(told):
    other = holder(pid=4600, at=-86400)
    assert told(other, session(*HELD)) == [
        "Another session holds the mailbox: process 4690, of which nothing is in this trace."]


def test_a_sign_off_is_no_answer_to_what_was_refused(told):
    (sentence, *_) = told(session(*logged_in(), 'Received: "dele 9"', "-ERR Message 9 does not exist.", 600,
                                  "(v0.1.0) Timeout (600 secs) during nw read from joe at x (x)",
                                  "+OK Pop server at pop.example.org signing off.", *ended("a timeout")))[-1:]
    assert sentence.endswith("nothing was marked as deleted.")
