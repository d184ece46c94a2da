"""The shown name of a certificate: of real ones, and of anything else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qsend.formats.certname import NAME_MAX, cert_name
from tests.certificates import Authority, der_of


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.mark.parametrize(
    ("names", "common", "want"),
    [
        (["DNS:mx.example.org", "DNS:b.example"], "x", b"mx.example.org"),
        (["IP:192.0.2.1", "DNS:b.example"], "x", b"b.example"),
        (["IP:192.0.2.1"], "common.example", b"common.example"),
        ([], "common.example", b"common.example"),
        (["DNS:" + "a" * 150], "x", b"a" * NAME_MAX),
        ([], "a b", b"a?b"),
    ],
)
def test_name_of_a_real_certificate(
    authority: Authority, names: list[str], common: str, want: bytes
) -> None:
    assert cert_name(der_of(authority.certify(*names, common=common))) == want


def test_every_cut_and_every_changed_byte_gives_some_name(authority: Authority) -> None:
    der = der_of(authority.certify("DNS:mx.example.org"))
    for at in range(len(der)):
        for bad in (der[:at], der[:at] + bytes([der[at] ^ 0xFF]) + der[at + 1 :]):
            name = cert_name(bad)
            assert name
            assert all(33 <= byte <= 126 for byte in name)


@given(st.binary(max_size=300))
def test_anything_has_a_name(data: bytes) -> None:
    assert 1 <= len(cert_name(data)) <= NAME_MAX
    assert cert_name(b"\x30\x82\x01\x00" + data)
