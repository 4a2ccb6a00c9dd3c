"""Mailboxes for the tests, and a plain reading of them, line by line, that the real one is compared with."""

from popper.storage.scan import ENVELOPE_MOST, is_envelope, scan

ENVELOPE = b"From joe@example.org Thu Nov 24 18:22:48 1996\n"
EMPTY_LINES = (b"\n", b"\r\n")
LEAST_WINDOW = 2 * ENVELOPE_MOST + 1


def message(text, envelope=ENVELOPE):
    """A message as a delivery agent appends it: envelope line, text, empty line."""
    return envelope + text + b"\n"


def numbered(*numbers, lines=3):
    """Messages that can be told apart by sight."""
    return b"".join(message(b"Subject: %d\nMessage-Id: <%d@example.org>\n\n" % (n, n) + b"line of %d\n" % n * lines)
                    for n in numbers)


def crlf(octets):
    return octets.replace(b"\n", b"\r\n")


def pread_of(octets):
    return lambda count, offset: octets[offset:offset + count]


def scanned(octets, **how):
    """[(offset, start, end, octets on the wire), ...] as popper finds them."""
    found = scan(pread_of(octets), len(octets), **how)
    return [(entry.offset, entry.start, entry.end, entry.octets) for entry in found]


def texts(octets, **how):
    return [octets[start:end] for _, start, end, _ in scanned(octets, **how)]


def lines_of(octets):
    """Lines with their ends."""
    *ended, rest = octets.split(b"\n")
    return [line + b"\n" for line in ended] + ([rest] if rest else [])


def plainly_scanned(octets):
    """[(offset, start, end, octets on the wire), ...] of a mailbox without Content-Length."""
    found, at, previous, text = [], 0, None, []
    for line in lines_of(octets):
        begins = previous in EMPTY_LINES and len(line) <= ENVELOPE_MOST and is_envelope(line)
        if begins or (not found and line not in EMPTY_LINES):
            if found:
                found[-1] = finished(found[-1], text)
            found.append((at, at + len(line)))
            text = []
        elif found:
            text.append(line)
        previous = line
        at += len(line)
    if found:
        found[-1] = finished(found[-1], text)
    return found


def finished(extent, text):
    """Take the separator off, and count what a client gets."""
    empty = [number for number, line in enumerate(text) if line in EMPTY_LINES]
    if len(empty) > 1 and empty[-1] == len(text) - 1:
        text = text[:-1]
    octets = sum(len(without_end(line)) + 2 for line in text)
    return *extent, extent[1] + sum(map(len, text)), octets


def without_end(line):
    return line[:-1].removesuffix(b"\r") if line.endswith(b"\n") else line
