"""The lines of qmail-qread, byte for byte."""

from __future__ import annotations

import pytest

from qsend.core.model import Channel, MessId
from qsend.formats.qread import render_recip, render_summary, render_warning


@pytest.mark.parametrize(
    ("birth", "sender", "bouncing", "want"),
    [
        (0, b"", False, b"1 Jan 1970 00:00:00 GMT  #7  12  <> \n"),
        (
            951827699,
            b"joe@x.org",
            True,
            b"29 Feb 2000 12:34:59 GMT  #7  12  <joe@x.org>  bouncing\n",
        ),
        (
            2**31,
            b"a\tb\xe9\x7f~@x",
            False,
            b"19 Jan 2038 03:14:08 GMT  #7  12  <a_b__~@x> \n",
        ),
        (-1, b"a", False, b"31 Dec 1969 23:59:59 GMT  #7  12  <a> \n"),
        (10**12, b"a", False, b"31 Dec 9999 23:59:59 GMT  #7  12  <a> \n"),
    ],
)
def test_summary_line(birth: int, sender: bytes, bouncing: bool, want: bytes) -> None:
    line = render_summary(MessId(7), birth, 12, sender, is_bouncing=bouncing)
    assert line == want


@pytest.mark.parametrize(
    ("channel", "recip", "done", "want"),
    [
        (Channel.LOCAL, b"a@x", False, b"\tlocal\ta@x\n"),
        (Channel.LOCAL, b"a@x", True, b"  done\tlocal\ta@x\n"),
        (Channel.REMOTE, b"a\nb@x", True, b"  done\tremote\ta_b@x\n"),
    ],
)
def test_recipient_line(
    channel: Channel, recip: bytes, done: bool, want: bytes
) -> None:
    assert render_recip(channel, recip, is_done=done) == want


def test_warning_line() -> None:
    line = render_warning(MessId(7), "No such file or directory")
    assert line == b"warning: trouble with #7: No such file or directory\n"
