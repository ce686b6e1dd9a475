"""The command `python -m pipelines.train <member> <fold>`."""

import argparse
import os

from pipelines.core.layout import Layout
from pipelines.params import Params
from pipelines.params.command import run_stage
from pipelines.train import TrainArtifact, train


def run(params: Params, layout: Layout, *, member: str, fold: int) -> TrainArtifact | str:
    recipe = params.train.recipes.get(member)
    # a frozen network's features are computed once, into one cache, by one process
    together = recipe is not None and recipe.tuning != "linear_probe" and params.train.num_devices > 1
    if together and not is_launched():
        from pipelines.train.processes import launch

        launch([member, str(fold)], num_devices=params.train.num_devices)
        return f"{member} on fold {fold}, by {params.train.num_devices} processes"
    return train(
        params.train,
        member=member,
        fold=fold,
        augment_dir=layout.stage("augment"),
        members_dir=layout.stage("train"),
        root=layout.root,
        cache_dir=layout.cache,
        out_dir=layout.member(params.train, member, fold),
    )


def is_launched() -> bool:
    """Whether torchrun started this process, as one of several."""
    return "TORCHELASTIC_RUN_ID" in os.environ


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m pipelines.train", description="Train one member on one fold.")
    parser.add_argument("member", help="one of train.members or train.students")
    parser.add_argument("fold", type=int, help="one of train.folds")
    arguments = parser.parse_args()
    run_stage("train", lambda params, layout: run(params, layout, member=arguments.member, fold=arguments.fold))
