"""What a mailbox is to look like after an update: pure arithmetic over segments of octets."""

from _bisect import bisect_right

MAILBOX, RECORD, PARCEL = range(3)           # where octets come from: itself, the record, what an older popper left


class Plan:
    """What a file is to hold from octet `front` on: segments (origin, begin, end), one behind the other.

    Those of MAILBOX come in the order in which they stand there.
    """

    def __init__(self, segments: "list[tuple[int, int, int]]", front: int) -> None:
        self.segments = segments
        self.front = front
        self.targets = []                    # where each segment is to begin
        for _, begin, end in segments:
            self.targets.append(front)
            front += end - begin
        self.end = front

    def pieces(self, to: int, length: int):
        """(origin, offset, count) of what is to stand in `length` octets from `to` on, in order."""
        index = bisect_right(self.targets, to) - 1
        while length:
            origin, begin, end = self.segments[index]
            offset = begin + to - self.targets[index]
            count = min(end - offset, length)
            if count:
                yield origin, offset, count
            to += count
            length -= count
            index += 1

    def room_below(self, to: int) -> int:
        """How wide a step from `to` upwards may be without overwriting octets of the mailbox that are still wanted."""
        index = bisect_right(self.targets, to) - 1
        for origin, begin, end in self.segments[index:]:
            if origin == MAILBOX and self.targets[index] + end - begin > to:
                return begin + max(0, to - self.targets[index]) - to
            index += 1
        return self.end - to

    def room_above(self, to: int) -> int:
        """The same for a step that ends at `to`, where octets move up."""
        for index in range(bisect_right(self.targets, to - 1) - 1, -1, -1):
            origin, begin, end = self.segments[index]
            if origin == MAILBOX and begin < end:
                return to - min(end, begin + to - self.targets[index])
        return to - self.front


def removing(entries, gone, scanned: int, size: int) -> "tuple[list[tuple[int, int]], int]":
    """How to take the entries `gone` out of `entries`, which end at `scanned` in a file of `size` octets: the runs
    (begin, end) that stay behind the first of them, and where the first run goes."""
    ends = {entry.offset: after for entry, after in
            zip(entries, [later.offset for later in entries[1:]] + [scanned])}
    holes = sorted((entry.offset, ends[entry.offset]) for entry in gone)
    return [(begin, end) for (_, begin), (end, _) in zip(holes, holes[1:] + [(size, size)]) if begin < end], holes[0][0]


def inserting(changes: "list[tuple[int, int, bytes]]", size: int) -> "tuple[list[tuple[int, int, int]], int, bytes]":
    """(segments, front, literal) for changes (offset, octets that go there, octets that come instead), in order."""
    segments, literal, at = [], b"", changes[0][0]
    for offset, count, octets in changes:
        segments += [(MAILBOX, at, offset), (RECORD, len(literal), len(literal) + len(octets))]
        literal += octets
        at = offset + count
    return [segment for segment in segments + [(MAILBOX, at, size)] if segment[1] < segment[2]], changes[0][0], literal
