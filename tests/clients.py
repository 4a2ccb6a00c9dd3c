"""Mail that is hard to carry, the mailbox it lies in, and the programs that fetch it.

Each program runs as the owner of the mailbox, in a directory of its own; its configuration is what a user would write.
"""

import base64
import contextlib
import os
import poplib
import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import quote

from conftest import wait_until

ENVELOPE = b"From sender@example.org Tue Jan  2 03:04:05 2024\n"
END = "=== end of message ==="
LONGEST = 100_000              # octets of the longest line
IMAGE = base64.encodebytes(bytes(range(256)) * 16)

PLAIN = b"""Received: from mx.example.org by mail.example.com; Tue, 2 Jan 2024 03:04:05 +0000
From: "Ann O'Nymous" <ann@example.org>
To: popjoe@example.com
Subject: Lunch?
Date: Tue, 2 Jan 2024 03:04:05 +0000
Message-ID: <plain@example.org>
Status: RO

Lunch at noon?

"""

MIME = b"""Received: from mx.example.org by mail.example.com; Tue, 2 Jan 2024 03:05:05 +0000
From: =?utf-8?q?J=C3=B6rg?= <joerg@example.org>
To: popjoe@example.com,
\tsomebody.else@example.com
Subject: =?utf-8?b?R3LDvMOfZQ==?= and a header
 that goes on
Date: Tue, 2 Jan 2024 03:05:05 +0000
Message-ID: <mime@example.org>
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary="=_part"

This is a message in several parts.
--=_part
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: 8bit

Gr\xc3\xbc\xc3\x9fe aus K\xc3\xb6ln, \xe2\x82\xac 5
--=_part
Content-Type: image/png; name="all octets.png"
Content-Transfer-Encoding: base64

""" + IMAGE + b"""--=_part--
"""

DOTS = b"""From: dot@example.org
To: popjoe@example.com
Subject: dots
Date: Tue, 2 Jan 2024 03:06:05 +0000
Message-ID: <dots@example.org>

.
..
...
.hidden
not. a dot
.
"""

FROM_LINES = b"""From: quote@example.org
To: popjoe@example.com
Subject: From lines
Date: Tue, 2 Jan 2024 03:07:05 +0000
Message-ID: <from@example.org>
X-UIDL: kept-from-the-old-server

From here on, this is a paragraph and no envelope.

>From quoted@example.org Tue Jan  2 03:04:05 2024
>>From twice quoted

 From indented
"""

LATIN = b"""From: latin@example.org
To: popjoe@example.com
Subject: caf\xe9 cr\xe8me
Date: Tue, 2 Jan 2024 03:08:05 +0000
Message-ID: <latin@example.org>

\xa1Ma\xf1ana!\ttab, \x0c form feed, \x1b[1mescape\x1b[0m, \xff\xfe


"""

HEADER_ONLY = b"""From: empty@example.org
To: popjoe@example.com
Subject: no body
Date: Tue, 2 Jan 2024 03:09:05 +0000
Message-ID: <empty@example.org>

"""

RAW = b"""From: raw@example.org
To: popjoe@example.com
Subject: octets
Date: Tue, 2 Jan 2024 03:10:05 +0000
Message-ID: <raw@example.org>

a NUL \0 and a CR \r in a line, \x80\xff
"""

ENDLESS = b"""From: last@example.org
To: popjoe@example.com
Subject: no end
Date: Tue, 2 Jan 2024 03:11:05 +0000
Message-ID: <last@example.org>

The last line has no end"""


def long_line(longest):
    return b"""From: long@example.org
To: popjoe@example.com
Subject: one line
Date: Tue, 2 Jan 2024 03:12:05 +0000
Message-ID: <long@example.org>

.""" + b"0123456789" * ((longest - 5) // 10) + b".end\n"


def messages(longest=LONGEST):
    """The texts of a mailbox, in order. RAW is not among them: few programs take NULs."""
    return [PLAIN, MIME, DOTS, FROM_LINES, long_line(longest), LATIN, HEADER_ONLY, ENDLESS]


def pieces(texts):
    """The octets that each of these texts takes in a mailbox, envelope line and separator included."""
    assert all(text.endswith(b"\n") for text in texts[:-1]), "only the last can be without an end"
    return [ENVELOPE + text + b"\n" for text in texts[:-1]] + [ENVELOPE + text for text in texts[-1:]]


def stored(text):
    """A text as a program saves it: its last line ended."""
    return text if text.endswith(b"\n") else text + b"\n"


def wire(text):
    """A text as RETR sends it, stuffing undone: every line ends in CRLF, the last one too (RFC 1939, section 3)."""
    return stored(text).replace(b"\n", b"\r\n")


def body(text):
    return text.partition(b"\n\n")[2]


def saved(mailbox, quoted=rb">*From "):
    """The texts in an mbox file that a client wrote; quoted: the lines before which it put a `>`."""
    if not mailbox.exists():
        return []
    texts = re.split(rb"(?m)^From .*\n", mailbox.read_bytes())[1:]
    return [re.sub(rb"(?m)^>(%s)" % quoted, rb"\1", text.removesuffix(b"\n")) for text in texts]


class Client:
    """A user's programs: a directory of theirs, the account, and the port where their server answers."""

    def __init__(self, account, port):
        self.account = account
        self.port = port
        self.place = Path(account.entry.pw_dir) / "client"
        self.place.mkdir()
        shutil.chown(self.place, account.name, account.name)
        self.url = f"{account.name}:{quote(account.password)}@127.0.0.1:{port}"

    def remove(self):
        """The end of a test: every session ends without being told, and leaves nothing in the spool (inv.01)."""
        try:
            wait_until(lambda: not self.left_over())
        finally:
            shutil.rmtree(self.place)

    def left_over(self):
        """The names in the spool that have to do with the account, other than that of its mailbox."""
        spool, name = self.account.mailbox.parent, self.account.mailbox.name
        return {path.name for path in spool.glob(f"*{name}*")} - {name}

    def run(self, *command, status=0):
        """Run a program as the user; -> what it printed, its exit status being as expected."""
        done = subprocess.run(["runuser", "-u", self.account.name, "--", *command], cwd=self.place, timeout=100,
                              env={"PATH": os.environ["PATH"], "HOME": str(self.place), "LANG": "C.UTF-8"},
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert done.returncode == status, done.stdout.decode("utf-8", "replace")
        return done.stdout

    def write(self, name, text):
        """A file of the user's that nobody else may read."""
        path = self.place / name
        path.write_text(text)
        path.chmod(0o600)
        shutil.chown(path, self.account.name)
        return path

    def fetched(self):
        """The texts that were handed over one by one, each followed by END."""
        file = self.place / "fetched"
        texts = file.read_bytes().split(END.encode() + b"\n")[:-1] if file.exists() else []
        file.unlink(missing_ok=True)
        return texts

    @contextlib.contextmanager
    def session(self):
        """A session in TRANSACTION. Who wants UPDATE says quit()."""
        pop = poplib.POP3("127.0.0.1", self.port, timeout=100)
        try:
            pop.user(self.account.name)
            pop.pass_(self.account.password)
            yield pop
        finally:
            pop.close()

    def curl(self, path="", *options):
        return self.run("curl", "-sS", "-u", f"{self.account.name}:{self.account.password}", *options,
                        f"pop3://127.0.0.1:{self.port}/{path}")

    def fetchmail(self, server="uidl", user="keep", status=0):
        """One poll; server and user: more options of the two kinds. -> the texts that arrived, what was printed."""
        self.write("fetchmailrc", f"""set invisible
            poll 127.0.0.1 port {self.port} protocol pop3 {server}
            user "{self.account.name}" password "{self.account.password}" sslproto "" {user}
            mda "cat >>fetched; echo '{END}' >>fetched"
            """)
        said = self.run("fetchmail", "-f", "fetchmailrc", "--nosyslog", "-v", "--pidfile", "pid", "--idfile", "ids",
                        status=status)
        return self.fetched(), said.decode("utf-8", "replace")

    def mpop(self, keep="on"):
        """-> the texts that arrived, and the conversation."""
        self.write("mpoprc", f"""account pop
            host 127.0.0.1
            port {self.port}
            tls off
            auth user
            user {self.account.name}
            password "{self.account.password}"
            received_header off
            delivery mbox mpop.mbox
            uidls_file uidls
            keep {keep}
            """)
        mailbox = self.place / "mpop.mbox"
        mailbox.unlink(missing_ok=True)
        said = self.run("mpop", "-C", "mpoprc", "-d", "-a")
        return saved(mailbox), said.decode("utf-8", "replace").replace("\r", "")

    def getmail(self):
        """-> the texts that arrived, and what was printed.

        A program that takes a message ends only when getmail sleeps: it misses the end of one that is quicker.
        """
        self.write("take", f"""#!/bin/sh
            cat >>fetched; echo '{END}' >>fetched
            until grep -q '^State:.S' /proc/$PPID/status; do :; done
            """).chmod(0o700)
        self.write("getmailrc", f"""[retriever]
type = SimplePOP3Retriever
server = 127.0.0.1
port = {self.port}
username = {self.account.name}
password = {self.account.password}
[destination]
type = MDA_external
path = {self.place}/take
[options]
read_all = false
delete = false
""")
        said = self.run("getmail", "--getmaildir", str(self.place), "--rcfile", "getmailrc", "-n")
        return self.fetched(), said.decode("utf-8", "replace")

    def movemail(self, *options):
        """-> the texts that arrived."""
        self.run("movemail", *options, f"pop://{self.url}", "moved.mbox")
        return saved(self.place / "moved.mbox")

    def s_nail(self, *options):
        """-> what was printed. Some options are commands: those behind -Y."""
        return self.run("s-nail", "-n", "-Sv15-compat", "-Spop3-no-apop", *options, "-f", f"pop3://{self.url}")

    def nmap(self):
        return self.run("nmap", "-Pn", "-n", "-p", str(self.port), "--script", "+pop3-capabilities", "127.0.0.1")
