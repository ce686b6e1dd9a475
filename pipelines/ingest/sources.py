"""Every kind of source, by its `kind`; each is imported when it is asked for."""

from pipelines.ingest.listing import Listing, Place
from pipelines.params.sources import (
    ArchiveSource,
    FolderSource,
    SampleSource,
    Source,
    TableSource,
    TorchvisionSource,
    UrlsSource,
)


def list_source(entry: Source, *, source: str, place: Place) -> Listing:
    """List one entry of ingest.sources; those on the network are fetched now.

    Args:
        entry: its params.
        source: its name in manifest and rejects: "0-folder".

    Raises:
        InputError: the source is missing, empty or unusable.
    """
    if isinstance(entry, SampleSource):
        from pipelines.ingest.sample import list_sample

        return list_sample(entry, source=source)
    if isinstance(entry, FolderSource):
        from pipelines.ingest.folder import list_folder

        return list_folder(entry, source=source, root=place.root, max_file_bytes=place.params.max_file_bytes)
    if isinstance(entry, ArchiveSource):
        from pipelines.ingest.archive import list_archive

        return list_archive(entry, source=source, place=place)
    if isinstance(entry, TableSource):
        from pipelines.ingest.table import list_table

        return list_table(entry, source=source, place=place)
    if isinstance(entry, TorchvisionSource):
        from pipelines.ingest.torchvision_data import list_torchvision

        return list_torchvision(entry, source=source, place=place)
    if isinstance(entry, UrlsSource):
        from pipelines.ingest.urls import list_urls

        return list_urls(entry, source=source, place=place)
    from pipelines.ingest.crawl import list_crawl

    return list_crawl(entry, source=source, place=place)
