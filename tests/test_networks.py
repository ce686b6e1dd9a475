"""What evaluate asks of the networks themselves: whom it asks, what it writes, and that two runs are equal."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from train_inputs import FROZEN, SCRATCH, colours, run, write_packs

from pipelines.core.errors import InputError
from pipelines.evaluate.ensemble import combine
from pipelines.evaluate.members import read_index, read_members
from pipelines.evaluate.networks import ask_networks
from pipelines.evaluate.robustness import HEADER
from pipelines.params.evaluate import EvaluateParams

FILES = ("maps.npy", "maps.csv", "robustness.csv")


def trained(root: Path) -> dict[tuple[str, int], Path]:
    """A network that learns nothing and a good linear probe, on red, green and blue pictures."""
    pixels, labels = colours(66, 128)
    subsets, folds = ["train"] * 30 + ["val"] * 18 + ["test"] * 18, [-1] * 30 + [0] * 18 + [-1] * 18
    packs = write_packs(root / "packs", subsets, labels, pixels, folds)
    bad = {**SCRATCH, "epochs": 1, "optimizer": {"kind": "adam", "learning_rate": 1e-9, "weight_decay": 0.0}}
    for name, recipe in (("bad", bad), ("good", {**FROZEN, "image_size": 128})):
        run(root, packs, recipe, member=name)
        (root / "out").rename(root / name)
    return {("bad", 0): root / "bad", ("good", 0): root / "good"}


def ask(root: Path, folders: dict[tuple[str, int], Path], out: str, *, target: str = "label") -> dict[str, Any]:
    packed = read_index(root / "packs" / "index.parquet")
    members = read_members(folders, packed.classes)
    combined = combine("mean", members, val_groups=packed.group_numbers(members[0].val.image_ids), seed=0)
    (root / out).mkdir()
    return ask_networks(
        EvaluateParams(map_mistakes=2, robustness_images=6),
        folders=folders,
        members=members if target == "label" else [],
        test=combined.test,
        packed=packed,
        augment_dir=root / "packs",
        device="cpu",
        num_threads=1,
        out_dir=root / out,
    )


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_best_member_is_asked_where_it_sees_and_what_it_bears(tmp_path: Path) -> None:
    folders = trained(tmp_path)
    found = ask(tmp_path, folders, "once")
    assert list(found["cost"]) == ["bad", "good"]
    assert found["maps"]["member"] == found["robustness"]["member"] == "good"
    assert found["maps"]["method"] == "grad-cam"
    assert found["maps"]["layer"] == "backbones.0.bn2"
    assert found["robustness"]["view"] == "original"
    assert found["robustness"]["num_images"] == 6
    assert found["robustness"]["baseline"]["value"] == 1.0
    assert len(table(tmp_path / "once" / "robustness.csv")) == 6
    maps, rows = np.load(tmp_path / "once" / "maps.npy"), table(tmp_path / "once" / "maps.csv")
    assert maps.shape == (found["maps"]["num"], 4, 4)
    assert maps.dtype == np.float16
    assert [int(row["row"]) for row in rows] == list(range(len(maps)))
    assert {row["class"] for row in rows} == {"r", "g", "b"}
    assert ask(tmp_path, folders, "again") == found
    for name in FILES:
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "once" / name).read_bytes()

    # without a member that tells labels there is nothing to show, but what each costs
    none = ask(tmp_path, folders, "none", target="colour")
    assert none == {"maps": None, "robustness": None, "cost": found["cost"]}
    assert np.load(tmp_path / "none" / "maps.npy").shape == (0, 1, 1)
    assert (tmp_path / "none" / "robustness.csv").read_text() == ",".join(HEADER) + "\n"

    (tmp_path / "good" / "model.safetensors").unlink()
    with pytest.raises(InputError, match="good/model.safetensors does not exist: run `dvc repro train`"):
        ask(tmp_path, folders, "broken")
