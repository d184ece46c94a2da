"""The control files of POP3 and logins."""

from __future__ import annotations

import pytest

from qsend.core.errors import ConfigError
from qsend.formats.listeners import Listener
from qsend.formats.popcontrols import PopSettings, parse_pop

PEM = b"x\n-----BEGIN CERTIFICATE-----\n-----BEGIN EC PRIVATE KEY-----\n"


def test_without_files_nobody_listens() -> None:
    assert parse_pop({}) == PopSettings()
    assert PopSettings().listeners == ()


def test_all_files() -> None:
    files = {
        "pop3listen": b"# all\n0.0.0.0:110\n[::]:110 \n192.0.2.1:995 tls\n"
        b"[2001:db8::1]:995\ttls\n",
        "servercert.pem": PEM,
        "timeoutpop3d": b"600\n",
        "concurrencypop3d": b"50",
        "concurrencypop3dperip": b"3",
        "pop3plain": b"0",
        "systemlogins": b"1",
        "loglogins": b"0",
        "me": b"ignored",
    }
    settings = parse_pop(files)
    assert settings == PopSettings(
        listeners=(
            Listener(address="0.0.0.0", port=110),
            Listener(address="::", port=110),
            Listener(address="192.0.2.1", port=995, words=frozenset({"tls"})),
            Listener(address="2001:db8::1", port=995, words=frozenset({"tls"})),
        ),
        timeout_s=600,
        sessions_max=50,
        sessions_per_address=3,
        allows_plain=False,
        system_logins=True,
        log_logins=False,
        certificate=PEM,
    )
    assert "PRIVATE" not in repr(settings)


@pytest.mark.parametrize(
    ("files", "want"),
    [
        ({"pop3listen": b"110\n"}, "control/pop3listen:1: expected address:port"),
        ({"pop3listen": b"\npop.example:110\n"}, "control/pop3listen:2: expected"),
        ({"pop3listen": b"0.0.0.0:0\n"}, "control/pop3listen:1: expected"),
        ({"pop3listen": b"0.0.0.0:65536\n"}, "control/pop3listen:1: expected"),
        ({"pop3listen": b"::1:110\n"}, "control/pop3listen:1: expected"),
        ({"pop3listen": b"0.0.0.0:110 ssl\n"}, "control/pop3listen:1: expected"),
        ({"pop3listen": b"127.1.1.1:1\n127.1.1.1:1\n"}, "pop3listen:2: is there twice"),
        ({"pop3listen": b"127.1.1.1:1 tls\n"}, "there is no servercert.pem"),
        ({"servercert.pem": b""}, "has no CERTIFICATE"),
        ({"servercert.pem": PEM.replace(b"KEY", b"LOCK")}, "has no PRIVATE KEY"),
        ({"systemlogins": b"yes"}, "control/systemlogins:1: expected a number"),
        ({"loglogins": b"2"}, "expected a number from 0 to 1, found '2'"),
        ({"timeoutpop3d": b"0"}, "expected a number from 1 to 86400"),
        ({"concurrencypop3d": b""}, "expected a number from 1"),
        ({"pop3listen": b"".join(b"127.0.0.1:%d\n" % n for n in range(1, 99))},
         "more than 64 lines"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_told(files: dict[str, bytes], want: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_pop(files)
    assert want in str(caught.value)


def test_every_fault_is_told() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_pop({"pop3listen": b"x\ny\n", "loglogins": b"x", "servercert.pem": b""})
    assert len(caught.value.faults) == 5
