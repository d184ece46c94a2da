"""The control files of a machine that has none, from its name alone.

Source: config-fast.sh; config-fast.
"""

from __future__ import annotations

from qsend.core.errors import ConfigError, ConfigFault

_NAME_MAX = 253
_LABEL = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789-")


def add_line(content: bytes, line: bytes) -> bytes:
    """A list with one line more at its end, unless it has that line."""
    if line.lower() in map(bytes.lower, content.split(b"\n")):
        return content
    end = b"" if content[-1:] in (b"", b"\n") else b"\n"
    return b"%b%b%b\n" % (content, end, line)


def first_controls(me: bytes) -> dict[str, bytes]:
    """Name to content of the files that config-fast makes for the host `me`.

    >>> first_controls(b"mx.a.example")["plusdomain"]
    b'a.example\\n'
    """
    labels = me.split(b".")
    is_deep = len(labels) >= 3
    line = me + b"\n"
    return {
        "me": line,
        "defaultdomain": b".".join(labels[1:]) + b"\n" if is_deep else line,
        "plusdomain": b".".join(labels[-2:]) + b"\n" if is_deep else line,
        "locals": line,
        "rcpthosts": line,
    }


def check_host_name(text: str) -> bytes:
    """A fully qualified host name in lower case.

    Raises: ConfigError when it is none.
    """
    name = text.rstrip(".").lower().encode("ascii", "replace")
    if b"." not in name or not is_host_name(name):
        problem = (
            f"expected a full host name such as mail.example.org, found {text[:80]!r}"
        )
        raise ConfigError([ConfigFault(file="--me", line=0, problem=problem)])
    return name


def is_host_name(name: bytes) -> bool:
    """Whether it is one label or more as host names have, in lower case."""
    return len(name) <= _NAME_MAX and all(map(_is_label, name.split(b".")))


def _is_label(label: bytes) -> bool:
    return 0 < len(label) <= 63 and _LABEL.issuperset(label) and label[:1] != b"-"
