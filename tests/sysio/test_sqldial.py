from __future__ import annotations

import gc
import socket
import warnings
from pathlib import Path

import pymysql
import pytest

from qsend.sysio.sqldial import dial
from tests.mariadb import Database


def test_socket_without_a_listener_leaves_nothing_open(tmp_path: Path) -> None:
    path = str(tmp_path / "sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
    for missing in (path, path + "2"):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with pytest.raises(pymysql.err.OperationalError, match=missing):
                dial(missing, 3, user="u")
            gc.collect()
        assert caught == []


def test_server_is_reached_by_its_socket(database: Database) -> None:
    connection = dial(
        str(database.server.socket_path),
        3,
        user=database.login,
        password=database.password,
        database=database.name,
    )
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 + 1")
        assert cursor.fetchall() == ((2,),)
    connection.close()
