"""Ingest: pictures from every source, packed by content, each file with its provenance or its reason."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.ingest.stage import IngestArtifact, ingest

__all__ = ["IngestArtifact", "ingest"]


def __getattr__(name: str) -> Any:
    """The stage, once it is asked for: worker processes, which need but a part of it, start in half of the time."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pipelines.ingest import stage

    return getattr(stage, name)
