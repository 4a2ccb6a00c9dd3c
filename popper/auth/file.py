"""Users of a file, `password_file`: one line each, `user:hash[:uid:gid:gecos:home:shell]`, `#` for comments.

uid and gid, when given, say as whom the user is served; without them it is the system account of that name, or, when
popper runs as an ordinary user, that user.
"""

import os

from popper.account import Account
from popper.auth.crypt import TROUBLE, verify
from popper.errors import PERMANENT, Denied, Refused

LARGEST = 67108864
NO_ID = 2**32 - 1              # as a number this means "leave as it is", beyond it there is none


def authenticate(user: str, password: bytes, options, address: str = "") -> "Account | None":
    fields = line_of(user, options.password_file) if options.password_file else None
    if fields is None:
        return None
    if not verify(password, fields[1]):
        raise Denied("", "wrong password")
    return account_of(user, fields, options)


def account_of(user: str, fields: "list[bytes]", options) -> Account:
    """Who the user of a line is, or Denied."""
    home = os.fsdecode(fields[5]) if len(fields) > 5 else ""
    if os.geteuid() != 0:
        return Account(user, home=home or os.path.expanduser("~"))
    if len(fields) > 3 and fields[2].isdigit() and fields[3].isdigit():
        uid, gid = int(fields[2]), int(fields[3])
        if max(uid, gid) >= NO_ID:
            raise Denied("", f"uid {uid} or gid {gid} is no number of a user or group")
    else:
        import pwd
        try:
            known = pwd.getpwnam(user)
        except KeyError:
            raise Denied("", f"{options.password_file} gives no uid and gid, and there is no such account") from None
        uid, gid, home = known.pw_uid, known.pw_gid, home or known.pw_dir
    if uid < options.min_uid:
        raise Denied(f"Access is blocked for UIDs below {options.min_uid}", f"uid {uid}")
    return Account(user, uid, gid, home)


def line_of(user: str, path: str) -> "list[bytes] | None":
    """The fields of a user's line; the whole file is read whoever asks, so that a name's place takes no time."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            octets = file.read(min(LARGEST, os.fstat(descriptor).st_size))
    except OSError as error:
        raise Refused(TROUBLE, PERMANENT, f"{path}: {error.strerror}") from None
    found, name = None, user.encode()
    for line in octets.split(b"\n"):
        fields = line.rstrip(b"\r").split(b":")
        if found is None and len(fields) > 1 and fields[0] == name:
            found = fields
    return found
