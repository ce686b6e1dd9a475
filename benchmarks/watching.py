"""A process watched from outside: its wall seconds, its memory and the GPU's, and when each of its epochs ends."""

import os
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Watched:
    """A finished process.

    Args:
        seconds: wall time.
        peak_mb: resident memory of its largest single process, children included, MB (10^6 bytes).
        device_mb: largest rise of the GPU's memory while it ran, MB; 0 without one.
        epochs: seconds from the start to the end of each epoch that it told of.
        rates: pictures a second of each epoch's training, as it told.
        output: what it printed.
    """

    seconds: float
    peak_mb: float
    device_mb: float
    epochs: tuple[float, ...]
    rates: tuple[float, ...]
    output: str

    @property
    def rate(self) -> float:
        """Pictures a second while training: the median over the epochs after the first, which warms up."""
        return statistics.median(self.rates[1:] or self.rates)


EPOCH = re.compile(r"epoch (\d+) of (\d+)\b.*?([\d,]+) pictures a second")


def watch(command: Sequence[str], *, cwd: Path, env: Mapping[str, str] | None = None) -> Watched:
    """Run `command` to its end, and note when each epoch ends.

    Raises:
        SystemExit: the command failed; its output is shown.
    """
    started = time.perf_counter()
    process = subprocess.Popen(
        list(command),
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    ended = threading.Event()
    peaks: list[float] = [0.0]
    poll = threading.Thread(target=_poll_device, args=(ended, peaks))
    poll.start()
    lines, epochs, rates = [], [], []
    with process.stdout as stdout:
        for line in stdout:
            lines.append(line)
            if found := EPOCH.search(line):
                epochs.append(time.perf_counter() - started)
                rates.append(float(found[3].replace(",", "")))
    # wait4 counts the process and all children that it waited for
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    ended.set()
    poll.join()
    process.returncode = os.waitstatus_to_exitcode(status)
    output = "".join(lines)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed with {process.returncode} in {cwd}:\n{output[-4000:]}")
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    return Watched(seconds, usage.ru_maxrss * unit / 1e6, peaks[0], tuple(epochs), tuple(rates), output)


def _poll_device(ended: threading.Event, peaks: list[float]) -> None:
    """Note the largest rise of the GPU's used memory, where this process has begun to use one."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return
    before = torch.cuda.mem_get_info()[0]
    while not ended.wait(0.2):
        peaks[0] = max(peaks[0], (before - torch.cuda.mem_get_info()[0]) / 1e6)
