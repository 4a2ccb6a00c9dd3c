"""A gigabyte of log through popperctl stats, and of trace through popperctl trace: generated into a pipe, read in
bounded memory, every figure right.

MEGABYTES= scales a run. How fast it went is printed, not judged.
"""

import datetime
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

TREE = Path(__file__).resolve().parent.parent.parent
MEGABYTES = int(os.environ.get("MEGABYTES", 1000))
MEMORY = 100 * 2 ** 20         # octets that it may take
USERS, GUESSERS = 3000, 500
HOUR = "2026-01-05T09"         # in whose place that of each block is put
SMALL = """if 1:
    import os, sys
    child = os.fork()
    if not child:
        os.execv(sys.argv[1], sys.argv[1:])
    _, status, usage = os.wait4(child, 0)
    print([status, usage.ru_utime + usage.ru_stime, usage.ru_maxrss], file=sys.stderr)
"""
BEGIN = datetime.datetime.fromisoformat(HOUR + ":00")


def block():
    """The log of an hour, most of it other programs'; and what it adds to the totals."""
    lines, told = [], {"sessions": 0, "failures": 0, "probes": 0, "deleted": 0, "deleted_octets": 0}
    for second in range(3600):
        begin = f"{HOUR}:{second // 60:02}:{second % 60:02} mail "
        lines.append(f"{begin}postfix/smtpd[{second}]: connect from mx{second % 7}.example.org[192.0.2.{second % 250}]")
        lines.append(f"{begin}postfix/qmgr[77]: 3F{second:05X}: from=<popper@example.org>, size={second}, nrcpt=1")
        user, address = f"user{second % USERS}", f"198.51.100.{second % 250}"
        lines.append(f'{begin}popper[{second}]: (v0.1.0) POP login by user "{user}" at ({address}) {address}')
        lines.append(f"{begin}popper[{second}]: Stats: {user} {second % 3} {second % 3 * 1000} 5 {second} {address}")
        told["sessions"] += 1
        told["deleted"] += second % 3
        told["deleted_octets"] += second % 3 * 1000
        if second % 10 == 0:
            guesser = f"203.0.{second % GUESSERS // 250}.{second % 250}"
            lines.append(f"{begin}popper[9]: [AUTH] Failed attempted login to n{second} from host ({guesser}) "
                         f"{guesser}")
            told["failures"] += 1
        if second % 60 == 0:
            lines.append(f"{begin}popper[9]: Possible probe of account root from host pc.example.org (192.0.2.66)")
            told["probes"] += 1
    return "\n".join(lines).encode() + b"\n", told


def trace(hour):
    """The trace of an hour: a session each second, in which one message is read."""
    lines = []
    for second in range(3600):
        stamp = f"{BEGIN + datetime.timedelta(hours=hour, seconds=second):%a %b %d %H:%M:%S}.%03d {BEGIN.year} "
        pid, address = f"[{1000 + (hour * 3600 + second) % 30000}] ", f"198.51.100.{second % 250}"
        said = [f'(v0.1.0) Servicing request from "{address}" at {address}',
                "+OK UCB Pop server (version 0.1.0) at mail",
                f'Received: "user user{second % USERS}"', f"+OK Password required for user{second % USERS}.",
                'Received: "pass xxxxxxxxx"', "Authentication took 0.004 s; uid = 1001, gid = 100",
                "Msg 1 at offset 0 is 1200 octets long, unique-id 6f1ed002ab5595859014ebf0951522d9",
                f"+OK user{second % USERS} has 1 message(s) (1200 octets).", 'Received: "retr 1"', "+OK 1200 octets",
                "Sent 1203 octets in 0.001 s, 0.000 s of it waiting for the client", 'Received: "quit"',
                "+OK Pop server at mail signing off.",
                f'(v0.1.0) Ending request from "user{second % USERS}" at ({address}) {address}: 40 octets received, '
                "1500 sent", "Ended by QUIT; client 0.010 s, all 0.030 s"]
        lines += [stamp % number + pid + text for number, text in enumerate(said)]
    return "\n".join(lines).encode() + b"\n"


def feed(stream, blocks):
    with stream:
        for octets in blocks:
            stream.write(octets)


def popperctl(words, blocks, read):
    """-> what `read` makes of its standard output, its exit status, and seconds, seconds of a processor, octets of
    memory that it took. Its parent is a small process: the memory that this one has would count as its own until it is
    popperctl."""
    begun = time.monotonic()
    process = subprocess.Popen([sys.executable, "-IS", "-c", SMALL, sys.executable, "-m", "popper.admin", *words, "-"],
                               cwd=TREE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    feeder = threading.Thread(target=feed, args=(process.stdin, blocks))
    feeder.start()
    with process.stdout:
        found = read(process.stdout)
    feeder.join()
    with process.stderr:
        status, processor, memory = json.loads(process.stderr.read())
    process.wait()
    return found, status, time.monotonic() - begun, processor, memory * 1024


def test_a_gigabyte_of_log():
    octets, told = block()
    hours = -(-MEGABYTES * 10 ** 6 // len(octets))
    blocks = (octets.replace(HOUR.encode(), f"{BEGIN + datetime.timedelta(hours=hour):%Y-%m-%dT%H}".encode())
              for hour in range(hours))
    document, status, seconds, processor, memory = popperctl(["stats", "--json"], blocks, json.load)
    size = hours * len(octets)
    print(f"\n{size / 1e6:.0f} MB, {document['read']['lines']} lines of {hours} hours: {seconds:.0f} s, "
          f"{size / 1e6 / seconds:.0f} MB/s ({processor:.0f} s of one processor), "
          f"at most {memory / 2 ** 20:.0f} MiB of memory")
    assert status == 0 and document["read"]["octets"] == size and document["read"]["odd"] == 0
    assert {name: document["totals"][name] for name in told} == {name: count * hours for name, count in told.items()}
    assert document["totals"]["users"] == USERS
    assert len(document["days"]) == (BEGIN.hour + hours - 1) // 24 + 1
    assert memory < MEMORY


def test_a_gigabyte_of_trace():
    hours = -(-MEGABYTES * 10 ** 6 // len(trace(0)))

    def read(stream):
        """How many lines there are, the first ones, and whether the sessions come in their order."""
        count, first, last, ordered = 0, [], b"", True
        for line in stream:
            count += 1
            if count < 3:
                first.append(line.split())
            when = line[line.index(b" 20"):][:20] if count > 1 else b""
            ordered, last = ordered and last <= when, when
        return count, first, ordered
    (count, first, ordered), status, seconds, processor, memory = popperctl(["trace"], map(trace, range(hours)), read)
    size = hours * len(trace(0))
    print(f"\n{size / 1e6:.0f} MB of trace, {count - 1} sessions: {seconds:.0f} s, {size / 1e6 / seconds:.0f} MB/s "
          f"({processor:.0f} s of one processor), at most {memory / 2 ** 20:.0f} MiB of memory")
    assert status == 0 and count == 1 + 3600 * hours and ordered
    assert first[0][0] == b"SESSION" and b"user0" in first[1] and b"quit" in first[1]
    assert memory < MEMORY
