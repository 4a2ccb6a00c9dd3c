"""popper: a POP3 server that stands where UCB popper or Qpopper stood."""

# A constant: reading it from package metadata costs 27 ms on every connection.
VERSION = "0.1.0"


def greeting(host: str) -> str:
    """What the first line says behind `+OK `; the same words as UCB popper's. Here, so that it needs no import."""
    return f"UCB Pop server (version {VERSION}) at {host} starting."
