"""`python -m pipelines.validate`: data/dedupe/manifest.parquet and data/ingest/rejected.csv → data/validate/."""

from pipelines.params.command import run_stage
from pipelines.validate import validate

if __name__ == "__main__":
    run_stage(
        "validate",
        lambda params, layout: validate(
            params.validate_,
            manifest=layout.manifest,
            rejects=layout.rejects,
            out_dir=layout.stage("validate"),
            cache=layout.cache,
            unlabelled=params.split.unlabelled,
            mirroring=params.mirroring,
        ),
    )
