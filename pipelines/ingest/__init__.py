"""Ingest: pictures from every source, packed by content, each file with its provenance or its reason."""

from pipelines.ingest.stage import IngestArtifact, ingest

__all__ = ["IngestArtifact", "ingest"]
