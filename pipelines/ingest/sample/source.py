"""The listing of the sample source, and the reader that draws a picture when it is asked for."""

from dataclasses import dataclass

from pipelines.core.errors import ImageError
from pipelines.ingest.listing import Listing
from pipelines.ingest.sample.flaws import plan, planted_bytes
from pipelines.ingest.sample.models import CLASSES, MODELS
from pipelines.ingest.sample.names import file_index, file_name
from pipelines.ingest.sample.picture import draw
from pipelines.params.sources import SampleSource


@dataclass(frozen=True)
class SampleReader:
    """Draws the file behind a path; small, so that it travels to workers with every chunk."""

    params: SampleSource

    def __call__(self, source_path: str) -> bytes:
        """The whole file.

        Raises:
            ImageError: `missing`, where the sample has no such file.
        """
        plans = plan(self.params)
        if source_path in plans:
            return planted_bytes(self.params, plans[source_path])
        label, _, name = source_path.partition("/")
        stem, _, ext = name.partition(".")
        if label in MODELS and ext == "jpg" and len(stem) == 8 and stem.isdecimal() and stem.isascii():
            index = file_index(self.params.seed, label, stem)
            if index < self.params.images_per_class:
                return draw(self.params, label, index)
        raise ImageError("missing", f"the sample has no file {source_path}")


def list_sample(params: SampleSource, *, source: str) -> Listing:
    """List the pictures and the planted files; nothing is drawn.

    Args:
        source: index and kind of the entry of ingest.sources: "0-sample".
    """
    paths = [file_name(params.seed, label, index) for label in CLASSES for index in range(params.images_per_class)]
    paths += plan(params)
    paths.sort()
    by_name = {label: label for label in CLASSES}  # one string object a class, however many files
    labels = [by_name[path[: path.index("/")]] for path in paths]
    return Listing(source=source, paths=paths, labels=labels, read=SampleReader(params), rejects=[])
