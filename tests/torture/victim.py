"""Delete messages of a mailbox, as QUIT does: victim.py MAILBOX CHUNK NUMBER...

Killed, or made to fail, at one system call after the other. What comes before the update is told from the update by
a system call that nothing else makes.
"""

import os
import sys

from popper.errors import Broken, Refused
from popper.storage import redo
from popper.storage.locks import SpoolLocks
from popper.storage.mbox import Mbox

path, chunk, *numbers = sys.argv[1:]
redo.CHUNK, redo.PIECE = int(chunk), min(int(chunk), redo.PIECE)
store = Mbox(path, SpoolLocks(path), lock_timeout=0)
store.locks.session()
entries = store.scan()
os.getpriority(os.PRIO_PROCESS, 0)           # the marker
try:
    store.commit([entries[int(number) - 1] for number in numbers])
    print("done")
except (Refused, Broken) as trouble:
    print("refused", trouble)
store.close()
