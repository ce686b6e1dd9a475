"""`dvc exp run -S key=value` changes a value's line of params.yaml and nothing else."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.hydra import apply_overrides
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
FILES = ["params.yaml", *sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("presets/*/params.yaml"))]


def numbers(value: Any, where: str = "") -> Iterator[str]:
    """The dotted keys of whole numbers, but for those inside of lists."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield from numbers(one, f"{where}.{key}".lstrip("."))
    elif type(value) is int:
        yield where


def changed_lines(before: str, after: str) -> list[tuple[str, str]]:
    old, new = before.splitlines(), after.splitlines()
    assert len(old) == len(new), "lines were added or lost"
    return [(a, b) for a, b in zip(old, new, strict=True) if a != b]


@pytest.mark.parametrize("name", FILES)
def test_an_experiment_changes_the_line_of_its_value_alone(name: str, tmp_path: Path) -> None:
    """DVC replaces every list by a new one: a comment or an empty line inside of a list, or right below it, is lost.

    Its writer leaves block lists without indentation, 'single quotes', and nothing for null.
    """
    text = (ROOT / name).read_text(encoding="utf-8")
    keys = list(numbers(YAML(typ="safe").load(text)))
    for key in (keys[0], keys[-1]):
        copy = tmp_path / "params.yaml"
        shutil.copy(ROOT / name, copy)
        apply_overrides(copy, [f"{key}=77"])
        ((before, after),) = changed_lines(text, copy.read_text(encoding="utf-8"))
        assert before.split(":")[0] == after.split(":")[0]
        assert after.strip().startswith(f"{key.split('.')[-1]}: 77")
