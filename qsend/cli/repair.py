"""qsend repair: mend a queue that was restored, copied or damaged.

Source: queue_layout.md; qmail INTERNALS.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence

from qsend.cli.parser import EXIT_NO, EXIT_USAGE, Parser, complain, home_of, shown
from qsend.core.errors import ConfigFault, TempFail
from qsend.core.model import Accounts
from qsend.core.repair import Found
from qsend.sysio import clock, queuemaker, repairground
from qsend.sysio.accounts import load_accounts
from qsend.sysio.queuerepair import Repairer, Survey
from qsend.sysio.runlock import REPAIR

_TEACHING = """\
Stop the mail system first (`qsend stop --all`; a classic qmail-send likewise, and
whatever calls its qmail-queue). Then this

  gives messages the numbers that they must have after a restore or a copy (the
    inode numbers of their files), in all directories at once
  moves files to the subdirectory where they belong, from another conf-split or
    from the subdirectories of a big-todo patch
  mends owners and modes (any group is fine on mess, intd and todo), and makes
    directories that are missing
  finishes removals that were cut off
  removes what was never accepted, or is over, when it is 36 hours old
  moves damaged messages, and those whose message file is gone, to queue/aside with
    the reason; none is deleted

A repair that was cut off is run again; until then the mail system does not start.
Names that are no message numbers are left alone and told.

to move a queue to another disk:
  qsend stop --all
  tar -C /var/qmail -cpf /tmp/queue.tar queue
  tar -C /new/qmail -xpf /tmp/queue.tar
  qsend repair --home /new/qmail

Exit codes: 0 all is well now; 1 --dry-run found something to do; 100 wrong usage;
111 the queue is in use, or something could not be done (what was done is safe)."""


def main(argv: Sequence[str]) -> int:
    """Repair, or say what a repair would do."""
    parser = Parser(argv[0], "Mend a queue that nobody works on.", _TEACHING)
    parser.add_home()
    parser.add_argument(
        "--dry-run", action="store_true", help="change nothing, say what would be done"
    )
    parser.add_argument(
        "--orphans",
        action="store_true",
        help="remove what was never accepted however young it is",
    )
    parser.add_json()
    args = parser.parse_args(argv[1:])
    home = home_of(args)
    single_user = os.getuid() != 0
    if not os.path.isdir(f"{home}/queue"):
        complain(argv[0], f"{home} has no queue; `qsend setup` makes one")
        return EXIT_USAGE
    if single_user and os.stat(home).st_uid != os.getuid():
        complain(argv[0], f"{home} is not yours; only root can repair it")
        return EXIT_USAGE
    accounts = load_accounts(single_user)
    with repairground.alone(home, accounts, dry_run=args.dry_run):
        return _repair(home, accounts, args.dry_run, args.orphans, args.json)


def _repair(
    home: str, accounts: Accounts, dry_run: bool, orphans: bool, as_json: bool
) -> int:
    structure = queuemaker.entry_faults(home, accounts)
    queue = f"{home}/queue"
    # What cannot be read must be mended before it is looked at.
    if not dry_run:
        queuemaker.create(home, accounts)
    repairer = Repairer(queue, repairground.owners(accounts))
    try:
        survey = repairer.survey(clock.now(), take_orphans=orphans)
        _report(home, structure, survey, dry_run, as_json)
        is_clean = survey.is_clean()
        if dry_run:
            return 0 if is_clean and not structure else EXIT_NO
        if not is_clean or os.path.lexists(f"{queue}/{REPAIR}"):
            with repairground.renaming(queue):
                repairer.mend(survey, clock.now())
        return 0
    except OSError as exc:
        where = f"{exc.filename}: " if exc.filename else ""
        raise TempFail(f"{where}{exc.strerror}") from exc
    finally:
        repairer.close()


def _report(
    home: str,
    structure: Sequence[ConfigFault],
    survey: Survey,
    dry_run: bool,
    as_json: bool,
) -> None:
    if as_json:
        sys.stdout.write(f"{json.dumps(_facts(home, structure, survey, dry_run))}\n")
        return
    lines = [*(f"mend {fault}" for fault in structure), *_lines(survey)]
    sys.stdout.writelines(f"{shown(line)}\n" for line in lines)
    sys.stdout.writelines(f"note: {shown(line)}\n" for line in _notes(survey))
    if not lines:
        sys.stdout.write(f"{home}/queue: nothing to do\n")
    elif dry_run:
        sys.stdout.write(f"{home}/queue: dry run, nothing was changed\n")


def _lines(survey: Survey) -> Iterator[str]:
    """What is done, one line each, in the order in which it is done."""
    for own in survey.ownings:
        group = "" if own.gid < 0 else f", group {own.gid}"
        yield (
            f"own {own.kind}: owner {own.uid}{group}, mode {own.mode:04o}"
            f" for {len(own.paths)} files"
        )
    todo = survey.plan
    for aside in todo.asides:
        yield f"aside {aside.number} ({_kinds(aside.files)}): {aside.reason}"
    for remove in todo.removes:
        kinds = _kinds(remove.files)
        yield f"remove {remove.number} ({kinds}): never accepted, or over"
    for file in todo.drops:
        yield f"remove {file.path}: left from a removal that was cut off"
    for file, where in todo.moves:
        yield f"move {file.path} to {where}"
    for each in todo.renumbers:
        yield f"renumber {each.number} to {each.target} ({_kinds(each.files)})"
    for path in survey.old_pid:
        yield f"remove {path}: never finished"
    for path in survey.parts:
        yield f"remove {path}: no subdirectory of ours, if nothing is left in it"


def _notes(survey: Survey) -> Iterator[str]:
    for message in survey.plan.kept:
        yield (
            f"{message.number} was never accepted, or is over, but is younger than"
            " 36 hours: kept (--orphans removes it)"
        )
    for path in survey.foreign:
        yield f"{path} is no queue file: left alone"
    for path in survey.shared:
        yield f"{path} has names outside the queue: owner and mode left alone"


def _kinds(files: Iterable[Found]) -> str:
    return " ".join(file.kind for file in files)


def _facts(
    home: str, structure: Sequence[ConfigFault], survey: Survey, dry_run: bool
) -> dict[str, object]:
    todo = survey.plan
    return {
        "home": home,
        "dry_run": dry_run,
        "structure": [str(fault) for fault in structure],
        "own": [
            {
                "kind": own.kind,
                "uid": own.uid,
                "gid": None if own.gid < 0 else own.gid,
                "mode": f"{own.mode:04o}",
                "paths": list(own.paths),
            }
            for own in survey.ownings
        ],
        "aside": [
            {
                "messid": aside.number,
                "reason": aside.reason,
                "paths": [file.path for file in aside.files],
            }
            for aside in todo.asides
        ],
        "remove": [
            {"messid": each.number, "paths": [file.path for file in each.files]}
            for each in todo.removes
        ],
        "drop": [file.path for file in todo.drops],
        "move": [{"path": file.path, "to": where} for file, where in todo.moves],
        "renumber": [
            {
                "messid": each.number,
                "to": each.target,
                "paths": [file.path for file in each.files],
            }
            for each in todo.renumbers
        ],
        "remove_pid": list(survey.old_pid),
        "remove_directories": list(survey.parts),
        "kept": [message.number for message in todo.kept],
        "foreign": list(survey.foreign),
        "shared": list(survey.shared),
    }
