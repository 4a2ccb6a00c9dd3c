"""What comes of the events of a log: counters for each user and day, for each hour, for each address.

Memory grows with users and days, not with lines. What anybody on the net can make as many of as he likes is bounded:
names that never log in, and addresses.

    session  a login, or an UPDATE whose login the log does not show
    poll     a session that deleted nothing and left something: mail left on the server, looked through again each time
    left     messages and octets in the mailbox when its last session ended
"""

import collections
import datetime
import sys

from popper.admin.logins import FAILED, LOGIN, PROBE, UPDATE

MOST_STRANGERS = 20000         # names without a session that are told apart
MOST_ADDRESSES = 20000         # of failed logins
MOST_DAILY = 20000             # addresses that are told apart in a day
MOST_OF_USER = 1000            # and of a user
MOST_PENDING = 50000           # sessions whose UPDATE may still come
MOST_TRIED = 100               # names that are told apart for an address

COUNTS = ("sessions", "polls", "failures", "probes", "deleted", "deleted_octets", "polled_octets")


class Counts:
    """COUNTS of a day, an hour, a user, of all. polled_octets: what polls left, added up."""

    __slots__ = COUNTS

    def __init__(self) -> None:
        self.sessions = self.polls = self.failures = self.probes = 0
        self.deleted = self.deleted_octets = self.polled_octets = 0

    def add(self, other: "Counts") -> None:
        for name in COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def row(self) -> dict:
        return {name: getattr(self, name) for name in COUNTS}


class Day(Counts):
    """One day of one user. left, left_octets: at its end, None when no UPDATE told; hours: bits, those of polls."""

    __slots__ = ("left", "left_octets", "hours")

    def __init__(self) -> None:
        super().__init__()
        self.left = self.left_octets = None
        self.hours = 0

    def row(self) -> dict:
        return {**super().row(), "left": self.left, "left_octets": self.left_octets}


class User:
    """days: {number of a day: Day}, in order as far as the log is; addresses: up to MOST_OF_USER of them."""

    __slots__ = ("name", "days", "addresses", "last", "known")

    def __init__(self, name: str) -> None:
        self.name = name
        self.days: "dict[int, Day]" = {}
        self.addresses: "set[str]" = set()
        self.last = datetime.datetime.min
        self.known = False                   # whether he ever had a session

    def row(self) -> dict:
        """What is told of him: all counts, the mailbox, how it grew, how often he polls."""
        total = Counts()
        for day in self.days.values():
            total.add(day)
        measured = [(number, day) for number, day in sorted(self.days.items()) if day.left is not None]
        (first, begin), (last, end) = (measured[0], measured[-1]) if measured else ((0, Day()), (0, Day()))
        hours = sum(day.hours.bit_count() for day in self.days.values())
        grown = end.left_octets - begin.left_octets if measured else 0
        return {"user": self.name, **total.row(), "left": end.left, "left_octets": end.left_octets,
                "grown_octets": grown, "grown_days": last - first,
                "grown_octets_a_day": round(grown / (last - first)) if last > first else 0,
                "polls_an_hour": round(total.polls / hours, 1) if hours else 0.0,
                "addresses": len(self.addresses), "last": self.last}


class Address:
    """Where logins failed from. names: up to MOST_TRIED that were tried."""

    __slots__ = ("failures", "probes", "names", "last")

    def __init__(self) -> None:
        self.failures = self.probes = 0
        self.names: "set[str]" = set()
        self.last = datetime.datetime.min

    def row(self) -> dict:
        return {"failures": self.failures, "probes": self.probes, "names": len(self.names), "last": self.last}


class Sums:
    """Takes events in. first, last: when the first and the last of them were, None while there is none."""

    def __init__(self) -> None:
        self.users: "dict[str, User]" = {}
        self.strangers = 0                   # of the users, those without a session
        self.hours: "dict[tuple[int, int], Counts]" = {}             # by number of the day and hour
        self.visitors: "dict[int, set[str]]" = {}
        self.addresses: "dict[str, Address]" = {}
        self.pending: "collections.OrderedDict[str, int]" = collections.OrderedDict()
        self.first: "datetime.datetime | None" = None
        self.last: "datetime.datetime | None" = None
        self.estimated = 0                   # updates whose octets are an estimate
        self.forgotten = False               # whether a bound was met, and something is left out of lists

    def add(self, when: datetime.datetime, event) -> None:
        """Count an event (`logins.Event`) that happened then."""
        self.first = when if self.first is None or when < self.first else self.first
        self.last = when if self.last is None or when > self.last else self.last
        number, address = when.toordinal(), sys.intern(event.address)          # one string for all tables it is in
        user, day = self._day(event, number)
        user.last = max(user.last, when)
        places = (day, _of(self.hours, (number, when.hour), Counts))
        if event.kind in (FAILED, PROBE):
            for each in places:
                if event.kind == FAILED:
                    each.failures += event.count
                else:
                    each.probes += 1
            self._refused(when, event, address)
        else:
            new = self._is_new(event)
            for each in places:
                each.sessions += new
            if not user.known:
                user.known = True
                self.strangers -= 1
            if event.kind == UPDATE:
                self._updated(event, day, places, when.hour)
            if address and len(user.addresses) < MOST_OF_USER:
                user.addresses.add(address)
        if address:
            visitors = _of(self.visitors, number, set)
            if len(visitors) < MOST_DAILY:
                visitors.add(address)

    def _day(self, event, number: int) -> "tuple[User, Day]":
        user = self.users.get(event.user)
        if user is None:
            if self.strangers >= MOST_STRANGERS:
                self._forget_strangers()
            user = self.users[event.user] = User(event.user)
            self.strangers += 1
        return user, _of(user.days, number, Day)

    def _is_new(self, event) -> bool:
        """Whether an event is the first that is seen of its session."""
        if event.kind == LOGIN:
            if event.session:
                self.pending[event.session] = self.pending.pop(event.session, 0) + 1
                if len(self.pending) > MOST_PENDING:
                    self.pending.popitem(last=False)
            return True
        waiting = self.pending.pop(event.session, 0)
        if waiting > 1:
            self.pending[event.session] = waiting - 1
        return bool(event.session) and not waiting

    def _updated(self, event, day: Day, places: "tuple[Counts, Counts]", hour: int) -> None:
        poll = event.deleted == 0 and event.left > 0
        for each in places:
            each.deleted += event.deleted
            each.deleted_octets += event.deleted_octets
            each.polls += poll
            each.polled_octets += event.left_octets * poll
        day.left, day.left_octets = event.left, event.left_octets
        day.hours |= poll << hour
        self.estimated += event.estimated

    def _refused(self, when: datetime.datetime, event, address: str) -> None:
        if address not in self.addresses and len(self.addresses) >= MOST_ADDRESSES:
            self.forgotten = True
            _keep_half(self.addresses, lambda known: known.failures + known.probes)
        known = _of(self.addresses, address, Address)
        if event.kind == FAILED:
            known.failures += event.count
        else:
            known.probes += 1
        if len(known.names) < MOST_TRIED:
            known.names.add(event.user)
        known.last = max(known.last, when)

    def _forget_strangers(self) -> None:
        """Of names that never logged in keep the half that was tried most."""
        strangers = {name: user for name, user in self.users.items() if not user.known}
        names = set(strangers)
        _keep_half(strangers, lambda user: sum(day.failures + day.probes for day in user.days.values()))
        for name in names - strangers.keys():
            del self.users[name]
        self.strangers = len(strangers)
        self.forgotten = True

    # -- what is told --------------------------------------------------------------------------------------------------

    def totals(self) -> dict:
        """All counts; users: those with a session; left, left_octets: in all mailboxes."""
        total = Counts()
        for counts in self.hours.values():
            total.add(counts)
        rows = self.user_rows()
        return {"users": len(self.users) - self.strangers, **total.row(),
                "left": sum(row["left"] or 0 for row in rows),
                "left_octets": sum(row["left_octets"] or 0 for row in rows)}

    def user_rows(self) -> "list[dict]":
        return [user.row() for user in self.users.values()]

    def day_rows(self) -> "list[dict]":
        """One for each day on which something happened. left: in all mailboxes that had a session up to then."""
        counts: "dict[int, Counts]" = {}
        for (number, _), hour in self.hours.items():
            _of(counts, number, Counts).add(hour)
        told: "dict[int, list[tuple[str, Day]]]" = {number: [] for number in counts}
        for user in self.users.values():
            for number, day in user.days.items():
                told[number].append((user.name, day))
        nothing = Day()
        nothing.left = nothing.left_octets = 0
        latest: "dict[str, Day]" = {}
        left = octets = 0
        rows = []
        for number in sorted(counts):
            for name, day in told[number]:
                if day.left is not None:
                    before = latest.get(name, nothing)
                    left, octets = left + day.left - before.left, octets + day.left_octets - before.left_octets
                    latest[name] = day
            rows.append({"day": datetime.date.fromordinal(number),
                         "users": sum(day.sessions > 0 for _, day in told[number]), **counts[number].row(),
                         "left": left, "left_octets": octets, "addresses": len(self.visitors.get(number, ()))})
        return rows

    def hour_rows(self) -> "list[dict]":
        """One for each hour of a day in which something happened."""
        return [{"day": datetime.date.fromordinal(number), "hour": hour, **counts.row()}
                for (number, hour), counts in sorted(self.hours.items())]

    def clock_rows(self) -> "list[dict]":
        """One for each hour of the clock: the hours of all days together."""
        found = [Counts() for _ in range(24)]
        for (_, hour), counts in self.hours.items():
            found[hour].add(counts)
        return [{"hour": f"{hour:02}", **counts.row()} for hour, counts in enumerate(found)]

    def week(self, name: str = "polls") -> "list[list[int]]":
        """One of COUNTS by day of the week, Monday first, and hour."""
        found = [[0] * 24 for _ in range(7)]
        for (number, hour), counts in self.hours.items():
            found[(number - 1) % 7][hour] += getattr(counts, name)
        return found

    def address_rows(self) -> "list[dict]":
        """Where logins failed from, most of them first."""
        rows = [{"address": name, **address.row()} for name, address in self.addresses.items()]
        return sorted(rows, key=lambda row: (-row["failures"], -row["probes"], row["address"]))


def _of(table: dict, key, make):
    """table[key], made when it is not there."""
    found = table.get(key)
    if found is None:
        found = table[key] = make()
    return found


def _keep_half(table: dict, weight) -> None:
    """Remove the lighter half of a table."""
    for key in sorted(table, key=lambda key: weight(table[key]))[:(len(table) + 1) // 2]:
        del table[key]


def by_users(rows: "list[dict]") -> "list[dict]":
    """Users with a session, those who fetched and deleted most first."""
    return sorted((row for row in rows if row["sessions"]),
                  key=lambda row: (-row["deleted_octets"], -row["sessions"], row["user"]))


def by_growth(rows: "list[dict]") -> "list[dict]":
    """Users whose mailboxes grew from the first day that told to the last."""
    return sorted((row for row in rows if row["grown_octets"] > 0), key=lambda row: (-row["grown_octets"], row["user"]))


def by_polling(rows: "list[dict]") -> "list[dict]":
    """Users who leave mail on the server, by what looking through it cost."""
    return sorted((row for row in rows if row["polls"]),
                  key=lambda row: (-row["polled_octets"], -row["polls"], row["user"]))


def by_size(rows: "list[dict]") -> "list[dict]":
    """Users by the size of their mailboxes."""
    return sorted((row for row in rows if row["left_octets"]), key=lambda row: (-row["left_octets"], row["user"]))
