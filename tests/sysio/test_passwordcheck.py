"""Stored passwords of every kind, right and wrong."""

from __future__ import annotations

import ctypes
import hashlib
import subprocess
import threading

import pytest

from qsend.core.errors import TempFail
from qsend.sysio import crypt3
from qsend.sysio.passwordcheck import check, check_apop

OPENSSL_6 = (
    b"$6$abcdefgh$ltjgWl6579NluT/Vi1nwEvcil.G5Nbc4NiXZaNGStk8PSwGfQv72N2CKPPrVACtLtip/"
    b"cZ/1GM/O6IND4WQhG."
)
OPENSSL_1 = b"$1$abcdefgh$cHJi5PXp/ki/ktXzqlk6I1"
METHODS = (
    "$y$", "$gy$", "$7$", "$2b$", "$2y$", "$2a$", "$6$", "$5$", "$sha1", "$md5", "$1$",
    "_",
)  # fmt: skip


@pytest.mark.parametrize(
    ("stored", "kind", "given"),
    [
        (b"secret", "Password", b"secret"),
        (b"sec\xffret %s' \"", "password", b"sec\xffret %s' \""),
        # Made by `openssl passwd`.
        (OPENSSL_6, "Crypt-Password", b"secret"),
        (OPENSSL_1, "crypt-password", b"secret"),
        # crypt(3) of V7, as in the tests of the C library.
        (b"kl.bVxHBAClgE", "Crypt-Password", b"secret"),
        (b"*2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19", "MySQL-Password", b"password"),
        (b"*2470c0c06dee42fd1618bb99005adca2ec9d1e19", "MySQL-Password", b"password"),
        # The example of the MySQL manual.
        (b"6f8c114b58f2ce9e", "MySQL-Password", b"mypass"),
        (b"6f8c114b58f2ce9e", "MySQL-Password", b"my\tpa ss"),
        (b"5D2E19393CC5EF67", "MySQL-Password", b"password"),
    ],
)
def test_right_password_is_told_from_wrong_ones(
    stored: bytes, kind: str, given: bytes
) -> None:
    assert check(stored, kind, given)
    for wrong in (b"", given[:-1], given + b"x", given.upper(), given + b"\0", stored):
        if wrong != given:
            assert not check(stored, kind, wrong) or kind == "Password"
    assert not check(stored, kind, b"wrong")


@pytest.mark.parametrize(
    ("stored", "kind"),
    [
        (b"", "Password"),
        (b"", "Crypt-Password"),
        (b"", "MySQL-Password"),
        (b"!", "Crypt-Password"),
        (b"*", "Crypt-Password"),
        (b"!" + OPENSSL_1, "Crypt-Password"),
        (b"*2470", "MySQL-Password"),
        (b"secret", "MySQL-Password"),
        (b"x" * 41, "MySQL-Password"),
        (b"x" * 16, "MySQL-Password"),
        (OPENSSL_1 + b"\0", "Crypt-Password"),
    ],
)
@pytest.mark.parametrize("given", [b"", b"secret2", b"!", b"*"])
def test_what_is_no_hash_is_nobodys_password(
    stored: bytes, kind: str, given: bytes
) -> None:
    assert not check(stored, kind, given)


def gensalt(prefix: str) -> bytes:
    library = ctypes.CDLL("libcrypt.so.1")
    library.crypt_gensalt.restype = ctypes.c_char_p
    library.crypt_gensalt.argtypes = (
        ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p, ctypes.c_int,
    )  # fmt: skip
    made = library.crypt_gensalt(prefix.encode(), 0, b"0123456789abcdef", 16)
    assert isinstance(made, bytes)
    return made


@pytest.mark.parametrize("method", METHODS)
def test_every_method_of_the_machine_works(method: str) -> None:
    stored = crypt3.crypt(b"pass word\xe4", gensalt(method))
    assert stored.startswith(method.encode())
    assert check(stored, "Crypt-Password", b"pass word\xe4")
    assert not check(stored, "Crypt-Password", b"pass word\xe5")


def test_hash_that_the_machines_own_tool_made_is_understood() -> None:
    perl = ["perl", "-e", "print crypt('secret', '$y$j9T$k2XAnEHBqQ1Ct2aMXFKNa/')"]
    made = subprocess.run(perl, capture_output=True, check=True).stdout
    assert made.startswith(b"$y$j9T$")
    assert check(made, "Crypt-Password", b"secret")


@pytest.mark.parametrize(
    ("stored", "kind"),
    [(b"$unknown$abc$def", "Crypt-Password"), (b"secret", "Rot13"), (b"x", "")],
)
def test_unknown_way_is_no_verdict_on_the_password(stored: bytes, kind: str) -> None:
    with pytest.raises(TempFail):
        check(stored, kind, b"secret")


def test_threads_do_not_disturb_each_other() -> None:
    setting = gensalt("$6$")
    stored = {word: crypt3.crypt(word, setting) for word in (b"a", b"bb", b"ccc")}
    wrong: list[bytes] = []

    def work(word: bytes) -> None:
        for _ in range(5):
            right = check(stored[word], "Crypt-Password", word)
            wrong.extend([] if right else [word])

    threads = [threading.Thread(target=work, args=(word,)) for word in stored]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_apop_needs_the_password_in_plain_text() -> None:
    # The example of RFC 1939 section 7.
    challenge, digest = (
        b"<1896.697170952@dbc.mtview.ca.us>",
        (b"c4c9334bac560ecc979e58001b3e22fb"),
    )
    assert check_apop(b"tanstaaf", "Password", challenge, digest)
    assert check_apop(b"tanstaaf", "Password", challenge, digest.upper())
    assert not check_apop(b"tanstaaf", "Password", b"<1.2@x>", digest)
    assert not check_apop(b"tanstaaf", "Password", challenge, digest[:-1])
    for kind in ("Crypt-Password", "MySQL-Password"):
        assert not check_apop(b"tanstaaf", kind, challenge, digest)
    empty = hashlib.md5(challenge).hexdigest().encode()
    assert not check_apop(b"", "Password", challenge, empty)
    with pytest.raises(TempFail):
        check_apop(b"tanstaaf", "", challenge, digest)
