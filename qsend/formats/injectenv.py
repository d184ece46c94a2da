"""qmail-inject's options, environment and controls as one Request.

Must not read anything itself: bytes come in, a value goes out.
Source: qmail-inject.c main(), getcontrols(), mft_init(), dorecip();
qmail-inject(8).
"""

from __future__ import annotations

from qsend.core.address import quote, quote_local
from qsend.core.addresslist import Defaults, Tokens
from qsend.core.errors import PermFail
from qsend.core.inject import RecipSource, Request, Style, show_line
from qsend.core.light import TYPE_CHECKING, dataclass
from qsend.formats.controllines import lines, one_line
from qsend.formats.rfc822 import tokenize

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CONTROL_VARIABLES: Mapping[str, str] = {
    "defaultdomain": "QMAILDEFAULTDOMAIN",
    "defaulthost": "QMAILDEFAULTHOST",
    "plusdomain": "QMAILPLUSDOMAIN",
    "idhost": "QMAILIDHOST",
}
"""The controls of qmail-inject, each with the variable that overrides it."""

_USER = ("QMAILUSER", "MAILUSER", "USER", "LOGNAME")
_HOST = ("QMAILHOST", "MAILHOST")
_NAME = ("QMAILNAME", "MAILNAME", "NAME")
_LINE_BREAKS = bytes.maketrans(b"\r\n\0", b"   ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The command line; `sender` is None without -f."""

    recip_source: RecipSource
    sender: bytes | None
    recips: tuple[bytes, ...]


def control_value(name: str, content: bytes | None, me: bytes | None) -> bytes:
    """One control of qmail-inject: its first line, else that of me, else its name.

    Args:
        name: a key of CONTROL_VARIABLES.
        content: the control file; None when it is absent.
        me: control/me likewise.
    Raises: nothing.
    Source: control.c control_rldef().
    """
    for found in (content, me):
        if found is not None:
            return one_line(found)
    return name.encode()


def parse_letters(letters: bytes) -> Style:
    """The style that $QMAILINJECT asks for; unknown letters mean nothing."""
    return Style(
        name_as_comment=b"c" in letters,
        ignore_return_path=b"s" in letters,
        drop_from=b"f" in letters,
        drop_message_id=b"i" in letters,
        verp_recip=b"r" in letters,
        verp_message=b"m" in letters,
    )


def build_request(
    options: Options,
    variables: Mapping[str, bytes],
    controls: Mapping[str, bytes],
    followup_file: bytes | None,
) -> Request:
    """The Request of one run of qmail-inject.

    Args:
        options: the command line.
        variables: the environment; an empty value counts as set.
        controls: the value of each key of CONTROL_VARIABLES, from the control
            file or the variable.
        followup_file: content of the file that $QMAILMFTFILE names, or None.
    Raises: PermFail when a value cannot be part of a header or an address; a
        line break in the personal name becomes a blank instead.
    """
    user = _first(variables, _USER)
    host = _first(variables, _HOST)
    name = _first(variables, _NAME)
    if user is None:
        user = b"anonymous"
    sender_user = variables.get("QMAILSUSER", user)
    return Request(
        user=_parse("user name", user, quote_local(user)),
        host=_parse_host(host),
        name=None if name is None else name.translate(_LINE_BREAKS),
        sender_user=_checked("user name", sender_user),
        sender_host=_parse_host(variables.get("QMAILSHOST", host)),
        sender=None if options.sender is None else parse_address(options.sender),
        recips=_parse_recips(options),
        recip_source=options.recip_source,
        defaults=Defaults(
            host=_parse_control("defaulthost", controls),
            domain=_parse_control("defaultdomain", controls),
            plus=_parse_control("plusdomain", controls),
        ),
        idhost=_checked("idhost", controls["idhost"]),
        followup_lists=_followup_lists(followup_file),
        style=parse_letters(variables.get("QMAILINJECT", b"")),
    )


def parse_address(address: bytes) -> Tokens:
    """The tokens of one address given raw, its local part quoted where needed.

    `john doe` is one word; so is the local part of `a,b@h`. b"" gives ().

    Raises: PermFail when it cannot be one: NUL, CR or LF, or unbalanced brackets
        in the domain.
    Source: quote.c quote2(), qmail-inject.c dorecip().
    """
    written = quote(address) if b"@" in address or not address else quote_local(address)
    return _parse("address", address, written)


def _parse_recips(options: Options) -> tuple[Tokens, ...]:
    if options.recip_source is RecipSource.HEADER:
        return ()  # the arguments are ignored, also those that are no addresses
    return tuple(parse_address(recip) for recip in options.recips)


def _parse(what: str, shown: bytes, written: bytes) -> Tokens:
    try:
        return tokenize(written)
    except PermFail as exc:
        raise PermFail(f"unable to parse {what}: {show_line(shown)} ({exc})") from exc


def _parse_host(host: bytes | None) -> Tokens | None:
    return None if host is None else _parse("host name", host, host)


def _parse_control(name: str, controls: Mapping[str, bytes]) -> Tokens:
    return _parse(name, controls[name], controls[name])


def _checked(what: str, value: bytes) -> bytes:
    if any(byte in value for byte in b"\r\n\0"):
        raise PermFail(f"line break in {what}: {show_line(value)}")
    return value


def _first(variables: Mapping[str, bytes], names: Sequence[str]) -> bytes | None:
    return next((variables[name] for name in names if name in variables), None)


def _followup_lists(content: bytes | None) -> frozenset[bytes]:
    if content is None:
        return frozenset()
    return frozenset(line.lower() for _, line in lines(content))
