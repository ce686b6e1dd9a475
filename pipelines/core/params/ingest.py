"""Where the pictures come from, and what is refused at the door."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipelines.core.params.base import Count, Fraction, PositiveInt, Section, Seed


class SampleFlaws(Section):
    """How many flaws the sample source plants; each is listed in data/ingest/truth.csv."""

    exact_copies: Count
    """files whose bytes are those of another file of the same class"""
    near_copies: Count
    """pictures resized, recompressed, cropped, mirrored or brightened from another of the same class, in equal parts"""
    label_conflicts: Count
    """pictures filed a second time under a look-alike class, half of them byte for byte"""
    wrong_labels: Count
    """pictures filed under a look-alike class only"""
    broken_files: Count
    """truncated, empty or otherwise broken image files"""
    foreign_files: Count
    """files that are no images at all: notes, HTML saved as .jpg"""


class SampleSource(Section):
    """Drawn electric guitars of 13 models: a data set that needs no network and whose flaws are known."""

    kind: Literal["sample"]
    seed: Seed
    images_per_class: Annotated[int, Field(ge=1, le=10_000_000)]
    """pictures drawn of each of the 13 models; planted files come on top"""
    image_size: Annotated[int, Field(ge=16, le=2048)]
    """width and height of each drawn picture, pixels"""
    difficulty: Fraction
    """0: every model as its textbook picture (a frozen backbone gets about 99 % right); 0.3: about 90 %; 1: look-alikes
    nearly melt into each other"""
    flaws: SampleFlaws

    @model_validator(mode="after")
    def _flaws_exist(self) -> Self:
        pictures = 13 * self.images_per_class
        flaws = self.flaws
        copies = flaws.exact_copies + flaws.near_copies + flaws.label_conflicts
        if copies > pictures:
            raise ValueError(
                f"flaws.exact_copies + flaws.near_copies + flaws.label_conflicts is {copies}, but each copies a "
                f"picture of its own and 13 x images_per_class is {pictures}; lower them or raise images_per_class"
            )
        for name in ("wrong_labels", "broken_files", "foreign_files"):
            count = getattr(flaws, name)
            if count > pictures:
                raise ValueError(
                    f"flaws.{name} is {count}, more than the 13 x images_per_class = {pictures} pictures; "
                    "lower it or raise images_per_class"
                )
        return self


class FolderSource(Section):
    """A folder with a folder for each class."""

    kind: Literal["folder"]
    path: Annotated[str, Field(min_length=1)]
    """the folder, relative to params.yaml or absolute"""
    label_from: Literal["first_folder", "last_folder", "whole_path"]
    """which part of path/a/b/x.jpg is the label: a, b, or a/b"""
    symlinks: Literal["skip", "follow"]
    """skip: counted as rejects; follow: read, but never out of the folder and never in a circle"""
    hidden: Literal["skip", "read"]
    """files and folders whose name starts with a dot"""


Source = Annotated[SampleSource | FolderSource, Field(discriminator="kind")]


class IngestParams(Section):
    snapshot: Annotated[str, Field(min_length=1, max_length=100)]
    """any text; a new value reads every source anew, an old one brings its pictures back"""
    sources: Annotated[tuple[Source, ...], Field(min_length=1)]
    max_file_bytes: Annotated[int, Field(ge=1, le=2**33 - 1)]
    """larger files are rejected unread, bytes; what a tar header can hold is the limit"""
    max_pixels: PositiveInt
    """pictures of more pixels are rejected undecoded (decompression bombs)"""
    min_side: PositiveInt
    """pictures with a shorter side are rejected, pixels"""
    shard_bytes: Annotated[int, Field(ge=1024)]
    """a shard is closed when it would grow past this, bytes"""

    @model_validator(mode="after")
    def _one_sample(self) -> Self:
        if sum(source.kind == "sample" for source in self.sources) > 1:
            raise ValueError("ingest.sources names more than one sample, but truth.csv describes one; keep one of them")
        return self
