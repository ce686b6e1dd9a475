"""What a person asks of the machine: `miwake doctor`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer


def doctor(as_json: Annotated[bool, typer.Option("--json", help="For a program.")] = False) -> None:
    """Look at GPU, memory, disk, versions, fonts and the project: what is there, and what to do (then status 1)."""
    from pipelines.use.doctor import examine

    found = list(examine(Path.cwd()))
    if as_json:
        print(json.dumps([asdict(one) for one in found], ensure_ascii=False, indent=2))
    for one in found if not as_json else []:
        print(f"{'!' if one.remedy else ' '} {one.name:<9} {one.found}")
        if one.remedy:
            print(f"{'':12}{one.remedy}")
    if any(one.remedy for one in found):
        raise SystemExit(1)
