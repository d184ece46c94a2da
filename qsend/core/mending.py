"""What an operator can do about mail that waits or bounces here.

By the words that our own reports use; what is unknown has no advice.
"""

from __future__ import annotations

_ADVICE: tuple[tuple[str, str], ...] = (
    (
        "the database does not answer",
        "start the database server, or mend control/sqlserver and `qsend reload`;"
        " until it answers, mail waits and nothing is lost",
    ),
    (
        "the database refuses a query",
        "`qsend check` tells which query does not fit the tables",
    ),
    (
        "unable to look up the user: Permission denied",
        "every directory above the home must let all accounts pass (chmod o+x):"
        " qmail-lookup sees whose the home is",
    ),
    (
        "misconfiguration: mailbox row",
        "mend that row of mailbox, or `qsend user remove` it and add it anew",
    ),
    (
        "misconfiguration: virtual row",
        "`qsend virtual remove ADDRESS`, then add what was meant",
    ),
    (
        "misconfiguration: alias rows",
        "`qsend alias list NAME` shows the rows; remove the wrong one",
    ),
    ("forwarded again", "lead the first address straight to the last one"),
    (
        "below control/sqlminuid",
        "give the row a uid of its own, or lower control/sqlminuid",
    ),
    (
        "are refused",
        "mail is never delivered as root or an account of qsend; name another uid",
    ),
    (
        "its mail goes to alias",
        "give the home the uid and gid of its row (chown), or mend the row",
    ),
    (
        "does not exist",
        "make the home with that owner and a Maildir in it, or mend the row",
    ),
    (
        "belongs to another user",
        "chown the home to the uid and gid above, or mend the row or file they are in",
    ),
    ("home directory is writable", "`chmod go-w` the home, or see control/patrn"),
    ("is sticky", "`chmod -t` the home when editing is done"),
    (".qmail file is writable", "`chmod go-w` that file, or see control/patrn"),
    ("first line of .qmail", "give the file a first line, or make it empty"),
    ("x bit set", "`chmod -x` the file, or leave only forwards in it"),
    ("there is no directory", "make it as the user: maildirmake ./Maildir"),
    ("no permission to write", "give it to the uid and gid above (chown)"),
    (
        "no mailbox here by that name",
        "make a user (useradd, `qsend user add`), an address (`qsend virtual add`), or"
        " the first of the files that were looked for",
    ),
    (
        "none for the address",
        "`qsend virtual add ADDRESS NAME`, or @HOST for all the others",
    ),
    ("unable to find alias user", "make the directory alias below the home: setup"),
    ("users/cdb", "make it anew from users/assign: qmail-newu"),
)


def advice(text: str) -> str | None:
    """What to do about a report or a step, or None."""
    return next((words for sign, words in _ADVICE if sign in text), None)
