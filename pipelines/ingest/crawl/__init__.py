"""Pictures that search engines find.

icrawler knows the engines: its filters make the URLs of Bing, Google and Baidu, and its cipher reads Baidu's addresses.
Its threads are not used: they end at the first exception without a word, take more than was wanted, and name files by
their arrival. Pages and pictures are fetched by `pipelines.ingest.fetch`, like those of every other source.

answers   what a page of results says
scraped   Bing, Google and Baidu, whose pages are made for people
apis      Flickr and any service that answers in JSON
engines   an engine by its params; one page of results asked for
search    which page and picture a class needs next
source    all classes at once; rows, warnings and the listing
"""

from pipelines.ingest.crawl.source import list_crawl

__all__ = ["list_crawl"]
