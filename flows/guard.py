"""Run a command that ends, with all processes that it started, when its caller ends.

`start_guarded` runs this file with a pipe as standard input, to which the caller never writes. The pipe closes when the
caller closes it or dies, by whatever signal; then the command's process group gets SIGTERM, and SIGKILL three seconds
later. DVC does not pass signals on: without this a killed run would leave its training running.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from typing import Any

GRACE_SECONDS = 3.0


def start_guarded(command: list[str], **options: Any) -> subprocess.Popen[Any]:
    """Start `command` under a guard; closing the process's `stdin` ends it.

    Args:
        options: further ones of Popen.
    """
    # -I -S: the guard needs the standard library alone, and starts in a third of the time
    return subprocess.Popen(
        [sys.executable, "-I", "-S", __file__, *command],
        stdin=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # a Ctrl-C in the terminal reaches the caller alone
        **options,
    )


def main(command: list[str]) -> int:
    """Run `command` until it or the caller ends; return its exit status, 128 + N where signal N ended it."""
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)

    def end(*_: object) -> None:
        _signal_group(child.pid, signal.SIGTERM)
        timer = threading.Timer(GRACE_SECONDS, _signal_group, (child.pid, signal.SIGKILL))
        timer.daemon = True
        timer.start()

    def watch() -> None:
        while os.read(sys.stdin.fileno(), 1024):
            pass
        end()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, end)
    threading.Thread(target=watch, daemon=True).start()
    status = child.wait()
    # processes that the command started and did not wait for would go on writing into the repository
    _signal_group(child.pid, signal.SIGKILL)
    return status if status >= 0 else 128 - status


def _signal_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


if __name__ == "__main__":
    # the watching thread may still hold standard input: exit without waiting for it
    os._exit(main(sys.argv[1:]))
