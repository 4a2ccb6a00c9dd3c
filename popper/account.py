"""Who wants in, and who that turned out to be."""


class Credentials:
    """A user name and a password as the client sent them, in octets. Shows as stars wherever it is printed."""

    __slots__ = ("user", "password")

    def __init__(self, user: bytes, password: bytes) -> None:
        self.user = user
        self.password = password

    def __repr__(self) -> str:
        return "Credentials(***)"


class Account:
    """A verified user: system name and numbers, and the home directory for `~` in the mailbox template.

    uid and gid None: the account has no numbers of its own and is served under those of the process.
    """

    __slots__ = ("user", "uid", "gid", "home")

    def __init__(self, user: str, uid: "int | None" = None, gid: "int | None" = None, home: str = "") -> None:
        self.user = user
        self.uid = uid
        self.gid = gid
        self.home = home


SAFE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.@+-")
LONGEST_NAME = 64              # what Qpopper kept of a name


def shown_name(user: bytes) -> str:
    """A user name for a log line: nothing in it that could end a field, whatever was sent (security.md, sec.10)."""
    name = "".join(c if c in SAFE else f"\\x{ord(c):02x}" for c in user[:LONGEST_NAME].decode("latin-1"))
    return name + "..." if len(user) > LONGEST_NAME else name


def plain_name(user: bytes) -> "str | None":
    """The name as text if it may become part of a path and of a log line, else None (security.md, rows 15, 19, 38)."""
    name = user.decode("ascii", "replace")
    if not 0 < len(name) <= LONGEST_NAME or not SAFE.issuperset(name):
        return None
    if name[0] in ".-" or ".." in name or name.endswith((".lock", ".pop")):
        return None
    return name
