"""Who is in the tree, who speaks with whom, and who may know which controls."""

from __future__ import annotations

import pytest

from qsend.core import family
from qsend.formats.accesscontrols import ACCESS_FILES
from qsend.formats.control import KNOWN, parse_controls
from qsend.formats.popcontrols import POP_FILES
from qsend.formats.qmtpcontrols import QMTPD_FILES
from qsend.formats.runnercontrols import RUNNER_FILES
from qsend.formats.smtpdcontrols import SMTPD_FILES
from qsend.formats.sqlcontrols import SQL_FILES
from qsend.formats.tlscontrols import TLS_FILES

PLAN = family.plan(2)


def test_roles_are_forked_in_the_order_of_the_architecture() -> None:
    want = ("lspawn", "enqueue", "lookup", "clean", "remote0", "remote1", "send")
    assert PLAN.roles == want


@pytest.mark.parametrize(
    ("classic", "want"),
    [
        (
            ["lspawn"],
            (
                "classic-lspawn",
                "enqueue",
                "lookup",
                "clean",
                "remote0",
                "remote1",
                "send",
            ),
        ),
        (
            ["rspawn"],
            ("lspawn", "enqueue", "lookup", "clean", "classic-rspawn", "send"),
        ),
        (
            ["clean", "lspawn", "rspawn"],
            (
                "classic-lspawn",
                "enqueue",
                "lookup",
                "classic-clean",
                "classic-rspawn",
                "send",
            ),
        ),
    ],
)
def test_classic_programs_stand_in_for_ours(
    classic: list[str], want: tuple[str, ...]
) -> None:
    assert family.plan(2, classic).roles == want


@pytest.mark.parametrize(
    ("role", "want"),
    [
        ("enqueue", {"send"}),
        ("lookup", {"lspawn", "send"}),
        ("clean", {"send"}),
        ("lspawn", {"send", "lookup"}),
        ("remote1", {"send"}),
        ("isolated7", {"send"}),
        ("send", {"enqueue", "clean", "lookup", "lspawn", "remote0", "remote1"}),
    ],
)
def test_each_role_has_the_peers_of_the_architecture(role: str, want: set[str]) -> None:
    assert set(PLAN.peers(role)) == want


def test_links_go_both_ways() -> None:
    for role in PLAN.roles:
        for peer in PLAN.peers(role):
            assert role in PLAN.peers(peer)


def test_send_and_clean_are_one_unit_and_others_their_own() -> None:
    assert PLAN.unit("send") == PLAN.unit("clean") == ("clean", "send")
    assert PLAN.unit("remote0") == ("remote0",)
    assert PLAN.followers("send") == ()
    classic = family.plan(1, ["lspawn", "rspawn", "clean"])
    assert classic.unit("send") == ("classic-clean", "send")
    assert classic.followers("classic-clean") == ("classic-lspawn", "classic-rspawn")
    assert classic.followers("enqueue") == ()


def test_kind_and_peer_name() -> None:
    table = {
        "remote12": ("remote", "remote12"),
        "isolated3": ("remote", "isolated"),
        "send": ("send", "send"),
        "classic-lspawn": ("classic-lspawn", "classic-lspawn"),
    }
    got = {role: (family.kind(role), family.peer_name(role)) for role in table}
    assert got == table


def test_every_control_file_is_known_to_somebody_and_to_no_stranger() -> None:
    known = frozenset[str]().union(*family.CONTROL_FILES.values())
    assert known == KNOWN.union(
        SQL_FILES,
        POP_FILES,
        TLS_FILES,
        SMTPD_FILES,
        QMTPD_FILES,
        ACCESS_FILES,
        RUNNER_FILES,
    )


@pytest.mark.parametrize("role", PLAN.roles)
def test_only_lookup_knows_the_database(role: str) -> None:
    files = {"me": b"here", "sqllog": b"1"}
    seen = family.visible(role, files, {"sqlserver"})
    known = "sqlserver" in family.CONTROL_FILES[family.kind(role)]
    assert known is (role == "lookup")
    # send knows that there is one: it asks lookup then, and otherwise does not.
    assert parse_controls(seen).has_sql is (role == "send")
    assert not parse_controls(family.visible(role, {"me": b"here"})).has_sql


@pytest.mark.parametrize("role", [*PLAN.roles, "isolated3"])
@pytest.mark.parametrize("name", ["smtpauth", "clientcert.pem"])
def test_only_remote_knows_what_servers_are_told(name: str, role: str) -> None:
    kind = family.kind(role)
    assert (name in family.CONTROL_FILES[kind]) is (kind == "remote")


@pytest.mark.parametrize("role", PLAN.roles)
def test_what_a_role_may_know_is_enough_to_parse(role: str) -> None:
    files = {"locals": b"a.example\n", "unknown": b"x"}
    seen = family.visible(role, files)
    assert set(seen) == {"locals"}
    parse_controls(seen)
    assert family.kind(role) in family.NAMES
