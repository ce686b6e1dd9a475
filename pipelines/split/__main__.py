"""`python -m pipelines.split`: data/dedupe/ → data/split/."""

from pipelines.params.command import run_stage
from pipelines.split import split

if __name__ == "__main__":
    run_stage(
        "split",
        lambda params, layout: split(
            params.split, manifest=layout.manifest, duplicates=layout.duplicates, out_dir=layout.stage("split")
        ),
    )
