"""Counters of one session, and the line that sums them up."""


class Tally:
    """Octets as they crossed the wire; messages and octets as UPDATE left them; seconds spent, by what for."""

    __slots__ = ("received", "sent", "deleted", "deleted_octets", "left", "left_octets", "spent")

    def __init__(self) -> None:
        self.received = self.sent = 0
        self.spent = dict.fromkeys(("client", "DNS", "authentication", "locks", "scan", "disk"), 0.0)
        self.deleted = self.deleted_octets = 0
        self.left = self.left_octets = 0

    def stats(self, user: str, host: str, address: str) -> str:
        """The Stats line in Qpopper 4's shape, which logwatch and pop-before-smtp scripts read (ucb-popper.md 8)."""
        return (f"Stats: {user} {self.deleted} {self.deleted_octets} {self.left} {self.left_octets}"
                f" {host} {address}")
