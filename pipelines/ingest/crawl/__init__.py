"""Pictures that search engines find, through icrawler's parts, without their losses."""

from pipelines.ingest.crawl.source import list_crawl

__all__ = ["list_crawl"]
