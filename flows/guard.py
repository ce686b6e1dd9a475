"""Runs a command and ends it, with everything it started, as soon as whoever asked for it is gone.

`python -I -S flows/guard.py COMMAND …`, with a pipe as standard input that the caller never writes to. The pipe closes
when the caller closes it or dies, by whatever signal; then the command's process group gets SIGTERM, and SIGKILL ten
seconds later. Without this a killed run leaves its training behind: DVC does not pass signals on.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading

GRACE_SECONDS = 10.0


def main(command: list[str]) -> int:
    """Run `command` to its end or the caller's; the command's exit status, or 128 + the signal that ended it."""
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
    # what the command started and did not wait for would go on writing into the repository
    _signal_group(child.pid, signal.SIGKILL)
    return status if status >= 0 else 128 - status


def _signal_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


if __name__ == "__main__":
    # a stopped thread may hold standard input: leave without waiting for it
    os._exit(main(sys.argv[1:]))
