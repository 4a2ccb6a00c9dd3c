"""To whom bulletins go: the users who may log in, counted by how they stand to one."""

import os

from popper.admin import readers
from popper.admin.readers import DUE, HAD, LEFT_OUT, NEW, OUTSIDE, UNKNOWN, Reader

NAMED = 3                      # users that are named where many are meant


class Audience:
    """All who may log in, and a directory of bulletins."""

    def __init__(self, options, console, shelf) -> None:
        self.options = options
        self.console = console
        self.shelf = shelf

    def survey(self, group: "str | None" = None, who=None) -> "list[Reader]":
        """All who may log in, or these; with group_bulletins, whether they are in the group."""
        who = readers.accounts(self.options) if who is None else who
        with self.console.progress("asking for receipts", len(who)) as bar:
            return readers.survey(who, self.options, group if self.options.group_bulletins else None, bar.add)

    def newest(self) -> "set[int]":
        """The bulletins that somebody gets who logs in for the first time."""
        numbers = sorted({number for number, _ in self.shelf.bulletins()}, reverse=True)
        return set(numbers[:self.options.new_user_bulletins])

    def last_of(self, reader: Reader) -> int:
        """The number up to which a user has had bulletins, or will be taken to have had them at the first login."""
        if reader.receipt is not None:
            return reader.receipt
        newest = self.newest()
        return max((number for number, _ in self.shelf.bulletins() if number not in newest), default=0)

    def counts(self, number: int, who: "list[Reader]") -> "dict[str, int]":
        """{state: how many users have it}, for the states that somebody has."""
        newest = self.newest()
        states = [reader.outlook(number, newest) for reader in who]
        return {state: states.count(state) for state in (HAD, DUE, NEW, LEFT_OUT, OUTSIDE, UNKNOWN) if state in states}

    def forecast(self, number: int, who: "list[Reader]"):
        """Lines that say how many users stand how to a bulletin."""
        counts = self.counts(number, who)
        if not who or counts.get(UNKNOWN) == len(who) and os.geteuid() != 0:
            yield "users get it at their next login; how many they are " + (
                "is known to root only" if who else "cannot be seen, for nobody who may log in is listed")
            return
        for state, words in ((HAD, "had it, or were given a later number"), (DUE, "get it at their next login"),
                             (NEW, "get it at their first login"), (OUTSIDE, "are not in its group"),
                             (UNKNOWN, "could not be asked")):
            if state in counts or state == DUE:
                yield f"{counts.get(state, 0)} of {len(who)} users {words}"
        if LEFT_OUT in counts:
            most = self.options.new_user_bulletins
            yield (f"{counts[LEFT_OUT]} of {len(who)} users have no receipt yet: they count as new, and get "
                   f"{f'only the newest {most}' if most else 'none'} of the bulletins that are there when they log in; "
                   f"they get {'more' if most else 'the newest'} with a line \"new_user_bulletins {most + 1}\" in "
                   "popper.conf")


def ahead(who: "list[Reader]", last: int) -> "tuple[str, int]":
    """Who had bulletins above the last number, in words, and up to which; ("", 0): nobody."""
    found = [reader for reader in who if (reader.receipt or 0) > last]
    names = ", ".join(reader.user for reader in found[:NAMED])
    if len(found) > NAMED:
        names += f" and {len(found) - NAMED} more"
    return names, max((reader.receipt for reader in found), default=0)
