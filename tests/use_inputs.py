"""A small project that has run, for the tests of what is done with one."""

import io
import sys
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from train_inputs import SCRATCH

from pipelines.augment.__main__ import run as run_augment
from pipelines.core.layout import Layout
from pipelines.dedupe import dedupe
from pipelines.evaluate import evaluate
from pipelines.ingest.__main__ import main as run_ingest
from pipelines.params.load import load_params
from pipelines.params.resolve import resolve
from pipelines.split import split
from pipelines.train.__main__ import run as run_train

# other tests run these as commands in their own process, and runpy warns of what is imported already
for stage in ("augment", "ingest", "train"):
    sys.modules.pop(f"pipelines.{stage}.__main__", None)

MEMBERS = ("linear_probe", "tiny")
FOLDS = (0, 1)
PARAMS: dict[str, Any] = {
    "ingest": {
        "snapshot": "1",
        "sources": [{"kind": "sample", "images_per_class": 10, "image_size": 96, "difficulty": 0.1}],
    },
    "split": {"folds": 2},
    "augment": {"image_size": 96},
    "train": {
        "members": list(MEMBERS),
        "folds": list(FOLDS),
        "num_threads": 1,
        "device": "cpu",
        "recipes": {
            "linear_probe": {"base": "linear_probe", "image_size": 96},
            "tiny": {**SCRATCH, "augmentation": "light", "epochs": 3},
        },
    },
    "evaluate": {"ensemble": "weighted", "wished_precision": 0.7, "leak_repeats": 0, "learning_curve_repeats": 0},
    "report": {"title": "Guitars <&> more"},
}


def run_project(root: Path) -> Layout:
    """Run params, ingest, dedupe, split, augment, two members on two folds, and evaluate without its networks."""
    layout = Layout(root)
    root.mkdir(parents=True, exist_ok=True)
    with layout.params.open("w", encoding="utf-8") as file:
        YAML().dump(PARAMS, file)
    layout.decisions.mkdir(parents=True)
    with redirect_stderr(io.StringIO()):
        resolve(layout)
        params = load_params(layout.resolved)
        run_ingest(params, layout)
        dedupe(
            params.dedupe,
            root=root,
            cache=layout.cache,
            ingest_dir=layout.stage("ingest"),
            decisions_dir=layout.decisions,
            out_dir=layout.stage("dedupe"),
        )
        split(params.split, manifest=layout.manifest, duplicates=layout.duplicates, out_dir=layout.stage("split"))
        run_augment(params, layout)
        for member in MEMBERS:
            for fold in FOLDS:
                run_train(params, layout, member=member, fold=fold)
        evaluate(
            params.evaluate,
            folders=layout.members(params.train),
            index=layout.pack_index,
            manifest=layout.manifest,
            out_dir=layout.stage("evaluate"),
            ask=False,
        )
    return layout


def shared_project(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """The project, run once in each process that tests; nobody changes it."""
    root = tmp_path_factory.getbasetemp() / "project-for-use"
    return Layout(root) if (root / "data" / "evaluate" / "metrics.json").is_file() else run_project(root)
