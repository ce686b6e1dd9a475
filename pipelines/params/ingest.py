"""Where the pictures come from, how they are fetched, and what is refused at the door."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipelines.params.base import Fraction, PositiveFloat, PositiveInt, Section
from pipelines.params.sources import Source


class DownloadParams(Section):
    """How pictures are fetched from the network, for every source that names URLs."""

    contact: Annotated[str, Field(pattern=r"^[ -~]*$", max_length=200)] = ""
    """an address or page by which a site's owner can reach you; part of the user agent, so in ASCII"""
    connections: Annotated[int, Field(ge=1, le=256)] = 16
    """open at the same time"""
    connections_per_host: Annotated[int, Field(ge=1, le=64)] = 4
    delay_seconds: Annotated[float, Field(ge=0.0)] = 0.1
    """between two requests to one host; robots.txt may ask for more"""
    timeout_seconds: PositiveFloat = 30.0
    """for one try, from connecting to the last byte"""
    max_attempts: Annotated[int, Field(ge=1, le=20)] = 3
    """of one URL, where a later one may succeed: 408, 429, 5xx, a broken connection"""
    max_wait_seconds: PositiveFloat = 60.0
    """longest pause before another try; a Retry-After beyond it ends the tries"""
    max_redirects: Annotated[int, Field(ge=0, le=20)] = 5
    robots: Literal["obey", "ignore"] = "obey"
    """robots.txt of each host, and X-Robots-Tag: noai of an answer; ignore them only for hosts whose owner agreed"""
    private_hosts: tuple[Annotated[str, Field(pattern=r"^[^\s/@?#]+$")], ...] = ()
    """hosts, as URLs name them (host or host:port), that may lie in private, loopback or link-local networks; all
    others there are refused"""


class NoCrop(Section):
    """Whole pictures. Here as everywhere, a box from a table goes before, and a row of data/decisions/crop.csv before
    both."""

    kind: Literal["none"] = "none"


class CenterCrop(Section):
    """The largest centred square."""

    kind: Literal["center"] = "center"


class FileCrop(Section):
    """What data/decisions/crop.csv says of each picture."""

    kind: Literal["file"] = "file"
    without: Literal["whole", "error"] = "whole"
    """pictures without a row there: taken whole (or their table's box), or augment refuses to pack"""


class FaceCrop(Section):
    """A square around the face that a detector finds; needs the extra `face`: pip install 'miwake[face]'."""

    kind: Literal["face"] = "face"
    margin: Annotated[float, Field(ge=0.0, le=2.0)] = 0.3
    """added on each side, as a fraction of the face's longer side; less where the picture ends"""
    min_side: PositiveInt = 24
    """faces with a shorter side do not count, pixels"""
    min_confidence: Fraction = 0.85
    """of the detector that it is a face: below 0.5 anything, from 0.85 on few false ones, faces rarely get 0.95"""
    if_no_face: Literal["whole", "center", "reject"] = "center"
    """pictures without a face that counts"""
    if_several: Literal["largest", "whole", "reject"] = "largest"
    """pictures with several faces that count"""


CropParams = Annotated[NoCrop | CenterCrop | FileCrop | FaceCrop, Field(discriminator="kind")]


class IngestParams(Section):
    snapshot: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)] = "1"
    """letters, digits, dots and dashes; a new name reads every source anew, an old one brings its pictures back"""
    sources: Annotated[tuple[Source, ...], Field(min_length=1)]
    download: DownloadParams = DownloadParams()
    crop: CropParams = NoCrop()
    """which part of a picture counts; recorded in the manifest and applied by augment, the original is kept"""
    max_file_bytes: Annotated[int, Field(ge=1, le=2**33 - 1)] = 67_108_864
    """larger files are rejected unread, bytes; what a tar header can hold is the limit"""
    max_pixels: PositiveInt = 100_000_000
    """pictures of more pixels are rejected undecoded (decompression bombs)"""
    min_side: PositiveInt = 8
    """pictures with a shorter side are rejected, pixels"""
    shard_bytes: Annotated[int, Field(ge=1024)] = 268_435_456
    """a shard is closed when it would grow past this, bytes"""

    @model_validator(mode="after")
    def _one_sample(self) -> Self:
        if sum(source.kind == "sample" for source in self.sources) > 1:
            raise ValueError("ingest.sources names more than one sample, but truth.csv describes one; keep one of them")
        return self
