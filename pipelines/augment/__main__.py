"""The command `python -m pipelines.augment`."""

from pipelines.augment import AugmentArtifact, augment
from pipelines.core.layout import Layout
from pipelines.params import Params
from pipelines.params.command import run_stage


def run(params: Params, layout: Layout) -> AugmentArtifact:
    return augment(
        params.augment,
        crop=params.ingest.crop,
        splits=layout.splits,
        ingest_dir=layout.stage("ingest"),
        decisions_dir=layout.decisions,
        out_dir=layout.stage("augment"),
    )


if __name__ == "__main__":
    run_stage("augment", run)
