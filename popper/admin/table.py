"""Tables for people: rows in, lines out, columns aligned by what they take on the screen. Knows no terminal.

Ours and no library's: what rich and tabulate add to this is not used here, and neither could be counted on, so that
this would have to exist beside them.
"""

import datetime
import itertools
import unicodedata

GAP = "  "
NARROWEST = 6                  # columns that a text keeps when the terminal is too narrow


def lines(titles: "dict[str, str]", rows, columns: "int | None" = None, mark: str = "…"):
    """Yield the title line and one line for each row, a dict; the rows are gone through twice.

    titles: {key in a row: title}, in order; columns: what the lines may take, or None for all they want; mark: what
    stands at the end of a text that was cut. Columns of numbers stand at the right and are never cut.
    """
    wanted, numbers = list(map(width, titles.values())), [False] * len(titles)
    for count, row in enumerate(rows):
        for at, key in enumerate(titles):
            value = row.get(key)
            wanted[at] = max(wanted[at], width(shown(value)))
            numbers[at] = (numbers[at] or not count) and (value is None or _is_number(value))
    if columns is not None:
        _narrow(wanted, numbers, columns)
    for cells in itertools.chain([titles.values()], ([shown(row.get(key)) for key in titles] for row in rows)):
        yield GAP.join(_fitted(text, *how, mark) for text, *how in zip(cells, wanted, numbers)).rstrip()


def shown(value) -> str:
    """A value as a cell: nothing that moves the cursor or hides text comes through."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime.datetime):
        return value.isoformat(" ", "seconds")
    return plain(str(value))


def plain(text: str) -> str:
    """Text with whatever is not printable as \\x0a, \\u202e."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else _escaped(ord(each)) for each in text)


def _escaped(code: int) -> str:
    if 0xDC80 <= code <= 0xDCFF:             # an octet of a file name that is no UTF-8
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"


def width(text: str) -> int:
    """Columns on the screen: two for wide characters, none for accents that combine."""
    if text.isascii():
        return len(text)
    return sum(_width(each) for each in text)


def _width(each: str) -> int:
    if unicodedata.category(each) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(each) in "WF" else 1


def cut(text: str, columns: int, mark: str = "…") -> str:
    """Text in so many columns at most, with a mark at its end when something is missing."""
    if width(text) <= columns:
        return text
    kept, room = "", columns - width(mark)
    for each in text:
        room -= _width(each)
        if room < 0:
            break
        kept += each
    return kept + mark


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _narrow(wanted: "list[int]", numbers: "list[bool]", columns: int) -> None:
    """Take from the widest text until all fits, or until no text can give any more."""
    texts = [at for at, number in enumerate(numbers) if not number]
    while sum(wanted) + len(GAP) * (len(wanted) - 1) > columns and texts:
        widest = max(texts, key=wanted.__getitem__)
        if wanted[widest] <= NARROWEST:
            return
        wanted[widest] -= 1


def _fitted(text: str, columns: int, number: bool, mark: str) -> str:
    text = cut(text, columns, mark)
    room = " " * (columns - width(text))
    return room + text if number else text + room
