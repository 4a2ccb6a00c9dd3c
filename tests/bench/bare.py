"""The least that a Python program can do out of inetd: it greets, agrees to everything, and answers RETR from a file of
ready replies. What popper is measured beside where there is no other server. Not a server: it knows no mailbox."""

import _socket
import os
import sys

with open(sys.argv[1], "rb") as replies, open(sys.argv[1] + ".json", "rb") as index:
    offsets = [int(offset) for offset in index.read().strip(b"[]").split(b",")]
    connection = _socket.socket(fileno=0)
    connection.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
    os.write(1, b"+OK bare\r\n")
    while line := connection.recv(512):
        word, _, number = line.rstrip().partition(b" ")
        if word == b"RETR":
            begin, end = offsets[int(number) - 1:int(number) + 1]
            octets = memoryview(os.pread(replies.fileno(), end - begin, begin))
            while octets:
                octets = octets[os.write(1, octets):]
        elif word == b"STAT":
            os.write(1, b"+OK %d %d\r\n" % (len(offsets) - 1, offsets[-1]))
        else:
            os.write(1, b"+OK\r\n")
        if word == b"QUIT":
            os._exit(0)
