"""control/sqlserver: every way to write it, and every fault with its line."""

from __future__ import annotations

import pytest

from qsend.core.errors import ConfigError
from qsend.formats.sqlserver import SQLSERVER_MAX, SqlServer, parse_sqlserver

EXAMPLE = b"server localhost\nlogin user\npassword password\ndb qmail\n"


def server(**changes: object) -> SqlServer:
    values: dict[str, object] = {
        "host": "localhost",
        "login": "user",
        "password": "password",
        "db": "qmail",
        **changes,
    }
    return SqlServer(**values)  # type: ignore[arg-type] # as the class has them


def faults(content: bytes) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_sqlserver(content)
    return [str(fault) for fault in caught.value.faults]


def test_example() -> None:
    assert parse_sqlserver(EXAMPLE) == (server(),)
    assert parse_sqlserver(EXAMPLE.rstrip()) == (server(),)


@pytest.mark.parametrize(
    "separator", [b" ", b"=", b"\t", b" = ", b"\t=\t", b"  ", b"= ", b" ="]
)
def test_separator_is_white_space_or_equals(separator: bytes) -> None:
    assert parse_sqlserver(EXAMPLE.replace(b" ", separator)) == (server(),)


def test_blank_lines_comments_indents_and_crlf() -> None:
    content = b"# comment\r\n\r\n  " + EXAMPLE.replace(b"\n", b"\r\n") + b" \t\n#"
    assert parse_sqlserver(content) == (server(),)


@pytest.mark.parametrize(
    ("line", "password"),
    [
        (b"password pass # word", "pass # word"),
        (b"password #secret", "#secret"),
        (b"password=a=b c", "a=b c"),
        (b"password a=b", "a=b"),
        (b"password ==", "="),
        (b"password = # =", "# ="),
        (b"password two  blanks  ", "two  blanks  "),
        (b"password \xc3\xa4", "\u00e4"),
        (b"password=", ""),
        (b"password", ""),
    ],
)
def test_value_is_the_rest_of_the_line(line: bytes, password: str) -> None:
    content = EXAMPLE.replace(b"password password", line)
    assert parse_sqlserver(content) == (server(password=password),)


def test_port_or_socket() -> None:
    assert parse_sqlserver(EXAMPLE + b"port 3309\n") == (server(port=3309),)
    got = parse_sqlserver(EXAMPLE + b"socket /tmp/mysql.sock\n")
    assert got == (server(socket="/tmp/mysql.sock"),)


def test_several_servers_keep_their_order() -> None:
    got = parse_sqlserver(b"server b\nserver=a\n" + EXAMPLE + b"port 1\n")
    assert [each.host for each in got] == ["b", "a", "localhost"]
    assert {(each.port, each.login) for each in got} == {(1, "user")}


def test_of_several_servers_the_socket_is_that_of_localhost() -> None:
    got = parse_sqlserver(b"server b\n" + EXAMPLE + b"socket /s\n")
    assert [(each.host, each.socket) for each in got] == [
        ("b", None),
        ("localhost", "/s"),
    ]


@pytest.mark.parametrize(
    ("content", "want"),
    [
        (b"port 1\nsocket /s\n", ["control/sqlserver:6: port and socket exclude"]),
        (b"user x\n", ["control/sqlserver:5: expected one of server, login"]),
        (b"=x\n", ["control/sqlserver:5: expected one of server, login"]),
        (b"db other\n", ["control/sqlserver:5: db again, it is already in line 4"]),
        (b"port http\n", ["control/sqlserver:5: expected a port from 1 to 65535"]),
        (b"port 0\n", ["control/sqlserver:5: expected a port from 1 to 65535"]),
        (b"port 65536\n", ["control/sqlserver:5: expected a port from 1 to 65535"]),
        (b"port\n", ["control/sqlserver:5: port has no value"]),
        (b"socket s\n", ["control/sqlserver:5: expected the absolute path"]),
        (b"server \n", ["control/sqlserver:5: server has no value"]),
        (b"port 1\xff\n", ["control/sqlserver:5: the value of port is not UTF-8"]),
        (b"server a\0b\n", ["control/sqlserver:5: the value of server has a NUL"]),
        (
            b"x\ny 1\n",
            ["control/sqlserver:5: expected one of", "control/sqlserver:6: expected"],
        ),
    ],
)
def test_fault_has_its_line(content: bytes, want: list[str]) -> None:
    got = faults(EXAMPLE + content)
    assert len(got) == len(want)
    assert all(fault.startswith(start) for fault, start in zip(got, want, strict=True))


@pytest.mark.parametrize("key", ["server", "login", "password", "db"])
def test_missing_key(key: str) -> None:
    kept = [line for line in EXAMPLE.split(b"\n") if not line.startswith(key.encode())]
    assert faults(b"\n".join(kept)) == [f"control/sqlserver: no {key} line"]


def test_empty_file_misses_all() -> None:
    assert len(faults(b"")) == 4


def test_too_long_file() -> None:
    assert faults(b"#" * (SQLSERVER_MAX + 1)) == [
        f"control/sqlserver: longer than {SQLSERVER_MAX} bytes"
    ]


def test_no_fault_and_no_repr_shows_a_password() -> None:
    assert "password'" not in repr(parse_sqlserver(EXAMPLE))
    secret = EXAMPLE.replace(b"password password", b"password x\nS3cret! y")
    assert "S3cret" not in "".join(faults(secret))
    twice = EXAMPLE + b"password S3cret\n"
    assert "S3cret" not in "".join(faults(twice))
