"""How many may come: connections of one address, strangers, new ones in a second. Counts only; knows no socket.

An IPv6 address counts with its neighbours in the same prefix, for that is what one customer gets.
"""

import _socket


def neighbourhood(address: str, prefix: int) -> bytes:
    """What an address is counted under: itself, or, for IPv6, its first bits."""
    try:
        packed = _socket.inet_pton(_socket.AF_INET6, address)
    except OSError:
        return address.encode("ascii", "replace")
    bits = int.from_bytes(packed, "big") >> 128 - prefix << 128 - prefix
    return bits.to_bytes(16, "big")


def is_address(text: str) -> bool:
    for family in (_socket.AF_INET, _socket.AF_INET6):
        try:
            return bool(_socket.inet_pton(family, text))
        except OSError:
            pass
    return False


class Crowd:
    """Who is there. options: sameaddrmax, maxstrangers, accepts, ipv6_prefix.

    A connection is a stranger from `come` until `known` or `leave`; it counts for its address until `leave`.
    """

    def __init__(self, options) -> None:
        self.options = options
        self.addresses: "dict[bytes, int]" = {}          # connections of each
        self.strange: "dict[bytes, dict[int, None]]" = {}          # strangers of each, the oldest first
        self.places: "dict[int, bytes]" = {}             # number: what it is counted under
        self.strangers = 0
        self.tokens = float(options.accepts)
        self.looked = 0.0

    def too_fast(self, now: float) -> bool:
        """Whether one more connection now is one too many for this second."""
        accepts = self.options.accepts
        if not accepts:
            return False
        self.tokens = min(float(accepts), self.tokens + (now - self.looked) * accepts)
        self.looked = now
        if self.tokens < 1.0:
            return True
        self.tokens -= 1.0
        return False

    def is_full_for(self, address: str) -> bool:
        """Whether an address has as many connections as it may."""
        most = self.options.sameaddrmax
        return bool(most) and self.addresses.get(neighbourhood(address, self.options.ipv6_prefix), 0) >= most

    def come(self, number: int, address: str) -> None:
        place = neighbourhood(address, self.options.ipv6_prefix)
        self.places[number] = place
        self.addresses[place] = self.addresses.get(place, 0) + 1
        self.strange.setdefault(place, {})[number] = None
        self.strangers += 1

    def known(self, number: int) -> None:
        """It is no stranger any more."""
        place = self.places[number]
        strange = self.strange.get(place, {})
        if number in strange:
            del strange[number]
            self.strangers -= 1
            if not strange:
                del self.strange[place]

    def leave(self, number: int) -> None:
        if number not in self.places:
            return
        self.known(number)
        place = self.places.pop(number)
        self.addresses[place] -= 1
        if not self.addresses[place]:
            del self.addresses[place]

    def all_strangers(self) -> "list[int]":
        return [number for strange in self.strange.values() for number in strange]

    def one_too_many(self) -> "int | None":
        """When there are more strangers than wanted: who has to go, the longest there of the address that has most of
        them. So a flood pushes out itself, and leaves room for users."""
        if self.strangers <= self.options.maxstrangers:
            return None
        most = max(self.strange.values(), key=len)
        return next(iter(most))


class Seldom:
    """A line for the log that may be due a thousand times a second, told once in a while, with how many were not."""

    EVERY = 10.0               # seconds

    def __init__(self) -> None:
        self.told: "dict[str, list[float]]" = {}         # what: [when it was told, how often it was not since]

    def line(self, what: str, text: str, now: float) -> "str | None":
        """The line to log now, or None."""
        when, left_out = self.told.get(what, (-self.EVERY, 0))
        if now < when + self.EVERY:
            self.told[what] = [when, left_out + 1]
            return None
        self.told[what] = [now, 0]
        return f"{text} (and {left_out} more since the last such line)" if left_out else text
