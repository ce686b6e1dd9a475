"""Ingest: reads every source and packs its pictures by content; each file has its provenance or a reject's reason.

A source lists its files (`sources`, and a module or package a kind: folder, archive, table, torchvision_data, urls,
crawl, sample) as a `listing.Listing`. `run` compares it with an earlier run (`snapshots`, `incremental`, `changes`),
cuts the rest into chunks and maps `inspection.inspect_chunk` over a pool. `output` sorts the results by label and
image_id, and writes shards, manifest and thumbnails.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.ingest.stage import IngestArtifact, ingest

__all__ = ["IngestArtifact", "ingest"]


def __getattr__(name: str) -> Any:
    """Import the stage when it is asked for: workers, which need a part of it only, start in half of the time."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pipelines.ingest import stage

    return getattr(stage, name)
