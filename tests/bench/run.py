"""make bench: popper's speed on this machine, now, beside others: ratios, taken in turns in one run.

    run.py [--peers DIR] [--strict] [--only GROUP]

Alone, popper is measured beside the least Python that does as much. DIR has the scripts of other servers
(run_peers.sh, peers/NAME.sh, popload.py); they need root, and make users pop0001 and up. --strict: exit status 1 when
a floor is missed.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from itertools import count
from operator import attrgetter
from pathlib import Path

from client import Fetch, Login, Samples, clock, greeting, poll
from mailboxes import SHAPES, mailbox
from servers import OTHERS, TREE, Bare, DaemonPopper, Inetd, Other, Popper, Python, SystemPopper, one_line, set_up_others
from updates import DELETED, Moving, Update, Watch, disk

GREETINGS, FETCHES, ORDINARY, LOGINS, POLLS, UPDATES = 60, 15, 5, 5, 30, 11       # rounds
DOVECOT, TUNED, POPA3D = "dovecot-mbox", "dovecot-tuned", "popa3d-inetd"
QUICK = "quick acks,"
FIRST_USER = 31                              # of the users that run_peers.sh makes; one for each server
GROUPS = ("greetings", "fetches", "ordinary", "polls", "logins", "updates", "daemons")
LOADS, SESSIONS, IDLE = 5, 300, 50           # rounds of popload, sessions in each; sessions that are held
CROWD = "pop0001..pop0020"                   # users of these


def whole(value: float) -> str:
    return f"{value:.0f}"


def milliseconds(value: float) -> str:
    return f"{value:.2f} ms"


def seconds(value: float) -> str:
    return f"{value * 1e3:.1f} ms"


class Wanted:
    """What a ratio or a value ought to be. floor: must; aim: should. `aim`: what a floor's value should be at most."""

    def __init__(self, kind: str, least: float = 0.0, most: float = float("inf"), unit: str = "",
                 aim: float = float("inf")) -> None:
        self.kind = kind
        self.least = least
        self.most = most
        self.aim = aim
        self.text = f"{kind} {'>= ' + str(least) if least else '<= ' + str(most)}{unit}"
        if aim < most:
            self.text += f", aim {aim}"

    def verdict(self, value: float) -> str:
        if not self.least <= value <= self.most:
            return "missed"
        return "met" if value <= self.aim else "met, aim missed"


class Table:
    """Prints rows as they come in, and remembers whether a floor was missed."""

    ROW = "{:<44} {:>9} {:>4}  {:<24} {:>9} {:>6}  {:<21} {}"

    def __init__(self) -> None:
        self.missed = False
        self._print("figure", "popper", "runs", "beside", "theirs", "ratio", "wanted", "verdict")

    def compare(self, figure: str, samples: Samples, popper: str, others, of=float, show=whole) -> None:
        """One figure of popper beside that of others, (name, Wanted or None) each; those not measured are left out."""
        head = (figure, show(samples.median(popper, of)), len(samples.of[popper]))
        for name, wanted in others:
            if name in samples.of:
                ratio = samples.ratio(popper, name, of)
                self._row(*head, name, show(samples.median(name, of)), f"{ratio:.2f}", wanted, ratio)
                head = ("", "", "")

    def alone(self, figure: str, value: float, text: str, runs: int, wanted: "Wanted | None") -> None:
        self._row(figure, text, runs, "", "", "", wanted, value)

    def _row(self, figure, text, runs, name, theirs, ratio, wanted, value) -> None:
        verdict = wanted.verdict(value) if wanted else ""
        self.missed |= verdict == "missed" and wanted.kind == "floor"
        self._print(figure, text, runs, name, theirs, ratio, wanted.text if wanted else "", verdict)

    def _print(self, *cells) -> None:
        print(self.ROW.format(*cells).rstrip(), flush=True)


class Bench:
    """The contenders, started, and one method for each group of figures."""

    def __init__(self, place: Path, scripts: "Path | None", stack: ExitStack) -> None:
        self.place = place
        self.scripts = scripts
        self.stack = stack
        self.pythons = Python.all()
        self.launchers = [python.install(place) for python in self.pythons]
        self.table = Table()
        if scripts:
            self.mailboxes = {name: OTHERS / "tpl" / f"{name}.mbox" for name in ("fetch", "large", "big")}
            self.mailboxes["empty"] = mailbox(place, "empty")
        else:
            self.mailboxes = {name: mailbox(TREE / "build" / "bench", name) for name in SHAPES}
        self.poppers, self.others = [], []
        self.hasty = None                    # the first of the poppers once more, with `fsync no`

    def start(self) -> None:
        """Start everything but inetd."""
        numbers = count(FIRST_USER)
        self.poppers = [self._popper(*each, numbers) for each in zip(self.pythons, self.launchers)]
        self.hasty = self._popper(self.pythons[0], self.launchers[0], numbers, "fsync no")
        for python in self.pythons:
            self.others.append(self._kept(Bare(python, self.place / f"replies-{python.version}")))
        for name in (POPA3D, DOVECOT, TUNED) if self.scripts else ():
            self.others.append(self._kept(Other(name, self.scripts, next(numbers))))

    def _popper(self, python: Python, launcher: Path, numbers, directive: str = ""):
        if self.scripts:
            return self._kept(SystemPopper(python, launcher, self.scripts, next(numbers), self.place, directive))
        return self._kept(Popper(python, launcher, self.place, directive))

    def _kept(self, server):
        self.stack.callback(server.stop)
        return server

    def _fill(self, servers, name: str) -> None:
        for server in servers:
            server.fill(self.mailboxes[name])

    def greetings(self) -> None:
        programs = []
        for python, launcher in zip(self.pythons, self.launchers):
            programs.append((f"popper {python.version}", launcher))
            for flags in ("-I", "-IS"):
                name = f"python {flags} {python.version}"
                programs.append((name, one_line(self.place, name.replace(" ", ""), python, flags)))
        inetd = self._kept(Inetd(self.place, programs))
        samples = Samples(GREETINGS, inetd.services, greeting)
        for python in self.pythons:
            self.table.compare(
                f"connect to greeting, inetd, {python.version}", samples, f"popper {python.version}",
                [(f"python -I {python.version}", Wanted("floor", most=1.35)), (f"python -IS {python.version}", None)],
                show=seconds)

    def fetches(self) -> None:
        servers = self.poppers + self.others
        self._fill(servers, "fetch")
        self._check_alike()
        samples = Samples(FETCHES, servers, Fetch)
        for python in self.pythons:
            popper, bare = f"popper {python.version}", (f"bare Python {python.version}", None)
            self.table.compare(f"200 RETRs of 10 MB, MB/s, {python.version}", samples, popper,
                               [(DOVECOT, Wanted("floor", least=1.0)), (TUNED, Wanted("floor", least=1.0)),
                                (POPA3D, Wanted("aim", least=1.0)), bare], attrgetter("rate"))
            self.table.compare("  server CPU per MB of these", samples, popper,
                               [(DOVECOT, Wanted("floor", most=1.0)), (TUNED, Wanted("floor", most=1.0)),
                                (POPA3D, Wanted("aim", most=1.0)), bare], attrgetter("cpu_per_mb"), milliseconds)
            self.table.compare("  the same, start to end of session", samples, popper,
                               [(DOVECOT, Wanted("floor", most=1.0)), (TUNED, None),
                                (POPA3D, Wanted("aim", most=1.0)), bare], attrgetter("whole_cpu_per_mb"), milliseconds)

    def _check_alike(self) -> None:
        """What is fast must be right, too: popper and the bare Python send the same texts."""
        texts = {Fetch(server, compare=True).digest for server in self.poppers + self.others[:len(self.pythons)]}
        if len(texts) != 1:
            raise SystemExit("popper sent something else than what is in the mailbox")

    def ordinary(self) -> None:
        """Clients that delay their acknowledgements: the session as popload measures it, or ours."""
        if self.scripts:
            servers = self.poppers + [server for server in self.others if server.name in (DOVECOT, TUNED)]
            samples = Samples(ORDINARY, servers, self._popload)
        else:
            clients = [Ordinary(server) for server in self.poppers + self.others]
            clients += [Ordinary(server, QUICK, quick=True) for server in self.poppers]
            samples = Samples(FETCHES, clients, Ordinary.session)
        for python in self.pythons:
            self.table.compare(f"session, delayed acknowledgements, {python.version}", samples,
                               f"popper {python.version}",
                               [(DOVECOT, Wanted("floor", most=1.2)), (TUNED, Wanted("floor", most=1.2)),
                                (f"{QUICK} popper {python.version}", Wanted("floor", most=1.2)),
                                (f"bare Python {python.version}", None)], show=seconds)

    def _popload(self, server) -> float:
        """Median seconds of a few sessions; popload checks every reply and every message."""
        done = subprocess.run([sys.executable, self.scripts / "popload.py", "--port", str(server.port), "--users",
                               f"{server.user}..{server.user[3:]}", "--scenario", "fetch-all", "-n", "3"],
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        result = json.loads(done.stdout)
        if not result["pass"]:
            raise SystemExit(f"{server.name}: {result['violations'] or result['error_samples']}")
        return result["p50_ms"] / 1e3

    def logins(self) -> None:
        servers = self.poppers + [server for server in self.others if server.name == POPA3D]
        self._fill(servers, "big")
        size = self.mailboxes["big"].stat().st_size / 1e9
        reading = Reading(self.mailboxes["big"])
        samples = Samples(LOGINS, [*servers, reading], lambda each: each.read() if each is reading else Login(each))
        for server in self.poppers:
            version = server.name.removeprefix("popper ")
            for of, unit, wanted in (("seconds", "GB/s", Wanted("floor", least=1.0)), ("cpu", "GB/s of CPU", None)):
                rate = size / samples.median(server.name, attrgetter(of))
                self.table.alone(f"login, 20,000 messages, {unit}, {version}", rate, f"{rate:.2f}", LOGINS, wanted)
            self.table.compare("  seconds of it", samples, server.name, [(POPA3D, None), (Reading.name, None)],
                               attrgetter("seconds"), seconds)
            peak = samples.median(server.name, attrgetter("peak")) / 1e6
            self.table.alone("  peak memory", peak, f"{peak:.1f} MB", LOGINS, Wanted("floor", most=40, unit=" MB"))

    def polls(self) -> None:
        servers = self.poppers + self.others
        self._fill(servers, "empty")
        samples = Samples(POLLS, servers, poll)
        for python in self.pythons:
            self.table.compare(f"poll of an empty mailbox, sessions/s, {python.version}", samples,
                               f"popper {python.version}",
                               [(name, None) for name in (DOVECOT, TUNED, POPA3D, f"bare Python {python.version}")],
                               lambda seconds: 1 / seconds)

    def daemons(self) -> None:
        """Servers that listen by themselves, polled one after the other and four at once; then sessions that sit there."""
        if not self.scripts:
            print("not measured without other servers: the daemon")
            return
        numbers = count(FIRST_USER + 20)
        ours = [self._kept(DaemonPopper(*each, self.scripts, next(numbers), self.place))
                for each in zip(self.pythons, self.launchers)]
        others = [self._kept(Other(name, self.scripts, next(numbers))) for name in ("popa3d", DOVECOT, TUNED)]
        wanted = [("popa3d", Wanted("aim", least=1.0)), (DOVECOT, Wanted("floor", least=2.0)), (TUNED, None)]
        costs = [("popa3d", Wanted("aim", most=1.0)), (DOVECOT, Wanted("floor", most=0.5)), (TUNED, None)]
        for at_once in 1, 4:
            samples = Samples(LOADS, ours + others, lambda server: Load(
                self, server, "poll-empty", "-n", str(SESSIONS), "-c", str(at_once), "--warmup", "1"))
            for server in ours:
                version = server.name.split()[-1]
                self.table.compare(f"daemon, empty polls/s, {at_once} at once, {version}", samples, server.name, wanted,
                                   attrgetter("sessions_per_s"))
                self.table.compare("  server CPU of a session", samples, server.name, costs,
                                   attrgetter("cpu_ms_per_session"), milliseconds)
                self.table.compare("  milliseconds to the end of QUIT", samples, server.name,
                                   [(name, None) for name, _ in wanted], attrgetter("p50_ms"), milliseconds)
        samples = Samples(1, ours + others, lambda server: Load(
            self, server, "idle", "-n", str(IDLE), "--hold", "1", "--users", "pop0001..pop0050"))
        for server in ours:
            self.table.compare(f"memory of an idle session, KB (PSS), {server.name.split()[-1]}", samples, server.name,
                               [("popa3d", None), (DOVECOT, Wanted("aim", most=1.0)), (TUNED, None)],
                               attrgetter("pss_kb_per_session"))

    def updates(self) -> None:
        """QUITs that delete. popa3d and Dovecot as it comes (mail_fsync = optimized) sync, but keep no record."""
        synced, moving = self.poppers[0], self._kept(Moving(self.poppers[0].path.parent))
        others = [server for server in self.others if server.name in (DOVECOT, POPA3D)]
        print(f"QUIT, of 2,000 messages in 100 MB, on {disk(synced.path.parent)}; octets left are right")
        for name, choose in DELETED.items():
            update = Update(self.mailboxes["large"], choose)
            samples = Samples(UPDATES, [synced, self.hasty, *others, moving],
                              lambda each: each.session(update) if each is moving else update.session(each))
            floor = Wanted("floor", most=2.0, aim=1.0) if name == "first 10" else None
            aim = Wanted("aim", most=1.0) if name == "first 10" else None
            figure = f"QUIT, {name} deleted, {update.octets // 1000} KB, {self.pythons[0].version}"
            for figure, popper, wanted in (figure, synced, floor), ("  the same, fsync no", self.hasty, aim):
                self.table.compare(figure, samples, popper.name,
                                   [(DOVECOT, wanted), (POPA3D, wanted), (Moving.name, None)], show=seconds)
            watch = Watch(synced)
            update.session(synced, watch)
            self.table.alone("  peak memory of the session", watch.peak / 1e6, f"{watch.peak / 1e6:.1f} MB", 1, None)
            self.table.alone("  its record, at most", watch.record / 1e6, f"{watch.record / 1e6:.3f} MB", 1, None)


class Load:
    """What popload finds out about a server; it checks every reply."""

    def __init__(self, bench: Bench, server, scenario: str, *more: str) -> None:
        done = subprocess.run([sys.executable, bench.scripts / "popload.py", "--port", str(server.port), "--users", CROWD,
                               "--cgroup", str(server.cgroup), "--scenario", scenario, *more],
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.found = json.loads(done.stdout)
        if not self.found["pass"]:
            raise SystemExit(f"{server.name}: {self.found['violations'] or self.found['error_samples']}")

    def __getattr__(self, name: str) -> float:
        return self.found[name]


class Ordinary:
    """A client of a server that delays its acknowledgements, as all do, or, quick, does not."""

    def __init__(self, server, how: str = "", quick: bool = False) -> None:
        self.name = f"{how} {server.name}".lstrip()
        self.server = server
        self.quick = quick

    def session(self) -> float:
        return Fetch(self.server, self.quick).whole


class Reading:
    """Reading a file and nothing else, in pieces as popper does: what a login cannot be faster than."""

    name = "reading alone"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seconds = 0.0

    def read(self) -> "Reading":
        begun = clock()
        with open(self.path, "rb", 0) as file:
            while file.read(131072):
                pass
        self.seconds = clock() - begun
        return self


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="measure popper beside others")
    parser.add_argument("--peers", type=Path, help="directory of the scripts of other servers")
    parser.add_argument("--only", choices=GROUPS, action="append", help="one group of figures; may be given again")
    parser.add_argument("--strict", action="store_true", help="exit status 1 when a floor is missed")
    return parser.parse_args()


def main() -> int:
    wanted = arguments()
    scripts = wanted.peers and wanted.peers.resolve()
    if scripts and os.geteuid() != 0:
        raise SystemExit("other servers are started by root only")
    if scripts:
        set_up_others(scripts)
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}; ratio: popper's by theirs, round by round")
    with tempfile.TemporaryDirectory(prefix="popper-bench.") as name, ExitStack() as stack:
        os.chmod(name, 0o755)
        bench = Bench(Path(name), scripts, stack)
        groups = wanted.only or GROUPS
        if not shutil.which("inetd"):
            print("not measured, there is no inetd: connect to greeting")
        elif "greetings" in groups:
            bench.greetings()
        if not shutil.which("tcpserver"):
            print("not measured, there is no tcpserver: everything else")
        elif set(groups) != {"greetings"}:
            if set(groups) != {"daemons"}:
                bench.start()
            for group in GROUPS[1:]:
                if group in groups:
                    getattr(bench, group)()
    return 1 if wanted.strict and bench.table.missed else 0


if __name__ == "__main__":
    sys.exit(main())
