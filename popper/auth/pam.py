"""System accounts, their passwords verified by PAM: whatever the administrator has put together for the service
`pam_service`, `auth` and `account` of it; a session with PAM is not opened.

PAM_RHOST is the client's address, PAM_TTY `popper`: pam_access has something to go by, and pam_unix says where a wrong
password came from. The delay after a failure is ours (`fail_delay`), not PAM's.

PAM runs in a process of its own: its modules may wait, crash, change signals, the log, or leave files open, and nothing
of that is left behind here.
"""

import _signal
import ctypes
import os
import select

from popper.account import Account
from popper.auth.crypt import TROUBLE
from popper.auth.getpw import complaint_about, entry_of
from popper.errors import AUTH, PERMANENT, TEMPORARY, Denied, Refused

# Numbers of <security/_pam_types.h>, Linux-PAM
SUCCESS, BUF_ERR, PERM_DENIED, AUTH_ERR, CRED_INSUFFICIENT = 0, 5, 6, 7, 8
AUTHINFO_UNAVAIL, USER_UNKNOWN, MAXTRIES, NEW_AUTHTOK_REQD, ACCT_EXPIRED = 9, 10, 11, 12, 13
CRED_EXPIRED, CRED_ERR, CONV_ERR, AUTHTOK_EXPIRED = 16, 17, 19, 27
USER, TTY, RHOST, FAIL_DELAY = 2, 3, 4, 10
PROMPT_ECHO_OFF, ERROR_MSG, TEXT_INFO = 1, 3, 4
SILENT, DISALLOW_NULL_AUTHTOK = 0x8000, 0x0001
NOT_GOOD_ENOUGH = (PERM_DENIED, AUTH_ERR, CRED_INSUFFICIENT, USER_UNKNOWN, MAXTRIES, CRED_EXPIRED, CRED_ERR)
EXPIRED = (ACCT_EXPIRED, NEW_AUTHTOK_REQD, AUTHTOK_EXPIRED)


class Message(ctypes.Structure):
    _fields_ = [("style", ctypes.c_int), ("text", ctypes.c_char_p)]


class Response(ctypes.Structure):
    _fields_ = [("text", ctypes.c_void_p), ("code", ctypes.c_int)]


CONVERSE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.POINTER(ctypes.POINTER(Message)),
                            ctypes.POINTER(ctypes.POINTER(Response)), ctypes.c_void_p)
WAIT = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p)


class Conversation(ctypes.Structure):
    _fields_ = [("converse", CONVERSE), ("data", ctypes.c_void_p)]


try:
    _pam, _libc = ctypes.CDLL("libpam.so.0"), ctypes.CDLL(None)
except OSError as missing:
    raise ImportError(f"pam: {missing}") from None
_libc.calloc.restype, _libc.calloc.argtypes = ctypes.c_void_p, (ctypes.c_size_t, ctypes.c_size_t)
_libc.strdup.restype, _libc.strdup.argtypes = ctypes.c_void_p, (ctypes.c_char_p,)
_libc.free.argtypes = (ctypes.c_void_p,)
_pam.pam_start.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.POINTER(Conversation),
                           ctypes.POINTER(ctypes.c_void_p))
_pam.pam_set_item.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
_pam.pam_get_item.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(ctypes.c_void_p))
_pam.pam_strerror.restype, _pam.pam_strerror.argtypes = ctypes.c_char_p, (ctypes.c_void_p, ctypes.c_int)
for _call in (_pam.pam_authenticate, _pam.pam_acct_mgmt, _pam.pam_end):
    _call.argtypes = (ctypes.c_void_p, ctypes.c_int)


@WAIT
def _no_wait(status, microseconds, data):
    """In place of PAM's sleep after a failure."""


def authenticate(user: str, password: bytes, options, address: str = "") -> "Account | None":
    known = entry_of(user)
    if known is None:
        return None
    _apart(options.login_timeout, user.encode(), password, options.pam_service.encode(), address.encode())
    complaint = complaint_about(known, None, options, 0)     # of age and expiry PAM has decided
    if complaint:
        raise Denied(complaint, complaint)
    return Account(user, known.pw_uid, known.pw_gid, known.pw_dir)


def _apart(seconds: int, *asked) -> None:
    """What `_ask` says, in a process of its own, to which it has so many seconds."""
    reading, writing = os.pipe()
    verdict, child = b"", os.fork()
    if not child:
        try:
            for number in (_signal.SIGHUP, _signal.SIGINT, _signal.SIGTERM, _signal.SIGCHLD, _signal.SIGALRM):
                _signal.signal(number, _signal.SIG_DFL)
            _signal.alarm(seconds + 1)       # should nobody be left to end it
            null = os.open("/dev/null", os.O_RDWR)
            for descriptor in range(3):      # the client may be there
                os.dup2(null, descriptor)
            os.write(writing, _verdict(*asked))
        finally:
            os._exit(0)
    try:
        os.close(writing)
        poll = select.poll()
        poll.register(reading, select.POLLIN)
        if poll.poll(seconds * 1000):
            verdict = os.read(reading, 4096)
    finally:
        os.close(reading)
        if not verdict:
            os.kill(child, _signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
    if not verdict:
        killed = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        raise Refused(TROUBLE, TEMPORARY, f"PAM: no answer in {seconds} s" if killed == _signal.SIGKILL
                      else f"PAM: ended by signal {killed}" if killed else "PAM: ended without a word")
    kind, text, reason = verdict.decode("utf-8", "replace").split("\0")
    if kind == AUTH:
        raise Denied(text, reason)
    if kind:
        raise Refused(text, kind, reason)


def _verdict(*asked) -> bytes:
    """What `_ask` says, in octets: the code of a refusal or nothing, its text, its reason."""
    try:
        _ask(*asked)
    except Refused as refusal:
        words = refusal.code, refusal.text, refusal.reason
    except Exception as bug:                 # no locals: they hold secrets
        words = PERMANENT, TROUBLE, f"PAM: {type(bug).__name__}: {bug}"
    else:
        words = "", "", ""
    return "\0".join(words).encode("utf-8", "replace")


def _ask(user: bytes, password: bytes, service: bytes, address: bytes) -> None:
    """Come back when PAM lets this user in."""
    conversation = Conversation(CONVERSE(answering(password)), None)      # to be kept as long as the handle
    handle, status = ctypes.c_void_p(), SUCCESS
    _check(_pam.pam_start(service, user, conversation, handle), handle)
    try:
        for item, value in ((TTY, b"popper"), (RHOST, address), (FAIL_DELAY, ctypes.cast(_no_wait, ctypes.c_void_p))):
            if value:
                _check(_pam.pam_set_item(handle, item, value), handle)
        status = _pam.pam_authenticate(handle, SILENT | DISALLOW_NULL_AUTHTOK)
        if status in NOT_GOOD_ENOUGH or status in EXPIRED:
            raise Denied("", f"PAM: {_words(handle, status)}")
        _check(status, handle)
        status = _pam.pam_acct_mgmt(handle, SILENT | DISALLOW_NULL_AUTHTOK)
        name = user.decode()
        if status == ACCT_EXPIRED:
            raise Denied(f'"{name}": account expired.', f"PAM: {_words(handle, status)}")
        if status in (NEW_AUTHTOK_REQD, AUTHTOK_EXPIRED):
            raise Denied(f'"{name}": password expired.', f"PAM: {_words(handle, status)}")
        if status in NOT_GOOD_ENOUGH:
            raise Denied(f'"{name}": access denied.', f"PAM: {_words(handle, status)}")
        _check(status, handle)
        if _user_of(handle) != user:
            raise Denied("", "PAM has another name for this user")      # who is one, is one alone
    finally:
        _pam.pam_end(handle, status)


def answering(password: bytes):
    """A conversation function that gives the password to who asks for something unseen, and knows nothing else."""
    def converse(count, messages, responses, data):
        answers = _libc.calloc(count, ctypes.sizeof(Response))         # PAM frees it, and the texts in it
        if not answers:
            return BUF_ERR
        replies = ctypes.cast(answers, ctypes.POINTER(Response))
        for number in range(count):
            style = messages[number].contents.style
            if style == PROMPT_ECHO_OFF:
                replies[number].text = _libc.strdup(password)
            elif style not in (ERROR_MSG, TEXT_INFO):
                for each in range(number):
                    _libc.free(replies[each].text)
                _libc.free(answers)
                return CONV_ERR
        responses[0] = replies
        return SUCCESS
    return converse


def _user_of(handle) -> "bytes | None":
    name = ctypes.c_void_p()
    _check(_pam.pam_get_item(handle, USER, name), handle)
    return ctypes.cast(name, ctypes.c_char_p).value


def _check(status: int, handle) -> None:
    """Raise Refused for trouble of PAM's own, which is no wrong password."""
    if status != SUCCESS:
        raise Refused(TROUBLE, TEMPORARY if status == AUTHINFO_UNAVAIL else PERMANENT,
                      f"PAM: {_words(handle, status)}")


def _words(handle, status: int) -> str:
    return f"{_pam.pam_strerror(handle, status).decode('utf-8', 'backslashreplace')} ({status})"
