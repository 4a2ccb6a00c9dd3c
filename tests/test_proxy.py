"""The header of the PROXY protocol: what is one is read, however it comes, and nothing else is."""

import ipaddress
import random
import socket
import struct

import pytest

from popper import proxy
from popper.errors import Flooded
from popper.proxy import Header, crc32c

SIGNATURE = bytes.fromhex("0D0A0D0A000D0A515549540A")
COMMANDS = b"USER joe\r\nPASS x\r\n"
FOUR = ("192.0.2.7", "198.51.100.1", 40000, 110)
SIX = ("2001:db8::7", "2001:db8:0:1::1", 65535, 110)


def line(source, target, port, to_port):
    """Version 1, as a proxy writes it."""
    return f"PROXY TCP{ipaddress.ip_address(source).version} {source} {target} {port} {to_port}\r\n".encode()


def block(body, command=0x21, kind=0x11, length=None):
    return SIGNATURE + struct.pack("!BBH", command, kind, len(body) if length is None else length) + body


def addresses(source, target, port, to_port):
    return ipaddress.ip_address(source).packed + ipaddress.ip_address(target).packed + struct.pack("!HH", port, to_port)


def tlv(kind, value):
    return struct.pack("!BH", kind, len(value)) + value


def binary(ends, extensions=b"", summed=False, transport=1):
    """Version 2, with a checksum between two extensions if it is to have one."""
    family = 1 if ipaddress.ip_address(ends[0]).version == 4 else 2
    body = addresses(*ends) + extensions
    if not summed:
        return block(body, kind=family << 4 | transport)
    place = 16 + len(body) + 3
    header = block(body + tlv(3, bytes(4)) + tlv(4, b"padding"), kind=family << 4 | transport)
    return header[:place] + struct.pack("!I", slow_crc32c(header)) + header[place + 4:]


def slow_crc32c(octets):
    """By the definition, bit by bit."""
    register = 0xFFFFFFFF
    for octet in octets:
        register ^= octet
        for _ in range(8):
            register = register >> 1 ^ 0x82F63B78 * (register & 1)
    return ~register & 0xFFFFFFFF


def read(octets):
    header = Header()
    assert header.feed(octets), "it is not complete"
    return header


def refused(octets):
    with pytest.raises(Flooded) as caught:
        Header().feed(octets)
    sentence = str(caught.value)
    assert sentence.endswith(".") and sentence.isascii() and sentence.isprintable() and len(sentence) < 200
    return sentence


UNIX_ENDS = b"/run/a".ljust(108, b"\0") + b"/run/b".ljust(108, b"\0")
GOOD = {                                     # header: version, address, port
    line(*FOUR): (1, "192.0.2.7", 40000),
    line(*SIX): (1, "2001:db8::7", 65535),
    b"PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n": (1, "0.0.0.0", 0),
    b"PROXY TCP6 2001:0DB8:0000:0000:0000:0000:0000:0007 :: 1 2\r\n": (1, "2001:db8::7", 1),
    b"PROXY TCP6 ::ffff:192.0.2.7 ::ffff:192.0.2.1 1 2\r\n": (1, "192.0.2.7", 1),
    b"PROXY UNKNOWN\r\n": (1, "", 0),
    b"PROXY UNKNOWN anything \xff \n at all \r so be it\r\n": (1, "", 0),
    b"PROXY UNKNOWN " + b"f" * 91 + b"\r\n": (1, "", 0),
    binary(FOUR): (2, "192.0.2.7", 40000),
    binary(SIX): (2, "2001:db8::7", 65535),
    binary(("::ffff:192.0.2.7", "::ffff:192.0.2.1", 9, 110)): (2, "192.0.2.7", 9),
    binary(FOUR, tlv(2, b"mail.example.org") + tlv(4, b"") + tlv(0x20, b"\1" + bytes(4) + tlv(0x21, b"TLSv1.3"))):
        (2, "192.0.2.7", 40000),
    binary(FOUR, tlv(0xEA, b"\1vpce-08d2bf15fac5001c9"), summed=True): (2, "192.0.2.7", 40000),
    binary(SIX, summed=True): (2, "2001:db8::7", 65535),
    binary(FOUR, transport=2): (2, "", 0),
    block(UNIX_ENDS, kind=0x31): (2, "", 0),
    block(UNIX_ENDS + tlv(4, b"x"), kind=0x32): (2, "", 0),
    block(b"", kind=0x00): (2, "", 0),
    block(b"whatever", kind=0x00): (2, "", 0),
    block(b"", kind=0x10): (2, "", 0),
    block(b"", kind=0x01): (2, "", 0),
    block(b"", command=0x20, kind=0x00): (2, "", 0),
    block(addresses(*FOUR), command=0x20): (2, "", 0),
    block(b"\1\2", command=0x20, kind=0xFF): (2, "", 0),
    block(addresses(*FOUR) + tlv(4, bytes(4096 - 12 - 3))): (2, "192.0.2.7", 40000),
}


@pytest.mark.parametrize("octets", GOOD)
def test_a_header_is_read(octets):
    header = read(octets + COMMANDS)
    assert (header.version, header.address, header.port) == GOOD[octets]
    assert header.rest == COMMANDS


@pytest.mark.parametrize("octets", [octets for octets in GOOD if len(octets) < 400])
def test_a_header_may_come_in_any_pieces(octets):
    sent = octets + COMMANDS
    for cut in range(len(sent) + 1):
        header = Header()
        assert header.feed(sent[:cut]) == (cut >= len(octets))
        assert header.feed(sent[cut:])
        assert (header.version, header.address, header.port, header.rest) == (*GOOD[octets], COMMANDS)
    header = Header()
    answers = [header.feed(sent[at:at + 1]) for at in range(len(sent))]
    assert answers == [False] * (len(octets) - 1) + [True] * (len(COMMANDS) + 1)
    assert (header.version, header.address, header.port, header.rest) == (*GOOD[octets], COMMANDS)


def test_nothing_is_told_before_the_header_is_complete():
    header = Header()
    assert not header.feed(b"")
    assert not header.feed(binary(FOUR)[:-1])
    assert (header.version, header.address, header.port, header.rest) == (0, "", 0, b"")


@pytest.mark.parametrize("octets", [
    b"U", b"C", b"\n", b"\0", b"\x16", b"p", b"PA", b"PROXY\r", b"PROXYT", b"PROXY  ",
    b"\r\n\r\n\0\r\nQUIT\r", b"\r\nU", b"\r\r",
    b"PROXY TCP5", b"PROXY t", b"PROXY UD", b"PROXY UNKNOWNX", b"PROXY UNKNOWN\n", b"PROXY TCP4\r",
    SIGNATURE + b"\x11", SIGNATURE + b"\x22", SIGNATURE + b"\x2f", SIGNATURE + b"\x21\x41", SIGNATURE + b"\x21\x13",
    SIGNATURE + b"\x21\x11\x10\x01", SIGNATURE + b"\x20\x00\xff\xff",
    b"PROXY TCP4 192.0.2.7 192.0.2.1 1 2\n", b"PROXY UNKNOWN " + b"f" * 93, b"PROXY TCP4 " + b"1" * 96,
])
def test_what_cannot_become_a_header_is_refused_with_the_octet_that_shows_it(octets):
    refused(octets + b" and more")
    header = Header()
    for at in range(len(octets) - 1):
        assert not header.feed(octets[at:at + 1])
    with pytest.raises(Flooded):
        header.feed(octets[-1:])


def test_a_client_that_speaks_pop3_is_told_what_is_missing():
    assert "PROXY" in refused(b"USER joe\r\n") and "proxy in front" in refused(b"CAPA\r\n")


@pytest.mark.parametrize("octets", [
    b"PROXY TCP4 192.0.2.7 192.0.2.1 1 2 \r\n", b"PROXY TCP4  192.0.2.7 192.0.2.1 1 2\r\n", b"PROXY TCP4 \r\n",
    b"PROXY TCP4 192.0.2.7 192.0.2.1 1\r\n", b"PROXY TCP4 192.0.2.7 192.0.2.1 1 2 3\r\n",
    b"PROXY TCP4 192.0.2.7 192.0.2.1 01 2\r\n", b"PROXY TCP4 192.0.2.7 192.0.2.1 1 02\r\n",
    b"PROXY TCP4 192.0.2.7 192.0.2.1 65536 2\r\n", b"PROXY TCP4 192.0.2.7 192.0.2.1 1 65536\r\n",
    b"PROXY TCP4 192.0.2.7 192.0.2.1 +1 2\r\n", b"PROXY TCP4 192.0.2.7 192.0.2.1 -1 2\r\n",
    b"PROXY TCP4 192.0.2.7 192.0.2.1 1_0 2\r\n", b"PROXY TCP4 192.0.2.7 192.0.2.1 \xb2 2\r\n",
    b"PROXY TCP4 192.0.2.7 192.0.2.1 1 2\r\r\n", b"PROXY TCP4 192.0.2.7 192.0.2.1 1 2\0\r\n",
    b"PROXY TCP4 192.0.2.07 192.0.2.1 1 2\r\n", b"PROXY TCP4 192.0.2 192.0.2.1 1 2\r\n",
    b"PROXY TCP4 192.0.2.256 192.0.2.1 1 2\r\n", b"PROXY TCP4 0xc0.0.2.7 192.0.2.1 1 2\r\n",
    b"PROXY TCP4 192.0.2.7 localhost 1 2\r\n", b"PROXY TCP4 192.0.2.7\0 192.0.2.1 1 2\r\n",
    b"PROXY TCP4 \xff\xff 192.0.2.1 1 2\r\n", b"PROXY TCP4 2001:db8::7 2001:db8::1 1 2\r\n",
    b"PROXY TCP6 192.0.2.7 192.0.2.1 1 2\r\n", b"PROXY TCP6 fe80::1%lo ::1 1 2\r\n",
    b"PROXY TCP6 [::1] [::1] 1 2\r\n", b"PROXY TCP6 1::2::3 ::1 1 2\r\n", b"PROXY TCP6 00001:: ::1 1 2\r\n",
    b"PROXY TCP6 1:2:3:4:5:6:7 ::1 1 2\r\n", b"PROXY TCP6 ::1 192.0.2.1 1 2\r\n",
    b"PROXY UNKNOWN " + b"f" * 92 + b"\r\n",
])
def test_a_line_that_is_not_exactly_right_is_refused(octets):
    assert "The PROXY header is wrong" in refused(octets)


@pytest.mark.parametrize("octets", [
    block(addresses(*FOUR)[:-1]), block(addresses(*FOUR), kind=0x21), block(b"", kind=0x12),
    block(UNIX_ENDS[:-1], kind=0x31),
    binary(FOUR, b"\4"), binary(FOUR, b"\4\0"), binary(FOUR, b"\4\0\1"), binary(FOUR, tlv(4, b"xx")[:-1]),
    binary(FOUR, tlv(4, b"") + b"\0\xff\xff"), binary(FOUR, b"\0", transport=2), block(UNIX_ENDS + b"\0", kind=0x31),
    binary(FOUR, tlv(3, b"")), binary(FOUR, tlv(3, bytes(4))), binary(FOUR, tlv(3, bytes(5))),
    binary(FOUR, tlv(3, bytes(4)), summed=True),
])
def test_a_block_that_does_not_add_up_is_refused(octets):
    assert "The PROXY header is wrong" in refused(octets)


def test_every_octet_is_under_the_checksum():
    whole = binary(SIX, tlv(5, b"one connection"), summed=True)
    for at in range(16, len(whole)):
        broken = whole[:at] + bytes((whole[at] ^ 0x10,)) + whole[at + 1:]
        if at == whole.rindex(b"\3\0\4"):    # that octet makes it an extension of another kind
            assert read(broken)
        else:
            refused(broken)


def test_the_checksum_is_the_known_one():
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA   # iSCSI's examples, RFC 3720 B.4
    assert crc32c(bytes(range(32))) == 0x46DD794E
    assert crc32c(b"") == 0


def ends(chance, version):
    kind, bits = (ipaddress.IPv4Address, 32) if version == 4 else (ipaddress.IPv6Address, 128)
    both = [str(kind(chance.getrandbits(bits) & chance.getrandbits(bits))) for _ in range(2)]
    return *both, chance.randrange(65536), chance.randrange(65536)


def test_what_is_encoded_is_read_again():
    chance = random.Random(1)
    for _ in range(400):
        which = ends(chance, chance.choice((4, 6)))
        extras = b"".join(tlv(chance.choice((1, 2, 4, 5, 0x20, 0x30, 0xE0)), chance.randbytes(chance.randrange(60)))
                          for _ in range(chance.randrange(4)))
        for octets in (line(*which), binary(which, extras, summed=chance.random() < 0.5)):
            header = read(octets + COMMANDS)
            family = socket.AF_INET6 if ":" in which[0] else socket.AF_INET
            shown = socket.inet_ntop(family, ipaddress.ip_address(which[0]).packed)
            assert (header.address, header.port, header.rest) == (shown, which[2], COMMANDS)


def test_garbage_is_refused_or_waited_for_and_never_anything_else():
    chance = random.Random(2)
    seeds = [*GOOD, SIGNATURE, b"PROXY ", b"PROXY TCP4 ", b"PROXY TCP6 ", b""]
    outcomes = set()
    for _ in range(6000):
        octets = bytearray(chance.choice(seeds)[:400] + chance.randbytes(chance.randrange(8)))
        for _ in range(chance.randrange(4)):
            if octets:
                at = chance.randrange(len(octets))
                octets[at:at + chance.randrange(3)] = chance.randbytes(chance.randrange(3))
        outcomes.add(outcome([bytes(octets)])[0])
        pieces, rest = [], bytes(octets)
        while rest:
            size = chance.randrange(1, 30)
            pieces.append(rest[:size])
            rest = rest[size:]
        assert outcome(pieces) == outcome([bytes(octets)])
    assert outcomes == {"refused", "waits", "read"}


def outcome(pieces):
    """What becomes of octets; how they are cut must make no difference to it."""
    header = Header()
    try:
        done = [header.feed(piece) for piece in pieces]
    except Flooded:
        return ("refused",)
    return ("read", header.version, header.address, header.port, header.rest) if any(done) else ("waits",)


def test_no_more_is_kept_than_a_header_can_have():
    header = Header()
    fed = 0
    with pytest.raises(Flooded):
        while fed < 200:
            header.feed(b"PROXY UNKNOWN "[fed:fed + 1] or b"x")
            fed += 1
    assert fed == proxy.LONGEST_LINE - 1
