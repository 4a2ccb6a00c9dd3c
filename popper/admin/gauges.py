"""What the daemon says of itself in Prometheus' text format: names begin with `popper_server_`, as those without
`server` are of what `popperctl stats` sums up out of logs."""

from popper.admin.table import plain

COUNTERS = {                   # key of the daemon's counters: (name, what it counts)
    "connections": ("connections", "Connections accepted."),
    "logins": ("logins", "Logins that came in."),
    "denied": ("logins_denied", "Logins denied."),
    "received": ("received_bytes", "Octets received of clients."),
    "sent": ("sent_bytes", "Octets sent to clients."),
}
STATES = ("LOGIN", "OPENING", "TRANSACTION", "UPDATE")
KINDS = ("address", "name")


def text(now: dict) -> bytes:
    """now: an answer of `Control.status`, or {"state": "not running"}."""
    return "".join(line + "\n" for line in _lines(now)).encode()


def _lines(now: dict):
    runs = now["state"] != "not running"
    yield from _metric("up", "gauge", "Whether the server runs.", [("", int(runs))])
    if not runs:
        return
    yield from _metric("info", "gauge", "The version that runs.", [(_label("version", now["version"]), 1)])
    yield from _metric("start_time_seconds", "gauge", "When it was started.", [("", now["since"])])
    yield from _metric("ending", "gauge", "Whether it only waits for its last sessions.",
                       [("", int(now["state"] == "ending"))])
    states = {**dict.fromkeys(STATES, 0), **_counted(now["sessions"], "state")}
    yield from _metric("sessions", "gauge", "Sessions.", [(_label("state", each), states[each]) for each in states])
    yield from _metric("strangers", "gauge", "Connections before login.", [("", now["strangers"])])
    yield from _metric("logins_waiting", "gauge", "Logins held back.", [("", now["waiting"])])
    held_back = [each for each in now["guessers"] if each.get("wait", 0) > 0]
    kinds = {**dict.fromkeys(KINDS, 0), **_counted(held_back, "kind")}
    yield from _metric("guessers", "gauge", "Guessers held back.",
                       [(_label("kind", each), kinds[each]) for each in kinds])
    yield from _metric("limit", "gauge", "Limits by the directive that sets them; 0: none.",
                       [(_label("directive", name), value) for name, value in now["limits"].items()])
    counters = now["counters"]
    for key, (name, what) in COUNTERS.items():
        yield from _metric(f"{name}_total", "counter", what, [("", counters.get(key, 0))])
    yield from _metric("turned_away_total", "counter", "Connections turned away, by the limit they met.",
                       [(_label("limit", name), value) for name, value in counters.get("turned_away", {}).items()])


def _metric(name: str, kind: str, what: str, samples):
    if samples:
        yield f"# HELP popper_server_{name} {what}"
        yield f"# TYPE popper_server_{name} {kind}"
        yield from (f"popper_server_{name}{label} {value}" for label, value in samples)


def _label(name: str, value: str) -> str:
    return '{%s="%s"}' % (name, plain(value).replace("\\", "\\\\").replace('"', '\\"'))


def _counted(rows, key: str) -> "dict[str, int]":
    found: "dict[str, int]" = {}
    for row in rows:
        value = row.get(key, "unknown")
        found[value] = found.get(value, 0) + 1
    return found
