"""What counts as the same picture, and what happens to it."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipelines.params.base import PathText, PositiveInt, Section


class EmbeddingParams(Section):
    """A second opinion for heavier edits: features of EfficientNet-Lite0 with its ImageNet weights. Imports torch."""

    min_cosine: Annotated[float, Field(ge=0.5, le=1.0)] = 0.9
    """how alike the features of two pictures must be: cosine; such pairs stay, and no split parts them"""
    num_threads: PositiveInt = 2
    """of torch; part of the result's last digits"""


class ReferenceParams(Section):
    """Pictures that this data set shall not repeat: last month's test set, say."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$", max_length=100)]
    """what duplicates.csv calls it"""
    path: PathText
    """a manifest.parquet with its shards and thumbnails.npy beside it, or a folder of pictures; from params.yaml. DVC
    does not watch it: after a change run `dvc repro --force dedupe`"""
    found: Literal["drop", "report"] = "drop"
    """a picture that is in it too: drop it, or only list it in duplicates.csv"""


class DedupeParams(Section):
    near: bool = True
    """look for near copies too, not only for equal files and equal pixels"""
    mirror: bool = True
    """a mirrored picture is a near copy"""
    rotations: bool = False
    """a picture turned by 90, 180 or 270 degrees is a near copy, with `mirror` in all eight orientations; costs a
    quarter more time"""
    min_score: Annotated[float, Field(ge=0.5, le=1.0)] = 0.95
    """how alike two thumbnails must be to count as near copies: correlation after alignment; rises by itself with N"""
    duplicates: Literal["drop", "keep"] = "drop"
    """drop: the best picture of a group stays; keep: all stay, and the group is never split"""
    recrops: Literal["drop", "keep"] = "keep"
    """the same photograph cut differently, so that neither holds all of the other: as duplicates"""
    label_conflicts: Literal["hold", "keep"] = "hold"
    """a picture under two labels: hold out until data/decisions/ settles it, or keep both"""
    embeddings: EmbeddingParams | None = None
    reference_sets: tuple[ReferenceParams, ...] = ()

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [reference.name for reference in self.reference_sets]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(
                f"dedupe.reference_sets names {', '.join(twice)} more than once; give each set a name of its own"
            )
        return self
