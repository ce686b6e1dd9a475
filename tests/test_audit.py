"""`miwake audit`: what is wrong with somebody's labels, and how much of each list to believe."""

import csv
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hostile_server import Answer, HostileServer
from PIL import Image
from use_inputs import shared_project

from pipelines.cli import app
from pipelines.core.decisions import read_decisions
from pipelines.core.errors import InputError
from pipelines.core.layout import Layout
from pipelines.params.dedupe import DedupeParams
from pipelines.params.ingest import DownloadParams
from pipelines.use.audit import Audit, audit
from pipelines.use.audit_files import decisions, summary, write_audit
from pipelines.use.classifier import Classifier, Floats, Pixels
from pipelines.use.known import known_predictions
from pipelines.use.labelled import labelled_pictures
from pipelines.use.model_folder import ModelInfo, ModelMember, read_model, write_model

CLASSES = ("blue", "green", "red")
NUM = 60
"""pictures of each class"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    return shared_project(tmp_path_factory)


@pytest.fixture(scope="module")
def info(project: Layout) -> ModelInfo:
    """Of a model that knows three colours."""
    changes = {"classes": CLASSES, "strangers": None, "threshold": None, "factors": None}
    return read_model(project.root).info.model_copy(update=changes)


@dataclass
class Colours:
    """A member that tells the strongest colour of a picture, sure of most and unsure of pale ones."""

    classes: tuple[str, ...] = CLASSES

    def predict(self, pixels: Pixels) -> Floats:
        strength = pixels.reshape(len(pixels), -1, 3).mean(axis=1)[:, ::-1] / 20.0
        likely = np.exp(strength - strength.max(axis=1, keepdims=True))
        return np.asarray(likely / likely.sum(axis=1, keepdims=True))


@pytest.fixture
def colours(info: ModelInfo) -> Classifier:
    known = ModelMember(name="m", fold=0, file="members/m-0", weight=1.0, target="label", temperature=1.0)
    return Classifier(info, CLASSES, "label", None, {"m": [(known, cast("Any", Colours()))]}, "cpu")


def draw(path: Path, colour: str, seed: int) -> Path:
    """Blotches of one colour; no two seeds look alike."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 120, (6, 6, 3)).astype(np.uint8))
    pixels = np.array(small.resize((96, 96), Image.Resampling.NEAREST))
    pixels[..., ("red", "green", "blue").index(colour)] += np.uint8(130)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """NUM pictures a class, and one planted flaw or more of every kind."""
    root = tmp_path_factory.mktemp("shop") / "shop"
    for k, colour in enumerate(CLASSES):
        for i in range(NUM):
            draw(root / colour / f"{i:02d}.png", colour, 1000 * k + i)
    for i, (filed, colour) in enumerate((("blue", "red"), ("green", "blue"), ("red", "green"), ("red", "blue"))):
        draw(root / filed / f"wrong-{i}.png", colour, 5000 + i)
    shutil.copy(root / "red" / "05.png", root / "red" / "again.png")
    shutil.copy(root / "blue" / "07.png", root / "red" / "both.png")
    with Image.open(root / "green" / "09.png") as image:
        image.resize((80, 80), Image.Resampling.BICUBIC).save(root / "green" / "smaller.png")
    draw(root / "Bleu" / "typo.png", "blue", 6000)
    (root / "red" / "note.png").write_text("no picture")
    return root


DOWNLOAD = DownloadParams(delay_seconds=0.0, max_attempts=1)


@contextmanager
def audited(classifier: Classifier, path: Path, **named: Any) -> Iterator[Audit]:
    with labelled_pictures(path, classifier.info, download=named.pop("download", DOWNLOAD), **named) as listing:
        yield audit(classifier, listing, known=None, dedupe=DedupeParams())


def names(found: Audit) -> dict[str, list[str]]:
    return {problem: sorted(one.path for one in some) for problem, some in found.findings.items() if some}


def test_every_planted_flaw_is_in_its_list_and_nothing_else(colours: Classifier, shop: Path) -> None:
    with audited(colours, shop) as found:
        wrong = ["blue/wrong-0.png", "green/wrong-1.png", "red/wrong-2.png", "red/wrong-3.png"]
        assert names(found) == {
            "disputed": sorted([*wrong, "red/both.png"]),
            "conflicting": ["red/both.png"],
            "duplicated": ["green/smaller.png", "red/again.png"],
            "unknown class": ["Bleu/typo.png"],
            "unreadable": ["red/note.png"],
        }
        first = found.findings["disputed"][0]
        assert first.suggested != first.label
        (conflict,) = found.findings["conflicting"]
        assert (conflict.label, conflict.suggested, conflict.other) == ("red", "blue", "blue/07.png")
        assert found.unknown == {"Bleu": (1, "blue")}
        assert found.precision["disputed"] is not None
        assert found.precision["disputed"] > 0.8, "all that is disputed was planted"


def test_where_every_dispute_is_false_little_of_it_is_believed(
    colours: Classifier, info: ModelInfo, tmp_path: Path
) -> None:
    """Labels are right, and the model mistakes a tenth: the flips lie far below the suspects."""
    rng = np.random.default_rng(3)
    for k, colour in enumerate(CLASSES):
        for i in range(NUM):
            draw(tmp_path / "own" / colour / f"{i:02d}.png", colour, 9000 + 1000 * k + i)

    class Unsure(Colours):
        def predict(self, pixels: Pixels) -> Floats:
            likely = super().predict(pixels)
            hard = rng.random(len(pixels)) < 0.1
            likely[hard] = 0.9 * np.roll(likely[hard], 1, axis=1) * 0.5 + 0.5 * likely[hard] + 0.05 / 3
            return np.asarray(likely / likely.sum(axis=1, keepdims=True))

    (known, _) = colours.members["m"][0]
    unsure = Classifier(info, CLASSES, "label", None, {"m": [(known, cast("Any", Unsure()))]}, "cpu")
    with audited(unsure, tmp_path / "own") as found:
        precision = found.precision["disputed"]
        assert not found.findings["disputed"] or (precision is not None and precision < 0.5)


def test_the_files_are_a_page_a_table_and_decisions(colours: Classifier, shop: Path, tmp_path: Path) -> None:
    with labelled_pictures(shop, colours.info, download=DOWNLOAD) as listing:
        found = audit(colours, listing, known=None, dedupe=DedupeParams())
        files = write_audit(found, colours, tmp_path / "out", name="<shop>", read=listing.read)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(path.name for path in files)
    page = (tmp_path / "out" / "index.html").read_text()
    assert "Audit of &lt;shop&gt;" in page
    assert "<script" not in page
    assert page.count('<img src="data:image/jpeg') == sum(map(len, found.findings.values())) - 1
    with (tmp_path / "out" / "findings.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["problem"] for row in rows] == [one.problem for some in found.findings.values() for one in some]
    # what dedupe reads as decisions
    ids = sorted({one.image_id for some in found.findings.values() for one in some} - {""})
    taken = read_decisions(tmp_path / "out", ids, CLASSES)
    drops, relabels = decisions(found)
    assert sorted(taken.drops) == [row[0] for row in drops]
    assert {one: label for one, (label, _) in taken.relabels.items()} == {row[0]: row[1] for row in relabels}
    by_path = {row[-1]: row[1] for row in relabels}
    assert by_path == {
        "red/both.png": "blue",
        "blue/wrong-0.png": "red",
        "green/wrong-1.png": "blue",
        "red/wrong-2.png": "green",
        "red/wrong-3.png": "blue",
    }
    assert [row[-1] for row in drops] == ["green/smaller.png"], "copies of equal bytes are dedupe's"
    assert "label 'Bleu' (1 picture) is no class of the model; did you mean 'blue'?" in summary(found)


def test_a_table_names_paths_or_urls(colours: Classifier, shop: Path) -> None:
    table = shop.parent / "table.csv"
    files = [shop / colour / f"0{i}.png" for colour in ("red", "blue") for i in range(5)]
    rows = [f"{i},{file.relative_to(shop.parent)},{file.parent.name}" for i, file in enumerate(files)]
    rows[-1] = rows[-1].replace(",blue", ",red")
    table.write_text("\n".join(["sku,path,category", *rows]))
    with audited(colours, table) as found:
        assert [one.suggested for one in found.findings["disputed"]] == ["blue"]
        assert found.precision["disputed"] is None, "too little is known of ten pictures"
    with HostileServer() as server:
        server.add("/a.png", Answer(files[0].read_bytes(), type="image/png"))
        host = server.url("/a.png").split("/")[2]
        table.write_text(f"url,label\n{server.url('/a.png')},red\n{server.url('/no.png')},blue\n")
        with audited(colours, table, download=DOWNLOAD.model_copy(update={"private_hosts": (host,)})) as found:
            (absent,) = found.findings["unreadable"]
            assert (found.num_pictures, absent.detail[:8]) == (1, "http-404")


def test_what_cannot_be_audited_is_refused_with_the_remedy(colours: Classifier, shop: Path, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "other" / "cat").mkdir(parents=True)
    shutil.copy(shop / "red" / "00.png", tmp_path / "other" / "cat")
    for path, named, message in (
        (tmp_path / "absent", {}, "does not exist: name a folder of class folders"),
        (tmp_path / "empty", {}, "is empty; put a folder of pictures for each class into it"),
        (
            tmp_path / "x.csv",
            {},
            "no column that is called as images usually are .*but a, b: name it with --image-column",
        ),
        (tmp_path / "x.csv", {"image_column": "c"}, "has no column 'c' .--image-column., but a, b"),
        (shop / "red" / "00.png", {}, "is no archive"),
        (tmp_path / "other", {}, "no label is a class of the model: cat; it knows blue, green, red"),
    ):
        with pytest.raises(InputError, match=message), audited(colours, path, **named):
            pass


def test_the_command_judges_beside_the_runs_own_predictions(
    project: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    known = known_predictions(project.root)
    assert known is not None
    actual, likely = known
    assert likely.shape == (len(actual), 13)
    figures = json.loads((project.stage("evaluate") / "figures.json").read_text())
    num = figures["num_images"]
    assert (likely[:num].argmax(axis=1) == actual[:num]).mean() == pytest.approx(figures["accuracy"]["value"], abs=1e-6)
    write_model(read_model(project.root), tmp_path / "model")
    kept = known_predictions(tmp_path / "model")
    assert kept is not None
    np.testing.assert_array_equal(kept[0], actual)
    np.testing.assert_allclose(kept[1], likely, atol=1e-6)
    assert known_predictions(tmp_path) is None
    for i in range(3):
        draw(tmp_path / "shop" / "SG" / f"{i}.png", "red", i)
    monkeypatch.chdir(project.root)
    app(
        ["audit", str(tmp_path / "shop"), "--out", str(tmp_path / "out"), "--json", "--device", "cpu"],
        standalone_mode=False,
    )
    said = json.loads(capsys.readouterr().out)
    assert said["num_pictures"] == 3
    assert (tmp_path / "out" / "index.html").is_file()
