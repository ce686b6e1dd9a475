"""`python -m pipelines.ingest`: read the sources of params.yaml into data/ingest."""

from pipelines.core.layout import Layout
from pipelines.core.params import Params
from pipelines.core.stage import run_stage
from pipelines.ingest import IngestArtifact, ingest


def main(params: Params, layout: Layout) -> IngestArtifact:
    """Wire params and paths to the stage."""
    return ingest(params.ingest, root=layout.root, cache=layout.cache, out_dir=layout.stage("ingest"))


if __name__ == "__main__":
    run_stage("ingest", main)
