"""Letters that can be told apart, made again from their names, and looked at for damage without anything else.

A letter's name is in its envelope line and its Message-ID; its header has the checksum of its body. Their bodies are
what a mailbox has trouble with: dots, lines that begin with `From `, empty lines at the end, long lines, any octet.
"""

import base64
import random
import re
import time
from binascii import crc32

DOMAIN = b"ledger.example.org"
NAMED = re.compile(rb"^message-id: *<([-.\w]+)@" + re.escape(DOMAIN) + rb">\r?$", re.I | re.M)
CHECKED = re.compile(rb"^x-check: *([0-9a-f]{8})\r?$", re.I | re.M)
ENVELOPED = re.compile(rb"^From ([-.\w]+)@" + re.escape(DOMAIN) + rb" .*\n", re.M)
ODD_LINES = (b".", b"..", b".leading dot", b"\nFrom here on it was quiet.", b"\n>From me", b"From: nobody",
             b"\n\n\n.\n", b"caf\xe9 \xff\xfe", b"\tindented", b"a carriage\rreturn", b"Content-Length: 7",
             b"long " * 500)
WILD_LINES = (b"nul \0 and more", b"\0")     # not for procmail, which ends texts there


class Shape:
    """A user's kind of mail. octets: (least, most) of a letter; crlf: how many in ten have CRLF at the ends of their
    lines, envelope lines too; floor: how many letters he has at least after a delivery; ceiling: how many a poll
    leaves him."""

    def __init__(self, octets, floor=0, ceiling=30, crlf=0, missing=False):
        self.octets = octets
        self.floor = floor
        self.ceiling = ceiling
        self.crlf = crlf
        self.missing = missing               # the mailbox is made by the first delivery

    def size(self, rng):
        """Octets for a body: as many small ones as large ones, on a scale of powers."""
        least, most = self.octets
        if rng.random() < 0.05:
            return 0
        return int(least * (most / least) ** rng.random())


def letter(name, octets, crlf=False, tame=False):
    """A text with so many octets of body, more or less. tame: a delivery agent of old will store it as `quoted`."""
    rng = random.Random(f"letter {name}")
    body = _body(rng, octets, ODD_LINES if tame else ODD_LINES + WILD_LINES)
    if tame:
        body = body.rstrip(b"\n") + b"\n" * bool(body)
    elif octets:
        body += b"\n" * rng.choice((0, 0, 0, 1, 3))
    head = (b"From: %b@%b\nTo: you\nSubject: letter %b\nDate: Tue, 2 Jan 2024 03:04:05 +0000\n"
            b"Message-ID: <%b@%b>\nX-Check: %08x\n\n" % (name.encode(), DOMAIN, name.encode(), name.encode(), DOMAIN,
                                                        crc32(wire(quoted(b"\n" + body)[1:] if tame else body))))
    text = head + body
    return text.replace(b"\n", b"\r\n") if crlf else text


def _body(rng, octets, odd):
    """Base64, with odd lines strewn in."""
    plain = base64.encodebytes(rng.randbytes(octets * 3 // 4))
    lines = -(-len(plain) // 77)
    pieces, begin = [], 0
    for cut in sorted(rng.randrange(lines + 1) * 77 for _ in range(rng.choice((0, 1, 3, 9)) if octets else 0)):
        pieces += [plain[begin:cut], rng.choice(odd), b"\n"]
        begin = cut
    return b"".join([*pieces, plain[begin:]])


def wire(text):
    """A text as it crosses the wire, dot-stuffing apart."""
    return text.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def quoted(text):
    """A text as delivery agents store it."""
    return text.replace(b"\nFrom ", b"\n>From ")


def piece(name, text):
    """What is appended to a mailbox for a letter: envelope line, text, empty line, in the text's kind of line."""
    end = b"\r\n" if b"\r\n" in text[:200] else b"\n"
    return b"From %b@%b %b%b%b%b" % (name.encode(), DOMAIN, time.asctime().encode(), end, text, end)


def name_in(text):
    """The name of a letter, or "" if it has none; of two, the last."""
    found = NAMED.findall(text[:text.find(b"\r\n\r\n") + 2] if b"\r\n\r\n" in text else text)
    return found[-1].decode() if found else ""


def is_whole(text):
    """Whether the body is what its header says it is."""
    head, _, body = text.partition(b"\r\n\r\n")
    found = CHECKED.search(head + b"\r\n")
    return bool(found) and int(found[1], 16) == crc32(body)
