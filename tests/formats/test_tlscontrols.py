"""control/tlspolicy, smtpauth, tlscafile and clientcert.pem, read or refused."""

from __future__ import annotations

import pytest

from qsend.core.errors import ConfigError
from qsend.core.tlspolicy import Level, Login, Rule
from qsend.formats.tlscontrols import TlsControls, parse_tls

CERT = b"-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----\n"
KEY = b"-----BEGIN EC PRIVATE KEY-----\nMII\n-----END EC PRIVATE KEY-----\n"


def test_absent_files_are_the_defaults() -> None:
    assert parse_tls({"me": b"x"}) == TlsControls()


def test_every_line() -> None:
    got = parse_tls(
        {
            "tlspolicy": b"# ours\nA.example:none\n.example:encrypt\n:may \n\n"
            b"[::1]:verify\nb.net:verify: MX.b.net, .c.net,192.0.2.1\n",
            "smtpauth": b"Relay.example:ann@x:pa:ss word\n#x\n[::1]:b:c\n",
            "tlscafile": CERT,
            "clientcert.pem": CERT + KEY,
        }
    )
    assert got.policies == {
        b"a.example": Rule(level=Level.NONE),
        b".example": Rule(level=Level.ENCRYPT),
        b"": Rule(level=Level.MAY),
        b"::1": Rule(level=Level.VERIFY),
        b"b.net": Rule(
            level=Level.VERIFY, names=(b"mx.b.net", b".c.net", b"192.0.2.1")
        ),
    }
    assert got.logins == {
        b"relay.example": Login(user=b"ann@x", password=b"pa:ss word"),
        b"::1": Login(user=b"b", password=b"c"),
    }
    assert (got.ca, got.cert) == (CERT, CERT + KEY)
    assert "pa:ss" not in repr(got)
    assert "PRIVATE" not in repr(got)


LEVELS = "expected one of none, may, encrypt, verify after the colon"
FAULTS = [
    ("tlspolicy", b"a.example\n", 1, "expected a colon after the destination"),
    ("tlspolicy", b"a:may\n\nb:often\n", 3, LEVELS),
    ("tlspolicy", b"a:\n", 1, LEVELS),
    ("tlspolicy", b"a:MAY\n", 1, LEVELS),
    ("tlspolicy", b"[::1:may\n", 1, "expected a colon after the destination"),
    ("tlspolicy", b"a:may\nA:none\n", 2, "the destination has a line already"),
    ("tlspolicy", b"a:may:mx.a\n", 1, "only verify takes names"),
    ("tlspolicy", b"a:verify:\n", 1, "expected names, .suffixes or addresses"),
    ("tlspolicy", b"a:verify:x,*.y\n", 1, "expected names, .suffixes or addresses"),
    ("tlspolicy", b"a:may\0\n", 0, "found a NUL byte"),
    ("smtpauth", b"hush\n", 1, "expected a colon after the destination"),
    ("smtpauth", b"relay:hush\n", 1, "expected relay:user:password"),
    ("smtpauth", b"relay::hush\n", 1, "expected relay:user:password"),
    ("smtpauth", b"relay:hush:\n", 1, "expected relay:user:password"),
    ("smtpauth", b":hush:hush\n", 1, "expected relay:user:password"),
    ("smtpauth", b"a:b:hush\nA:b:hush\n", 2, "the relay has a line already"),
    ("smtpauth", b"a:b:" + b"hush" * 64, 1, "longer than 255 bytes"),
    ("tlscafile", b"", 0, "expected certificates in PEM"),
    ("clientcert.pem", CERT, 0, "expected a certificate and its private key"),
    ("clientcert.pem", KEY, 0, "expected a certificate and its private key"),
]


@pytest.mark.parametrize(("name", "content", "line", "problem"), FAULTS)
def test_fault_is_told_with_its_line(
    name: str, content: bytes, line: int, problem: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_tls({name: content})
    (fault,) = caught.value.faults
    assert (fault.file, fault.line) == (f"control/{name}", line)
    assert problem in fault.problem
    assert "hush" not in fault.problem


def test_faults_of_all_files_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_tls({"tlspolicy": b"x", "smtpauth": b"x", "tlscafile": b"x"})
    assert len(caught.value.faults) == 3
