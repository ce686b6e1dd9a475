"""Pictures from the network, for every source that names URLs: safely, politely, each URL accounted for.

records     what is asked for, and what came of it
addresses   which URLs may be asked for, in which form, at which addresses
sockets, transport, reading     one exchange with one server: its time, its body, its size
gate, robots    when a host may be asked, and for what
follow      one try through all its redirects
downloader  one URL with all its tries; pages of search results
schedule    many URLs at the same time
store, pictures     what came, by its sha256; read by URL
journal, gone       what was tried, over kills and snapshots
results     from requests to a listing
"""

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
