"""What every `python -m pipelines.<stage>` does around its stage: read params, print one line or an error."""

import os
import re
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from pipelines.core.errors import InputError, MiwakeError
from pipelines.core.layout import OUTPUTS, Layout, repro_of
from pipelines.params.inputs import refuse_input_in_outputs
from pipelines.params.load import Params
from pipelines.params.resolve import load_resolved

FEWER_THREADS = ("OMP_DYNAMIC", "OMP_MAX_ACTIVE_LEVELS", "OMP_THREAD_LIMIT")
"""variables by which OpenMP starts fewer threads than torch was told of: oneDNN then waits for the others forever, seen
under load with OMP_DYNAMIC=true"""


def run_stage(name: str, stage: Callable[[Params, Layout], object], *, root: Path | None = None) -> None:
    """Run one stage as a command, with the values of data/params.yaml.

    Args:
        name: of the stage, for messages.
        stage: wires params and paths to the stage's function; its result is printed.
        root: the folder of params.yaml; the working folder when None.
    """

    def work(layout: Layout) -> object:
        params = load_resolved(layout, by_dvc="DVC_ROOT" in os.environ)
        refuse_input_in_outputs(params, layout)
        return stage(params, layout)

    run_command(name, work, root=root)


def run_command(name: str, work: Callable[[Layout], object], *, root: Path | None = None) -> None:
    """Do `work` and print its result: the process ends with status 0, or 1 and an error a person can act on."""
    for variable in FEWER_THREADS:  # read when torch is imported
        os.environ.pop(variable, None)
    layout = Layout(root or Path.cwd())
    started = time.monotonic()
    try:
        check_project(layout.root, by_dvc="DVC_ROOT" in os.environ)
        result = work(layout)
    except MiwakeError as error:
        print(f"{name}: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        print(f"{name}: {_explain(error, layout)}; nothing half-written was left", file=sys.stderr)
        raise SystemExit(1) from error
    print(f"{name}: {result} [{time.monotonic() - started:.1f} s]")


def check_project(root: Path, *, by_dvc: bool) -> None:
    """Refuse a project in which a later stage would fail.

    Args:
        root: the folder of params.yaml.
        by_dvc: whether DVC runs the stages.

    Raises:
        InputError: a folder that stages write cannot be written, or DVC cannot work at this path.
    """
    if by_dvc and {"{", "}"} & set(str(root.absolute())):
        raise InputError(
            f"{root.absolute()} has {{ or }} in its path, which DVC takes for a placeholder: rename the folder"
        )
    layout = Layout(root)
    for folder in (root, root / ".dvc", layout.cache, layout.decisions.parent, *map(layout.stage, OUTPUTS)):
        if not folder.exists():
            continue
        try:
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise InputError(
                f"{folder} cannot be written ({error.strerror}), and every stage writes there: let this user write it, "
                "or work in a copy of the project"
            ) from error


def _explain(error: OSError, layout: Layout) -> str:
    """The file, what is wrong with it, and for one that a stage writes, which to run first."""
    # Arrow's errors have no file name: "… Failed to open local file '/a/b'. Detail: …"
    file = error.filename or next(iter(re.findall(r"'(.+)'", str(error))), None)
    if not isinstance(file, str | bytes):
        return str(error)
    path = Path(os.fsdecode(file))
    written = (command := repro_of(path)) != "dvc repro" and path.absolute().is_relative_to(layout.root.absolute())
    if isinstance(error, FileNotFoundError) and written:
        return f"{path} does not exist: run `{command}` first"
    return f"{path}: {os.strerror(error.errno or 0)}"
