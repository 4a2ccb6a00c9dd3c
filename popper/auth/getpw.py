"""System accounts: getpwnam, and the shadow entry through the C library (Python has dropped its own).

What the original refused is refused (ucb-popper.md 4.2), but only told to who knows the password.
"""

import ctypes
import os
import pwd
import time

from popper.account import Account
from popper.auth.crypt import TROUBLE, is_locked, verify
from popper.errors import PERMANENT, Denied, Refused

SHELLS = "/etc/shells"
ANY_SHELL = b"/POPPER/ANY/SHELL/"            # a line of SHELLS that lets in whatever shell somebody has

_getspnam = None


class Shadow(ctypes.Structure):
    """struct spwd of shadow.h. Days are counted from 1970-01-01; -1: not set."""

    _fields_ = [("name", ctypes.c_char_p), ("hash", ctypes.c_char_p), ("changed", ctypes.c_long),
                ("least", ctypes.c_long), ("most", ctypes.c_long), ("warn", ctypes.c_long),
                ("inactive", ctypes.c_long), ("expires", ctypes.c_long), ("flag", ctypes.c_ulong)]


def authenticate(user: str, password: bytes, options, address: str = "") -> "Account | None":
    known = entry_of(user)
    if known is None:
        return None
    shadow = shadow_of(user)
    stored = shadow.hash if shadow else os.fsencode(known.pw_passwd)
    if not shadow and known.pw_passwd == "x":
        raise Refused(TROUBLE, PERMANENT, "the shadow file cannot be read")
    if not verify(password, stored):
        raise Denied("", "the account is locked or has an empty password" if is_locked(stored) else "wrong password")
    complaint = complaint_about(known, shadow, options, int(time.time()) // 86400)
    if complaint:
        raise Denied(complaint, complaint)
    return Account(user, known.pw_uid, known.pw_gid, known.pw_dir)


def entry_of(user: str) -> "pwd.struct_passwd | None":
    """The account of that very name, where directories may know it in others too, if this process may serve it."""
    try:
        known = pwd.getpwnam(user)
    except KeyError:
        return None
    return known if os.geteuid() in (0, known.pw_uid) and known.pw_name == user else None


def complaint_about(known, shadow, options, today: int) -> str:
    """Why somebody who knows the password may not come in all the same, or ""."""
    if known.pw_uid < options.min_uid:
        return f"Access is blocked for UIDs below {options.min_uid}"
    if options.check_shell:
        if not known.pw_shell:
            return "No user shell defined"
        if not _is_login_shell(os.fsencode(known.pw_shell)):
            return f'"{known.pw_name}": shell not found.'
    if shadow:
        if 0 <= shadow.expires <= today:     # 0 is how `chage -E 0` closes an account, and pam_unix has it so too
            return f'"{known.pw_name}": account expired.'
        if shadow.changed == 0 or (shadow.most >= 0 and 0 < shadow.changed < today - shadow.most):
            return f'"{known.pw_name}": password expired.'
    return ""


def shadow_of(user: str) -> "Shadow | None":
    """The shadow entry; None: there is none, or it may not be read."""
    getspnam = prepare()
    found = getspnam and getspnam(user.encode())
    return found.contents if found else None


def prepare():
    """The C library's getspnam, or False. To be called before a process forks those that will need it; nothing secret
    is read here, for they are not the only ones it forks."""
    global _getspnam
    if _getspnam is None:
        try:
            _getspnam = ctypes.CDLL(None).getspnam
            _getspnam.restype, _getspnam.argtypes = ctypes.POINTER(Shadow), (ctypes.c_char_p,)
        except AttributeError:
            _getspnam = False
    return _getspnam


def _is_login_shell(shell: bytes) -> bool:
    try:
        with open(SHELLS, "rb") as file:
            lines = [line.strip() for line in file]
    except OSError:
        lines = [b"/bin/sh", b"/bin/csh"]    # what getusershell(3) takes for granted
    return shell in lines or ANY_SHELL in lines
