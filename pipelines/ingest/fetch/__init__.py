"""Pictures from the network, for every source that names URLs: safely, politely, each URL accounted for.

records     what is asked for, what came of it, what went wrong
urls        which URLs may be asked for, in which form, at which addresses
politeness  when a host may be asked, and what its robots.txt allows
fetcher     one URL with its redirects and attempts, on one aiohttp session
store       contents by their sha256
journal     what was tried, in SQLite, over kills and snapshots; the reader of fetched pictures
listing     many URLs at the same time; from requests to a listing
"""

from pipelines.ingest.fetch.journal import Journal, source_key
from pipelines.ingest.fetch.listing import download_listing, listing
from pipelines.ingest.fetch.records import FetchRecord, FetchRequest

__all__ = ["FetchRecord", "FetchRequest", "Journal", "download_listing", "listing", "source_key"]
