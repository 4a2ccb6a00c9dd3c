"""The times that people write, behind --since and --until say."""

import datetime
import os
import re

from popper.admin.console import Failed

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def meant(text: "str | None", now: datetime.datetime, at_end: bool = False) -> "datetime.datetime | None":
    """The time that somebody means, None for none. at_end: of a day the end is meant. Failed for what is no time."""
    if text is None:
        return None
    today = datetime.datetime.combine(now.date(), datetime.time())
    day = {"today": today, "yesterday": today - datetime.timedelta(days=1)}.get(text)
    try:
        if ago := re.fullmatch(r"(\d{1,5})([smhd])", text, re.A):
            return now - datetime.timedelta(seconds=int(ago[1]) * UNITS[ago[2]])
        if re.fullmatch(r"\d\d:\d\d(:\d\d)?", text, re.A):
            return datetime.datetime.combine(now.date(), datetime.time.fromisoformat(text))
        if day is None and re.fullmatch(r"\d{4}-\d\d-\d\d", text, re.A):
            day = datetime.datetime.fromisoformat(text)
        if day is not None:
            return day + datetime.timedelta(days=at_end)
        if re.fullmatch(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d)?", text, re.A):
            return datetime.datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        pass
    raise Failed(f'"{text}" is no time; write 2026-11-24, "2026-11-24 18:00", 18:00, today, yesterday, 7d, 12h or 10m',
                 os.EX_USAGE)


def between(since: "str | None", until: "str | None",
            now: datetime.datetime) -> "tuple[datetime.datetime | None, datetime.datetime | None]":
    """Both ends of what is wanted. Failed where there is nothing between them."""
    begin, end = meant(since, now), meant(until, now, at_end=True)
    if begin and end and begin >= end:
        raise Failed("--since is not before --until: there is no time between them", os.EX_USAGE)
    return begin, end
