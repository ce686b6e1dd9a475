"""Factors: the values of several label columns that were joined to one label, as one JSON object of texts a file."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from pipelines.core.errors import InputError
from pipelines.core.layout import repro_of


def parse_factors(text: str | None) -> dict[str, str]:
    """The factors in one cell; {} where it is empty.

    Raises:
        ValueError: the text is no JSON object of texts.
    """
    if not text:
        return {}
    try:
        found = json.loads(text)
    except RecursionError as error:  # brackets without end
        raise ValueError("nested too deeply") from error
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise ValueError("not an object of texts")
    return found


def parse_column(texts: Iterable[str | None], path: Path) -> dict[str | None, dict[str, str]]:
    """The different texts of the column `factors` of the file at `path`, to the factors of each.

    Raises:
        InputError: a text is no JSON object of texts.
    """
    parsed: dict[str | None, dict[str, str]] = {}
    for text in dict.fromkeys(texts):
        try:
            parsed[text] = parse_factors(text)
        except ValueError as error:
            raise InputError(
                f"{path} holds the factors {text!r}, no JSON object of texts ({error}): run `{repro_of(path)}`"
            ) from error
    return parsed


def write_factors(factors: Mapping[str, str]) -> str:
    """The text of a cell, which `parse_factors` reads."""
    return json.dumps(dict(factors), ensure_ascii=False)
