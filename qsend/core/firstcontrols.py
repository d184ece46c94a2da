"""The control files of a machine that has none, from its name alone.

Source: config-fast.sh; config-fast.
"""

from __future__ import annotations

from qsend.core.errors import ConfigError, ConfigFault

_NAME_MAX = 253
_LABEL = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789-")


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
    name = text.rstrip(".").lower()
    labels = name.encode("ascii", "replace").split(b".")
    if len(labels) < 2 or len(name) > _NAME_MAX or not all(map(_is_label, labels)):
        problem = (
            f"expected a full host name such as mail.example.org, found {text[:80]!r}"
        )
        raise ConfigError([ConfigFault(file="--me", line=0, problem=problem)])
    return name.encode()


def _is_label(label: bytes) -> bool:
    return 0 < len(label) <= 63 and _LABEL.issuperset(label) and label[:1] != b"-"
