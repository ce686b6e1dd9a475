"""`python -m pipelines.evaluate`: writes data/evaluate from the predictions in data/train and data/students."""

from pipelines.core.layout import Layout
from pipelines.evaluate.stage import EvaluateArtifact, evaluate
from pipelines.params import Params
from pipelines.params.command import run_stage


def main(params: Params, layout: Layout) -> EvaluateArtifact:
    return evaluate(
        params.evaluate,
        folders=layout.members(params.train),
        index=layout.pack_index,
        manifest=layout.manifest,
        out_dir=layout.stage("evaluate"),
        device=params.train.device,
        num_threads=params.train.num_threads,
    )


if __name__ == "__main__":
    run_stage("evaluate", main)
