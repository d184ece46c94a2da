"""A mailing list run by dot-qmail files, in ezmlm's way.

Run by its own path, by any Python: `listprogram.py COMMAND DIR`. Who is meant, and by
whom, is in the environment of a delivery; what is queued goes through qmail-queue.

    .qmail-talk                 |listprogram.py send DIR
    .qmail-talk-default         |listprogram.py manage DIR
    .qmail-talk-return-default  |listprogram.py bounce DIR
    .qmail-talk-owner           the owner's mailbox

`sub DIR ADDRESS` and `warn DIR LIST HOST` are for the command line: the first adds a
subscriber, the second sends a probe to each one whose mail came back.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import os
import re
import subprocess
import sys
from pathlib import Path

REFUSED = 100
ENVIRON = os.environb
NOBODY = (b"", b"#@[]")


class List:
    """The directory of a list: its subscribers, its key, its number of posts."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self.subscribers = self._path / "subscribers"
        self.bounces = self._path / "bounce"

    def next_number(self) -> int:
        with (self._path / "num").open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            number = int(file.read() or 0) + 1
            file.truncate(0)
            file.write(str(number))
            return number

    def cookie(self, action: bytes, address: bytes) -> bytes:
        key = (self._path / "key").read_bytes()
        digest = hmac.new(key, action + b":" + address, hashlib.sha256)
        return digest.hexdigest()[:20].encode()

    def confirms(self, action: bytes, given: bytes, address: bytes) -> bool:
        return hmac.compare_digest(self.cookie(action, address), given)

    def add(self, address: bytes) -> None:
        (self.subscribers / os.fsdecode(flat(address))).touch()

    def remove(self, address: bytes) -> None:
        (self.subscribers / os.fsdecode(flat(address))).unlink(missing_ok=True)

    def members(self) -> list[bytes]:
        return [full(os.fsencode(path.name)) for path in self.subscribers.iterdir()]


def flat(address: bytes) -> bytes:
    """The address as a part of another."""
    return b"=".join(address.rsplit(b"@", 1))


def full(part: bytes) -> bytes:
    return b"@".join(part.rsplit(b"=", 1))


def queue(message: bytes, sender: bytes, recips: list[bytes]) -> None:
    envelope = b"F%b\0%b\0" % (sender, b"".join(b"T%b\0" % each for each in recips))
    read, write = os.pipe()
    with os.fdopen(write, "wb") as file:
        file.write(envelope)
    subprocess.run(["qmail-queue"], input=message, stdout=read, check=True)


def write(list_: bytes, host: bytes, to: bytes, reply: bytes, sender: bytes) -> None:
    """Send a message in the list's name; an answer to it goes to `reply`."""
    header = b"From: %b-help@%b\nTo: %b\nReply-To: %b\nSubject: the list %b\n" % (
        list_, host, to, reply, ENVIRON.get(b"EXT", list_),
    )  # fmt: skip
    queue(b"Mailing-List: x\n%b\nPlease answer.\n" % header, sender, [to])


def here() -> tuple[bytes, bytes]:
    """The list's local part and host: those of this delivery, without $DEFAULT."""
    local, default = ENVIRON[b"LOCAL"], ENVIRON.get(b"DEFAULT")
    if default is not None:
        local = local.removesuffix(b"-" + default).removesuffix(b"-return")
    return local, ENVIRON[b"HOST"]


def refuse(why: str) -> int:
    sys.stdout.write(f"Sorry, {why}\n")
    return REFUSED


def send(found: List) -> int:
    """Post what comes in; each subscriber's copy has a sender of its own."""
    message = sys.stdin.buffer.read()
    header = message.partition(b"\n\n")[0]
    if re.search(rb"(?mi)^mailing-list:", header):
        return refuse("this comes from a mailing list already. (#5.7.2)")
    if ENVIRON[b"SENDER"] in NOBODY:
        return refuse("bounces are not posted. (#5.7.2)")
    local, host = here()
    sender = b"%b-return-%d-@%b-@[]" % (local, found.next_number(), host)
    title = b"Mailing-List: contact %b-help@%b\n" % (local, host)
    queue(title + message, sender, found.members())
    return 0


def manage(found: List) -> int:
    """Mail to LIST-subscribe, LIST-unsubscribe, and answers to what we asked then."""
    action, _, part = ENVIRON[b"DEFAULT"].partition(b"-")
    sender = ENVIRON[b"SENDER"]
    if sender in NOBODY:
        return refuse("bounces are not answered. (#5.7.2)")
    word, _, cookie = action.lower().partition(b".")
    if cookie and word in (b"sc", b"uc"):
        if not found.confirms(word, cookie, full(part)):
            return refuse("this is not what was asked. (#5.7.1)")
        (found.add if word == b"sc" else found.remove)(full(part))
        return 0
    if word not in (b"subscribe", b"unsubscribe"):
        return refuse("I do not know this command. (#5.1.1)")
    local, host = here()
    address = full(part) or sender
    word = b"sc" if word == b"subscribe" else b"uc"
    reply = b"%b-%b.%b-%b@%b" % (
        local, word, found.cookie(word, address), flat(address), host,
    )  # fmt: skip
    write(local, host, address, reply, b"%b-return-@%b" % (local, host))
    return 0


def bounce(found: List) -> int:
    """Mail that came back: note it; the subscription ends if it was the probe."""
    which, _, part = ENVIRON[b"DEFAULT"].partition(b"-")
    if ENVIRON[b"SENDER"] not in NOBODY:
        return refuse("this address is for bounces. (#5.7.1)")
    word, _, cookie = which.partition(b".")
    if word == b"probe" and found.confirms(word, cookie, full(part)):
        found.remove(full(part))
    elif which.isdigit():
        # Without an address it comes from our own queue, for one recipient or more.
        for each in [full(part)] if part else failed_addresses():
            with (found.bounces / os.fsdecode(flat(each))).open("ab") as file:
                file.write(which + b"\n")
    return 0


def failed_addresses() -> list[bytes]:
    """Whom the bounce message is about, in the format that qmail-send writes."""
    _, _, body = sys.stdin.buffer.read().partition(b"\n\n")
    paragraphs = body.split(b"\n\n")
    if not paragraphs[0].startswith(b"Hi. This is the"):
        return []
    found = []
    for each in paragraphs[1:]:
        match = re.match(rb"<(.*)>:\n", each)
        if match is None:
            break
        found.append(match[1])
    return found


def warn(found: List, list_: str, host: str) -> int:
    local, at = os.fsencode(list_), os.fsencode(host)
    for path in found.bounces.iterdir():
        address = full(os.fsencode(path.name))
        cookie = found.cookie(b"probe", address)
        back = b"%b-return-probe.%b-%b@%b" % (local, cookie, flat(address), at)
        write(local, at, address, back, back)
        path.unlink()
    return 0


def main(argv: list[str]) -> int:
    command, path, *rest = argv
    found = List(path)
    if command == "sub":
        found.add(os.fsencode(rest[0]))
        return 0
    if command == "warn":
        return warn(found, *rest)
    return {"send": send, "manage": manage, "bounce": bounce}[command](found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
