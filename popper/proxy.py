"""Who is calling, as told by a proxy in front of us: the header of the PROXY protocol, versions 1 and 2.

Octets only. Whoever can reach the port can write a header, so it is read from the proxies of `proxy_from` and from
nobody else, and of these it is demanded: whether one is there is never guessed. What is not exactly a header ends the
connection, as soon as that can be told. Source: haproxy's proxy-protocol.txt, 2.1, 2.2.
"""

import _socket

from popper.errors import Flooded

LONGEST_LINE = 107             # version 1, with its CRLF
LONGEST_BLOCK = 4096           # version 2, behind the first 16 octets; addresses and a TLS name need some hundred
START = b"PROXY "
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
FAMILIES = {b"TCP4": _socket.AF_INET, b"TCP6": _socket.AF_INET6}
WORDS = (b"TCP4 ", b"TCP6 ", b"UNKNOWN\r\n", b"UNKNOWN ")
LOCAL, PROXY = 0x20, 0x21      # version and command
UNSPECIFIED, INET, INET6, UNIX = range(4)                # families
STREAM, MOST_TRANSPORT = 1, 2  # 2: datagrams
ADDRESSES = {INET: 12, INET6: 36, UNIX: 216}             # octets: both addresses, and both ports where there are any
CRC32C = 3                     # the type of the extension that has the checksum
MAPPED = bytes(10) + b"\xff\xff"

MISSING = "A PROXY header must come first: this port is for the proxy in front of it."


class Header:
    """Reads one header. address, port: of the client, "" and 0 where the connection's own count; version: 1 or 2;
    rest: the octets that came behind the header. All of them are to be read when `feed` has said True."""

    __slots__ = ("address", "port", "version", "rest", "_buffer")

    def __init__(self) -> None:
        self.address = ""
        self.port = 0
        self.version = 0
        self.rest = b""
        self._buffer = b""

    def feed(self, octets: bytes) -> bool:
        """Take what has come. -> True when the header is complete, False while more of it is needed.

        Raises Flooded, with a sentence for the client and for the log, when it is no header.
        """
        if self.version:
            self.rest += octets
            return True
        self._buffer += octets
        if _begins(self._buffer, START):
            return self._line()
        if _begins(self._buffer, SIGNATURE):
            return self._block()
        raise Flooded(MISSING)

    def _complete(self, version: int, length: int) -> bool:
        self.version = version
        self.rest, self._buffer = self._buffer[length:], b""
        return True

    def _line(self) -> bool:
        """Version 1: PROXY TCP4 192.0.2.7 192.0.2.1 40000 110"""
        buffer = self._buffer
        what = buffer[len(START):]
        if not any(_begins(what, word) for word in WORDS):
            raise _wrong("it is neither TCP4 nor TCP6 nor UNKNOWN")
        unknown = what.startswith(b"UNKNOWN")            # nothing up to CRLF counts then
        end = buffer.find(b"\r\n", 0, LONGEST_LINE)
        if end < 0:
            if len(buffer) >= LONGEST_LINE:
                raise _wrong(f"it does not end within {LONGEST_LINE} octets")
            if b"\n" in buffer and not unknown:
                raise _wrong("its line does not end in CRLF")
            return False
        if not unknown:
            self.address, self.port = _source(buffer[:end].split(b" "))
        return self._complete(1, end + 2)

    def _block(self) -> bool:
        """Version 2: the signature, command, family and transport, length; addresses; extensions."""
        buffer = self._buffer
        if len(buffer) > 12 and buffer[12] not in (LOCAL, PROXY):
            raise _wrong(f"version and command {buffer[12]:#04x} are not known")
        family, transport = divmod(buffer[13], 16) if len(buffer) > 13 else (UNSPECIFIED, 0)
        local = buffer[12:13] == bytes((LOCAL,))
        if not local and (family > UNIX or transport > MOST_TRANSPORT):
            raise _wrong(f"family and transport {buffer[13]:#04x} are not known")
        if len(buffer) < 16:
            return False
        length = int.from_bytes(buffer[14:16], "big")
        if length > LONGEST_BLOCK:
            raise _wrong(f"it announces {length} octets, {LONGEST_BLOCK} are the most")
        end = 16 + length
        if len(buffer) < end:
            return False
        # Of a connection of the proxy's own, and where it does not know, the whole block means nothing.
        if not local and family and transport:
            self._addresses(buffer[:end], family, transport)
        return self._complete(2, end)

    def _addresses(self, header: bytes, family: int, transport: int) -> None:
        size = ADDRESSES[family]
        if len(header) < 16 + size:
            raise _wrong("it is too short for its addresses")
        _extensions(header, 16 + size)
        if transport != STREAM or family == UNIX:
            return                           # no address that POP3 can come from: the connection's own counts
        each = size // 2 - 2
        self.address = _shown(header[16:16 + each])
        self.port = int.from_bytes(header[16 + 2 * each:18 + 2 * each], "big")


def _begins(octets: bytes, with_what: bytes) -> bool:
    """Whether octets begin, or may still begin, with these."""
    return octets[:len(with_what)] == with_what[:len(octets)]


def _wrong(why: str) -> Flooded:
    return Flooded(f"The PROXY header is wrong: {why}.")


def _source(words: "list[bytes]") -> "tuple[str, int]":
    """Address and port of the client out of a line of version 1, every word of which must be right."""
    if len(words) != 6:
        raise _wrong("it must have a protocol, two addresses and two ports")
    source, _ = (_address(FAMILIES[words[1]], word) for word in words[2:4])
    port, _ = map(_port, words[4:])
    return source, port


def _address(family: int, word: bytes) -> str:
    """An address as inet_pton(3) reads it, which knows neither zeros in front nor zones. That is the specification's
    form and, for IPv6, one with dots at its end, which proxies write for a client that came to them by IPv4."""
    try:
        return _shown(_socket.inet_pton(family, word.decode("ascii")))
    except (OSError, ValueError):
        raise _wrong("an address in it is none, or not of its protocol") from None


def _shown(octets: bytes) -> str:
    """An address as text; IPv4 that came over an IPv6 socket of the proxy's is IPv4."""
    if octets.startswith(MAPPED):
        octets = octets[len(MAPPED):]
    return _socket.inet_ntop(_socket.AF_INET if len(octets) == 4 else _socket.AF_INET6, octets)


def _port(word: bytes) -> int:
    """Plain digits without zeros in front."""
    if not word.isdigit() or len(word) > 5 or (word[0] == 48 and word != b"0") or int(word) > 65535:
        raise _wrong("a port in it is not a number from 0 to 65535")
    return int(word)


def _extensions(header: bytes, at: int) -> None:
    """Step over the extensions (type, length in two octets, value), and verify the checksum if one is there."""
    checksum = None
    while at < len(header):
        value = at + 3
        end = value + int.from_bytes(header[at + 1:value], "big")
        if end > len(header):
            raise _wrong("an extension in it is longer than the header")
        if header[at] == CRC32C:
            if checksum is not None or end - value != 4:
                raise _wrong("its checksum is not four octets, once")
            checksum = value
        at = end
    if checksum is not None:
        stated = int.from_bytes(header[checksum:checksum + 4], "big")
        if crc32c(header[:checksum] + bytes(4) + header[checksum + 4:]) != stated:
            raise _wrong("its checksum is not that of its octets")


def crc32c(octets: bytes) -> int:
    """The checksum of RFC 9260, appendix A (Castagnoli's polynomial). The table costs less than a header is long."""
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    register = 0xFFFFFFFF
    for octet in octets:
        register = register >> 8 ^ table[(register ^ octet) & 255]
    return register ^ 0xFFFFFFFF
