"""`python -m pipelines.report`: writes data/report from what the other stages wrote."""

from pipelines.core.layout import Layout
from pipelines.params import Params
from pipelines.params.command import run_stage
from pipelines.report.stage import ReportArtifact, report


def main(params: Params, layout: Layout) -> ReportArtifact:
    return report(
        params.report,
        train=params.train,
        max_pixels=params.ingest.max_pixels,
        snapshot=params.ingest.snapshot,
        ingest_dir=layout.stage("ingest"),
        dedupe_dir=layout.stage("dedupe"),
        validate_dir=layout.stage("validate"),
        split_dir=layout.stage("split"),
        augment_dir=layout.stage("augment"),
        folders=layout.members(params.train),
        evaluate_dir=layout.stage("evaluate"),
        out_dir=layout.stage("report"),
    )


if __name__ == "__main__":
    run_stage("report", main)
