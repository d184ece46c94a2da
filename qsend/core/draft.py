r"""A message that filters may still change: its envelope, its header, its body.

    >>> fields, at = parse_header(b"Subject: hi\n\nbody\n", is_all=True)
    >>> draft = Draft(sender=b"joe@here.example", recips=[b"ann@far.example"],
    ...               fields=fields, body=b"body\n")
    >>> apply(draft, AddField(name=b"X-Seen", value=b"yes"), keeps_space=False)
    >>> draft.header()
    b'Subject: hi\nX-Seen: yes\n\n'

Source: libmilter's smfi_addheader and its like; Postfix's cleanup_milter.c.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from qsend.core.errors import RemoteProtocolError
from qsend.core.milterwords import (
    AddField,
    AddRecipient,
    ChangeField,
    Edit,
    InsertField,
    NewBody,
    NewSender,
    Quarantine,
    RemoveRecipient,
)
from qsend.core.smtpdpath import parse_argument

HEADER_MAX = 1 << 20
"""Bytes of a header that filters are shown, and that each may add to it."""
FIELDS_MAX = 10_000
"""Fields of a header that filters are shown."""
RECIPS_MAX = 10_000
"""Recipients that a message may come to have."""

_NAME = re.compile(rb"([!-9;-~]+)[ \t]*:")
_UNFOLDED = re.compile(rb"\n(?![ \t])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """`raw` is all of it, as in the message, with its last LF."""

    name: bytes
    raw: bytes

    def value(self, keeps_space: bool) -> bytes:
        """What follows the colon; lines end in LF, the last without."""
        value = self.raw.partition(b":")[2][:-1]
        return value if keeps_space else value.lstrip(b" \t")


def parse_header(text: bytes, *, is_all: bool) -> tuple[list[Field], int] | None:
    """The fields that `text` begins with, and where the body does.

    A line that is neither field nor continuation belongs to the body.

    Args:
        is_all: whether nothing comes behind `text`.
    Returns: None when the header may go on behind the end of `text`.
    """
    starts: list[tuple[int, bytes]] = []
    at = after = 0
    while True:
        end = text.find(b"\n", at) + 1
        if not end:
            if not is_all:
                return None
            after = at
            break
        if text.startswith(b"\n", at):
            after = end
            break
        name = _NAME.match(text, at, end)
        if name:
            starts.append((at, name[1]))
        elif not starts or text[at] not in b" \t":
            after = at
            break
        at = end
    bounds = [start for start, _ in starts] + [at]
    fields = [
        Field(name=name, raw=text[start:stop])
        for (start, name), stop in zip(starts, bounds[1:], strict=True)
    ]
    return fields, after


Body = TypeVar("Body")


@dataclass(slots=True, kw_only=True)
class Draft(Generic[Body]):
    """One message; `body` is whatever stands for what follows its header.

    `quarantine` is why a filter wants it kept from its recipients, None: it does not.
    """

    sender: bytes
    recips: list[bytes]
    fields: list[Field]
    body: Body
    quarantine: bytes | None = None

    def copy(self) -> Draft[Body]:
        """Another one, that may be changed without changing this."""
        return replace(self, recips=list(self.recips), fields=list(self.fields))

    def header(self) -> bytes:
        """All fields, and the empty line that ends them."""
        return b"".join(each.raw for each in self.fields) + b"\n"


def render_field(name: bytes, value: bytes, *, keeps_space: bool) -> Field:
    """A field with its value as a filter gives it.

    What is no continuation becomes one: a value stays a value.
    Raises: RemoteProtocolError.
    """
    if _NAME.fullmatch(name + b":") is None:
        raise RemoteProtocolError(f"no name of a field: {name[:40]!r}")
    lines = value.replace(b"\r\n", b"\n").replace(b"\r", b" ").strip(b"\n")
    folded = _UNFOLDED.sub(b"\n\t", lines)
    blank = b"" if keeps_space else b" "
    return Field(name=name, raw=b"%b:%b%b\n" % (name, blank, folded))


def apply(draft: Draft[Body], edit: Edit, *, keeps_space: bool) -> None:
    """Change `draft` as a filter says; a new body is not for here.

    Args:
        keeps_space: whether values come with the blank behind the colon.
    Raises: RemoteProtocolError when it makes no sense, or too much of it.
    """
    match edit:
        case AddField() | InsertField() | ChangeField():
            _edit_header(draft.fields, edit, keeps_space)
        case AddRecipient(address=address):
            recip = _address(address)
            if recip not in draft.recips:
                draft.recips.append(recip)
        case RemoveRecipient(address=address):
            recip = _address(address)
            draft.recips = [each for each in draft.recips if each != recip]
        case NewSender(address=address):
            draft.sender = _address(address)
        case Quarantine(reason=reason):
            draft.quarantine = reason
        case NewBody():
            raise RemoteProtocolError("new body in the wrong place")
    if len(draft.recips) > RECIPS_MAX:
        raise RemoteProtocolError("too many recipients")


def _edit_header(
    fields: list[Field],
    edit: AddField | InsertField | ChangeField,
    keeps_space: bool,
) -> None:
    made = render_field(edit.name, edit.value, keeps_space=keeps_space)
    if isinstance(edit, AddField):
        fields.append(made)
        return
    if isinstance(edit, InsertField):
        fields.insert(edit.index, made)
        return
    wanted = edit.name.lower()
    found = [at for at, each in enumerate(fields) if each.name.lower() == wanted]
    place = found[edit.index - 1] if edit.index <= len(found) else None
    if not edit.value:
        if place is not None:
            del fields[place]
    elif place is None:
        fields.append(made)
    else:
        fields[place] = made


def _address(given: bytes) -> bytes:
    """The address in `<...>`, or without brackets. Raises: RemoteProtocolError."""
    text = given.strip(b" ")
    if not text.startswith(b"<"):
        text = b"<%b>" % text
    try:
        argument = parse_argument(text)
    except ValueError:
        argument = None
    if argument is None:
        raise RemoteProtocolError(f"no address: {given[:60]!r}")
    return argument.address
