"""What the processes of POP3 are, have and can reach while a session runs."""

from __future__ import annotations

from collections import Counter
from pwd import getpwnam

import pytest

from qsend.sysio import sandbox
from qsend.sysio.accounts import load_accounts
from qsend.sysio.privilege import CAP_SETGID, CAP_SETUID
from tests.pop.conftest import PopTree
from tests.tree import procview

pytestmark = pytest.mark.root

ROLES = ("pop3d", "login", "popsession")


def test_each_process_has_its_uid_its_wires_and_no_more(
    pop: PopTree, mailbox: str
) -> None:
    accounts = load_accounts(single_user=False)
    entry = getpwnam(mailbox)
    with pop.session(mailbox) as client:
        client.stat()
        family = procview.family(pop.tree)
        seen = {role: family[role][0] for role in ROLES}
        links = procview.links([each for those in family.values() for each in those])
        client.quit()
    uid, gid = str(accounts.qmaild.uid), str(accounts.qmaild.gid)
    assert seen["pop3d"].ids == ({uid}, {gid}, [gid])
    assert seen["login"].ids == ({"0"}, {"0"}, [])
    own = str(entry.pw_uid), str(entry.pw_gid)
    assert seen["popsession"].ids == ({own[0]}, {own[1]}, [own[1]])
    for role, each in seen.items():
        status, is_root = each.status, role == "login"
        assert each.title == f"qmail-{role}: qsend".encode()
        # To become users, and nothing more.
        wanted = 1 << CAP_SETUID | 1 << CAP_SETGID if is_root else 0
        assert int(status["CapPrm"][0], 16) == wanted, role
        assert int(status["CapEff"][0], 16) == wanted, role
        assert status["NoNewPrivs"] == ["1"], role
        assert each.dumpable == is_root, role
        if "seccomp" in sandbox.features():
            assert status["Seccomp"] == ["2"], role
        assert not each.files(pop.tree.home), role
    assert {pair: n for pair, n in links.items() if set(pair) & set(ROLES)} == Counter(
        {
            ("start", "pop3d"): 1, ("pop3d", "start"): 1,
            ("start", "login"): 1, ("login", "start"): 1,
            ("pop3d", "login"): 1, ("login", "pop3d"): 1,
            ("login", "lookup"): 1, ("lookup", "login"): 1,
            # The session has a second descriptor of its stream.
            ("pop3d", "popsession"): 1, ("popsession", "pop3d"): 2,
            # The loop's own pair, to hear of signals.
            ("pop3d", "pop3d"): 2,
        }
    )  # fmt: skip
    kinds = Counter(link.split(":")[0] for link in seen["popsession"].fds.values())
    assert kinds == {"/dev/null": 1, "pipe": 2, "socket": 2}
