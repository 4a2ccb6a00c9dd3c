"""What programs read of the sums: one document, CSV, Prometheus' text format; and a file that is there whole or not."""

import contextlib
import csv
import datetime
import io
import os
import stat
import tempfile

from popper.admin import sums
from popper.admin.console import Failed
from popper.admin.table import plain

FORMULA = ("=", "+", "-", "@")               # what a spreadsheet takes for the begin of one
CSV_COLUMNS = ("day", "user", *sums.COUNTS, "left", "left_octets")

# key in the totals: (name behind `popper_`, what it is)
METRICS = {
    "users": ("users", "Users that had a session."),
    "sessions": ("sessions", "Sessions."),
    "polls": ("polls", "Sessions that deleted nothing and left mail on the server."),
    "failures": ("login_failures", "Failed logins."),
    "probes": ("probes", "Sessions that ended between a name and its password."),
    "deleted": ("deleted_messages", "Messages deleted."),
    "deleted_octets": ("deleted_bytes", "Octets of the messages deleted."),
    "polled_octets": ("polled_bytes", "Octets that polls left, each time anew."),
    "left": ("left_messages", "Messages left after the last session of each user."),
    "left_octets": ("left_bytes", "Octets left after the last session of each user."),
}


def document(found: "sums.Sums", reading, top: "int | None") -> dict:
    """All that is known. top: how many rows of the lists of users and addresses, None for all of them."""
    users = found.user_rows()
    return {
        "first": found.first, "last": found.last,
        "read": {"logs": [source.name for source in reading.sources], "octets": reading.octets, "lines": reading.lines,
                 "odd": reading.odd, "broken": reading.broken, "estimated": found.estimated,
                 "forgotten": found.forgotten},
        "totals": found.totals(),
        "users": sorted(users, key=lambda row: row["user"]) if top is None else sums.by_users(users)[:top],
        "growing": sums.by_growth(users)[:top], "polling": sums.by_polling(users)[:top],
        "days": found.day_rows(), "hours": found.hour_rows(), "polls_by_weekday": found.week(),
        "addresses": found.address_rows()[:top],
    }


def comma_separated(found: "sums.Sums"):
    """Yield the octets of a CSV file: one line for each user and day. A name that a spreadsheet would take for a
    formula has an apostrophe in front."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, CSV_COLUMNS)
    writer.writeheader()
    days = sorted((number, name) for name, user in found.users.items() for number in user.days)
    for number, name in days:
        shown = plain(name)
        writer.writerow({"day": datetime.date.fromordinal(number),
                         "user": "'" + shown if shown.startswith(FORMULA) else shown,
                         **found.users[name].days[number].row()})
        if buffer.tell() > 65536:
            yield buffer.getvalue().encode()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue().encode()


def metrics(found: "sums.Sums", reading, top: "int | None") -> bytes:
    """Prometheus' text format. All are gauges: they tell of the logs as they are now, which are rotated away."""
    totals, users = found.totals(), found.user_rows()
    lines: "list[str]" = []

    def tell(name: str, what: str, samples) -> None:
        lines.extend((f"# HELP popper_{name} {what}", f"# TYPE popper_{name} gauge"))
        lines.extend(f"popper_{name}{labels} {value}" for labels, value in samples)

    for key, (name, what) in METRICS.items():
        tell(name, what, [("", totals[key])])
    for name, what, when in (("log_begin", "first", found.first), ("log_end", "last", found.last)):
        if when is not None:
            tell(f"{name}_timestamp_seconds", f"When the {what} line that counted was written.",
                 [("", int(when.timestamp()))])
    tell("log_lines", "Lines read.", [("", reading.lines)])
    tell("log_odd_lines", "Lines that looked like a login and could not be read.", [("", reading.odd)])
    tell("log_broken_files", "Logs that could not be read to their end.", [("", reading.broken)])
    for name, what, rows, label, key in (
            ("user_left_bytes", "Octets left by the users who leave most.", sums.by_size(users), "user", "left_octets"),
            ("user_polled_bytes", "Octets left by polls of the users whose polls cost most.", sums.by_polling(users),
             "user", "polled_octets"),
            ("address_login_failures", "Failed logins from the addresses that have most.", found.address_rows(),
             "address", "failures")):
        tell(name, what, [(_label(label, row[label]), row[key]) for row in rows[:top]])
    return "".join(line + "\n" for line in lines).encode()


def _label(name: str, value: str) -> str:
    return '{%s="%s"}' % (name, plain(value).replace("\\", "\\\\").replace('"', '\\"'))


# -- files -------------------------------------------------------------------------------------------------------------

def check_place(path: str) -> None:
    """Failed when a file cannot be made there, before work is done for it."""
    directory = os.path.dirname(os.path.realpath(path))
    if os.path.isdir(path):
        raise Failed(f"{path}: is a directory", os.EX_CANTCREAT)
    if _is_special(path):
        return
    if not os.path.isdir(directory):
        raise Failed(f"{path}: there is no directory {directory}", os.EX_CANTCREAT)
    if not os.access(directory, os.W_OK | os.X_OK):
        raise Failed(f"{path}: {directory} may not be written to", os.EX_CANTCREAT)


def write(path: str, blocks) -> None:
    """Put octets into a file at once: whoever reads it finds what was there before, or all that is new.

    What is no plain file, as /dev/stdout, is written as it comes. Raises Failed.
    """
    try:
        if _is_special(path):
            with open(path, "wb") as file:
                file.writelines(blocks)
            return
        real = os.path.realpath(path)
        directory, name = os.path.split(real)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=directory)    # nobody takes it for a *.prom
        try:
            with open(descriptor, "wb") as file:
                file.writelines(blocks)
                file.flush()
                os.fchmod(descriptor, 0o666 & ~_umask())
                os.fsync(descriptor)
            os.rename(temporary, real)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise Failed(f"{path}: {error.strerror}", os.EX_CANTCREAT) from None


def _is_special(path: str) -> bool:
    return os.path.exists(path) and not stat.S_ISREG(os.stat(path).st_mode)


def _umask() -> int:
    umask = os.umask(0o077)
    os.umask(umask)
    return umask
