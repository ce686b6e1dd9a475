"""Taking a model elsewhere: `miwake export`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pipelines.core.layout import Layout


class ExportFormat(StrEnum):
    onnx = "onnx"
    torch = "torch"
    safetensors = "safetensors"


def export(
    kind: Annotated[ExportFormat, typer.Argument(help="torch: a program of torch.export.", metavar="FORMAT")],
    folder: Annotated[Path, typer.Argument(help="To write; new or empty.")],
    member: Annotated[str | None, typer.Option(help="This member alone; all together without it.")] = None,
    int8: Annotated[bool, typer.Option("--int8", help="ONNX in 8 bits, where that costs little.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Take int8 whatever it costs.")] = False,
    model: Annotated[Path | None, typer.Option(help="A project or a model folder; this project without it.")] = None,
) -> None:
    """Write the model for use elsewhere, with a model card, if it says of all test pictures what it says here."""
    from pipelines.use.export import export as write
    from pipelines.use.model_folder import find_model

    root = Path.cwd()
    found = find_model(root, model)
    parity = write(found, Layout(found.where), folder, kind=kind.value, member=member, int8=int8, force=force)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
    print(f"export: {folder} ({size:,.1f} MB)" + (f"; on {parity}" if parity else ""))
