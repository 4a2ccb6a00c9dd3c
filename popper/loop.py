"""A loop that waits for descriptors and for dates. Whoever watches a descriptor says what is to be done."""

import heapq
import select
import time

IN, OUT = select.POLLIN, select.POLLOUT      # epoll's have the same values


class Loop:
    """until() -> whether it is over, asked after each turn. limit() -> a further date, or None."""

    def __init__(self) -> None:
        epoll = getattr(select, "epoll", None)           # whose cost does not grow with those that are silent
        self.poll = epoll() if epoll else select.poll()
        self.scale = 1 if epoll else 1000
        self.readers: dict = {}              # descriptor: what is to be done when it can be read
        self.writers: dict = {}
        self.dates: "list[tuple]" = []       # heap of (when, number, what)
        self.dated = 0

    def run(self, until, limit=lambda: None) -> None:
        while not until():
            for fd, event in self.poll.poll(self._wait(limit())):
                if event & OUT and fd in self.writers:
                    self.writers[fd]()
                if event & ~OUT and fd in self.readers:
                    self.readers[fd]()
            now = time.monotonic()
            while self.dates and self.dates[0][0] <= now:
                heapq.heappop(self.dates)[2]()

    def _wait(self, further: "float | None") -> "float | None":
        dates = [date for date in (self.dates[0][0] if self.dates else None, further) if date is not None]
        return max(0.0, min(dates) - time.monotonic()) * self.scale if dates else None

    def watch(self, fd: int, read) -> None:
        """Have something done whenever a descriptor can be read, or has been hung up."""
        self.readers[fd] = read
        self.poll.register(fd, IN)

    def when_writable(self, fd: int, write) -> None:
        """Have something done besides when a watched descriptor can be written to; None: no more."""
        if write is None:
            self.writers.pop(fd, None)
        else:
            self.writers[fd] = write
        if fd in self.readers:
            self.poll.modify(fd, IN if write is None else IN | OUT)

    def ignore(self, fd: int) -> None:
        """To be called before a descriptor is closed."""
        self.writers.pop(fd, None)
        if self.readers.pop(fd, None):
            self.poll.unregister(fd)

    def pause(self, source, seconds: float) -> None:
        """Watch no more for a while, unless it is closed meanwhile. source: has fileno(), -1 once it is closed."""
        fd = source.fileno()
        read = self.readers.get(fd)
        self.ignore(fd)

        def go_on() -> None:
            if read is not None and source.fileno() == fd and fd not in self.readers:
                self.watch(fd, read)

        self.after(seconds, go_on)

    def at(self, when: float, what) -> None:
        """Have something done at a time of the monotonic clock."""
        self.dated += 1
        heapq.heappush(self.dates, (when, self.dated, what))

    def after(self, seconds: float, what) -> None:
        self.at(time.monotonic() + seconds, what)
