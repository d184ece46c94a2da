"""The operator's commands against a scripted queue manager in another process."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from qsend.cli.main import main
from qsend.sysio import controlclient
from qsend.sysio.accounts import load_accounts
from qsend.sysio.fork import fork_child
from qsend.sysio.unixsocket import listen_at

Script = dict[str, list[object]]
OK = {"ok": True, "more": False}
STATUS = {
    **OK,
    "pid": 1,
    "generation": 3,
    "exiting": False,
    "unprocessed": 4,
    "channels": {
        "local": {"running": 0, "limit": 10, "slots": 9, "waiting": 1, "scheduled": 2},
        "remote": {"running": 5, "limit": 20, "slots": 9, "waiting": 7, "scheduled": 8},
    },
    "held": ["host:a.example", "mess:\x1b[31m5"],
    "ill": [
        {
            "destination": "b.example", "waiting": 6, "ill_for_s": 300,
            "error": "timed\x07out\nagain\n",
        }
    ],
}  # fmt: skip
ITEM = {
    "messid": 457,
    "birth": 812345679,
    "bytes": 2048,
    "sender": "a\u202e@b.example",
    "state": "queued",
    "held": True,
    "last": "deferred:\nlater\n",
    "recips": [
        {"channel": "remote", "address": "c@d.example", "done": True, "next": None},
        {"channel": "remote", "address": "e@f.example", "done": False, "next": 1},
        {"channel": "local", "address": "g@h", "done": False, "next": None},
    ],
    "more_recips": 9,
}


class Manager:
    """A process that answers as its script says and keeps what it was asked."""

    def __init__(self, home: Path, script: Script) -> None:
        self.path = str(home / "run/control.sock")
        self._script = script
        self._asked, write = os.pipe()
        self.pid = fork_child(lambda: self._serve(write), (write,), "manager")
        # It has written one byte when it listens.
        assert os.read(self._asked, 1) == b"."
        os.close(write)

    def _serve(self, write: int) -> int:
        listener = listen_at(self.path, 0o600)
        os.write(write, b".")
        while True:
            conn, _ = listener.accept()
            with conn:
                self._talk(conn, write)

    def _talk(self, conn: socket.socket, write: int) -> None:
        while packet := conn.recv(65536):
            os.write(write, packet + b"\n")
            request = json.loads(packet)
            answers = self._script.get(request["do"], [])
            # An answer that is a list is for one request only.
            if answers and isinstance(answers[0], list):
                answers = answers.pop(0)  # type: ignore[assignment]
            for answer in answers:
                if answer == "exit":
                    os._exit(0)
                if isinstance(answer, bytes):
                    conn.send(answer)
                else:
                    conn.send(json.dumps(answer).encode())
            if not answers:
                return

    def end(self) -> list[dict[str, object]]:
        """Kill it; what it was asked."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        with os.fdopen(self._asked, "rb") as pipe:
            return [json.loads(line) for line in pipe]


Run = Callable[..., tuple[int, str, list[dict[str, object]]]]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path


@pytest.fixture
def run(home: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(script: Script, *argv: str) -> tuple[int, str, list[dict[str, object]]]:
        manager = Manager(home, script)
        try:
            code = main([argv[0], "--home", str(home), *argv[1:]])
        finally:
            asked = manager.end()
        out, err = capsys.readouterr()
        return code, out + err, asked

    return run


def test_status_is_a_table_for_people(run: Run) -> None:
    code, out, asked = run({"status": [STATUS]}, "status")
    assert code == 0
    assert asked == [{"do": "status"}]
    lines = out.splitlines()
    assert lines[:6] == [
        "running; controls of generation 3",
        "",
        "channel  running  limit  waiting  scheduled",
        "local          0     10        1          2",
        "remote         5     20        7          8",
        "not yet preprocessed: 4",
    ]
    assert "held: host:a.example mess:?[31m5" in lines
    assert "  b.example: 6 waiting, next attempt in 5 min; timed?out / again" in lines
    # The process that made the socket is the root of the tree.
    assert lines[-2].split() == ["pid", "process", "uid", "MiB", "cpu", "s"]


def test_status_as_json_has_every_fact(run: Run) -> None:
    code, out, _ = run({"status": [STATUS]}, "status", "--json")
    facts = json.loads(out)
    assert code == 0
    [process] = facts.pop("processes")
    assert process["uid"] == os.getuid()
    assert process["rss"] > 1 << 20
    assert facts == {k: v for k, v in STATUS.items() if k not in ("ok", "more")}


def test_queue_lists_messages_of_all_packets(run: Run) -> None:
    other = {"messid": 9, "state": "unreadable", "error": "gone"}
    script: Script = {
        "queue": [
            {"ok": True, "more": True, "items": [ITEM]},
            {"ok": True, "more": True, "items": []},
            {"ok": True, "more": False, "items": [other]},
        ]
    }
    code, out, _ = run(script, "queue")
    assert code == 0
    assert out.splitlines() == [
        "#457  1995-09-29 03:34:39  2048 bytes  <a?@b.example>  queued  held",
        "    remote  c@d.example  done",
        "    remote  e@f.example  due now",
        "    local   g@h  under way",
        "    and 9 more",
        "    last report: deferred: / later",
        "#9  unreadable: gone",
    ]
    code, out, _ = run(script, "queue", "--json")
    assert json.loads(out) == [ITEM, other]


def test_empty_queue_is_an_empty_array(run: Run) -> None:
    script: Script = {"queue": [{"ok": True, "more": False, "items": []}]}
    assert run(script, "queue", "--json")[:2] == (0, "[]\n")
    assert run(script, "queue")[:2] == (0, "")


@pytest.mark.parametrize(
    ("argv", "want"),
    [
        (["flush"], {"do": "flush", "what": "all"}),
        (["flush", "host:a.example"], {"do": "flush", "what": "host:a.example"}),
        (["flush", "457"], {"do": "flush", "what": "mess:457"}),
        (["hold", "local"], {"do": "hold", "what": "local"}),
        (["release", "mess:457"], {"do": "release", "what": "mess:457"}),
        (["remove", "457"], {"do": "remove", "messid": 457}),
    ],
)
def test_wishes_are_passed_on(
    run: Run, argv: list[str], want: dict[str, object]
) -> None:
    script: Script = {argv[0]: [OK]}
    code, _, asked = run(script, *argv)
    assert code == 0
    assert asked == [want]
    assert json.loads(run(script, *argv, "--json")[1]) == {}


def test_refusal_is_the_answer_no(run: Run) -> None:
    script: Script = {"remove": [{"ok": False, "error": "no message 5"}]}
    assert run(script, "remove", "5")[:2] == (1, "qsend remove: no message 5\n")
    code, out, _ = run(script, "remove", "5", "--json")
    assert (code, json.loads(out)) == (1, {"error": "no message 5"})


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        ([b"\xff"], "answers strangely"),
        ([], "went away"),
        ([{"ok": True, "more": True}, "exit"], "went away"),
    ],
)
def test_broken_manager_is_temporary(
    run: Run, answers: list[object], says: str
) -> None:
    code, out, _ = run({"flush": answers}, "flush")
    assert code == 111
    assert says in out


def test_silent_manager_is_temporary(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controlclient, "TIMEOUT_S", 0.05)
    code, out, _ = run({"flush": [{"ok": True, "more": True}]}, "flush")
    assert (code, out) == (111, "qsend flush: the queue manager does not answer\n")


def test_stop_returns_when_the_tree_has_ended(run: Run, home: Path) -> None:
    code, out, asked = run({"stop": [OK, "exit"]}, "stop", "--all")
    assert asked == [{"do": "stop", "all": True}]
    assert (code, out) == (0, f"{home}: stopped\n")


def test_nothing_running_is_told(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def ask(*argv: str) -> tuple[int, str]:
        code = main([argv[0], "--home", str(home), *argv[1:]])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    says = f"qsend is not running in {home}\n"
    assert ask("status") == (1, f"qsend status: {says}")
    assert ask("flush") == (111, f"qsend flush: {says}")
    assert ask("stop") == (0, f"{home}: is not running\n")
    # A socket that nobody serves any more says the same.
    listen_at(str(home / "run/control.sock"), 0o600).close()
    assert ask("status")[0] == 1


def test_reload_tells_faults_before_it_asks(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "control").mkdir()
    (home / "control/me").write_text("a.example\n")
    (home / "control/patrn").write_text("x\n")
    use_single_user(monkeypatch)
    code, out, asked = run({"status": [STATUS]}, "reload")
    assert code == 100
    assert out.startswith("qsend reload: control/patrn:1: expected an octal number")
    assert [request["do"] for request in asked] == ["status"]


def test_reload_waits_for_the_new_generation(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "control").mkdir()
    (home / "control/me").write_text("a.example\n")
    use_single_user(monkeypatch)
    new = {**STATUS, "generation": 4}
    script: Script = {"status": [[STATUS], [STATUS], [new]], "reload": [OK]}
    code, out, asked = run(script, "reload", "--json")
    assert (code, json.loads(out)) == (0, {"generation": 4})
    assert [request["do"] for request in asked] == [
        "status", "reload", "status", "status",
    ]  # fmt: skip


def use_single_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parse as the caller: a machine without qmail's accounts will do."""
    from_single = load_accounts(single_user=True)
    monkeypatch.setattr("qsend.cli.control.load_accounts", lambda **_: from_single)


@pytest.mark.root
def test_others_may_not_ask(open_tmp: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (open_tmp / "run").mkdir()
    (open_tmp / "run").chmod(0o755)

    def ask() -> int:
        os.setresuid(64123, 64123, 64123)
        with open(2, "w", closefd=False) as sys.stderr:
            return main(["status", "--home", str(open_tmp)])

    with listen_at(str(open_tmp / "run/control.sock"), 0o600):
        pid = fork_child(ask, ())
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 100
    assert "only root and the account" in capfd.readouterr().err
