"""A plugin that ends a run with a search: no line of a log or trace that was written in it may have a password in it.

Every file that looks like a log or a trace is looked through, in a directory that goes before the end when it goes
(`overheard`), and every line that a collector of syslog took (`collectors`). A hit fails the run.
"""

import base64
import os
import re
import stat

import pytest

from popper.wire import printable

# What the tests log in with, or try to, as far as it cannot be taken for anything else.
SECRETS = ["s3cret", "tanstaaf", "tanstaag", "pass\tword", "pass\x01word", "guessed it", "not the one",
           "gr\u00fc\u00df"]
# A line of a trace, of a log on standard error, of a file of syslog's.
LOGGED = re.compile(rb"\w{3} (?:\w{3} )?[ \d]\d \d\d:\d\d:\d\d\S* (?:\d{4} \[[\d.]+\] |\S+ \S+\[\d+\]: )"
                    rb"|(?:in\.)?q?popper\[[\d.]+\]: ")
LOOKED_AT = 4096               # octets at the beginning of a file by which it is known for a log

collectors = []                # lists of (priority, line), growing
found = []                     # (where, line) of every hit


def shapes(secret):
    """The octets by which a secret shows, also where it was escaped or is part of something in base64."""
    octets = secret.encode("latin-1")
    yield octets
    yield secret.encode()
    yield printable(octets).encode()
    for before in range(3):
        text = base64.b64encode(bytes(before) + octets).rstrip(b"=")
        yield text[before + (before > 0):-1]             # what does not depend on the octets beside it


ANY = re.compile(b"|".join(map(re.escape, sorted({shape for secret in SECRETS for shape in shapes(secret)}))))


def search(lines, where):
    """Note which of these lines (octets) have a secret in them."""
    found.extend((where, line) for line in lines if ANY.search(line))


def overheard(place):
    """Look through the logs and traces below a directory. To be called before it is removed."""
    for directory, _, names in os.walk(place):
        for path in (os.path.join(directory, name) for name in names):
            try:
                if not stat.S_ISREG(os.lstat(path).st_mode):
                    continue
                with open(path, "rb") as file:
                    if any(map(LOGGED.match, file.read(LOOKED_AT).splitlines())):
                        file.seek(0)
                        search((line for line in file if LOGGED.match(line)), path)
            except OSError:
                pass                         # gone, or nobody's to read


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session):
    overheard(os.environ["PYTEST_DEBUG_TEMPROOT"])
    for lines in collectors:
        search([text.encode("utf-8", "surrogateescape") for _, text in lines], "syslog")
    if found:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter):
    if found:
        terminalreporter.section("passwords in logs", red=True)
        for where, line in found:
            terminalreporter.write_line(f"{where}: {printable(line.rstrip(), 500)}")
