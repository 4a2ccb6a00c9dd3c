"""Two descriptors: whole writes, one write a reply, a deadline in both directions (sec.05, 1939.13, xtnd.06)."""

import os
import pty
import socket
import struct
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from popper.channel import QUEUE_MOST, READ_MOST, VECTOR_MOST, Channel, after
from popper.errors import PeerGone, TimedOut
from popper.tally import Tally

many = settings(deadline=None, max_examples=200, database=None, derandomize=True)


@pytest.fixture
def connection():
    """(ours, theirs): a connected pair."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def records():
    """(ours, theirs): a pair that keeps every write apart from the next."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        theirs.setblocking(False)
        yield ours, theirs


@pytest.fixture
def pipes():
    """(source, to_source, from_sink, sink): two pipes."""
    descriptors = [*os.pipe(), *os.pipe()]
    yield descriptors[0], descriptors[1], descriptors[2], descriptors[3]
    for descriptor in descriptors:
        try:
            os.close(descriptor)
        except OSError:
            pass


def channel_on(ours, timeout=0, tally=None):
    return Channel(ours.fileno(), ours.fileno(), timeout, tally or Tally())


def all_records(theirs):
    found = []
    while True:
        try:
            found.append(theirs.recv(1 << 20))
        except BlockingIOError:
            return found


def soon():
    return time.monotonic() + 0.05


# -- reading ---------------------------------------------------------------------------------------------------------

def test_what_came_is_read_and_counted(connection):
    ours, theirs = connection
    tally = Tally()
    channel = channel_on(ours, tally=tally)
    theirs.sendall(b"NOOP\r\n")
    assert channel.read() == b"NOOP\r\n"
    theirs.sendall(b"x" * (READ_MOST + 5))
    assert [len(channel.read()), len(channel.read())] == [READ_MOST, 5]
    assert (tally.received, tally.sent) == (6 + READ_MOST + 5, 0)


def test_a_read_waits_for_input(connection):
    ours, theirs = connection
    channel = channel_on(ours)
    reader = threading.Thread(target=lambda: found.append(channel.read()))
    found = []
    reader.start()
    theirs.sendall(b"late")
    reader.join(10)
    assert found == [b"late"]


def test_a_silent_peer_is_timed_out(connection):
    """The text tells the log which way it was."""
    channel = channel_on(connection[0])
    with pytest.raises(TimedOut, match="^read$"):
        channel.read(soon())


def test_input_is_read_though_the_deadline_is_past(connection):
    ours, theirs = connection
    theirs.sendall(b"QUIT\r\n")
    channel = channel_on(ours)
    assert channel.read(time.monotonic() - 1) == b"QUIT\r\n"
    with pytest.raises(TimedOut):
        channel.read(time.monotonic() - 1)


def test_the_end_of_input_is_a_peer_that_is_gone(connection):
    ours, theirs = connection
    theirs.sendall(b"half a line")
    theirs.close()
    channel = channel_on(ours)
    assert channel.read() == b"half a line"
    for _ in range(2):
        with pytest.raises(PeerGone, match="EOF"):
            channel.read()


def test_a_connection_that_was_reset_is_a_peer_that_is_gone():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    with ours:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        theirs.close()
        with pytest.raises(PeerGone, match="reset"):
            channel_on(ours).read()


def test_a_deadline_is_timeout_seconds_away(connection):
    before = time.monotonic()
    assert before + 600 <= channel_on(connection[0], 600).deadline() <= time.monotonic() + 600
    assert channel_on(connection[0], 0).deadline() is None


# -- writing ---------------------------------------------------------------------------------------------------------

def test_nothing_leaves_before_a_flush(records):
    ours, theirs = records
    channel = channel_on(ours)
    channel.put(b"+OK \r\n")
    assert all_records(theirs) == []
    channel.flush()
    assert all_records(theirs) == [b"+OK \r\n"]
    channel.flush()
    assert all_records(theirs) == []


def test_what_is_queued_leaves_in_one_write(records):
    """A reply in several segments is what delayed acknowledgements punish."""
    ours, theirs = records
    tally = Tally()
    channel = channel_on(ours, tally=tally)
    channel.put(b"+OK 5 octets\r\n", b"", b"a\r\nb\r\n")
    channel.put(b".\r\n")
    channel.flush()
    assert all_records(theirs) == [b"+OK 5 octets\r\na\r\nb\r\n.\r\n"]
    assert tally.sent == 23


def test_empty_blocks_alone_are_no_write(records):
    ours, theirs = records
    channel = channel_on(ours)
    channel.put()
    channel.put(b"", b"")
    channel.flush()
    assert b"".join(all_records(theirs)) == b""


def test_many_blocks_leave_in_as_few_writes_as_the_system_takes(records):
    ours, theirs = records
    channel = channel_on(ours)
    blocks = [b"%d\r\n" % number for number in range(VECTOR_MOST + 88)]
    channel.put(*blocks)
    channel.flush()
    assert all_records(theirs) == [b"".join(blocks[:VECTOR_MOST]), b"".join(blocks[VECTOR_MOST:])]


def test_much_is_not_held_back(records):
    """Memory is bounded though the client pipelines for ever."""
    ours, theirs = records
    channel = channel_on(ours)
    channel.put(b"x" * QUEUE_MOST)
    assert all_records(theirs) == []
    channel.put(b"y")
    assert all_records(theirs) == [b"x" * QUEUE_MOST + b"y"]
    assert channel.queue == [] and channel.queued == 0


def test_a_slow_reader_gets_everything(connection):
    """The system takes such a block in many partial writes."""
    ours, theirs = connection
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    blocks = [bytes([number]) * 100_003 for number in range(20)]
    received = bytearray()

    def read_all():
        while octets := theirs.recv(3001):
            received.extend(octets)

    reader = threading.Thread(target=read_all)
    reader.start()
    tally = Tally()
    channel = channel_on(ours, tally=tally)
    for block in blocks:
        channel.put(block[:7], block[7:])
    channel.flush()
    channel.close()
    reader.join(30)
    assert bytes(received) == b"".join(blocks)
    assert tally.sent == len(received)


def test_a_pipe_is_written_whole_too(pipes):
    source, _, from_sink, sink = pipes
    block = os.urandom(300_000)
    received = []
    reader = threading.Thread(target=lambda: received.append(read_to_end(from_sink)))
    reader.start()
    channel = Channel(source, sink, 0, Tally())
    channel.put(block)
    channel.flush()
    os.close(sink)
    reader.join(30)
    assert received == [block]


def read_to_end(descriptor):
    octets = b""
    while piece := os.read(descriptor, 65536):
        octets += piece
    return octets


def test_a_peer_that_reads_nothing_is_timed_out(connection):
    """sec.05: a write waits no longer than a read."""
    ours, theirs = connection
    channel = channel_on(ours, timeout=0.05)
    with pytest.raises(TimedOut, match="^write$"):
        channel.put(b"x" * 10_000_000)
    assert channel.queue == [] and channel.queued == 0       # nothing is kept for a peer like this


def test_every_write_that_gets_on_has_its_own_deadline(connection):
    """The limit is for taking nothing, not for taking long."""
    ours, theirs = connection
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    deadlines = []

    class Watched(Channel):
        def deadline(self):
            deadlines.append(time.monotonic() + 60)
            theirs.recv(1 << 20)             # the peer takes something just before each wait
            return deadlines[-1]

    channel = Watched(ours.fileno(), ours.fileno(), 60, Tally())
    channel.put(b"x" * 200_000)
    assert len(deadlines) > 1 and deadlines == sorted(set(deadlines))


@pytest.mark.parametrize("octets", [1, 10_000_000])
def test_writing_to_a_peer_that_is_gone(connection, octets):
    ours, theirs = connection
    theirs.close()
    channel = channel_on(ours)
    with pytest.raises(PeerGone):
        channel.put(b"x" * octets)
        channel.flush()


def test_a_peer_that_goes_while_it_is_written_to(connection):
    ours, theirs = connection
    channel = channel_on(ours)
    troubles = []

    def write():
        try:
            channel.put(b"x" * 10_000_000)
        except PeerGone as gone:
            troubles.append(gone)

    writer = threading.Thread(target=write)
    writer.start()
    theirs.recv(1)
    theirs.close()
    writer.join(30)
    assert len(troubles) == 1


def test_writing_to_a_pipe_that_nobody_reads_any_more(pipes):
    source, _, from_sink, sink = pipes
    os.close(from_sink)
    channel = Channel(source, sink, 0, Tally())
    channel.put(b"+OK \r\n")
    with pytest.raises(PeerGone, match="Broken pipe"):
        channel.flush()


@many
@given(st.lists(st.binary(max_size=5), max_size=8), st.integers(0, 40))
def test_what_is_left_of_a_queue(blocks, written):
    whole = b"".join(blocks)
    left = after(blocks, min(written, len(whole)))
    assert b"".join(left) == whole[written:]
    assert all(left[:1])                     # or the next write would be empty, and nothing would get on


# -- the end ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("blocking", [True, False])
def test_pipes_are_left_as_they_were_found(pipes, blocking):
    source, _, _, sink = pipes
    os.set_blocking(source, blocking)
    os.set_blocking(sink, not blocking)
    channel = Channel(source, sink, 0, Tally())
    assert (os.get_blocking(source), os.get_blocking(sink)) == (False, False)
    channel.close()
    assert (os.get_blocking(source), os.get_blocking(sink)) == (blocking, not blocking)


def test_a_terminal_is_left_as_it_was_found():
    master, terminal = pty.openpty()
    channel = Channel(terminal, terminal, 0, Tally())
    assert os.get_blocking(terminal) is False
    channel.close()
    assert os.get_blocking(terminal) is True
    os.close(master)
    os.close(terminal)


def test_closing_ends_a_connection_at_once(connection):
    """The client need not wait for what the process does afterwards; the descriptor stays one that does no harm."""
    ours, theirs = connection
    channel = channel_on(ours)
    channel.put(b"+OK bye\r\n")
    channel.flush()
    channel.close()
    assert theirs.recv(100) == b"+OK bye\r\n"
    assert theirs.recv(100) == b""
    assert os.read(ours.fileno(), 1) == b"" and os.write(ours.fileno(), b"x") == 1
    channel.close()


def test_closing_ends_both_descriptors_of_a_connection(connection):
    """Under inetd 0 and 1 are the same socket."""
    ours, theirs = connection
    second = os.dup(ours.fileno())
    channel = Channel(ours.fileno(), second, 0, Tally())
    channel.close()
    assert theirs.recv(1) == b""
    os.close(second)


def test_what_is_queued_when_the_channel_closes_is_not_sent(connection):
    ours, theirs = connection
    channel = channel_on(ours)
    channel.put(b"+OK \r\n")
    channel.close()
    assert theirs.recv(100) == b""


def test_closing_twice_and_on_closed_descriptors_does_no_harm(pipes):
    source, _, _, sink = pipes
    channel = Channel(source, sink, 0, Tally())
    os.close(sink)
    channel.close()
    channel.close()
    assert os.get_blocking(source) is True
