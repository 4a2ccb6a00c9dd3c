"""From what somebody wrote to a bulletin: a mailbox of exactly one message (RFC 5322, 2045, 2047). Pure.

Text becomes the body of a new message. What is a message already keeps its fields and, where it has MIME fields, its
body octet for octet; fields that it lacks are put behind the others.
"""

import email
import email.errors
import email.headerregistry
import email.policy
import email.utils
import re
import unicodedata
from email.header import Header
from email.message import EmailMessage

from popper.storage.scan import NotMailbox, is_envelope, scan

LINE_MOST = 998                # octets of a line that mail programs must take (RFC 5322.2.1.1)
FOLDED = 74                    # octets of a line of quoted-printable or of a header: two less than is allowed
SLUG_MOST = 40                 # characters of a file's name that come out of its subject
BOM = b"\xef\xbb\xbf"

FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:(.*)", re.S)
# A text may begin "Attention: ...", so lines with a colon are a header only when one of these is among them.
KNOWN = frozenset((b"from", b"to", b"subject", b"date", b"message-id", b"mime-version", b"received", b"return-path"))
MIME = frozenset((b"mime-version", b"content-type", b"content-transfer-encoding"))
ADDRESSES = frozenset((b"from", b"sender", b"reply-to", b"to", b"cc"))
# What another mailbox noted on the message, and the length of a text that may get another one.
DROPPED = frozenset((b"status", b"x-status", b"x-uidl", b"content-length", b"lines"))

BELOW = "# ---- nothing from this line on is sent ----"
NOTE = f"""{BELOW}
#
# Who has had this bulletin does not get it again. No text: no change.
""".encode()
TEMPLATE = """\
Subject: {subject}
From: {sender}


{below}
#
# Write the text of the bulletin between the header and the line above, in
# UTF-8, and give it a subject. It goes to {audience}.
# No text: no bulletin.
"""


class Unfit(Exception):
    """What was written cannot be a bulletin; the text says why, and what to do."""


class Draft:
    """What was written. envelope: its envelope line, or b""; fields: (name in small letters, octets of the whole
    field), in order; body: octets."""

    def __init__(self, envelope: bytes, fields: "list[tuple[bytes, bytes]]", body: bytes) -> None:
        self.envelope = envelope
        self.fields = fields
        self.body = body

    @property
    def subject(self) -> str:
        """The subject, decoded, or ""."""
        return self.value(b"subject")

    def value(self, name: bytes) -> str:
        """The first field of that name, unfolded and decoded, or ""."""
        for known, octets in self.fields:
            if known == name:
                return decoded(octets)
        return ""

    @property
    def is_mime(self) -> bool:
        """Whether its header says what its body is."""
        return any(name in MIME and name != b"mime-version" for name, _ in self.fields)


def read(octets: bytes) -> Draft:
    """What was written, as text or as a message with or without envelope line. Raises Unfit when it has no text."""
    if b"\0" in octets:
        raise Unfit("there is a NUL in it: it is no text and no message")
    octets = octets.removeprefix(BOM).replace(b"\r\n", b"\n").lstrip(b"\n")
    first, _, rest = octets.partition(b"\n")
    header, body = _split(rest if octets.startswith(b"From ") else octets)
    if header is None and is_envelope(first):
        raise Unfit("behind its envelope line is no header: each line of one is NAME: TEXT, and an empty line ends it")
    names = {name for name, _ in header or ()}
    if header is not None and (is_envelope(first) or KNOWN & names):
        draft = Draft(first if is_envelope(first) else b"", header, body)
    else:
        draft = Draft(b"", [], octets)
    if not draft.body.strip():
        raise Unfit("there is a header and no text in it" if draft.fields else "there is no text in it")
    return draft


def _split(octets: bytes) -> "tuple[list[tuple[bytes, bytes]] | None, bytes]":
    """The fields of a header and what follows it; None: it does not begin with a header."""
    if octets.startswith(b"\n"):
        return [], octets[1:]
    header, _, body = octets.partition(b"\n\n")
    fields: "list[tuple[bytes, bytes]]" = []
    for line in header.removesuffix(b"\n").split(b"\n"):
        found = FIELD.match(line)
        if line[:1] in (b" ", b"\t") and fields:
            fields[-1] = fields[-1][0], fields[-1][1] + b"\n" + line
        elif found:
            fields.append((found[1].lower(), line))
        else:
            return None, octets
    return fields, body


def decoded(field: bytes) -> str:
    """The value of a field, unfolded, its encoded words decoded, or Unfit."""
    name, value = FIELD.match(field).groups()
    try:
        text = value.replace(b"\n", b"").strip().decode("utf-8")
    except UnicodeDecodeError:
        raise Unfit(f"the {name.decode()} line is not UTF-8") from None
    if "=?" not in text:
        return text
    try:
        return str(email.header.make_header(email.header.decode_header(text)))
    except (LookupError, ValueError, email.errors.HeaderParseError):
        return text


# -- a draft and what is asked for -> octets -------------------------------------------------------------------------

def compose(draft: Draft, number: int, host: str, now, subject: str = "", sender: str = "", group: str = "") -> bytes:
    """The bulletin: envelope line, header, body, lines ended by LF.

    now: an aware datetime. subject, sender: put in place of what the draft has. Raises Unfit.
    """
    asked = {b"subject": encoded("Subject", subject)} if subject else {}
    if sender:
        asked[b"from"] = b"From: " + address(sender, host)
    fields = [(name, asked.pop(name, None) or _ascii(octets)) for name, octets in draft.fields
              if name not in DROPPED and FIELD.match(octets)[2].strip()]
    body = draft.body.rstrip(b"\n") + b"\n"
    if not draft.is_mime:
        content, body = _content(_text(draft.body))
        fields = [field for field in fields if field[0] not in MIME]
    else:
        content = _missing_mime(fields, body)
    given = {name for name, _ in fields}
    if b"subject" not in given | asked.keys():
        raise Unfit("it has no subject")
    unique = f"bulletin.{number}.{now.strftime('%Y%m%d%H%M%S')}@{host}"
    lacking = {
        b"from": b"From: " + address(default_sender(host), host),
        b"to": b"To: " + (f"members of {group}:;" if group else "all users:;").encode(),
        b"subject": b"",
        b"date": b"Date: " + email.utils.format_datetime(now).encode(),
        b"message-id": f"Message-ID: <{unique}>".encode(),
    }
    fields += [(name, asked.get(name, octets)) for name, octets in lacking.items() if name not in given]
    envelope = draft.envelope or _envelope(fields, host, now)
    return b"\n".join([envelope, *(octets for _, octets in fields), *content, b"", body])


def count(octets: bytes) -> int:
    """How many messages a mailbox would have that had this in it; 1 for what is none, which the server says itself."""
    try:
        return len(list(scan(lambda most, at: octets[at:at + most], len(octets))))
    except NotMailbox:
        return 1


def default_sender(host: str) -> str:
    """Who a bulletin is from when nobody says: an address that every host has (RFC 5321.4.5.1)."""
    return f"Postmaster <postmaster@{host}>"


def _envelope(fields, host: str, now) -> bytes:
    """`From SENDER DATE`, the local time, as mailboxes have it."""
    found = _addresses(dict(fields)[b"from"].decode("ascii"))
    sender = found[0].addr_spec if found else ""
    if not re.fullmatch(r"[!-~]+", sender):
        sender = f"postmaster@{host}"
    return f"From {sender} {now.ctime()}".encode()


def _addresses(field: str) -> tuple:
    """The addresses of a field that is written as ASCII; none when it cannot be understood."""
    name, _, value = field.partition(":")
    try:
        found = email.headerregistry.HeaderRegistry()(name.strip(), " ".join(value.split()))
    except (IndexError, ValueError, AttributeError, email.errors.MessageError):
        return ()                            # the parser of the library trips over some that are no address at all
    old_style = email.errors.ObsoleteHeaderDefect
    return () if any(not isinstance(defect, old_style) for defect in found.defects) else found.addresses


def address(text: str, host: str) -> bytes:
    """One address, with or without a name, as it stands in a field; one without a domain is of this host."""
    if not _one_line(text):
        raise Unfit("the sender must be one line of UTF-8 text")
    full = text if "@" in text else f"{text[:-1]}@{host}>" if text.endswith(">") else f"{text}@{host}"
    found = _addresses("From: " + full)
    if len(found) != 1 or not re.fullmatch(r"[!-~]+", found[0].username):
        raise Unfit(f'"{text}" is not one address, such as "Postmaster <postmaster@{host}>"; '
                    'a name with a comma in it stands between quotation marks')
    spec = found[0].addr_spec
    if not re.fullmatch(r"[!-~]+@[!-?A-~]+", spec):
        raise Unfit(f'"{spec}" is not an address: it must be ASCII without blanks')
    name = found[0].display_name
    if name.isascii() and "=?" not in name:
        return email.utils.formataddr((name, spec)).encode()
    words = _words(name, "From")
    apart = " " if len(words.rpartition("\n")[2]) + len(spec) < FOLDED - len("From:  <>") else "\n "
    return f"{words}{apart}<{spec}>".encode()


def encoded(name: str, text: str) -> bytes:
    """The field `name: text`, folded, in encoded words where it must be (RFC 2047)."""
    if not _one_line(text):
        raise Unfit(f"the {name.lower()} must be one line of UTF-8 text")
    return f"{name}: {_words(text.strip(), name)}".encode()


def _one_line(text: str) -> bool:
    """Whether text may stand in a field: no control characters, no line ends, nothing that was not UTF-8."""
    return not any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in text)


def _words(text: str, name: str) -> str:
    charset = "us-ascii" if text.isascii() and "=?" not in text else "utf-8"
    return Header(text, charset, maxlinelen=FOLDED, header_name=name).encode()


def _ascii(field: bytes) -> bytes:
    """A field as it was written, or, where it is in raw UTF-8, in encoded words."""
    if field.isascii():
        return field
    name, _ = FIELD.match(field).groups()
    text = decoded(field)
    if name.lower() not in ADDRESSES:
        return encoded(name.decode(), text)
    found = _addresses("To: " + text)
    return name + b": " + b",\n ".join(address(str(each), "localhost") for each in found)


# -- the body --------------------------------------------------------------------------------------------------------

def _text(octets: bytes) -> str:
    """The body as text, or Unfit: it is not UTF-8."""
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError as error:
        line = octets.count(b"\n", 0, error.start) + 1
        raise Unfit(f"line {line} of the text is not UTF-8; iconv -f latin1 -t utf-8 may make it so") from None


def _content(text: str) -> "tuple[list[bytes], bytes]":
    """The MIME fields for a text, and its octets: as they are, or quoted-printable."""
    text = text.replace("\r", "\n").strip("\n") + "\n"
    message = EmailMessage(email.policy.default.clone(max_line_length=FOLDED))
    if _is_plain(text):
        message.set_content(text, charset="us-ascii", cte="7bit")
    else:
        message.set_content(text, charset="utf-8", cte="quoted-printable")
    # Nothing in a body may look like an envelope line.
    octets = re.sub(rb"^From ", b"=46rom ", message.get_payload().encode(), flags=0 if _is_plain(text) else re.M)
    return [f"{name}: {message[name]}".encode() for name in ("MIME-Version", "Content-Type",
                                                             "Content-Transfer-Encoding")], octets


def _is_plain(text: str) -> bool:
    """Whether a text can travel as it is."""
    lines = text.split("\n")
    return text.isascii() and all(len(line) <= LINE_MOST and not line.startswith("From ")
                                  and line.replace("\t", "").isprintable() for line in lines)


def _missing_mime(fields, body: bytes) -> "list[bytes]":
    """The MIME fields that a message with some of them lacks."""
    names = {name for name, _ in fields}
    lacking = [] if b"mime-version" in names else [b"MIME-Version: 1.0"]
    if not body.isascii() and b"content-transfer-encoding" not in names:
        lacking.append(b"Content-Transfer-Encoding: 8bit")
    return lacking


# -- names, templates ------------------------------------------------------------------------------------------------

def slug(subject: str) -> str:
    """What reminds of a subject in a file's name: small letters, digits, `_`; "bulletin" when nothing is left."""
    letters = unicodedata.normalize("NFKD", subject.replace("ß", "ss")).lower()
    words = re.findall("[a-z0-9]+", "".join(each for each in letters if unicodedata.category(each) != "Mn"))
    chosen = ""
    for word in words:
        if len(chosen) + 1 + len(word) > SLUG_MOST and chosen:
            break
        chosen = f"{chosen}_{word}" if chosen else word[:SLUG_MOST]
    return chosen or "bulletin"


def template(subject: str, sender: str, audience: str) -> bytes:
    """What the editor is started with for a new bulletin."""
    return TEMPLATE.format(subject=subject, sender=sender, audience=audience, below=BELOW).encode()


def without_comments(octets: bytes) -> bytes:
    """What stands above the line that ends what is sent."""
    above, mark, _ = (b"\n" + octets).partition(b"\n" + BELOW.encode())
    return above[1:] + b"\n" if mark else octets


def editable(octets: bytes) -> "bytes | None":
    """A bulletin as text to edit: subject, sender, empty line, text. None: it is more than text, and is edited as it
    stands."""
    try:
        draft, text = read(octets), plain_text(octets)
    except Unfit:
        return None
    return None if text is None else f"Subject: {draft.subject}\nFrom: {draft.value(b'from')}\n\n{text}".encode()


def plain_text(octets: bytes) -> "str | None":
    """The body of a bulletin when it is nothing but text, else None; Unfit when it is not what it seems."""
    draft = read(octets)
    if not draft.is_mime:
        return _text(draft.body)
    message = email.message_from_bytes(octets.partition(b"\n")[2], policy=email.policy.default)
    if message.get_content_type() != "text/plain" or message.is_multipart():
        return None
    try:
        text = message.get_content()
    except (LookupError, ValueError):
        return None
    return None if "\ufffd" in text else text


def readable(octets: bytes) -> str:
    """The text of a bulletin for reading, or what there is in its place."""
    text = plain_text(octets)
    if text is not None:
        return text.rstrip("\n")
    message = email.message_from_bytes(octets.partition(b"\n")[2], policy=email.policy.default)
    body = message.get_body(("plain", "html"))
    if body is None:
        return f"({message.get_content_type()})"
    try:
        return body.get_content().rstrip("\n")
    except LookupError:                      # an unknown charset
        return body.get_payload()


def revised(octets: bytes, edited: bytes) -> Draft:
    """The draft of a bulletin whose `editable` text was changed: date, message-id and the rest are the old ones."""
    old, new = read(octets), read(edited)
    changed = dict(new.fields)
    fields = [(name, changed.pop(name, field)) for name, field in old.fields if name not in MIME]
    return Draft(old.envelope, fields + [field for field in new.fields if field[0] in changed], new.body)
