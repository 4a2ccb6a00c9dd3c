"""Every test, in parts, two of them at a time: what `make check` runs.

    check.py [WORD ...]      words for pytest, given to every part

A part is a process of its own, since most tests fork the one they run in, which takes the longer the more tests it has
read. The tests that need root are one part: what they use of the system is there once.
"""

import concurrent.futures
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
ELSEWHERE = {"bench", "torture"}             # make bench, make torture


def parts():
    """name -> words for pytest; the longest ones first, so that none of them is left for the end."""
    files = sorted(map(str, HERE.glob("test_*.py")))
    found = {"what needs root": ["-m", "root", str(HERE)], "popper": ["-m", "not root", *files]}
    for directory in sorted({path.parent for path in HERE.glob("*/test_*.py")}):
        if directory.name not in ELSEWHERE:
            found[directory.name] = ["-m", "not root", str(directory)]
    return found


def run(words):
    """-> (exit status, octets that were printed, seconds)"""
    begun = time.monotonic()
    done = subprocess.run([sys.executable, "-m", "pytest", *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    return done.returncode, done.stdout, time.monotonic() - begun


def main(words):
    failed = []
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        running = {pool.submit(run, [*words, *part]): name for name, part in parts().items()}
        for future in concurrent.futures.as_completed(running):
            status, octets, seconds = future.result()
            print(f"\n---- {running[future]}, {seconds:.0f} s", flush=True)
            sys.stdout.buffer.write(octets)
            sys.stdout.flush()
            if status:
                wrong = [line for line in octets.decode(errors="replace").splitlines()
                         if line.startswith(("FAILED ", "ERROR "))]
                failed += wrong or [f"{running[future]}: pytest ended with {status}"]
    print("\n---- all parts passed" if not failed else "\n---- " + "\n".join(["failed:", *failed]))
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
