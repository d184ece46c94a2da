"""Every program explains itself, by --help and by a manual page that setup installs."""

from __future__ import annotations

import importlib
import os
import re
from pathlib import Path

import pytest

from qsend.core.errors import Fatal
from qsend.core.model import Account
from qsend.formats.control import KNOWN
from qsend.formats.showctl import TABLE
from qsend.sysio import manpages, shipped
from qsend.sysio.launchers import KEPT, PROGRAMS

MAN = Path(__file__).parents[2] / "docs/man"
PAGES = sorted(MAN.glob("*.[1-9]"))
MACROS = (
    ".TH .SH .SS .PP .P .LP .TP .TQ .IP .RS .RE .EX .EE .nf .fi .br .sp .so "
    ".B .I .BR .BI .IR .IB .RB .RI"
)
OTHERS = {"biff(1)", "cron(8)", "flock(2)", "procmail(1)", "sh(1)", "syslog(3)"}
ME = Account(uid=os.getuid(), gid=os.getgid())


def name_of(page: Path) -> str:
    return f"{page.stem}({page.suffix[1:]})"


@pytest.mark.parametrize("program", sorted(PROGRAMS))
def test_program_has_a_page_and_answers_help(
    program: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert [page for page in PAGES if page.stem == program], f"no page of {program}"
    module = PROGRAMS[program][0]
    main = importlib.import_module(f"qsend.cli.{module}").main
    more = (program,) if module == "sendmail" else ()
    assert main(["--help"], *more) == 0
    out, err = capsys.readouterr()
    assert "usage" in out
    assert len(out.splitlines()) > 2
    assert err == ""


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_page_is_sound(page: Path) -> None:
    text = page.read_text("ascii")
    lines = text.splitlines()
    if lines[0].startswith(".so "):
        assert (MAN / lines[0].split("/")[-1]).exists()
        return
    macro, name, section, *_ = lines[0].lower().split()
    assert (macro, name.strip('"'), section) == (".th", page.stem, page.suffix[1:])
    assert "qsend" in lines[0]
    assert lines[1] == ".SH NAME"
    assert lines[2].replace("\\-", "-").split(" - ")[0].replace(" ", "-") == page.stem
    for line in lines:
        assert line[:1] != "'", line
        assert line[:1] != "." or line.split()[0] in MACROS.split(), line
    known = {name_of(each) for each in PAGES} | OTHERS
    for name, section in re.findall(r"\\fB([\w\\-]+)\\fR\((\d)\)", text):
        assert f"{name.replace(chr(92), '')}({section})" in known


def test_every_control_file_is_in_its_page() -> None:
    text = (MAN / "qmail-control.5").read_text().replace("\\-", "-")
    named = set(re.findall(r"\\fI([\w.]+)\\fR", text))
    assert (KNOWN | set(TABLE)) - named == {"morercpthosts.cdb"}


def test_pages_are_installed_by_section(tmp_path: Path) -> None:
    for section in "1578":
        (tmp_path / f"man/man{section}").mkdir(parents=True)
    (tmp_path / "man/man8/qmail-queue.8").write_text(".TH qmail-queue 8\n")
    written = manpages.install_pages(str(tmp_path), ME)
    assert sorted(written) == sorted(page.name for page in PAGES)
    for page in PAGES:
        copy = tmp_path / f"man/man{page.suffix[1:]}" / page.name
        assert copy.read_bytes() == page.read_bytes()
        assert copy.stat().st_mode & 0o7777 == 0o644
    kept = tmp_path / f"man/man8/qmail-queue.8{KEPT}"
    assert kept.read_text() == ".TH qmail-queue 8\n"
    manpages.install_pages(str(tmp_path), ME)
    assert len(list(tmp_path.glob(f"man/*/*{KEPT}"))) == 1


def test_page_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(Fatal, match=r"unable to write .*/man/man"):
        manpages.install_pages(str(tmp_path), ME)


def test_copy_without_pages_installs_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped, "_PLACES", ("nowhere",))
    assert manpages.find_pages() == {}
