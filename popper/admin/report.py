"""What the page of `popperctl stats --html` shows of the sums: plots, and beside each its figures in a table."""

import datetime

from popper.admin import plots, sums
from popper.admin.page import moment, number, section, size, table, whole

MOST_STEPS = 120               # bars side by side; where there would be more, they are made wider
MOST_BARS = 25                 # in a plot; its table has them all
DAY, HOUR = datetime.timedelta(days=1), datetime.timedelta(hours=1)


def report(found: "sums.Sums", reading, top: "int | None", now: datetime.datetime) -> bytes:
    """The page. top: how many rows the lists of users and addresses have, None for all; now: when it is made."""
    users = found.user_rows()
    span = f"{moment(found.first)} to {moment(found.last)}" if found.first else "no lines of logins"
    lists = ((_users, sums.by_users(users)), (_largest, sums.by_size(users)), (_growing, sums.by_growth(users)),
             (_polling, sums.by_polling(users)), (_failed, found.address_rows()))
    sections = [*_over_time(found), *_week(found), *(show(rows[:top]) for show, rows in lists if rows)]
    return whole("POP3 statistics", span, list(_totals(found.totals())), sections,
                 _footer(found, reading, now))


def _footer(found: "sums.Sums", reading, now: datetime.datetime) -> str:
    told = [f"Made {now:%Y-%m-%d %H:%M} by popperctl stats; lines read: {number(reading.lines)}, "
            f"octets: {number(reading.octets)}."]
    if reading.broken:
        told.append(f"Logs that could not be read to their end: {reading.broken}.")
    if reading.odd:
        told.append(f"Lines that looked like a login and could not be read: {number(reading.odd)}.")
    if found.estimated:
        told.append(f"Sessions of Dovecot's whose octets deleted and left are an estimate: {number(found.estimated)}.")
    if found.forgotten:
        told.append("There were too many names or addresses of failed logins to list them all.")
    return " ".join(told)


def _totals(totals: dict):
    yield "Sessions", number(totals["sessions"]), f"users: {number(totals['users'])}"
    yield "Polls", number(totals["polls"]), "deleted nothing, left mail"
    yield "Failed logins", number(totals["failures"]), f"probes: {number(totals['probes'])}"
    yield "Messages deleted", number(totals["deleted"]), size(totals["deleted_octets"])
    yield "Messages left", number(totals["left"]), size(totals["left_octets"])


# -- sections ----------------------------------------------------------------------------------------------------------

def _over_time(found: "sums.Sums"):
    if found.first:
        rows, step, what = _steps(found)
        yield _sessions(rows, step, what)
        yield _octets(rows, step, what)


def _sessions(rows: "list[dict]", step: datetime.timedelta, what: str) -> str:
    others = [max(row["sessions"] - row["polls"], 0) for row in rows]        # a poll may end in the next hour
    failures = [row["failures"] for row in rows]
    busiest = max(rows, key=lambda row: row["sessions"])
    told = (f"Bars for each {what}. Most sessions: {number(busiest['sessions'])}, {_when(busiest['from'], what)}. "
            f"Failed logins in all: {number(sum(failures))}.")
    plot = plots.over_time(
        "plot-sessions", "Sessions and failed logins over time", told, [row["from"] for row in rows], step,
        [("Sessions", [("polls", plots.SECOND, [row["polls"] for row in rows]),
                       ("others", plots.FIRST, others)], "bars"),
         ("Failed logins", [("failed", plots.BAD, failures)], "bars")])
    titles = {"at": what.capitalize(), "sessions": "Sessions", "polls": "Polls", "failures": "Failed"}
    return section("Sessions over time",
                   f"Sessions and failed logins for each {what}; a poll deletes nothing and leaves mail.", plot,
                   table(f"Sessions for each {what}", titles, rows))


def _octets(rows: "list[dict]", step: datetime.timedelta, what: str) -> str:
    left, label, how, about = "left_octets", "Octets left", "area", "what was in the mailboxes then"
    if what == "hour":                       # what is left is known for days only
        left, label, how, about = "polled_octets", "Octets left by polls", "bars", "what polls left, each time anew"
    most, deleted = max(rows, key=lambda row: row[left]), sum(row["deleted_octets"] for row in rows)
    told = (f"Above, octets deleted in each {what}, {size(deleted)} in all; below, {about}, "
            f"at most {size(most[left])}, {_when(most['from'], what)}.")
    plot = plots.over_time(
        "plot-octets", "Octets deleted and left over time", told, [row["from"] for row in rows], step,
        [("Octets deleted", [("deleted", plots.FIRST, [row["deleted_octets"] for row in rows])], "bars"),
         (label, [("left", plots.SECOND, [row[left] for row in rows])], how)])
    titles = {"at": what.capitalize(), "deleted": "Messages deleted", "deleted_octets": "Octets deleted", left: label}
    return section("Octets over time", f"What was deleted in each {what}, and {about}.", plot,
                   table(f"Octets for each {what}", titles, rows))


def _steps(found: "sums.Sums") -> "tuple[list[dict], datetime.timedelta, str]":
    """What happened in steps that are as narrow as there is room for: (a row for each, its length, what it is)."""
    if found.last - found.first <= 3 * DAY:
        return _hours(found), HOUR, "hour"
    days = found.day_rows()
    begin, end = days[0]["day"], days[-1]["day"]
    wide = -(-((end - begin).days + 1) // MOST_STEPS)
    wide = 1 if wide == 1 else 7 if wide <= 7 else -(-wide // 30) * 30
    if wide == 7:
        begin -= begin.weekday() * DAY
    rows = [{"from": datetime.datetime.combine(begin + place * wide * DAY, datetime.time()), "left_octets": None,
             "at": (begin + place * wide * DAY).isoformat(), **dict.fromkeys(sums.COUNTS, 0)}
            for place in range((end - begin).days // wide + 1)]
    for day in days:
        row = rows[(day["day"] - begin).days // wide]
        for name in sums.COUNTS:
            row[name] += day[name]
        row["left_octets"] = day["left_octets"]
    for before, row in zip(rows, rows[1:]):
        if row["left_octets"] is None:       # nothing happened, and all is as it was
            row["left_octets"] = before["left_octets"]
    return rows, wide * DAY, {1: "day", 7: "week"}.get(wide, f"{wide} days")


def _hours(found: "sums.Sums") -> "list[dict]":
    told = {(row["day"], row["hour"]): row for row in found.hour_rows()}
    at = found.first.replace(minute=0, second=0)
    rows = []
    while at <= found.last:
        counts = told.get((at.date(), at.hour), dict.fromkeys(sums.COUNTS, 0))
        rows.append({**counts, "from": at, "at": f"{at:%m-%d %H:%M}"})
        at += HOUR
    return rows


def _week(found: "sums.Sums"):
    counts = found.week()
    if not any(map(any, counts)):
        return
    most, day, hour = max((count, -day, -hour) for day, hours in enumerate(counts) for hour, count in enumerate(hours))
    told = (f"Polls by day of the week and hour of the day. Most: {number(most)}, "
            f"{plots.WEEKDAYS[-day]} from {-hour:02}:00 to {-hour + 1:02}:00.")
    rows = [{"hour": f"{hour:02}–{hour + 1:02}",
             **{name: counts[day][hour] for day, name in enumerate(plots.WEEKDAYS)}} for hour in range(24)]
    yield section(
        "When mail is polled and left",
        "Sessions that deleted nothing and left mail, by day of the week and hour; the stronger the colour, the more. "
        f"Most: {number(most)}, {plots.WEEKDAYS[-day]} {-hour:02}:00.",
        plots.week("plot-week", "Polls by day of the week and hour", told, counts, "polls"),
        table("Polls by hour and day of the week", {"hour": "Hour", **{name: name for name in plots.WEEKDAYS}}, rows))


def _users(rows: "list[dict]") -> str:
    return section("Users", "Those who deleted most, in octets.", "", table("Users who deleted most", {
        "user": "User", "sessions": "Sessions", "failures": "Failed", "deleted": "Deleted", "deleted_octets": "Octets",
        "left": "Left", "left_octets": "Octets", "addresses": "Addresses", "last": "Last seen"}, rows))


def _largest(rows: "list[dict]") -> str:
    return _ranked(
        "plot-largest", "Largest mailboxes", "Octets in the mailbox after the last session.", rows, "user",
        "left_octets", plots.FIRST, {"user": "User", "left": "Messages", "left_octets": "Octets", "last": "Last seen"})


def _growing(rows: "list[dict]") -> str:
    return section("Growing mailboxes", "Octets left, from the first day that tells of them to the last.", "",
                   table("Mailboxes that grew most", {
                       "user": "User", "grown_octets": "Grown by", "grown_days": "Days",
                       "grown_octets_a_day": "Octets a day", "left_octets": "Octets now"}, rows))


def _polling(rows: "list[dict]") -> str:
    return _ranked(
        "plot-polling", "Mail left on the server: who costs most",
        "Polls, and the octets that they left, each time anew; polls an hour are of hours in which there was one.",
        rows, "user", "polled_octets", plots.SECOND,
        {"user": "User", "polls": "Polls", "polls_an_hour": "An hour", "polled_octets": "Octets looked through",
         "left_octets": "Octets left"})


def _failed(rows: "list[dict]") -> str:
    return _ranked(
        "plot-failed", "Failed logins by address", "A probe is a session that ended between a name and its password.",
        rows, "address", "failures", plots.BAD,
        {"address": "Address", "failures": "Failed", "probes": "Probes", "names": "Names tried", "last": "Last"})


def _ranked(name: str, title: str, about: str, rows: "list[dict]", label: str, value: str, colour: str,
            titles: "dict[str, str]") -> str:
    told = f"{title}. The first: {rows[0][label]}, {number(rows[0][value])}."
    pairs = [(row[label], row[value]) for row in rows[:MOST_BARS]]
    return section(title, about, plots.ranking(name, title, told, pairs, colour), table(title, titles, rows))


def _when(begin: datetime.datetime, what: str) -> str:
    return f"{begin:%Y-%m-%d %H:%M}" if what == "hour" else f"{begin:%Y-%m-%d}"
