"""The presets are whole params files that say how to use them, and work on data of the shape that they ask for."""

import re
import subprocess
from pathlib import Path

import jsonschema
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from PIL import Image
from ruamel.yaml import YAML

from pipelines.core.tables import DEDUPED, SPLITS, read_table
from pipelines.dedupe import dedupe
from pipelines.ingest import ingest
from pipelines.params import Params, load_params
from pipelines.params.schema import editor_schema
from pipelines.params.validate import CountRule
from pipelines.split import split
from pipelines.validate import ValidateArtifact, validate

ROOT = Path(__file__).parents[1]
PRESETS = sorted(path.parent.name for path in (ROOT / "presets").glob("*/params.yaml"))


SECTIONS = [field.alias or name for name, field in Params.model_fields.items()]


def text(name: str) -> str:
    return (ROOT / "presets" / name / "params.yaml").read_text(encoding="utf-8")


def run(params: Params, root: Path) -> tuple[pa.Table, ValidateArtifact, pa.Table]:
    """ingest to split in `root`: dedupe's manifest, validate's artifact, the splits."""
    folders = {name: root / "data" / name for name in ("ingest", "dedupe", "validate", "split", "decisions")}
    cache, decisions = root / ".miwake", folders["decisions"]
    ingest(params.ingest, root=root, cache=cache, out_dir=folders["ingest"])
    dedupe(
        params.dedupe,
        root=root,
        cache=cache,
        ingest_dir=folders["ingest"],
        decisions_dir=decisions,
        out_dir=folders["dedupe"],
    )
    manifest = folders["dedupe"] / "manifest.parquet"
    rejects = folders["ingest"] / "rejected.csv"
    artifact = validate(params.validate_, manifest=manifest, rejects=rejects, out_dir=folders["validate"])
    duplicates = folders["dedupe"] / "duplicates.csv"
    split(params.split, manifest=manifest, duplicates=duplicates, out_dir=folders["split"])
    return read_table(manifest, DEDUPED), artifact, read_table(folders["split"] / "splits.parquet", SPLITS)


def picture(path: Path, seed: int, *, side: int) -> None:
    """A picture like no other: eight by eight patches of colour, enlarged, with some noise."""
    random = np.random.default_rng(seed)
    patches = random.integers(30, 226, (8, 8, 3), np.uint8)
    pixels = np.asarray(Image.fromarray(patches).resize((side, side), Image.Resampling.BICUBIC)).astype(int)
    noisy = (pixels + random.integers(-20, 21, pixels.shape)).clip(0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noisy).save(path, quality=95)


def test_the_four_projects_have_a_preset() -> None:
    assert PRESETS == ["cifar10", "guitars", "kaokore", "musicians"]


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_a_whole_and_valid_params_file(name: str) -> None:
    params = load_params(ROOT / "presets" / name / "params.yaml")
    raw = YAML(typ="safe", pure=True).load(text(name))
    jsonschema.validate(raw, editor_schema())
    assert list(raw) == [name for name in SECTIONS if name in raw]
    assert text(name).count("\n") <= 120
    assert len(params.ingest.sources) == 1
    assert params.train.folds == tuple(range(params.split.folds))
    assert max(map(len, text(name).splitlines())) <= 120


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_says_what_it_needs_and_how_to_use_it(name: str) -> None:
    header = text(name).split("\ningest:")[0]
    assert all(line.startswith("#") for line in header.strip().splitlines())
    assert f"cp presets/{name}/params.yaml params.yaml" in header
    assert "Needs " in header
    assert "make repro" in header


@pytest.mark.parametrize("name", PRESETS)
def test_a_rule_on_given_subsets_goes_with_a_split_that_reads_them(name: str) -> None:
    params = load_params(ROOT / "presets" / name / "params.yaml")
    asked = params.validate_.max_unassigned_fraction.limit is not None
    assert asked == (params.split.method == "predefined")


def named_labels(folder: Path, table: str) -> None:
    """Turn codes into words by the very command of the preset's header."""
    command = re.search(r"^#     (sed (?:.*\\\n#  )*.*)$", text("kaokore"), flags=re.MULTILINE)
    assert command is not None
    (folder / "kaokore").mkdir(exist_ok=True)
    (folder / "kaokore" / "labels.csv").write_bytes(table.encode())
    shell = command[1].replace("\n# ", "\n")
    subprocess.run(["bash", "-c", shell], cwd=folder, check=True)


def test_kaokores_codes_become_words(tmp_path: Path) -> None:
    named_labels(
        tmp_path, "image,gender,status,set\r\n0.jpg,0,0,train\r\n1.jpg,1,1,dev\r\n2.jpg,0,2,test\r\n3.jpg,1,3,test\r\n"
    )
    assert (tmp_path / "kaokore" / "named.csv").read_text(encoding="utf-8").splitlines() == [
        "image,gender,status,set",
        "0.jpg,male,noble,train",
        "1.jpg,female,warrior,dev",
        "2.jpg,male,incarnation,test",
        "3.jpg,female,commoner,test",
    ]


def test_kaokore_runs_on_a_table_with_one_picture_of_a_class(tmp_path: Path) -> None:
    lines = ["image,gender,status,set"]
    for gender in (0, 1):
        for status in range(4):
            for n in range(1 if (gender, status) == (1, 1) else 13):
                number = len(lines)
                lines.append(f"{number:08}.jpg,{gender},{status},{'train' if n < 9 else 'dev' if n < 10 else 'test'}")
                picture(tmp_path / "kaokore" / "images_256" / f"{number:08}.jpg", number, side=256)
    named_labels(tmp_path, "\n".join(lines) + "\n")
    manifest, artifact, splits = run(load_params(ROOT / "presets" / "kaokore" / "params.yaml"), tmp_path)
    assert manifest.num_rows == 92
    assert sorted(set(manifest["label"].to_pylist()))[0] == "female×commoner"
    assert (artifact.num_errors, artifact.num_warnings) == (0, 1)  # the class of one picture
    assert set(splits["fold"].to_pylist()) == {-1, *range(9)}
    alone = splits.filter(pc.equal(splits["label"], "female×warrior")).to_pylist()
    assert [(row["subset"], row["fold"]) for row in alone] == [("train", -1)]
    assert splits.filter(pc.equal(splits["subset"], "test")).num_rows == 21


def test_guitars_run_on_a_folder_for_each_model(tmp_path: Path) -> None:
    for model in range(13):
        for n in range(10):
            picture(tmp_path / "guitars" / f"model {model:02}" / f"{n}.jpg", 100 * model + n, side=160)
    params = load_params(ROOT / "presets" / "guitars" / "params.yaml")
    few = params.validate_.model_copy(update={"min_images_per_class": CountRule(limit=10, severity="error")})
    manifest, artifact, splits = run(params.model_copy(update={"validate_": few}), tmp_path)
    assert (manifest.num_rows, splits.num_rows) == (130, 130)
    assert (artifact.num_errors, artifact.num_warnings) == (0, 0)
    assert {row["values"]: row["counts"] for row in pc.value_counts(splits["subset"]).to_pylist()} == {
        "train": 78,
        "val": 26,
        "test": 26,
    }
