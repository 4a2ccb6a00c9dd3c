"""Accounts that PAM lets in: the system's libpam, with services of our own in /etc/pam.d."""

import ctypes
import os
import pwd
import signal
import socket
import threading
from pathlib import Path

import pytest
from conftest import PASSWORD, TREE, RealAccount, change, wait_until
from dialogue import PATIENCE, Dialogue
from processes import as_nobody, in_child, state_of

from popper.account import Credentials
from popper.auth import authenticate as ask_all
from popper.auth import pam
from popper.auth.pam import Message, Response, authenticate
from popper.errors import AUTH, PERMANENT, TEMPORARY, Denied, HungUp, Refused
from popper.options import Options

pytestmark = pytest.mark.root
RIGHT, WRONG = PASSWORD.encode(), b"wrong"
UNIX = "auth required pam_unix.so\naccount required pam_unix.so\n"


@pytest.fixture(scope="module")
def joe():
    made = RealAccount("poppam")
    yield made
    made.remove()


@pytest.fixture
def service():
    """service(text) -> Options with a service of this text."""
    path = Path("/etc/pam.d/popper-test")

    def make(text):
        path.write_text(text)
        options = Options()
        options.set("pam_service", path.name)
        return options
    yield make
    path.unlink(missing_ok=True)


def told(*arguments):
    """(what the client is told, what the log is told) of a refusal."""
    with pytest.raises(Denied) as caught:
        authenticate(*arguments)
    assert caught.value.code == AUTH
    return caught.value.text, caught.value.reason


def trouble(*arguments):
    """The code and the reason of what is no wrong password."""
    with pytest.raises(Refused) as caught:
        authenticate(*arguments)
    assert not isinstance(caught.value, Denied) and caught.value.text == "System error, can't verify passwords."
    return caught.value.code, caught.value.reason


def test_the_right_password(joe, service):
    found = authenticate(joe.name, RIGHT, service(UNIX))
    entry = pwd.getpwnam(joe.name)
    assert (found.user, found.uid, found.gid, found.home) == (joe.name, entry.pw_uid, entry.pw_gid, entry.pw_dir)


@pytest.mark.parametrize("password", [WRONG, RIGHT[:-1], RIGHT + b" ", RIGHT.upper(), b""])
def test_a_wrong_password(joe, service, password):
    assert told(joe.name, password, service(UNIX)) == ("", "PAM: Authentication failure (7)")


def test_octets(joe, service):
    change(joe, "chpasswd", input=f"{joe.name}:gr\u00fc\u00df\n".encode("latin-1"))
    try:
        assert authenticate(joe.name, b"gr\xfc\xdf", service(UNIX)).user == joe.name
        assert told(joe.name, "gr\u00fc\u00df".encode(), service(UNIX))[0] == ""
    finally:
        change(joe, "chpasswd", input=f"{joe.name}:{PASSWORD}\n".encode())


def test_an_unknown_name_is_nobody_here(service):
    permit = service("auth required pam_permit.so\naccount required pam_permit.so\n")
    assert authenticate("pop-nobody", b"x", permit) is None


def test_an_empty_password_of_the_account_opens_nothing(joe, service):
    change(joe, "passwd", "-d")
    try:
        for nullok in "", " nullok":
            options = service(UNIX.replace("pam_unix.so", "pam_unix.so" + nullok))
            assert told(joe.name, b"x", options)[0] == told(joe.name, b"", options)[0] == ""
    finally:
        change(joe, "chpasswd", input=f"{joe.name}:{PASSWORD}\n".encode())


@pytest.mark.parametrize("command, back, said", [
    (["chage", "-E", "0"], ["chage", "-E", "-1"], '"{}": account expired.'),
    (["chage", "-d", "0"], ["chage", "-d", "2024-01-01"], '"{}": password expired.'),
    (["usermod", "-s", "/bin/false"], ["usermod", "-s", "/bin/sh"], '"{}": shell not found.')])
def test_who_knows_the_password_is_told_why_he_may_not_come_in(joe, service, command, back, said):
    change(joe, *command)
    try:
        assert told(joe.name, RIGHT, service(UNIX))[0] == said.format(joe.name)
        assert told(joe.name, WRONG, service(UNIX))[0] == ""
    finally:
        change(joe, *back)


def test_users_below_a_number(joe, service):
    options = service(UNIX)
    options.set("min_uid", str(joe.entry.pw_uid + 1))
    assert told(joe.name, RIGHT, options)[0] == f"Access is blocked for UIDs below {joe.entry.pw_uid + 1}"


def test_the_address_of_the_client_decides(joe, service, tmp_path):
    """pam_access knows it by PAM_RHOST."""
    rules = tmp_path / "access.conf"
    rules.write_text(f"-:{joe.name}:192.0.2.7 2001:db8::7\n+:ALL:ALL\n")
    options = service(UNIX + f"account required pam_access.so accessfile={rules}\n")
    for address in "192.0.2.8", "2001:db8::8", "":
        assert authenticate(joe.name, RIGHT, options, address).user == joe.name
    for address in "192.0.2.7", "2001:db8::7":
        assert told(joe.name, RIGHT, options, address)[0] == f'"{joe.name}": access denied.'


def test_the_chain_tells_the_address(joe, service, tmp_path):
    rules = tmp_path / "access.conf"
    rules.write_text("-:ALL:192.0.2.7\n+:ALL:ALL\n")
    options = service(UNIX + f"account required pam_access.so accessfile={rules}\n")
    options.set("auth", "file pam")
    assert ask_all(Credentials(joe.name.encode(), RIGHT), options, "192.0.2.8").uid == joe.entry.pw_uid
    with pytest.raises(Denied):
        ask_all(Credentials(joe.name.encode(), RIGHT), options, "192.0.2.7")


def test_a_module_that_is_not_there_is_trouble_and_no_wrong_password(joe, service):
    code, reason = trouble(joe.name, RIGHT, service("auth required pam_no_such_module.so\n" + UNIX))
    assert code == PERMANENT and reason.startswith("PAM: ")


def test_a_server_that_cannot_be_asked_may_be_there_again(joe, service):
    """pam_debug answers as it is told."""
    said = "auth required pam_debug.so auth={}\n" + UNIX
    assert trouble(joe.name, RIGHT, service(said.format("authinfo_unavail")))[0] == TEMPORARY
    assert told(joe.name, RIGHT, service(said.format("maxtries")))[0] == ""


@pytest.fixture
def waiting(service, tmp_path):
    """(Options with a service that waits for ever, the file with the number of the process that does it)"""
    begun, script = tmp_path / "begun", tmp_path / "wait"
    script.write_text(f"#!/bin/sh\necho $$ >{begun}\nexec sleep 600\n")
    script.chmod(0o755)
    yield service(f"auth required pam_exec.so quiet {script}\n" + UNIX), begun
    os.kill(int(begun.read_text()), signal.SIGKILL)      # pam_exec has it in a session of its own


@pytest.fixture
def forked(monkeypatch):
    """The processes that PAM ran in."""
    found, really = [], os.fork

    def fork():
        found.append(really())
        return found[-1]
    monkeypatch.setattr(pam.os, "fork", fork)
    return found


def test_a_module_that_waits_for_ever_is_trouble_after_a_while(joe, waiting, forked):
    options, begun = waiting
    options.login_timeout = 1
    assert trouble(joe.name, RIGHT, options) == (TEMPORARY, "PAM: no answer in 1 s")
    assert state_of(*forked) == ("", 0)


def test_a_module_that_crashes_is_trouble_and_no_end_of_ours(joe, service, monkeypatch):
    monkeypatch.setattr(pam, "_ask", lambda *asked: os.kill(os.getpid(), signal.SIGSEGV))
    assert trouble(joe.name, RIGHT, service(UNIX)) == (TEMPORARY, "PAM: ended by signal 11")


def test_an_error_of_ours_is_trouble(joe, service, monkeypatch):
    monkeypatch.setattr(pam, "_ask", lambda *asked: {}["key"])
    assert trouble(joe.name, RIGHT, service(UNIX)) == (PERMANENT, "PAM: KeyError: 'key'")
    monkeypatch.setattr(pam, "_ask", lambda *asked: os._exit(0))
    assert trouble(joe.name, RIGHT, service(UNIX)) == (TEMPORARY, "PAM: ended without a word")


def test_what_modules_do_to_their_process_is_not_done_to_ours(joe, service, monkeypatch):
    really = pam._ask

    def ask(*asked):
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        os.open("/etc/shadow", os.O_RDONLY)
        os.write(1, b"what a module prints")
        os.chdir("/etc")
        return really(*asked)
    monkeypatch.setattr(pam, "_ask", ask)
    before = os.getcwd(), os.listdir("/proc/self/fd"), signal.getsignal(signal.SIGCHLD)
    assert authenticate(joe.name, RIGHT, service(UNIX)).user == joe.name
    assert (os.getcwd(), os.listdir("/proc/self/fd"), signal.getsignal(signal.SIGCHLD)) == before


def test_a_signal_ends_the_wait_for_pam(joe, waiting, forked):
    """A session that is to end does so, and nobody goes on for it."""
    options, begun = waiting

    def ended():
        def hang_up(number, frame):
            raise HungUp("signal 15")
        signal.signal(signal.SIGTERM, hang_up)
        threading.Thread(target=lambda: (wait_until(lambda: begun.exists() and begun.read_text()),
                                         os.kill(os.getpid(), signal.SIGTERM))).start()
        with pytest.raises(HungUp):
            authenticate(joe.name, RIGHT, options)
        return state_of(forked[-1])
    assert in_child(ended) == str(("", 0))


@pytest.mark.parametrize("what", ["acct_expired", "new_authtok_reqd", "cred_expired", "authtok_expired", "cred_err"])
def test_what_comes_before_the_password_was_right_is_no_news(joe, service, what):
    """Whoever does not know it learns nothing of the account."""
    assert told(joe.name, RIGHT, service(f"auth required pam_debug.so auth={what}\n" + UNIX))[0] == ""


def test_a_name_is_the_accounts_own(joe, service, monkeypatch):
    """Some directories know JOE too, and say joe; two names are two mailboxes."""
    monkeypatch.setattr(pwd, "getpwnam", lambda name: joe.entry)
    assert authenticate(joe.name.upper(), RIGHT, service(UNIX)) is None


def test_no_sleep_of_pams(joe, service):
    """Ours is the same for all failures; PAM's would be as long again, at random."""
    options = service("auth optional pam_faildelay.so delay=600000000\n" + UNIX)
    assert in_child(lambda: told(joe.name, WRONG, options)[0] == "") == "True"


def test_another_user_than_was_asked_for_is_nobody(joe, service, monkeypatch):
    """A module may give a user another name; we know one, whose mailbox it is."""
    monkeypatch.setattr(pam, "_user_of", lambda handle: b"root")      # in the process that asks, too
    assert told(joe.name, RIGHT, service(UNIX)) == ("", "PAM has another name for this user")


def test_an_ordinary_user_cannot_ask_for_others(joe, service):
    options = service(UNIX)
    assert as_nobody(lambda: authenticate(joe.name, RIGHT, options)) == "None"


# -- the conversation ------------------------------------------------------------------------------------------------

def converse(*styles):
    """(status, answers) to prompts of these styles."""
    messages = [ctypes.pointer(Message(style, b"?")) for style in styles]
    responses = (ctypes.POINTER(Response) * 1)()
    status = pam.answering(b"s3cret")(len(styles), (ctypes.POINTER(Message) * len(styles))(*messages), responses, None)
    return status, [ctypes.cast(responses[0][n].text, ctypes.c_char_p).value for n in range(len(styles))] \
        if responses[0] else None


def test_what_is_typed_unseen_is_the_password_and_notes_are_taken_note_of():
    assert converse(pam.TEXT_INFO, pam.PROMPT_ECHO_OFF, pam.ERROR_MSG, pam.PROMPT_ECHO_OFF) == \
        (pam.SUCCESS, [None, b"s3cret", None, b"s3cret"])


@pytest.mark.parametrize("style", [2, 5, 7, 0, -1])
def test_the_password_is_typed_where_nobody_sees_it_or_not_at_all(style):
    """A prompt with echo asks for something else, a binary one for no words."""
    assert converse(pam.PROMPT_ECHO_OFF, style) == (pam.CONV_ERR, None)


def test_a_module_that_asks_for_more_than_a_password(joe, service):
    """pam_echo only talks; what asks for a second secret gets the same once more."""
    (Path("/etc/pam.d") / "popper-test.echo").write_text("hello %u")
    try:
        options = service("auth optional pam_echo.so file=/etc/pam.d/popper-test.echo\n" + UNIX.replace(
            "account", "auth required pam_unix.so\naccount"))
        assert authenticate(joe.name, RIGHT, options).user == joe.name
        assert told(joe.name, WRONG, options)[0] == ""
    finally:
        os.unlink("/etc/pam.d/popper-test.echo")


# -- whole sessions --------------------------------------------------------------------------------------------------

def called(server):
    pop = Dialogue(socket.create_connection(("127.0.0.1", server.port), PATIENCE))
    assert pop.reply().startswith("+OK ")
    return pop


def test_a_session_with_the_service_that_we_ship(spool, installed, start_inetd, syslog, tmp_path):
    """pam_unix's own line names the client, as fail2ban's pam-generic wants it."""
    service = Path("/etc/pam.d/popper-shipped")
    service.write_text((TREE / "etc" / "pam.d" / "popper").read_text())
    conf = tmp_path / "popper.conf"
    conf.write_text(f"auth file pam\npam_service {service.name}\nlookup no\nfail_delay 0\n"
                    f"guessers {tmp_path}/guessers\n")
    try:
        spool.deliver(b"")
        server = start_inetd(installed / "sbin" / "popper", "-s", "-C", str(conf))
        pop = called(server)
        pop.log_in(spool.name, spool.password)
        pop.quit()
        since = len(syslog.texts)
        pop = called(server)
        pop.ok(f"USER {spool.name}")
        assert pop.err(f"PASS {spool.password}x") == f'[AUTH] Password supplied for "{spool.name}" is incorrect.'
        assert pop.end() == b""
        line = syslog.wait_for("pam_unix(popper-shipped:auth): authentication failure", since)
        assert " tty=popper " in line and " rhost=127.0.0.1 " in line and line.endswith(f" user={spool.name}")
        syslog.wait_for(f"[AUTH] Failed attempted login to {spool.name} from host", since)
    finally:
        service.unlink()
