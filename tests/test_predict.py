"""`miwake predict`: the model of a run, read where it lies or from a folder, and what it says of pictures."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from use_inputs import FOLDS, MEMBERS, shared_project

from pipelines.core.errors import InputError
from pipelines.core.layout import Layout
from pipelines.core.tables import FEATURES, MANIFEST, PACK_INDEX, PREDICTIONS, read_table
from pipelines.evaluate.leaks import matrix
from pipelines.images.shards import ShardReader
from pipelines.train.temperature import temper
from pipelines.use.classifier import Classifier, Floats, Pixels, load_classifier, prepare
from pipelines.use.model_folder import MODEL_JSON, JoinedFactors, ModelMember, read_model, write_model
from pipelines.use.pictures import Picture
from pipelines.use.predict import decide, predict


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


# what it says --------------------------------------------------------------------------------


def pictures_of(layout: Layout, subset: str) -> dict[str, bytes]:
    """By image_id the files of a subset, in the order of evaluate's predictions."""
    index = read_table(layout.pack_index, PACK_INDEX)
    wanted = sorted(set(index.filter(pc.equal(index["subset"], subset))["image_id"].to_pylist()))
    places = {
        row["image_id"]: (row["shard"], row["offset"], row["size"])
        for row in read_table(layout.ingest_manifest, MANIFEST).to_pylist()
    }
    with ShardReader(layout.stage("ingest")) as reader:
        return {image_id: reader.read(*places[image_id]) for image_id in wanted}


def as_pictures(files: dict[str, bytes]) -> list[Picture]:
    return [Picture(name, lambda data=data: data) for name, data in files.items()]  # type: ignore[misc]


@pytest.fixture(scope="module")
def classifier(project: Layout) -> Classifier:
    return load_classifier(read_model(project.root), device="cpu")


def test_of_the_runs_own_test_pictures_it_says_what_evaluate_wrote(project: Layout, classifier: Classifier) -> None:
    """Two members of two folds each, weighed, tempered: each probability to 1e-5."""
    table = read_table(project.stage("evaluate") / "predictions.parquet", PREDICTIONS)
    expected = dict(zip(table["image_id"].to_pylist(), table["probabilities"].to_pylist(), strict=True))
    files = pictures_of(project, "test")
    assert len(files) == len(expected) > 20
    answers = [one for batch in predict(classifier, as_pictures(files)) for one in batch]
    found = classifier.answer(np.stack([one.pixels for one in answers if one.pixels is not None]))
    np.testing.assert_allclose(found.probabilities, [expected[one.path] for one in answers], atol=1e-5)
    assert [one.image_id for one in answers] == list(files)
    assert classifier.threshold is not None
    for one, likely in zip(answers, found.probabilities, strict=True):
        assert one.top[0] == (classifier.classes[likely.argmax()], likely.max())
        strange = classifier.scorer is not None and one.score is not None and one.score < classifier.scorer.threshold
        assert one.status == ("stranger" if strange else "named" if likely.max() >= classifier.threshold else "unsure")
        assert one.label == (one.top[0][0] if one.status == "named" else "")


def test_a_folder_alone_says_the_same_and_one_member_what_it_wrote(
    project: Layout, classifier: Classifier, tmp_path: Path
) -> None:
    write_model(read_model(project.root), tmp_path / "model")
    pixels = np.stack([prepare(data, classifier.info) for data in pictures_of(project, "test").values()])
    alone = load_classifier(read_model(tmp_path / "model"), device="cpu")
    np.testing.assert_array_equal(alone.answer(pixels).probabilities, classifier.answer(pixels).probabilities)
    one = load_classifier(read_model(tmp_path / "model"), member="tiny", device="cpu")
    assert one.threshold is None, "that of all members together says nothing of one"
    folds = []
    for fold in FOLDS:
        table = read_table(project.stage("train") / f"tiny-{fold}" / "predictions.parquet", PREDICTIONS)
        table = table.filter(pc.equal(table["subset"], "test")).sort_by("image_id")
        folds.append(np.array(table["probabilities"].to_pylist()))
    (known,) = {member.temperature for member in alone.info.members if member.name == "tiny"}
    np.testing.assert_allclose(one.answer(pixels).probabilities, temper(np.mean(folds, axis=0), known), atol=1e-5)
    with pytest.raises(InputError, match="'tinny' is no member of .*: linear_probe, tiny; did you mean 'tiny'"):
        load_classifier(read_model(tmp_path / "model"), member="tinny")


def test_strangers_are_scored_as_evaluate_scored_them(project: Layout, classifier: Classifier) -> None:
    """The features are those of the member's file: scores of test pictures to what float16 leaves of them."""
    assert classifier.scorer is not None
    folder = project.stage("train") / classifier.scorer.member
    table = read_table(folder / "features.parquet", FEATURES)
    features = dict(zip(table["image_id"].to_pylist(), matrix(table["plain"]), strict=True))
    files = pictures_of(project, "test")
    found = classifier.answer(np.stack([prepare(data, classifier.info) for data in files.values()])).scores
    assert found is not None
    np.testing.assert_allclose(found, classifier.scorer.score(np.stack([features[one] for one in files])), atol=2e-3)


def test_noise_is_none_of_these_and_the_status_says_which(classifier: Classifier) -> None:
    """A threshold of 1 names nothing; a score that nothing reaches makes all strangers, which goes first."""
    noise = np.random.default_rng(1).integers(0, 256, (3, 96, 96, 3)).astype(np.uint8)
    told = classifier.answer(noise)
    assert [one.status for one in decide(replace(classifier, threshold=1.0, scorer=None), told)] == ["unsure"] * 3
    assert [one.status for one in decide(replace(classifier, threshold=0.0, scorer=None), told)] == ["named"] * 3
    assert classifier.scorer is not None
    never = replace(classifier, scorer=replace(classifier.scorer, threshold=99.0))
    assert [(one.status, one.label) for one in decide(never, told)] == [("stranger", "")] * 3


def test_factors_are_joined_as_evaluate_joins_them() -> None:
    """P(label) is the product over its factors, renormalised over the labels that exist."""
    members = {
        name: [
            (ModelMember(name=name, fold=0, file=f"members/{name}", weight=None, target=name, temperature=1.0), told)
        ]
        for name, told in {
            "colour": Told(["blue", "red"], [0.25, 0.75]),
            "size": Told(["big", "small"], [0.6, 0.4]),
        }.items()
    }
    info = SimpleNamespace(
        classes=("blue big", "red big", "red small"),
        factors=JoinedFactors(
            name="colour × size",
            names=("colour", "size"),
            labels=((("blue", "big"), 0), (("red", "big"), 1), (("red", "small"), 2)),
            weight=1.0,
            temperature=1.0,
        ),
    )
    classifier = Classifier(cast("Any", info), info.classes, "label", None, cast("Any", members), "cpu")
    found = classifier.answer(np.zeros((2, 8, 8, 3), np.uint8))
    whole = np.array([0.25 * 0.6, 0.75 * 0.6, 0.75 * 0.4])
    np.testing.assert_allclose(found.probabilities, [whole / whole.sum()] * 2)
    (first, _) = decide(classifier, found)
    assert first.label == "red big"
    assert first.factors == {"colour": ("red", 0.75), "size": ("big", 0.6)}


class Told:
    """A member that always says the same."""

    def __init__(self, classes: list[str], probabilities: list[float]) -> None:
        self.classes, self._probabilities = classes, probabilities

    def predict(self, pixels: Pixels) -> Floats:
        return np.tile(self._probabilities, (len(pixels), 1))
