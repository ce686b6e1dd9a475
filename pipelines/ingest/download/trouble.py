"""What goes wrong on the network, in words that two runs share."""


class TroubleError(Exception):
    """A try that gave nothing.

    Args:
        outcome: of the Record.
        detail: of the Record; free of times and addresses of memory, so that two runs say the same.
        status: of HTTP, 0 where there was no answer.
        again: whether a later try may succeed.
        wait_seconds: what the server asks to wait (Retry-After), if it does.
        final_url, type, body: where it happened and what came with it; filled in on the way.
    """

    def __init__(
        self, outcome: str, detail: str, *, status: int = 0, again: bool = False, wait_seconds: float | None = None
    ) -> None:
        super().__init__(f"{outcome}: {detail}")
        self.outcome = outcome
        self.detail = plain(detail)
        self.status = status
        self.again = again
        self.wait_seconds = wait_seconds
        self.final_url = ""
        self.type = ""
        self.body = b""


def plain(text: str) -> str:
    """What a server says, fit for a terminal."""
    return text if text.isprintable() else "".join(one if one.isprintable() else "?" for one in text)


class StoppedError(Exception):
    """The run is ending: what was under way is given up."""
