"""Silent hosts: two timeouts two minutes apart make a host rest."""

from __future__ import annotations

import pytest

from qsend.core.tcpto import (
    KEEP_S,
    Silence,
    SilentHosts,
    after_timeout,
    is_skipped,
    rest_s,
)

NOW = 1_000_000


@pytest.mark.parametrize(
    ("seed", "want"), [(0, 3840), (31, 5824), (32, 3840), (33, 3904)]
)
def test_rest_depends_on_seed(seed: int, want: int) -> None:
    assert rest_s(seed) == want


@pytest.mark.parametrize(
    ("before", "want"),
    [
        (None, Silence(count=1, last=NOW)),
        (Silence(count=0, last=NOW - 1), Silence(count=1, last=NOW)),
        (Silence(count=1, last=NOW - 119), Silence(count=1, last=NOW - 119)),
        (Silence(count=1, last=NOW - 120), Silence(count=2, last=NOW)),
        (Silence(count=9, last=NOW - 120), Silence(count=10, last=NOW)),
        (Silence(count=10, last=NOW - 120), Silence(count=10, last=NOW)),
    ],
)
def test_timeout_counts_once_in_two_minutes(
    before: Silence | None, want: Silence
) -> None:
    assert after_timeout(before, NOW) == want


@pytest.mark.parametrize(
    ("silence", "want"),
    [
        (None, False),
        (Silence(count=1, last=NOW), False),
        (Silence(count=2, last=NOW), True),
        (Silence(count=2, last=NOW - 3839), True),
        (Silence(count=2, last=NOW - 3840), False),
        (Silence(count=10, last=NOW + 50), True),
    ],
)
def test_host_rests_after_two_timeouts(silence: Silence | None, want: bool) -> None:
    assert is_skipped(silence, NOW, seed=0) is want


def test_silent_hosts_skip_until_an_answer() -> None:
    hosts = SilentHosts(seed=0)
    for address in ("192.0.2.1", "2001:db8::1"):
        hosts.note_timeout(address, NOW)
        assert not hosts.is_skipped(address, NOW + 121)
        hosts.note_timeout(address, NOW + 121)
        assert hosts.is_skipped(address, NOW + 122)
    hosts.note_answer("192.0.2.1")
    assert not hosts.is_skipped("192.0.2.1", NOW + 122)
    assert hosts.is_skipped("2001:db8::1", NOW + 122)
    assert not hosts.is_skipped("2001:db8::1", NOW + 121 + 3840)


def test_silent_hosts_answer_of_an_unknown_host_changes_nothing() -> None:
    hosts = SilentHosts(seed=0)
    hosts.note_answer("192.0.2.1")
    assert len(hosts) == 0


def test_silent_hosts_forget_old_records_but_no_recent_one() -> None:
    hosts = SilentHosts(seed=0)
    for n in range(1023):
        hosts.note_timeout(f"old{n}", NOW)
    later = NOW + KEEP_S
    for n in range(3000):
        hosts.note_timeout(f"new{n}", later)
    assert len(hosts) == 3000
    hosts.note_timeout("new0", later + 120)
    assert hosts.is_skipped("new0", later + 120)
