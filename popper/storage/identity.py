"""Who a message is, by unique-ids that Qpopper 2 gave, so that clients which move over download nothing twice; and
whether it was read."""

try:
    from _md5 import md5                     # hashlib takes 2 ms to import
except ImportError:
    from hashlib import md5

DIGESTED = (b"received:", b"date:", b"message-id:", b"subject:")
ORIGINAL_LINE = 1023           # Qpopper 2 read lines in pieces of so many octets, and hashed the first


def unique_id(header: bytes) -> bytes:
    """The unique-id of a message from its envelope line and header (ucb-popper.md 5.8).

    The first X-UIDL: when it is 1 to 70 printable characters (RFC 1939.7), else the MD5 of the envelope line and of
    the first lines of four headers, in file order.
    """
    lines = header.split(b"\n")
    digest = md5((lines[0] + b"\n")[:ORIGINAL_LINE])
    stored = None
    for line in lines[1:]:
        name = line[:11].lower()
        if name.startswith(DIGESTED):
            digest.update((line + b"\n")[:ORIGINAL_LINE])
        elif stored is None and name.startswith(b"x-uidl:"):
            stored = line[7:].strip()
    if stored and len(stored) <= 70 and all(33 <= octet <= 126 for octet in stored):
        return stored
    return digest.hexdigest().encode()


def told_apart(ids) -> "list[bytes]":
    """The same ids in the same order, the second and later ones of any that are alike hashed once more."""
    apart, times = [], {}
    for unique in ids:
        base = unique
        while unique in times:
            times[base] += 1
            unique = md5(b"%s %d" % (base, times[base])).hexdigest().encode()
        times[unique] = 1
        apart.append(unique)
    return apart


def seen(header: bytes) -> bool:
    """Whether a Status: header says that the message was read."""
    return any(line[:7].lower() == b"status:" and b"R" in line for line in header.split(b"\n"))


def read_mark(header: bytes) -> "tuple[int, int, bytes] | None":
    """How to mark a message as read in its header, which ends with the empty line: (offset, octets that go, octets
    that come). None: it is marked, or there is no place (ucb-popper.md 5.7). Never fewer come than go."""
    at = 0
    for line in header.split(b"\n")[:-1]:
        if line[:7].lower() == b"status:":
            value = line[7:].strip()
            if b"R" in value:
                return None
            new = b" RO" + bytes(flag for flag in value if flag not in b"NOU")
            return at + 7, len(line.rstrip(b"\r")) - 7, new.ljust(len(line.rstrip(b"\r")) - 7)
        if at and line in (b"", b"\r"):
            return at, 0, b"Status: RO" + (b"\r\n" if line else b"\n")
        at += len(line) + 1
    return None
