"""`miwake predict`: the model of a run, read where it lies or from a folder, and what it says of pictures."""

import csv
import errno
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hostile_server import Answer, HostileServer
from PIL import Image
from use_inputs import FOLDS, MEMBERS, shared_project

from pipelines.cli import app
from pipelines.core.errors import ImageError, InputError
from pipelines.core.layout import Layout
from pipelines.core.tables import FEATURES, MANIFEST, PACK_INDEX, PREDICTIONS, read_table
from pipelines.evaluate.leaks import matrix
from pipelines.images.shards import ShardReader
from pipelines.params.ingest import DownloadParams
from pipelines.train.temperature import temper
from pipelines.use.classifier import Classifier, Floats, Pixels, load_classifier, prepare
from pipelines.use.model_folder import MODEL_JSON, JoinedFactors, Limits, ModelMember, read_model, write_model
from pipelines.use.pictures import NamedPictures, Picture
from pipelines.use.predict import Prediction, decide, predict

ROOT = Path(__file__).parents[1]


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


# what paths name -----------------------------------------------------------------------------

LIMITS = Limits(max_file_bytes=100_000, max_pixels=1_000_000, min_side=8)


def read_all(*paths: str, stdin: bytes = b"", limits: Limits = LIMITS, hosts: tuple[str, ...] = ()) -> dict[str, str]:
    """By path `<bytes>`, or the reason why it cannot be read."""
    download = DownloadParams(private_hosts=hosts, delay_seconds=0.0, max_attempts=1)
    found = {}
    with NamedPictures(paths, limits=limits, download=download, stdin=io.BytesIO(stdin)) as pictures:
        for one in pictures:
            try:
                found[one.path] = str(len(one.read()))
            except ImageError as error:
                found[one.path] = error.reason
    return found


def test_folders_patterns_and_files_are_read_as_ingest_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, size in {
        "p/b/2.jpg": 2,
        "p/a/1.jpg": 1,
        "p/.hidden": 1,
        "p/.git/x": 1,
        "p/Thumbs.db": 1,
        "3.png": 3,
    }.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(b"x" * size)
    with Path("p/huge.jpg").open("wb") as huge:
        huge.truncate(2 << 30)
    Path("p/link.jpg").symlink_to("a/1.jpg")
    expected = {
        "p/.hidden": "hidden",
        "p/huge.jpg": "too-large",
        "p/link.jpg": "symlink",
        "p/a/1.jpg": "1",
        "p/b/2.jpg": "2",
    }
    assert read_all("p") == expected
    assert list(read_all("p")) == list(expected)
    assert read_all("p/*/?.jpg", "3.png", "p/link.jpg") == {
        "p/a/1.jpg": "1",
        "p/b/2.jpg": "2",
        "3.png": "3",
        "p/link.jpg": "1",
    }


def test_what_names_nothing_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    for path, message in {
        f"{tmp_path}/x.jpg": "x.jpg does not exist: name a picture",
        f"{tmp_path}/*.jpg": "matches nothing: name a picture",
        str(tmp_path): "holds no file: name a folder of pictures",
    }.items():
        with pytest.raises(InputError, match=message):
            read_all(path)
    with pytest.raises(InputError, match="standard input is empty: give it a path on each line"):
        read_all("-")


def test_standard_input_is_a_list_or_one_picture(tmp_path: Path) -> None:
    jpeg = tmp_path / "ü 1.jpg"
    jpeg.write_bytes(b"\xff\xd8\xff" + b"x" * 5000)
    lines = f"{jpeg}\n\n  {tmp_path}/absent.jpg\n{tmp_path}".encode()
    assert read_all("-", stdin=lines) == {str(jpeg): "5003", f"{tmp_path}/absent.jpg": "unreadable"}
    assert read_all("-", stdin=jpeg.read_bytes()) == {"-": "5003"}
    many = b"".join(b"%s/absent-%d.jpg\n" % (str(tmp_path).encode(), i) for i in range(300))
    assert len(read_all("-", stdin=many)) == 300
    with pytest.raises(InputError, match="standard input holds more than 100000 bytes, which ingest.max_file_bytes"):
        read_all("-", stdin=b"\xff\xd8\xff" * 40_000)


@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz"])
def test_archives_need_no_class_folders_and_are_not_trusted(suffix: str, tmp_path: Path) -> None:
    path = str(tmp_path / f"p.{suffix}")
    files = {"1.jpg": b"1", "a/22.jpg": b"22", "../out.jpg": b"x", "__MACOSX/1.jpg": b"x", "big.jpg": b"x" * 200_000}
    if suffix == "zip":
        with zipfile.ZipFile(path, "w") as packed:
            for name, data in files.items():
                packed.writestr(name, data)
    else:
        with tarfile.open(path, "w:gz" if suffix.endswith("gz") else "w") as tar:
            for name, data in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    assert read_all(path) == {
        f"{path}/1.jpg": "1",
        f"{path}/a/22.jpg": "2",
        f"{path}/../out.jpg": "unsafe-path",
        f"{path}/big.jpg": "too-large",
    }


def test_urls_are_fetched_by_ingests_rules() -> None:
    with HostileServer() as server:
        server.add("/a.jpg", Answer(b"x" * 7))
        server.add("/robots.txt", Answer(b"User-agent: *\nDisallow: /no", type="text/plain"))
        server.add("/no/b.jpg", Answer(b"x"))
        a, b, c = (server.url(path) for path in ("/a.jpg", "/no/b.jpg", "/absent.jpg"))
        host = a.split("/")[2]
        assert read_all(a, b, c, hosts=(host,)) == {a: "7", b: "robots-disallowed", c: "http-404"}
        assert read_all(a) == {a: "private-address"}


# the command ---------------------------------------------------------------------------------


def command(*words: str, cwd: Path, **changes: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipelines.cli", "predict", *words],
        cwd=cwd, env={**os.environ, "PYTHONPATH": str(ROOT)}, encoding="utf-8", check=False,
        **{"capture_output": True, **changes},
    )  # fmt: skip


@pytest.fixture(scope="module")
def pictures(project: Layout, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Test pictures, and three files that are none; names that a page must escape."""
    folder = tmp_path_factory.mktemp("pictures")
    for number, data in enumerate(pictures_of(project, "test").values()):
        (folder / f"{number:02d}.jpg").write_bytes(data)
    shutil.copy(folder / "00.jpg", folder / "<b>&.jpg")
    (folder / "note.txt").write_text("no picture")
    (folder / "cut.jpg").write_bytes((folder / "00.jpg").read_bytes()[:-200])
    (folder / "empty.jpg").touch()
    return folder


def run_in_process(project: Layout, *words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.root)
    app(["predict", *words, "--device", "cpu"], standalone_mode=False)


def test_every_form_of_output_says_the_same(
    project: Layout,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for suffix in ("csv", "parquet", "jsonl", "html"):
        run_in_process(project, str(pictures), "--out", str(tmp_path / f"x.{suffix}"), monkeypatch=monkeypatch)
    said = capsys.readouterr().err
    num = len(list(pictures.iterdir()))
    assert f"predict: {num} pictures: " in said
    assert "3 could not be used (" in said
    with (tmp_path / "x.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [str(path) for path in sorted(pictures.iterdir())]
    status = {Path(row["path"]).name: row["status"] for row in rows}
    assert (status["note.txt"], status["cut.jpg"], status["empty.jpg"]) == ("not-an-image", "truncated", "empty-file")
    table = pq.read_table(tmp_path / "x.parquet").to_pylist()
    assert [{k: "" if v is None else str(v) for k, v in row.items()} for row in table] == rows
    lines = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert [(one["path"], one["answer"] or "", one["status"]) for one in lines] == [
        (row["path"], row["answer"].replace("none of these", ""), row["status"]) for row in rows
    ]
    page = (tmp_path / "x.html").read_text()
    assert "&lt;b&gt;&amp;.jpg" in page
    assert "<b>&" not in page
    assert "<script" not in page
    assert page.count("<strong>none of these</strong>") == sum(row["answer"] == "none of these" for row in rows) > 0
    assert page.count("<figure>") == num - 3
    shown = [float(found) for found in re.findall(r"<p>\S+ ([\d.]+) %", page)]
    strangers = page.count("a stranger</span>")
    assert shown[strangers:] == sorted(shown[strangers:])
    assert not list(tmp_path.glob("*.partial"))


def test_maps_are_written_for_every_picture(
    project: Layout, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [str(pictures / name) for name in ("00.jpg", "empty.jpg", "01.jpg")]
    run_in_process(project, *paths, "--explain", str(tmp_path / "maps"), "--json", monkeypatch=monkeypatch)
    names = sorted(path.name for path in (tmp_path / "maps").iterdir())
    assert [name.split("-")[:2] for name in names] == [["000001", "00"], ["000003", "01"]]
    with Image.open(tmp_path / "maps" / names[0]) as image:
        assert image.size == (448, 448)


def test_ctrl_c_keeps_what_was_answered(
    project: Layout, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """After the second batch: the file has 64 rows, whole, and the status is 130."""
    from pipelines.use import predict as module

    def stopped(*words: Any, **named: Any) -> Iterator[list[Prediction]]:
        for number, batch in enumerate(predict(*words, **named)):
            if number == 2:
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr(module, "predict", stopped)
    paths = [str(pictures / "00.jpg")] * 100
    with pytest.raises(SystemExit) as ended:
        run_in_process(project, *paths, "--out", str(tmp_path / "x.csv"), monkeypatch=monkeypatch)
    assert ended.value.code == 130
    assert "stopped after 64 pictures" in capsys.readouterr().err
    assert len((tmp_path / "x.csv").read_text().splitlines()) == 65


def test_a_full_disk_leaves_the_old_file(
    project: Layout, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "x.csv"
    out.write_text("old")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("pipelines.core.files.os.fsync", full)
    with pytest.raises(InputError, match="x.csv cannot be written .No space left on device.: free some space"):
        run_in_process(project, str(pictures / "00.jpg"), "--out", str(out), monkeypatch=monkeypatch)
    assert out.read_text() == "old"
    assert list(tmp_path.iterdir()) == [out]


def test_words_that_make_no_sense_are_refused_before_a_network_is_loaded(
    project: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = tmp_path / "x.jpg"
    picture.write_bytes(b"x")
    for words, message in {
        ("--out", "x.txt"): "--out x.txt ends in none of .csv, .parquet, .jsonl, .html",
        ("--out", "x.csv", "--json"): "--json prints and --out writes a file: choose one of them",
        ("--model", str(tmp_path)): "holds no model: neither model.json",
    }.items():
        with pytest.raises(InputError, match=message):
            run_in_process(project, str(picture), *words, monkeypatch=monkeypatch)
    with pytest.raises(InputError, match="none of these could be used; the first, .*x.jpg: not-an-image"):
        run_in_process(project, str(picture), monkeypatch=monkeypatch)


def test_a_closed_pipe_and_a_project_that_has_not_run(project: Layout, pictures: Path, tmp_path: Path) -> None:
    """`miwake predict … | head -1` ends quietly; a folder without a model is one sentence and status 1."""
    read, write = os.pipe()
    os.close(read)
    closed = command(str(pictures), cwd=project.root, capture_output=False, stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert (closed.returncode, closed.stderr) == (0, "")
    absent = command(str(pictures), cwd=tmp_path)
    assert absent.returncode == 1
    assert re.fullmatch(r"miwake: .* holds no model: .*\n", absent.stderr)
    assert absent.stdout == ""
