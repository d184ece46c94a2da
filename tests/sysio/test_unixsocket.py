"""Listening and connecting at paths of any length, with exact modes."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from qsend.core.errors import Fatal
from qsend.core.model import Account
from qsend.sysio.unixsocket import connect_to, listen_at


def speak(path: str) -> bytes:
    with connect_to(path) as client:
        client.send(b"hello")
        return client.recv(10)


def serve(listener: socket.socket) -> None:
    conn, _ = listener.accept()
    with conn:
        conn.send(conn.recv(10).upper())


@pytest.mark.parametrize("depth", [0, 120])
def test_client_reaches_listener_at_any_length(tmp_path: Path, depth: int) -> None:
    directory = tmp_path / ("d" * depth)
    directory.mkdir(exist_ok=True)
    path = str(directory / "x.sock")
    with listen_at(path, 0o600) as listener, connect_to(path) as client:
        client.send(b"hello")
        serve(listener)
        assert client.recv(10) == b"HELLO"
    with pytest.raises(ConnectionRefusedError):
        speak(path)


def test_stale_socket_is_replaced(tmp_path: Path) -> None:
    path = str(tmp_path / "x.sock")
    listen_at(path, 0o600).close()
    with listen_at(path, 0o600):
        connect_to(path).close()


@pytest.mark.root
def test_mode_and_owner_are_set(tmp_path: Path) -> None:
    path = str(tmp_path / "x.sock")
    with listen_at(path, 0o660, Account(uid=64001, gid=64002)):
        found = os.stat(path)
    assert (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (64001, 64002, 0o660)


def test_missing_directory_is_told(tmp_path: Path) -> None:
    with pytest.raises(Fatal, match=r"cannot listen at .*/no/x.sock: No such file"):
        listen_at(str(tmp_path / "no/x.sock"), 0o600)


def test_nobody_there_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        connect_to(str(tmp_path / "x.sock"))
