"""Logs made up for tests: what POP3 servers say, in every frame in which a log holds it."""

import datetime
import json
import os
import random

import pytest

BEGIN = datetime.datetime(2026, 11, 16, 9, 0)            # a Monday
HOSTILE = ["<script>alert(1)</script>", "\x1b[31mred\x1b[m", "\u202egnp.exe", "=cmd|'/C'!A0", "'\"><img/src=x>", "a,b",
           'quo"te', "back\\slash", "x" * 200, "\udcff\udcfe", "{user}", "%s%n", "&amp;", "\x9b2J", "$\\frac{$"]


def at(**later):
    return BEGIN + datetime.timedelta(**later)


# -- what servers say --------------------------------------------------------------------------------------------------

def login(user, address="192.0.2.1", host=None):
    return f'(v0.1.0) POP login by user "{user}" at ({host or address}) {address}'


def stats(user, deleted=0, deleted_octets=0, left=0, left_octets=0, *where):
    return " ".join(map(str, ("Stats:", user, deleted, deleted_octets, left, left_octets, *where)))


def failed(user, address="192.0.2.66", host=None):
    return f"[AUTH] Failed attempted login to {user} from host ({host or address}) {address}"


def probe(user, address="192.0.2.66"):
    return f"Possible probe of account {user} from host pc.example.org ({address})"


def dovecot_login(user, address="192.0.2.1", session="aBc/+1="):
    return (f"pop3-login: Login: user=<{user}>, method=PLAIN, rip={address}, lip=192.0.2.250, mpid=77, TLS, "
            f"session=<{session}>")


def dovecot_end(user, deleted, messages, octets, session="aBc/+1=", how="Disconnected: Logged out"):
    return f"pop3({user})<77><{session}>: {how} top=0/0, retr=1/1234, del={deleted}/{messages}, size={octets}"


def dovecot_failed(user, address="192.0.2.66", attempts=1):
    return (f"pop3-login: Disconnected: Connection closed (auth failed, {attempts} attempts in 2 secs): user=<{user}>, "
            f"method=PLAIN, rip={address}, lip=192.0.2.250, session=<x>")


# -- how logs hold it --------------------------------------------------------------------------------------------------

def classic(when, text, ident="popper", pid=7, host="mail"):
    return f"{when:%b} {when.day:2} {when:%H:%M:%S} {host} {ident}{f'[{pid}]' if pid else ''}: {text}"


def iso(when, text, ident="popper", pid=7, host="mail"):
    zone = when.astimezone().strftime("%z")
    return f"{when:%Y-%m-%dT%H:%M:%S}.123456{zone[:3]}:{zone[3:]} {host} {ident}[{pid}]: {text}"


def short_iso(when, text, ident="popper", pid=7, host="mail"):
    return f"{when.astimezone():%Y-%m-%dT%H:%M:%S%z} {host} {ident}[{pid}]: {text}"


def rfc5424(when, text, ident="popper", pid=7, host="mail"):
    stamp = when.astimezone(datetime.timezone.utc)
    return f'<165>1 {stamp:%Y-%m-%dT%H:%M:%S}.1Z {host} {ident} {pid} - [a@1 b="\\"] c" d="]"] \ufeff{text}'


def journal(when, text, ident="popper", pid=7, host="mail"):
    message = text if isinstance(text, str) else list(text)
    return json.dumps({"MESSAGE": message, "SYSLOG_IDENTIFIER": ident, "_PID": str(pid), "_HOSTNAME": host, "__CURSOR":
                       "s=1", "__REALTIME_TIMESTAMP": str(int(when.timestamp()) * 1000000 + 5)}, separators=(",", ":"))


def trace(when, text, pid=7):
    return f"{when.ctime()} [{pid}] {text}"


def trace_of_qpopper4(when, text, pid=7):
    return f"{when:%b} {when.day:2} {when:%H:%M:%S}.123 {when.year} [{pid}] {text} [pop_updt.c:300]"


def container(when, text, ident="popper", pid=7):
    """What `docker logs -t` shows of a popper that logs to standard error."""
    return f"{when.astimezone(datetime.timezone.utc):%Y-%m-%dT%H:%M:%S}.123456789Z {ident}[{pid}]: notice: {text}"


FRAMES = {each.__name__: each for each in (classic, iso, short_iso, rfc5424, journal, trace, trace_of_qpopper4,
                                           container)}


def octets(lines):
    return "".join(line + "\n" for line in lines).encode("utf-8", "surrogateescape")


def noise(count):
    """Lines of other programs."""
    return [classic(at(seconds=number), f"connect from host{number}.example.org[198.51.100.{number % 250}]",
                    "postfix/smtpd", number) for number in range(count)]


def busy_month(users=12, days=30):
    """Sessions of a month: most fetch and delete, the first user leaves all his mail there, somebody guesses."""
    lines, held, pid = [], {}, 0
    for day in range(days):
        for number in range(users):
            user, address = f"user{number:02}", f"192.0.2.{number + 1}"
            for hour in range(0, 12, 1 if number == 0 else 4 + number % 3):
                pid, when = pid + 1, at(days=day - days, hours=hour, minutes=number)
                held[user] = held.get(user, 0) + 3
                left = held[user] if number == 0 else 0
                gone, held[user] = held[user] - left, left
                lines += [(when, classic(when, login(user, address), pid=pid)),
                          (when, classic(when, stats(user, gone, gone * 9000, left, left * 9000, address, address),
                                         pid=pid))]
        when = at(days=day - days, hours=day % 24)
        lines += [(when, classic(when, failed(f"guess{guess}", f"198.51.100.{guess % 5}"))) for guess in range(day % 9)]
    return [line for _, line in sorted(lines, key=lambda pair: pair[0])]


def office():
    """Three weeks of an office that makes a fair picture: less on Sundays, some who leave their mail, some who guess."""
    chance, lines, held, pid = random.Random(1957), [], {}, 0
    for day in range(-21, 0):
        busy = 0.3 if at(days=day).weekday() > 4 else 1.0
        for number, user in enumerate(("ann", "bob", "cho", "dora", "eve", "finn", "gus", "hana", "ines", "joe", "kim")):
            for hour in sorted(chance.sample(range(-2, 12), int(busy * chance.randint(2, 9)))):
                pid, when = pid + 1, at(days=day, hours=hour, minutes=chance.randrange(60), seconds=number)
                held[user] = held.get(user, 0) + chance.randint(0, 4) * 1000 * chance.randint(1, 30)
                left = held[user] if user in ("bob", "ines", "joe") else 0
                gone, held[user] = held[user] - left, left
                lines += [(when, classic(when, login(user, f"192.0.2.{number + 1}"), pid=pid)), (when, classic(
                    when, stats(user, gone // 12000, gone, left // 12000, left, f"192.0.2.{number + 1}"), pid=pid))]
        for _ in range(chance.choice((0, 0, 1, 2, 5, 9))):
            when = at(days=day, hours=chance.randrange(24) - 9, minutes=chance.randrange(60))
            lines.append((when, classic(when, failed("root", f"198.51.100.{chance.choice((7, 7, 7, 23, 99))}"))))
    return [line for _, line in sorted(lines, key=lambda pair: pair[0])]


def hostile():
    """Names of every bad kind, absurd numbers, octets that are no text, a line of a megabyte, no end."""
    lines = []
    for number, name in enumerate(HOSTILE):
        when = at(minutes=number)
        lines += [classic(when, stats(name, 0, 0, number + 1, 10 ** number, "h", "192.0.2.1"), "qpopper", number),
                  classic(when, f"Failed attempted login to {name} from host {name}", "qpopper", number),
                  iso(when, probe(name)), classic(when, dovecot_failed(name), "dovecot", 0),
                  classic(when, dovecot_login(name, session=str(number)), "dovecot", 0),
                  journal(when, failed(name).encode("utf-8", "surrogateescape"))]
    lines += [classic(at(), stats("joe", *["9" * digits] * 4)) for digits in (15, 16, 5000)]
    lines += [classic(at(), stats("y" * 1000000)), "Stats: " * 3000, "{" * 9000 + "Stats: ", "\0" * 5000 + "Stats: "]
    return octets(lines) + b"\xff" * 70000 + b"Stats: no end"


@pytest.fixture
def log(tmp_path):
    """log(lines or octets, name=) -> a file with them, last written the day after BEGIN."""
    def make(lines, name="mail.log"):
        path = tmp_path / name
        path.write_bytes(lines if isinstance(lines, bytes) else octets(lines))
        os.utime(path, (at(days=1).timestamp(),) * 2)
        return path
    return make
