"""progress: plain lines in a log, a bar on a terminal."""

import os
import pty
import sys

import pytest

from pipelines.core import progress as shown
from pipelines.core.progress import progress


def test_a_log_has_lines_with_the_last_note(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shown, "LINE_EVERY_SECONDS", 0.0)
    with progress("train", 1000, unit="pictures", done=400) as advance:
        advance(100)
        advance(0, note="loss 0.5")
        advance(100, 2_000_000)
        advance(0, note="")
    first, second, third, fourth = capsys.readouterr().err.splitlines()
    assert first.startswith("train: 500 of 1,000 pictures, ")
    assert first.endswith(" s left")
    assert second.endswith(" s left, loss 0.5")
    assert third.startswith("train: 600 of 1,000 pictures, ")
    assert "MB a second" in third
    assert third.endswith(" s left, loss 0.5")
    assert fourth.endswith(" s left")


def test_a_log_has_no_line_for_what_is_done_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("train", 10, unit="pictures") as advance:
        advance(10, note="loss 0.5")
    assert capsys.readouterr().err == ""


def read_now(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except BlockingIOError:
        return b""


def test_a_terminal_has_a_bar_with_the_last_note(monkeypatch: pytest.MonkeyPatch) -> None:
    leader, follower = pty.openpty()
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("TERM", "xterm")
    with os.fdopen(follower, "w") as terminal, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", terminal)
        with progress("train", 10, unit="pictures") as advance:
            advance(5, note="loss [bold]0.5")
            advance(0)
        os.set_blocking(leader, False)
        seen = b"".join(iter(lambda: read_now(leader), b"")).decode()
    os.close(leader)
    assert "5/10" in seen
    assert "loss [bold]0.5" in seen
