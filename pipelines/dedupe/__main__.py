"""python -m pipelines.dedupe"""

from pipelines.core.layout import Layout
from pipelines.core.params import Params
from pipelines.core.stage import run_stage
from pipelines.dedupe import DedupeArtifact, dedupe


def _run(params: Params, layout: Layout) -> DedupeArtifact:
    return dedupe(
        params.dedupe,
        root=layout.root,
        cache=layout.cache,
        ingest_dir=layout.stage("ingest"),
        decisions_dir=layout.decisions,
        out_dir=layout.stage("dedupe"),
        unlabelled=params.split.unlabelled,
    )


if __name__ == "__main__":
    run_stage("dedupe", _run)
