"""The mailbox of `make demo`: letters of invented people of a small harbour town, each odd in one way that a POP3
server has to bear. The same octets every time; all addresses are below example.org."""

import base64
import datetime
import quopri
from email.utils import format_datetime

DEMO = "demo@pop.example.org"
START = datetime.datetime(2024, 3, 4, 7, 52, 10, tzinfo=datetime.timezone.utc)
PACE = datetime.timedelta(hours=9, minutes=37, seconds=41)
MAREN = "Maren Holt <maren@ferry.example.org>"
TOBIAS = "Tobias Quill <tobias@press.example.org>"
INES = "Ines Okwuosa <ines@observatory.example.org>"
ARVID = "Arvid Lindqvist <arvid@rowing.example.org>"
PIETER = "Pieter van Aalst <pieter@bakery.example.org>"
LIBRARY = "Harbour Library <desk@library.example.org>"
ROOT = "root@pop.example.org (Cron Daemon)"
LIST = "Slow Mail <slowmail@lists.example.org>"
LIST_HEADERS = ("List-Id: Mail that takes its time <slowmail.lists.example.org>", "Precedence: list",
                "List-Post: <mailto:slowmail@lists.example.org>", f"Reply-To: {LIST}",
                "List-Unsubscribe: <https://lists.example.org/slowmail>,\n"
                "\t<mailto:slowmail-request@lists.example.org?subject=unsubscribe>")
LONG_LINE = ";".join(f"{n:05} {(n * 7919) % 613 / 100:.2f}" for n in range(9091))[:100_000]
PICTURE = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 120 80">
<rect width="120" height="80" fill="#cfe3ee"/><circle cx="96" cy="18" r="9" fill="#f2c14e"/>
<path d="M20 50h80l-12 16H32z" fill="#7a3b2e"/><path d="M58 12v36H30z" fill="#fff"/>
<path d="M62 12l24 36H62z" fill="#eee"/>
</svg>
"""


class Letter:
    """A message. what: what is odd about it. headers: lines beyond the usual ones."""

    def __init__(self, what, sender, subject, body, *headers, to=DEMO, charset="ascii", line_end="\n"):
        self.what, self.sender, self.subject, self.body, self.headers = what, sender, subject, body, headers
        self.to, self.charset, self.line_end = to, charset, line_end

    def address(self):
        return self.sender.partition("<")[2].rstrip(">") or self.sender.split()[0]

    def text(self, number):
        """The message as it lies in the mailbox, without envelope line and separator."""
        when, host = START + number * PACE, self.address().rpartition("@")[2]
        lines = [f"Received: from {host} (mail.{host} [192.0.2.{number}])\n"
                 f"\tby pop.example.org with ESMTP id d{number:05}\n\tfor <{DEMO}>; {format_datetime(when)}",
                 f"From: {self.sender}", f"To: {self.to}", f"Subject: {self.subject}", f"Date: {format_datetime(when)}",
                 f"Message-ID: <{number:04}.{when:%Y%m%d%H%M%S}@{host}>"]
        if any(header.startswith("Content-Type") for header in self.headers):
            lines.append("MIME-Version: 1.0")
        text = "\n".join((*lines, *self.headers, "", self.body))
        return text.replace("\n", self.line_end).encode(self.charset)

    def envelope(self, number):
        return f"From {self.address()} {(START + number * PACE).ctime()}\n".encode()


def plain(charset, encoding):
    return f"Content-Type: text/plain; charset={charset}", f"Content-Transfer-Encoding: {encoding}"


def parts(boundary, *pieces):
    """The body of a multipart message; a piece is its headers, an empty line, and its text."""
    return "".join(f"--{boundary}\n{piece}\n" for piece in pieces) + f"--{boundary}--\n"


def quoted(text, charset):
    return quopri.encodestring(text.encode(charset)).decode()


def in_base64(text, charset="utf-8"):
    return base64.encodebytes(text.encode(charset)).decode()


LETTERS = (
    Letter("Status: RO, it was read before", MAREN, "Keys to the boathouse", """\
The second key hangs behind the tide table now, not under the bucket.
Everybody knew about the bucket.

Maren
""", "Status: RO"),
    Letter("multipart/mixed with a picture and a table", INES, "Photograph (drawn) of Saturday's regatta", parts(
        "=_regatta", "Content-Type: text/plain; charset=us-ascii\n\n"
        "The camera fell into the harbour, so here is a drawing,\nand the times.\n\nInes\n",
        'Content-Type: image/svg+xml; name="regatta.svg"\nContent-Transfer-Encoding: base64\n'
        'Content-Disposition: attachment; filename="regatta.svg"\n\n' + in_base64(PICTURE),
        'Content-Type: text/csv; charset=us-ascii; name="times.csv"\n'
        'Content-Disposition: attachment; filename="times.csv"\n\n'
        "boat,minutes\nPuffin,31.5\nOld Reliable,44.0\nUnsinkable II,\n"),
        "Content-Type: multipart/mixed;\n\tboundary=\"=_regatta\"", "X-Mailer: Sextant 2.1"),
    Letter("quoted-printable, Latin-1", PIETER, "=?iso-8859-1?Q?Cr=E8me_br=FBl=E9e?=", quoted(
        "Il faut six jaunes, un demi-litre de crème et de la patience. Le four à 100°C = très doux, jamais davantage."
        "\n\nÀ table à huit heures; qui arrive après lave la vaisselle.\n\nPieter\n", "latin-1"),
        *plain("iso-8859-1", "quoted-printable")),
    Letter("base64, UTF-8", INES, "=?utf-8?B?zpcgzrTOuc6szrvOtc6+zrc=?=", in_base64(
        "Η διάλεξη για τους αστέρες αρχίζει στις εννέα το βράδυ, αν το επιτρέψει ο ουρανός.\n\n"
        "(The lecture on the stars begins at nine in the evening, if the sky allows.)\n"), *plain("utf-8", "base64")),
    Letter("8-bit UTF-8", ARVID, "=?utf-8?Q?Fr=C3=BCh_=E2=80=93_sehr_fr=C3=BCh?=", """\
Training ist morgen um ½6, „früh“ heißt: vor den Möwen.

Wer nicht rudert, kocht Kaffee ☕. Wer Kaffee kocht, muss nicht rudern.
Das hat letztes Mal zu einem Boot ohne Ruderer und elf Kannen geführt …

Arvid
""", *plain("utf-8", "8bit"), charset="utf-8"),
    Letter("8-bit Latin-1", ARVID, "=?iso-8859-1?Q?Vinterf=F6rvaring?=", """\
Båtarna tas upp på lördag. Ta med hammare, tjära och en smörgås.
Den som glömmer smörgåsen får äta tjära.

/Arvid
""", *plain("iso-8859-1", "8bit"), charset="latin-1"),
    Letter("a line of one dot", TOBIAS, "How to leave ed", """\
You asked how one gets out of insert mode. Like this:

  $ ed letter
  a
Dear Sir,
.
  w
  q

The line with nothing but a dot on it is the way out. If you can read
this one, your mail server is not confused by it.
.
Tobias
"""),
    Letter("lines that begin with dots", TOBIAS, "What is in your home directory", """\
I listed it for you, as root's cat sat on the keyboard anyway:

.
..
.exrc
.forward
...
.. surely not meant to be there ..
.profile

The three dots are a directory. It holds two recipes for herring.
"""),
    Letter("a line of 100,000 octets", INES, "Tide gauge, the whole year on one line", f"""\
The gauge knows commas, semicolons and centimetres, but no line ends.

{LONG_LINE}

That is all of it.
"""),
    Letter("format=flowed", MAREN, "The night ferry", """\
I have thought about the timetable again, and it seems to me that the 
night ferry should wait for the last train, even if the last train waits 
for nobody.

> The ferry must leave at 23:10, said the notice, and it must be 
> lit.

It may be lit at 23:25 as well.

-- 
Maren Holt
""", "Content-Type: text/plain; charset=us-ascii; format=flowed"),
    Letter("mailing list mail", TOBIAS, "[slowmail] Postcards as a transport", """\
A postcard has no envelope, no header and no size limit that matters.
It is delivered in order of weather. I propose that we use it for
everything that is not urgent, and then notice that nothing is.

Tobias
_______________________________________________
slowmail -- slowmail@lists.example.org
If it is urgent, it is not for this list.
""", *LIST_HEADERS, to=LIST),
    Letter("mailing list mail, a reply with many References", INES, "Re: [slowmail] Postcards as a transport", """\
Tobias Quill wrote:
> It is delivered in order of weather.

We have tried this at the observatory. The postcards that say "clear
sky tonight" arrive on rainy days, without exception.

Ines
""", *LIST_HEADERS, "In-Reply-To: <0012.20240309032422@press.example.org>",
           "References: " + "\n\t".join(f"<{n:04}.postcard.{n * n}@lists.example.org>" for n in range(1, 25)), to=LIST),
    Letter("a forwarded message with >From in it", ARVID, "Fwd: [PATCH] oars: count both sides", """\
This came from the club's programmer. Can you read it?

---------- Forwarded message ----------

>From 5b1e0c9d7f3a2468ace013579bdf02468ace1357 Mon Sep 17 00:00:00 2001
From: Lotte Brandt <lotte@rowing.example.org>
Date: Fri, 8 Mar 2024 11:02:54 +0000
Subject: [PATCH] oars: count both sides

---
 oars.c | 2 +-
 1 file changed, 1 insertion(+), 1 deletion(-)

diff --git a/oars.c b/oars.c
--- a/oars.c
+++ b/oars.c
@@ -12,3 +12,3 @@
-\treturn left;
+\treturn left + right;
--
2.39.2
"""),
    Letter("a forwarded message as an attachment", LIBRARY, "Fwd: A book that came back by itself", parts(
        "forwarded-by-the-desk", "Content-Type: text/plain\n\nWe thought that you should see this.\n",
        "Content-Type: message/rfc822\nContent-Disposition: inline\n\n"
        "From: Elsbeth Marr <elsbeth@lighthouse.example.org>\nTo: desk@library.example.org\n"
        "Subject: A book that came back by itself\nDate: Tue, 5 Mar 2024 19:20:00 +0000\n"
        "Message-ID: <book@lighthouse.example.org>\n\n"
        "Dear library,\n\nI lost your atlas overboard in 1987. It lay on the rocks this\n"
        "morning, dry, and opened at our harbour. What is the fine?\n\nElsbeth Marr, lighthouse\n"),
        'Content-Type: multipart/mixed; boundary="forwarded-by-the-desk"'),
    Letter("an empty body", MAREN, "Ferry cancelled, all said", ""),
    Letter("lines that end in CRLF in the mailbox", PIETER, "Bread for Friday", """\
This letter was written on another kind of computer; each of its lines
ends in two characters.

  3 loaves of rye
  1 loaf with raisins (for the cat, it insists)
. 12 rolls

Pieter
""", line_end="\r\n"),
    Letter("a To: of forty recipients, folded", ARVID, "Everybody who owes the club an oar", """\
You know who you are. So does everybody else now.

Arvid
""", to=",\n\t".join(f'"Member No. {n}" <member-{n:02}@rowing.example.org>' for n in range(1, 41))),
    Letter("multipart/alternative", LIBRARY, "New on the shelf", parts(
        "----=_NextPart_000", "Content-Type: text/plain; charset=us-ascii\n\n"
        "* Fog, a History\n* Rope for Beginners\n* A Short Book of Long Winters\n",
        "Content-Type: text/html; charset=us-ascii\nContent-Transfer-Encoding: quoted-printable\n\n" + quoted(
            '<html><body style="background:#fffdf5"><h1>New on the shelf</h1><ul><li>Fog, a History</li><li>Rope for '
            'Beginners</li><li>A Short Book of Long Winters</li></ul></body></html>\n', "ascii")),
        'Content-Type: multipart/alternative;\n boundary="----=_NextPart_000"'),
    Letter("multipart/digest", LIST, "[slowmail] Digest of this month, 2 messages", parts(
        "slow-digest", *(f"\nFrom: {who}\nTo: {LIST}\nSubject: {about}\nDate: Mon, 11 Mar 2024 0{n}:00:00 +0000\n"
                         f"Message-ID: <digest-{n}@lists.example.org>\n\n{says}\n"
                         for n, (who, about, says) in enumerate((
                             (TOBIAS, "Pigeons", "Has anybody measured one?"),
                             (MAREN, "Re: Pigeons", "About thirty centimetres."))))),
        'Content-Type: multipart/digest; boundary="slow-digest"', *LIST_HEADERS, to=LIST),
    Letter("a bounce, multipart/report", "Mail Delivery System <MAILER-DAEMON@pop.example.org>", "Returned to sender",
           parts("bounce.pop", "Content-Type: text/plain\n\nYour message could not be delivered:\n\n"
                 "  <captain@ferry.example.org>: the captain is at sea\n",
                 "Content-Type: message/delivery-status\n\nReporting-MTA: dns; pop.example.org\n\n"
                 "Final-Recipient: rfc822; captain@ferry.example.org\nAction: failed\nStatus: 4.2.1\n",
                 f"Content-Type: text/rfc822-headers\n\nFrom: {DEMO}\nTo: captain@ferry.example.org\nSubject: Soup?\n"),
           'Content-Type: multipart/report; report-type=delivery-status;\n\tboundary="bounce.pop"',
           "Auto-Submitted: auto-replied"),
    Letter("an invitation, text/calendar", MAREN, "Invitation: Painting the ferry", """\
BEGIN:VCALENDAR
VERSION:2.0
PRODID:-//Ferry Office//Wall Calendar//EN
METHOD:REQUEST
BEGIN:VEVENT
UID:painting-2024@ferry.example.org
DTSTAMP:20240312T080000Z
DTSTART:20240323T090000Z
SUMMARY:Painting the ferry (bring old clothes)
ORGANIZER:mailto:maren@ferry.example.org
ATTENDEE:mailto:demo@pop.example.org
END:VEVENT
END:VCALENDAR
""", "Content-Type: text/calendar; method=REQUEST; charset=us-ascii"),
    Letter("a stored X-UIDL: and Status: O", PIETER, "Left by an older server", """\
This message was downloaded once through another server, which wrote
down the name it gave it. The name is kept.
""", "X-UIDL: 3f1c0a9b5e7d2846aa55cc33ee119977", "Status: O"),
    Letter("a paragraph that begins with From", LIBRARY, "Opening hours", """\
Dear readers,

From Monday on the library opens at ten. It closes when the last reader
has reached the end of a chapter.

From time to time we shall be closed for fog.

The desk
"""),
    Letter("clear-signed text, with escaped dashes", TOBIAS, "The recipe, sealed", """\
-----BEGIN SEALED MESSAGE-----

- -- Salt the herring.
- -- Wait until Advent.
- -- Do not tell Arvid.
-----END SEALED MESSAGE-----
"""),
    Letter("a subject of several encoded words", INES,
           "=?utf-8?Q?Sonnenfinsternis=2C_=C3=A9clipse=2C_?=\n =?utf-8?Q?za=C4=87mienie=2C_?=\n\t=?utf-8?B?5pel6aOf?=",
           """\
On the eighth of April, but not here. We shall look at pictures of it
and be quiet for four minutes.
"""),
    Letter("Japanese in ISO-2022-JP", INES, "=?iso-2022-jp?B?GyRCRTdKOEJmGyhC?=", """\
天文台からこんにちは。
今夜は月がとても明るいです。
""", *plain("iso-2022-jp", "7bit"), charset="iso2022_jp"),
    Letter("tabs, a form feed, spaces at line ends", ROOT, "Cron <root@pop> run-parts /etc/cron.weekly", """\
/etc/cron.weekly/count-gulls:
\tpier\t\t41
\tmast\t\t 3
\troof\t\tmany   
\x0c
/etc/cron.weekly/wind-clocks:
\ttower\t\twound
\tkitchen\t\tstopped at ten to three, as always  
""", "Auto-Submitted: auto-generated"),
    Letter("many levels of quoting", MAREN, "Re: Re: Re: Re: Soup", """\
>>>> Soup?
>>> Which soup?
>> The one with fish.
> They all have fish.
Then soup.

""" + "\n".join(" " * n + "~" * (40 - 2 * n) for n in range(0, 18, 3)) + "\n"),
    Letter("a long letter of short lines", ARVID, "The log of the Old Reliable", "".join(
        f"{hour:02}:{minute:02}  wind {(hour * 3 + minute) % 8}, {'rain' if (hour + minute) % 3 else 'sun'}, "
        f"{'all well' if hour % 5 else 'sandwich'}\n" for hour in range(24) for minute in (0, 15, 30, 45))),
    Letter("no newline at the end of the file", PIETER, "The end", """\
There is no line end behind the last word of this mailbox, because the
cat"""),
)


def welcome():
    """The first letter: what the others are, by number."""
    table = "".join(f"  {number:2}  {letter.what}\n" for number, letter in enumerate(LETTERS, 2))
    return Letter("", "The popper demo <postmaster@pop.example.org>", "Welcome", f"""\
Hello,

this mailbox belongs to a harbour town that does not exist. Its people
write ordinary letters; what is odd about each of them is this:

{table}
Delete as you like: each `make demo` begins with all of them.
""")


def letters():
    """All letters, as they lie in the mailbox: (envelope line, text)."""
    return [(letter.envelope(number), letter.text(number)) for number, letter in enumerate((welcome(), *LETTERS), 1)]


def mailbox():
    """The octets of the mailbox: envelope, text, an empty line, and so on; nothing behind the last letter."""
    return b"\n".join(envelope + text for envelope, text in letters())
