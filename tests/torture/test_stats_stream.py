"""A gigabyte of log through popperctl stats: generated into a pipe, summed up in bounded memory, every figure right.

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
            lines.append(f"{begin}popper[9]: [AUTH] Failed attempted login to n{second} from host ({guesser}) {guesser}")
            told["failures"] += 1
        if second % 60 == 0:
            lines.append(f"{begin}popper[9]: Possible probe of account root from host pc.example.org (192.0.2.66)")
            told["probes"] += 1
    return "\n".join(lines).encode() + b"\n", told


def feed(stream, octets, hours):
    with stream:
        for hour in range(hours):
            stamp = f"{BEGIN + datetime.timedelta(hours=hour):%Y-%m-%dT%H}"
            stream.write(octets.replace(HOUR.encode(), stamp.encode()))


def test_a_gigabyte_of_log():
    octets, told = block()
    hours = -(-MEGABYTES * 10 ** 6 // len(octets))
    begun = time.monotonic()
    # Its parent is a small process: the memory that this one has would count as its own until it is popperctl.
    process = subprocess.Popen([sys.executable, "-IS", "-c", SMALL, sys.executable, "-m", "popper.admin", "stats", "--json",
                                "-"], cwd=TREE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    feeder = threading.Thread(target=feed, args=(process.stdin, octets, hours))
    feeder.start()
    with process.stdout:
        document = json.loads(process.stdout.read())
    feeder.join()
    with process.stderr:
        status, processor, memory = json.loads(process.stderr.read())
    process.wait()
    seconds, size, memory = time.monotonic() - begun, hours * len(octets), memory * 1024
    print(f"\n{size / 1e6:.0f} MB, {document['read']['lines']} lines of {hours} hours: {seconds:.0f} s, "
          f"{size / 1e6 / seconds:.0f} MB/s ({processor:.0f} s of one processor), "
          f"at most {memory / 2 ** 20:.0f} MiB of memory")
    assert status == 0 and document["read"]["octets"] == size and document["read"]["odd"] == 0
    assert {name: document["totals"][name] for name in told} == {name: count * hours for name, count in told.items()}
    assert document["totals"]["users"] == USERS
    assert len(document["days"]) == (BEGIN.hour + hours - 1) // 24 + 1
    assert memory < MEMORY
