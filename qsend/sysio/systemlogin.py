"""Whether a login is that of an account of the machine, by passwd and shadow.

Needs root. May take a tenth of a second and more, and as long as a directory service
takes: never call it where others wait.
Source: passwd(5), shadow(5); checkpassword(8).
"""

from __future__ import annotations

from qsend.core.errors import TempFail
from qsend.core.lookups import Login, Proof, Verdict, Verification
from qsend.core.model import Ownership, User
from qsend.core.users import NAME_MAX
from qsend.sysio import clock, passwd
from qsend.sysio.crypt3 import is_crypt

_DAY_S = 86400


def verify(login: Login) -> Verification:
    """The verdict, and with OK the account; never raises.

    uid 0 is refused, whatever its password: nobody reads mail as root. APOP is
    wrong, for it would need a password in plain text.
    """
    try:
        return _verify(login)
    except OSError as exc:
        text = f"accounts cannot be looked up: {exc.strerror}"
    except TempFail as exc:
        text = str(exc)
    return _verdict(Verdict.TROUBLE, text)


def _verify(login: Login) -> Verification:
    name = login.name
    if not name or len(name) > NAME_MAX or b"\0" in name:
        return _verdict(Verdict.UNKNOWN, "no such account")
    entry = passwd.by_name(name)
    if entry is None:
        return _verdict(Verdict.UNKNOWN, "no such account")
    if entry.account.uid == 0:
        return _verdict(Verdict.WRONG, "root is not served")
    if login.proof is Proof.APOP:
        return _verdict(Verdict.WRONG, "APOP is impossible for accounts")
    shadow = passwd.shadow_by_name(name)
    stored = entry.password if shadow is None else shadow.password
    if not is_crypt(stored, login.secret):
        return _verdict(Verdict.WRONG, "wrong password")
    if shadow is not None and 0 <= shadow.expires <= clock.now() // _DAY_S:
        return _verdict(Verdict.SUSPENDED, "the account has expired")
    return Verification(
        verdict=Verdict.OK,
        text=b"account",
        user=User(
            name=entry.name,
            uid=entry.account.uid,
            gid=entry.account.gid,
            home=entry.home,
            dash=b"",
            ext=b"",
            ownership=Ownership.UID,
        ),
    )


def _verdict(verdict: Verdict, text: str) -> Verification:
    return Verification(verdict=verdict, text=text.encode("utf-8", "backslashreplace"))
