"""What every `python -m pipelines.<stage>` does around its stage: params in, errors out, one line of result."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pipelines.core.errors import MiwakeError
from pipelines.core.layout import Layout
from pipelines.core.params import Params, load_params


def run_stage(name: str, stage: Callable[[Params, Layout], object], *, root: Path | None = None) -> None:
    """Run one stage as a command: the process ends with status 0, or 1 and an error a person can act on.

    Args:
        name: of the stage, for messages.
        stage: wires params and paths to the stage's function; its result is printed.
        root: the folder of params.yaml; the working folder when None.
    """
    layout = Layout(root or Path.cwd())
    started = time.monotonic()
    try:
        result = stage(load_params(layout.params), layout)
    except MiwakeError as error:
        print(f"{name}: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        what = f"{error.filename}: " if error.filename else ""
        print(f"{name}: {what}{os.strerror(error.errno or 0)}; nothing half-written was left", file=sys.stderr)
        raise SystemExit(1) from error
    print(f"{name}: {result} [{time.monotonic() - started:.1f} s]")
