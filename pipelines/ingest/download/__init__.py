"""Pictures from the network, for every source that names URLs: safely, politely, each URL accounted for."""

from pipelines.ingest.download.addresses import clean_url
from pipelines.ingest.download.downloader import Attempt, Downloader, Page
from pipelines.ingest.download.gone import keep_gone
from pipelines.ingest.download.journal import Journal, objects_folder, source_key
from pipelines.ingest.download.records import Record, Request
from pipelines.ingest.download.results import download_listing, listing
from pipelines.ingest.download.schedule import fetch_all

__all__ = [
    "Attempt",
    "Downloader",
    "Journal",
    "Page",
    "Record",
    "Request",
    "clean_url",
    "download_listing",
    "fetch_all",
    "keep_gone",
    "listing",
    "objects_folder",
    "source_key",
]
