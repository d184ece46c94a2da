from __future__ import annotations

import pytest

from qsend.core.errors import ConfigError
from qsend.formats.qmtpcontrols import QmtpdSettings, parse_qmtpd


def test_nothing_said_means_no_service() -> None:
    settings = parse_qmtpd({})
    assert settings == QmtpdSettings()
    assert (settings.qmtp, settings.qmqp) == ((), ())


def test_all_of_it() -> None:
    settings = parse_qmtpd(
        {
            "qmtplisten": b"# all\n0.0.0.0:209\n[::]:209\n",
            "qmqplisten": b"10.0.0.1:628\n",
            "databytes": b"1000\n",
            "timeoutqmtpd": b"60\n",
            "concurrencyqmtpd": b"7\n",
            "concurrencyqmtpdperip": b"3\n",
        }
    )
    assert [str(each) for each in settings.qmtp] == ["0.0.0.0:209", "[::]:209"]
    assert [str(each) for each in settings.qmqp] == ["10.0.0.1:628"]
    assert (settings.databytes, settings.timeout_s) == (1000, 60)
    assert (settings.sessions_max, settings.sessions_per_address) == (7, 3)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("qmtplisten", b"209\n"),
        ("qmtplisten", b"0.0.0.0:209 tls\n"),
        ("qmqplisten", b"host.example:628\n"),
        ("timeoutqmtpd", b"0\n"),
        ("concurrencyqmtpd", b"many\n"),
        ("databytes", b"-1\n"),
    ],
)
def test_fault_names_its_file(name: str, content: bytes) -> None:
    with pytest.raises(ConfigError, match=f"control/{name}"):
        parse_qmtpd({name: content})
