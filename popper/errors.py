"""What can go wrong, in three families.

*Refused* carries the sentence for the client, and the session goes on (but for PASS and QUIT, which end it).
*Broken* ends the session with one log line; what reaches the client depends on how far the reply had got.
*ConfigError* speaks to the administrator: file, line, what stood there, what was expected.
"""

AUTH = "AUTH"                  # RFC 3206: the credentials are wrong
IN_USE = "IN-USE"              # RFC 2449: another session or program holds the maildrop
TEMPORARY = "SYS/TEMP"         # RFC 3206: trouble that may pass
PERMANENT = "SYS/PERM"         # RFC 3206: trouble that needs somebody's hand


class Refused(Exception):
    """A command that is answered -ERR.

    text: the sentence, without `-ERR` and response code; code: one of the response codes above, or "".
    reason: what the log should know beyond that, or "".
    """

    def __init__(self, text: str, code: str = "", reason: str = "") -> None:
        super().__init__(text)
        self.text = text
        self.code = code
        self.reason = reason


class Denied(Refused):
    """Wrong credentials, or an account that may not come in."""

    def __init__(self, text: str, reason: str = "") -> None:
        super().__init__(text, AUTH, reason)


class Broken(Exception):
    """The session cannot go on; the text is its log line."""


class PeerGone(Broken):
    """The client closed the connection, or it was cut, without QUIT."""


class HungUp(PeerGone):
    """A signal asked for the end of the session."""


class TimedOut(Broken):
    """The client neither sent nor read anything for too long."""


class Flooded(Broken):
    """The client sends what no client would: the text is for the client and for the log."""


class DropBroken(Broken):
    """The maildrop cannot be served any longer: changed by someone else, cut short, or unreadable."""

    def __init__(self, text: str, code: str = TEMPORARY, reason: str = "") -> None:
        super().__init__(reason or text)
        self.text = text
        self.code = code


class ConfigError(Exception):
    """A mistake in a configuration file or an option."""

    def __init__(self, complaint: str, file: str = "", line: int = 0) -> None:
        place = f"{file}:{line}: " if line else f"{file}: " if file else ""
        super().__init__(place + complaint)
