"""How logins are slowed, and what the log says of them."""

from __future__ import annotations

import pytest

from qsend.core.loginbrake import (
    FREE,
    KNOWN_S,
    MEMORY_S,
    WAIT_MAX_S,
    LoginBrake,
    network,
)
from qsend.core.loginlog import describe
from qsend.core.lookups import Login, Proof, Verdict, Verification

HERE, THERE = b"192.0.2.1", b"198.51.100.7"


def fail(
    brake: LoginBrake, times: int, client: bytes = HERE, name: bytes = b"ann"
) -> None:
    for _ in range(times):
        brake.failed(client, name, 0.0)


def test_first_failures_cost_nothing() -> None:
    brake = LoginBrake()
    fail(brake, FREE)
    assert brake.wait_s(HERE, b"ann", 0.0) == 0.0


def test_pause_doubles_with_each_failure_of_an_address() -> None:
    brake, pauses = LoginBrake(), []
    fail(brake, FREE)
    for number in range(8):
        brake.failed(HERE, b"user%d" % number, 0.0)
        waited = brake.wait_s(HERE, b"other", 0.0)
        brake = LoginBrake()
        fail(brake, FREE + number + 1, name=b"x")
        pauses.append(waited)
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]


def test_attempts_side_by_side_wait_one_after_another() -> None:
    brake = LoginBrake()
    fail(brake, FREE + 4, name=b"x")
    waits = [brake.wait_s(HERE, b"user%d" % number, 0.0) for number in range(6)]
    assert waits == [8.0, 16.0, 24.0, None, None, None]
    assert brake.wait_s(HERE, b"y", 25.0) == 7.0


def test_other_addresses_do_not_wait_for_one() -> None:
    brake = LoginBrake()
    fail(brake, FREE + 10, name=b"x")
    assert brake.wait_s(THERE, b"ann", 0.0) == 0.0


def test_user_under_attack_from_everywhere_is_slowed_but_not_shut_out() -> None:
    brake = LoginBrake()
    for number in range(200):
        brake.failed(b"10.0.%d.1" % number, b"ann", 0.0)
    assert brake.wait_s(THERE, b"ANN", 0.0) == 5.0
    assert brake.wait_s(THERE, b"bob", 0.0) == 0.0
    assert (brake.wait_s(THERE, b"ann", 0.0) or 0.0) <= WAIT_MAX_S


def test_who_was_there_before_does_not_wait_for_what_others_try() -> None:
    brake = LoginBrake()
    brake.succeeded(HERE, b"ann", 0.0)
    for number in range(200):
        brake.failed(b"10.0.%d.1" % number, b"ann", 0.0)
    assert brake.wait_s(HERE, b"ann", 1.0) == 0.0
    assert brake.wait_s(THERE, b"ann", 1.0) != 0.0
    brake.failed(THERE, b"ann", KNOWN_S)
    assert brake.wait_s(HERE, b"ann", KNOWN_S + 1) == 0.0


def test_own_account_does_not_make_trying_others_free() -> None:
    brake = LoginBrake()
    for _ in range(20):
        brake.failed(HERE, b"victim", 0.0)
        brake.succeeded(HERE, b"mine", 0.0)
    assert brake.wait_s(HERE, b"other", 0.0) == 30.0


def test_success_frees_the_user() -> None:
    brake = LoginBrake()
    fail(brake, FREE + 3)
    brake.succeeded(THERE, b"ann", 0.0)
    assert brake.wait_s(b"203.0.113.1", b"ann", 0.0) == 0.0


def test_failures_are_forgotten() -> None:
    brake = LoginBrake()
    fail(brake, 50)
    assert brake.wait_s(HERE, b"ann", MEMORY_S + 1) == 0.0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (b"2001:db8:1:2::1", b"2001:db8:1:2:ffff::9", True),
        (b"2001:db8:1:2::1", b"2001:db8:1:3::1", False),
        (b"::ffff:192.0.2.1", b"192.0.2.1", True),
        (b"192.0.2.1", b"192.0.2.2", False),
        (b"fe80::1%eth0", b"fe80::2%eth1", True),
        (b"", b"garbage\xff", False),
    ],
)
def test_what_counts_as_one_address(one: bytes, other: bytes, same: bool) -> None:
    assert (network(one) == network(other)) == same


@pytest.mark.parametrize(
    ("verdict", "text", "want"),
    [
        (Verdict.OK, b"mailbox", b"accepted (mailbox)"),
        (Verdict.WRONG, b"", b"refused: wrong password"),
        (Verdict.WRONG, b"wrong password", b"refused: wrong password"),
        (Verdict.WRONG, b"root is not served",
         b"refused: wrong password (root is not served)"),
        (Verdict.UNKNOWN, b"", b"refused: unknown user"),
        (Verdict.SUSPENDED, b"", b"refused: suspended"),
        (Verdict.TROUBLE, b"no\ndatabase", b"deferred: system error (no?database)"),
    ],
)  # fmt: skip
def test_line_of_the_log(verdict: Verdict, text: bytes, want: bytes) -> None:
    login = Login(proof=Proof.PASS, name=b"an\nn x@b", secret=b"hunter2", client=HERE)
    got = describe(login, Verification(verdict=verdict, text=text))
    assert got == b"login: an/n_x@b from 192.0.2.1: " + want
    assert b"hunter2" not in got


def test_line_of_an_attempt_without_name_and_address() -> None:
    login = Login(proof=Proof.PASS, name=b"", secret=b"")
    got = describe(login, Verification(verdict=Verdict.UNKNOWN))
    assert got == b"login: - from unknown: refused: unknown user"
