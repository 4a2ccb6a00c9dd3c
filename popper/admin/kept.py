"""Rows that are kept on disk until all are known: to come in order, and with names that depend on the others."""

import pickle
import sqlite3


class Kept:
    """Rows (a dict each), each time they are gone through in the order of their places, and of their coming where
    these are the same. look(row) -> row: what is done to each as it is given out. To be closed.

    Memory does not grow with them: they are in a file that nobody sees, in the directory for temporary files.
    """

    def __init__(self, look=lambda row: row) -> None:
        self.look = look
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.execute("CREATE TABLE rows (number INTEGER PRIMARY KEY, place REAL, row BLOB)")
        self._database.execute("BEGIN")

    def __enter__(self) -> "Kept":
        return self

    def __exit__(self, *exception) -> None:
        self._database.close()

    def add(self, place: float, row: dict) -> None:
        self._database.execute("INSERT INTO rows (place, row) VALUES (?, ?)", (place, pickle.dumps(row, 5)))

    def __iter__(self):
        for row, in self._database.execute("SELECT row FROM rows ORDER BY place, number"):
            yield self.look(pickle.loads(row))
