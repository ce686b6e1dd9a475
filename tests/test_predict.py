"""`miwake predict`: the model of a run, read where it lies or from a folder, and what it says of pictures."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from use_inputs import FOLDS, MEMBERS, shared_project

from pipelines.core.errors import InputError
from pipelines.core.layout import Layout
from pipelines.use.model_folder import MODEL_JSON, read_model, write_model


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    return shared_project(tmp_path_factory)


# the model -----------------------------------------------------------------------------------


def test_the_model_of_a_run_says_what_its_figures_say(project: Layout) -> None:
    info = read_model(project.root).info
    figures = json.loads((project.stage("evaluate") / "figures.json").read_text())
    assert [(member.name, member.fold) for member in info.members] == [(m, f) for m in MEMBERS for f in FOLDS]
    assert {member.name: member.weight for member in info.members} == {
        name: figures["members"][name]["weight"] for name in MEMBERS
    }
    assert info.temperature == figures["ensemble"]["temperature"]
    assert info.threshold is not None
    assert info.threshold.value == figures["coverage"]["threshold"]
    assert info.figures["accuracy"] == figures["accuracy"]
    assert info.title == "Guitars <&> more"
    assert info.fit.resize_mode == "letterbox"
    assert info.licence == {"": pq.read_metadata(project.pack_index).num_rows}


def test_a_written_model_is_read_as_it_was(project: Layout, tmp_path: Path) -> None:
    model = read_model(project.root)
    write_model(model, tmp_path / "model")
    again = read_model(tmp_path / "model")
    assert again.info == model.info
    for name, file in model.files.items():
        assert again.files[name].read_bytes() == file.read_bytes()
    with pytest.raises(InputError, match="exists and is not empty: name a new folder"):
        write_model(model, tmp_path / "model")


def test_a_model_that_cannot_be_copied_leaves_no_folder(project: Layout, tmp_path: Path) -> None:
    model = read_model(project.root)
    broken = type(model)(model.info, {**model.files, "members/x.safetensors": tmp_path / "absent"}, model.where)
    with pytest.raises(FileNotFoundError):
        write_model(broken, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_model_is_refused_with_the_remedy(project: Layout, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no model: neither model.json"):
        read_model(tmp_path)
    (tmp_path / "params.yaml").write_bytes(project.params.read_bytes())
    with pytest.raises(InputError, match="has no trained model yet: .*run `miwake run`"):
        read_model(tmp_path)
    write_model(read_model(project.root), tmp_path / "model")
    (tmp_path / "model" / "members" / "tiny-1.safetensors").unlink()
    with pytest.raises(InputError, match="names members/tiny-1.safetensors, which .* lacks: copy the folder whole"):
        read_model(tmp_path / "model")
    path = tmp_path / "model" / MODEL_JSON
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(InputError, match="has format 2, and this version reads 1"):
        read_model(tmp_path / "model")
    path.write_text("{")
    with pytest.raises(InputError, match="is not as `miwake export` writes it"):
        read_model(tmp_path / "model")
