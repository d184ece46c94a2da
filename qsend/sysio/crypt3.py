"""crypt(3) of this machine: every method that its own passwords may use.

The C library's companion libcrypt (libxcrypt on Debian) is called directly, with a
buffer per call, so that any thread may; the interpreter goes on meanwhile.
Source: crypt(3), crypt(5), crypt_r(3); docs/adr.
"""

from __future__ import annotations

import ctypes
import hmac

from qsend.core.errors import TempFail

_BUFFER_BYTES = 256 * 1024
"""struct crypt_data: 32 KiB in libxcrypt, 128 KiB in the older one of glibc."""
_NAMES = ("libcrypt.so.1", "libcrypt.so.2")
_LOCKED = (b"!", b"*")
"""First bytes of a hash that no password has: a locked account."""


def _load() -> ctypes.CDLL | None:
    for name in _NAMES:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        library.crypt_r.restype = ctypes.c_char_p
        library.crypt_r.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)
        return library
    return None


_library = _load()


def is_crypt(stored: bytes, given: bytes) -> bool:
    """Whether crypt(3) makes `stored` of `given`; an empty one is never right.

    Takes as long as the method of `stored` wants, a tenth of a second or more.
    Raises: TempFail when this machine does not know the method, or has no crypt(3):
        it says nothing about the password.
    """
    if not given or not stored or b"\0" in given or b"\0" in stored:
        return False
    if stored.startswith(_LOCKED):
        return False
    return hmac.compare_digest(crypt(given, stored), stored)


def crypt(given: bytes, setting: bytes) -> bytes:
    """The hash of `given` by the method and salt of `setting`; neither has a NUL.

    Raises: TempFail when it cannot be made.
    """
    if _library is None:
        raise TempFail("this machine has no crypt(3) library")
    buffer = ctypes.create_string_buffer(_BUFFER_BYTES)
    try:
        made: bytes | None = _library.crypt_r(given, setting, buffer)
    finally:
        # The library may have copied the password into it.
        ctypes.memset(buffer, 0, _BUFFER_BYTES)
    if made is None or made.startswith(b"*"):
        raise TempFail("crypt(3) of this machine does not know the stored method")
    return made
