"""What every `python -m pipelines.<stage>` does around its stage: params in, errors out, one line of result."""

import gc
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pipelines.core.cycles import search_from_now_on
from pipelines.core.errors import MiwakeError
from pipelines.core.layout import Layout, refuse_input_in_outputs
from pipelines.core.params import Params, load_params


def run_stage(
    name: str, stage: Callable[[Params, Layout], object], *, root: Path | None = None, needs_pandas: bool = False
) -> None:
    """Run one stage as a command: the process ends with status 0, or 1 and an error a person can act on.

    Args:
        name: of the stage, for messages.
        stage: wires params and paths to the stage's function; its result is printed.
        root: the folder of params.yaml; the working folder when None.
        needs_pandas: whether the stage uses pandas. pyarrow imports it at the first list that it is given, used or
            not, which costs a stage that does not 0.15 s: a fifth of split.
    """
    if not needs_pandas:
        sys.meta_path.insert(0, _NoPandas())
    search_from_now_on()
    layout = Layout(root or Path.cwd())
    started = time.monotonic()
    try:
        params = load_params(layout.params)
        refuse_input_in_outputs(params, layout)
        result = stage(params, layout)
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
    # nothing that is left is searched twice as the process ends; triton, of torch.compile, prints what it was not let
    # go of
    if "triton" not in sys.modules:
        gc.freeze()


def allow_pandas() -> None:
    """Let pandas be found again: torch's compiler, which torchvision imports, ends where a finder refuses it.

    pyarrow looked for it once, and does not again.
    """
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _NoPandas)]


class _NoPandas:
    """An import hook to which pandas is not installed."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:  # noqa: ARG002
        if name == "pandas":
            raise ModuleNotFoundError("this stage does without pandas: pass needs_pandas=True to run_stage", name=name)
