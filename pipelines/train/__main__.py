"""The command `python -m pipelines.train <member> <fold>`."""

import argparse

from pipelines.core.layout import Layout
from pipelines.core.params import Params
from pipelines.core.stage import run_stage
from pipelines.train import TrainArtifact, train


def run(params: Params, layout: Layout, *, member: str, fold: int) -> TrainArtifact:
    return train(
        params.train,
        params.augment.policies,
        member=member,
        fold=fold,
        augment_dir=layout.stage("augment"),
        cache_dir=layout.cache,
        out_dir=layout.member(params.train, member, fold),
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m pipelines.train", description="Train one member on one fold.")
    parser.add_argument("member", help="one of train.members")
    parser.add_argument("fold", type=int, help="one of train.folds")
    arguments = parser.parse_args()
    run_stage(
        "train",
        lambda params, layout: run(params, layout, member=arguments.member, fold=arguments.fold),
        needs_pandas=True,  # torch looks for it
    )
