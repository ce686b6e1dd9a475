"""Which pictures a table has named already."""

from array import array
from collections.abc import Callable
from dataclasses import dataclass, field

from pipelines.core.errors import ImageError
from pipelines.ingest.listing import Origin


@dataclass
class Seen:
    """Which pictures stand above: by path or URL, the place of each row that was kept."""

    at: Callable[[int], str]
    """names a line"""
    lines: "array[int]" = field(default_factory=lambda: array("q"))
    first: dict[str, int] = field(default_factory=dict)
    others: dict[str, list[int]] = field(default_factory=dict)

    def add(self, name: str, line: int, label: str, origin: Origin, labels: list[str], origins: list[Origin]) -> None:
        """Remember a row about to be kept.

        Raises:
            ImageError: `duplicate-row` or `several-boxes`.
        """
        place = len(labels)
        before = self.first.setdefault(name, place)
        if before != place:
            for earlier in (before, *self.others.get(name, ())):
                if labels[earlier] == label:
                    _refuse_second(origin, origins[earlier], self.at(self.lines[earlier]))
            self.others.setdefault(name, []).append(place)
        self.lines.append(line)


def _refuse_second(origin: Origin, earlier: Origin, line: str) -> None:
    if origin.box != earlier.box:
        raise ImageError("several-boxes", f"{line} has it with another box; a picture has one: keep one of the rows")
    subset = origin.given_subset
    other = f", as {earlier.given_subset or 'neither'} and not {subset}" if subset != earlier.given_subset else ""
    raise ImageError("duplicate-row", f"{line} has it under the same label{other}")
