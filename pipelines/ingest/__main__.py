"""`python -m pipelines.ingest`: read the sources of params.yaml into data/ingest."""

from pipelines.core.layout import Layout
from pipelines.ingest import IngestArtifact, ingest
from pipelines.params import Params
from pipelines.params.command import run_stage


def main(params: Params, layout: Layout) -> IngestArtifact:
    """Wire params and paths to the stage."""
    return ingest(params.ingest, root=layout.root, cache=layout.cache, out_dir=layout.stage("ingest"))


if __name__ == "__main__":
    run_stage("ingest", main)
