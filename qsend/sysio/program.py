"""Running a `|` line: /bin/sh in a session of its own, its output collected.

The delivery waits for the program itself, not for a stray grandchild that keeps
the output open; the program's process group is never killed. There is no time
limit, as in qmail.

The process that calls this must not have set no_new_privs: the programs of users
(a setgid procmail, sudo) would silently lose what their files grant them.
Source: qmail-command(8), qmail-local.c mailprogram().
"""

from __future__ import annotations

import os
import select
import subprocess
from collections.abc import Mapping

from qsend.core.errors import TempFail

OUTPUT_MAX = 3001
"""Bytes of output kept of one program: enough to see that a report is too long
(qmail-lspawn.c cuts at 3000)."""


def run(
    command: bytes,
    *,
    home_fd: int,
    mess_fd: int,
    environ: Mapping[bytes, bytes],
    output: bytearray | None,
) -> int:
    """Run one command to its end and return its exit code.

    Args:
        command: for `/bin/sh -c`; no NUL bytes.
        home_fd: its working directory.
        mess_fd: the message; the program's standard input starts at offset 0.
        environ: its whole environment.
        output: gets what it writes to descriptors 1 and 2, at most OUTPUT_MAX
            bytes in all; None lets it write to this process's own.
    Raises: TempFail when it cannot be started or is killed by a signal.
    """
    try:
        stdin_fd = _rewound(mess_fd)
        try:
            process = _start(command, home_fd, stdin_fd, environ, output is not None)
        finally:
            os.close(stdin_fd)
        with process:
            if output is not None:
                _collect(process, output)
            code = process.wait()
    except OSError as exc:
        raise TempFail(f"Unable to run a program: {exc.strerror}. (#4.3.0)") from exc
    if code < 0:
        raise TempFail(f"The program was killed by signal {-code}. (#4.3.0)")
    return code


def _rewound(mess_fd: int) -> int:
    """A descriptor of the message at offset 0.

    Opened anew where that is allowed: a stray grandchild of an earlier program
    may still be moving the offset of the old one. Raises: OSError.
    """
    try:
        return os.open(f"/proc/self/fd/{mess_fd}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        os.lseek(mess_fd, 0, os.SEEK_SET)
        return os.dup(mess_fd)


def _start(
    command: bytes,
    home_fd: int,
    stdin_fd: int,
    environ: Mapping[bytes, bytes],
    collects: bool,
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [b"/bin/sh", b"-c", command],
        stdin=stdin_fd,
        stdout=subprocess.PIPE if collects else None,
        stderr=subprocess.STDOUT if collects else None,
        bufsize=0,
        # The directory that was opened and checked, whatever its name is now.
        cwd=f"/proc/self/fd/{home_fd}",
        env=environ,
        umask=0o077,
        start_new_session=True,
    )


def _collect(process: subprocess.Popen[bytes], output: bytearray) -> None:
    """Read output until the process ends or nobody can write any more."""
    assert process.stdout is not None
    pipe_fd = process.stdout.fileno()
    os.set_blocking(pipe_fd, False)
    end_fd = os.pidfd_open(process.pid)
    try:
        poll = select.poll()
        poll.register(end_fd, select.POLLIN)
        poll.register(pipe_fd, select.POLLIN)
        while True:
            ready = {fd for fd, _mask in poll.poll()}
            if end_fd in ready:
                _drain(pipe_fd, output)
                return
            if not _take(pipe_fd, output):
                return
    finally:
        os.close(end_fd)


def _drain(pipe_fd: int, output: bytearray) -> None:
    """Read what is there now, no more than is kept: somebody may go on writing."""
    try:
        while len(output) < OUTPUT_MAX and _take(pipe_fd, output):
            pass
    except BlockingIOError:
        pass  # a grandchild keeps the pipe open; it is not waited for


def _take(pipe_fd: int, output: bytearray) -> bool:
    """Read once; False at the end of the output. What is too much is dropped."""
    part = os.read(pipe_fd, 4096)
    output += part[: max(0, OUTPUT_MAX - len(output))]
    return bool(part)
