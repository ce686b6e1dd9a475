"""The kinds of places that pictures come from: one model a kind, told apart by `kind`."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipelines.params.base import Count, Fraction, PathText, PositiveInt, Section, Seed
from pipelines.params.engines import OPENVERSE, Engine

Text = Annotated[str, Field(min_length=1)]
LabelFrom = Literal["first_folder", "last_folder", "whole_path"]
SubsetFrom = Literal["first_folder"] | None
Symlinks = Literal["skip", "follow", "follow_anywhere"]


class SampleFlaws(Section):
    """How many flaws the sample source plants; each is listed in data/ingest/truth.csv."""

    exact_copies: Count = 12
    """files whose bytes are those of another file of the same class"""
    near_copies: Count = 24
    """pictures resized, recompressed, cropped, mirrored or brightened from another of the same class, in equal parts"""
    label_conflicts: Count = 6
    """pictures filed a second time under a look-alike class, half of them byte for byte"""
    wrong_labels: Count = 8
    """pictures filed under a look-alike class only"""
    broken_files: Count = 6
    """truncated, empty or otherwise broken image files"""
    foreign_files: Count = 4
    """files that are no images at all: notes, HTML saved as .jpg"""


class SampleSource(Section):
    """Drawn electric guitars of 13 models: a data set that needs no network and whose flaws are known."""

    kind: Literal["sample"] = "sample"
    seed: Seed = 42
    images_per_class: Annotated[int, Field(ge=1, le=10_000_000)] = 60
    """pictures drawn of each of the 13 models; planted files come on top"""
    image_size: Annotated[int, Field(ge=16, le=2048)] = 224
    """width and height of each drawn picture, pixels"""
    difficulty: Fraction = 0.3
    """0: every model as its textbook picture (a frozen backbone gets about 99 % right); 0.3: about 90 %; 1: look-alikes
    nearly melt into each other"""
    flaws: SampleFlaws = SampleFlaws()

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

    kind: Literal["folder"] = "folder"
    path: PathText
    """the folder, relative to params.yaml or absolute; ~ and $NAME are understood, as in every path here"""
    label_from: LabelFrom = "last_folder"
    """which part of path/a/b/x.jpg is the label: a, b, or a/b"""
    subset_from: SubsetFrom = None
    """first_folder: the folders train, val and test (training, valid, validation, dev, testing too) hold the class
    folders, from which label_from then counts; for split.method: predefined"""
    symlinks: Symlinks = "skip"
    """skip: counted as rejects; follow: read, but never out of the folder and never in a circle; follow_anywhere: also
    out of the folder, as into the caches of DVC and git-annex"""
    hidden: Literal["skip", "read"] = "skip"
    """files and folders whose name starts with a dot"""


class ArchiveSource(Section):
    """A zip or tar (also .tar.gz, .tar.bz2, .tar.xz) that holds a folder for each class."""

    kind: Literal["archive"] = "archive"
    path: PathText
    """the archive, relative to params.yaml or absolute"""
    label_from: LabelFrom = "last_folder"
    """which part of path/a/b/x.jpg inside the archive is the label: a, b, or a/b"""
    subset_from: SubsetFrom = None
    """as of a folder; one folder that holds all the others does not count"""
    hidden: Literal["skip", "read"] = "skip"
    """members whose name, or a folder of whose path, starts with a dot"""
    max_files: PositiveInt = 1_000_000
    """an archive with more members is refused"""
    max_bytes: PositiveInt = 100_000_000_000
    """an archive that unpacks to more is refused, bytes"""


class BoxColumns(Section):
    """Where a table says which part of its picture a row is about."""

    columns: Annotated[tuple[Text, ...], Field(min_length=1, max_length=4)]
    """one column that holds four numbers, or four columns"""
    order: Literal["left_top_right_bottom", "left_top_width_height"] = "left_top_right_bottom"
    unit: Literal["pixels", "fraction"] = "pixels"

    @model_validator(mode="after")
    def _one_or_four(self) -> Self:
        if len(self.columns) not in (1, 4):
            raise ValueError(
                f"columns names {len(self.columns)} columns; name one that holds four numbers, or four of one number"
            )
        return self


class TableSource(Section):
    """A CSV, Parquet or JSON Lines table: a row a picture, with its path, URL or bytes, its labels and what else is
    known."""

    kind: Literal["table"] = "table"
    path: PathText
    """the table, relative to params.yaml or absolute; or a folder or pattern (shards/*.parquet) of its parts"""
    format: Literal["csv", "parquet", "jsonl"] = "csv"
    encoding: Text = "utf-8"
    """of csv and jsonl, by Python's names: utf-8, windows-1252, shift_jis, utf-16, …; a byte order mark goes before"""
    image_column: Text
    image_is: Literal["path", "url", "bytes"] = "path"
    """bytes: the picture itself, in Parquet: a binary column, or one of {bytes, path} as model hubs have it; such a
    column is taken so whatever stands here"""
    root: PathText = "."
    """the folder where paths start, relative to params.yaml or absolute; nothing outside of it is read"""
    symlinks: Symlinks = "skip"
    """files and folders on the way that are links; as of a folder"""
    label_columns: Annotated[tuple[Text, ...], Field(min_length=1)]
    """one column, or several whose values are joined to one label; each value is kept as a factor"""
    joined_by: Text = "×"
    """what stands between the values of several label columns: male×warrior"""
    subset_column: Text | None = None
    """says train, val or test (training, valid, validation, dev, testing too); for split.method: predefined"""
    subset_from: Literal["file_name"] | None = None
    """the same from the names of a table's parts: train-00000-of-00004.parquet, test/0000.parquet"""
    group_column: Text | None = None
    """whose pictures must stay on one side of the split (a patient, a site): name it in split.group_by"""
    box: BoxColumns | None = None
    license_column: Text | None = None
    creator_column: Text | None = None
    page_url_column: Text | None = None

    @model_validator(mode="after")
    def _keys_agree(self) -> Self:
        if self.image_is == "bytes" and self.format != "parquet":
            raise ValueError(
                f"image_is is bytes, which {self.format} cannot hold: set format: parquet, or image_is: path"
            )
        if self.subset_column is not None and self.subset_from is not None:
            raise ValueError("subset_column and subset_from both say which subset a picture is in: set one to null")
        try:
            "a".encode(self.encoding)
        except LookupError as error:
            raise ValueError(
                f"encoding {self.encoding!r} is none that Python knows: write utf-8, windows-1252, latin-1, shift_jis, "
                "gb18030, utf-16, …"
            ) from error
        return self


class UrlsSource(Section):
    """A list of URLs, each with its label."""

    kind: Literal["urls"] = "urls"
    path: PathText
    """the list, relative to params.yaml or absolute"""
    format: Literal["text", "csv"] = "csv"
    """text: a URL and its label on each line, # starts a comment; csv: columns url and label, and if there are any
    license, creator and page_url"""
    gone: Literal["keep", "drop"] = "keep"
    """pictures that an earlier snapshot fetched and this one no longer lists"""


class CrawlSource(Section):
    """Pictures that search engines find: classes and the words to search for."""

    kind: Literal["crawl"] = "crawl"
    classes: Annotated[dict[Text, Annotated[tuple[Text, ...], Field(min_length=1)]], Field(min_length=1)]
    """label: search words, one search for each line; the searches of a class share it evenly"""
    images_per_class: PositiveInt = 100
    """wanted, each of other bytes, before ingest's own limits (min_side, …) are applied; engines are asked in turn
    until a class has them"""
    max_pages: PositiveInt = 10
    """pages of results asked of an engine for each search, at most"""
    engines: Annotated[tuple[Engine, ...], Field(min_length=1)] = (OPENVERSE,)
    """asked in this order: all searches of a class at one engine, then at the next"""
    fail_when: Literal["any", "empty"] = "empty"
    """any: a class that ends with fewer pictures than wanted stops the run; empty: only one without a single picture"""
    gone: Literal["keep", "drop"] = "keep"
    """pictures that an earlier snapshot fetched and this one no longer finds"""


class TorchvisionSource(Section):
    """A classification data set of torchvision.datasets."""

    kind: Literal["torchvision"] = "torchvision"
    dataset: Annotated[str, Field(pattern=r"^[A-Z][A-Za-z0-9_]*$")]
    """name of the class: CIFAR10, Flowers102, Imagenette, OxfordIIITPet, KMNIST, …"""
    root: PathText = "datasets"
    """where its files lie or are downloaded to, relative to params.yaml or absolute"""
    splits: Annotated[tuple[Text, ...], Field(min_length=1)] = ("train", "test")
    """which parts to read, by torchvision's names (train, test, val, trainval, …), of EMNIST such as letters-train, of
    a data set without parts: all; kept for split.method: predefined"""
    options: dict[Literal["size", "small", "partition", "annotation_level", "image_set", "folds"], str | int | bool] = (
        Field(default_factory=dict)
    )
    """what else the class is told: size: 160px for Imagenette, annotation_level: family for FGVCAircraft; or
    {}"""
    download: bool = True
    """fetch what is missing, by torchvision's own means"""


Source = Annotated[
    SampleSource | FolderSource | ArchiveSource | TableSource | UrlsSource | CrawlSource | TorchvisionSource,
    Field(discriminator="kind"),
]
