"""Experiment trackers: what each keeps, read back with its own library, and that none can harm a training."""

import csv
import importlib.util
import json
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from train_inputs import history, run, small_packs, written

from pipelines.core.errors import InputError
from pipelines.train import loop, tracker_backends
from pipelines.train.tracker_backends import SHEET_LINE as LINE
from pipelines.train.tracker_backends import SHEET_TILE as TILE
from pipelines.train.tracker_backends import Misclassified, captions, contact_sheet, flatten
from pipelines.train.trackers import Tracker, most_confident_mistakes, open_trackers

ROOT = Path(__file__).resolve().parents[1]
KINDS = ("dvclive", "wandb", "mlflow", "tensorboard")
SETTINGS = {"model": "nin", "optimizer": {"kind": "sgd", "learning_rate": 0.5}, "tta": ["original"], "mixup": 0.0}
FIGURES = {"val_loss": 0.5, "val_accuracy": 0.75}


def needs(kind: str) -> Any:
    missing = importlib.util.find_spec(kind) is None
    return pytest.param(kind, marks=pytest.mark.skipif(missing, reason=f"the extra {kind} is not installed"))


REAL = [needs(kind) for kind in KINDS]


@pytest.fixture(autouse=True)
def _nobody_is_logged_in(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_PROJECT", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)


def wrong(count: int = 2) -> list[Misclassified]:
    return [
        Misclassified(f"{i:064x}", np.full((32, 32, 3), 40 * (i % 6), np.uint8), "SG", "Les Paul", 0.99 - i / 100)
        for i in range(count)
    ]


def opened(kinds: Sequence[str], folder: Path, *, key: str = "m-0-abc", done: int = 0) -> Any:
    past = [{**FIGURES, "val_loss": 1 / number} for number in range(1, done + 1)]
    return open_trackers(kinds, title="m-0", key=key, past=past, settings=SETTINGS, folder=folder)


def tell(tracker: Tracker, epochs: Sequence[int]) -> None:
    """Losses 1/epoch, and two mistakes each."""
    for number in epochs:
        tracker.log_epoch(number, {**FIGURES, "val_loss": 1 / number}, wrong)


# reading back ------------------------------------------------------------------------------


def steps_of_tensorboard(folder: Path, key: str = "m-0-abc") -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard" / key))
    events.Reload()
    return events


def client_of(folder: Path) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=(folder / "mlflow").as_uri())


def runs_of_mlflow(folder: Path) -> list[Any]:
    client = client_of(folder)
    return list(client.search_runs([client.get_experiment_by_name("miwake").experiment_id]))


def records_of_wandb(path: Path) -> Iterator[Any]:
    """An offline run's file: LevelDB's log format (blocks of 32 KiB, chunks with 7 bytes before them)."""
    from wandb.proto import wandb_internal_pb2

    data, position, record = path.read_bytes(), 7, b""
    while position < len(data):
        if (left := 32768 - position % 32768) < 7:
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        record += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            parsed = wandb_internal_pb2.Record()
            parsed.ParseFromString(record)
            yield parsed
            record = b""


def whole_records_of_wandb(path: Path) -> list[Any]:
    """Of a run that has ended: its service may still be writing the last of them."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        found = list(records_of_wandb(path))
        if any(record.WhichOneof("record_type") == "exit" for record in found):
            return found
        time.sleep(0.05)
    raise AssertionError(f"{path} never ended")


def losses_of_wandb(folder: Path) -> list[dict[int, float]]:
    """Of each offline run, oldest first: {epoch: val_loss}."""
    found = []
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        rows = [
            {(item.key or ".".join(item.nested_key)): json.loads(item.value_json) for item in record.history.item}
            for record in whole_records_of_wandb(path)
            if record.WhichOneof("record_type") == "history"
        ]
        found.append({row["_step"]: row["val_loss"] for row in rows})
    return found


def losses(kind: str, folder: Path) -> dict[int, float]:
    """{epoch: val_loss}; refuses an epoch that is there twice."""
    if kind == "wandb":
        (only,) = losses_of_wandb(folder)
        return only
    if kind == "tensorboard":
        pairs = [(event.step, event.value) for event in steps_of_tensorboard(folder).Scalars("val_loss")]
    elif kind == "mlflow":
        (only_run,) = runs_of_mlflow(folder)
        of_run = client_of(folder).get_metric_history(only_run.info.run_id, "val_loss")
        pairs = [(metric.step, metric.value) for metric in of_run]
    else:
        with (folder / "dvclive" / "m-0-abc" / "plots" / "metrics" / "val_loss.tsv").open() as file:
            pairs = [(int(row["step"]), float(row["val_loss"])) for row in csv.DictReader(file, delimiter="\t")]
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


# what each keeps ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", REAL)
def test_a_tracker_has_the_figures_of_every_epoch(kind: str, tmp_path: Path) -> None:
    with opened([kind], tmp_path) as tracker:
        tell(tracker, [1, 2])
        tracker.finish({"best_epoch": 2.0})
    assert losses(kind, tmp_path) == {1: 1.0, 2: 0.5}
    assert [path.name for path in tmp_path.iterdir()] == [kind]


@pytest.mark.parametrize("kind", [needs(kind) for kind in KINDS if kind != "wandb"])
def test_a_training_that_continues_after_a_kill_is_the_same_run(kind: str, tmp_path: Path) -> None:
    """Killed while epoch 2 was told but before its checkpoint was whole: it is trained, and told, again."""
    with opened([kind], tmp_path) as tracker:
        tell(tracker, [1, 2])
    with opened([kind], tmp_path, done=1) as tracker:
        tell(tracker, [2, 3])
        tracker.finish({"best_epoch": 3.0})
    assert losses(kind, tmp_path) == {1: 1.0, 2: 0.5, 3: pytest.approx(1 / 3)}


@pytest.mark.parametrize("kind", [needs("wandb")])
def test_wandb_continues_offline_under_the_same_id_and_whole(kind: str, tmp_path: Path) -> None:
    """What a killed process had not written is lost, so the past is told again."""
    with opened([kind], tmp_path) as tracker:
        tell(tracker, [1])
    time.sleep(1.1)  # the folder's name has the second in it
    with opened([kind], tmp_path, done=1) as tracker:
        tell(tracker, [2])
        tracker.finish({"best_epoch": 2.0})
    files = list(tmp_path.glob("wandb/offline-run-*/*.wandb"))
    assert {path.name for path in files} == {"run-m-0-abc.wandb"}
    assert losses_of_wandb(tmp_path) == [{1: 1.0}, {1: 1.0, 2: 0.5}]


@pytest.mark.parametrize("kind", [needs(kind) for kind in ("dvclive", "tensorboard")])
def test_the_same_training_from_its_beginning_replaces_what_was_there(kind: str, tmp_path: Path) -> None:
    for _ in range(2):
        with opened([kind], tmp_path) as tracker:
            tell(tracker, [1, 2])
            tracker.finish({})
    assert losses(kind, tmp_path) == {1: 1.0, 2: 0.5}


@pytest.mark.parametrize("kind", [needs("mlflow")])
def test_mlflow_keeps_settings_result_state_and_pictures(kind: str, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), opened([kind], tmp_path) as tracker:
        raise ZeroDivisionError
    with opened([kind], tmp_path) as tracker:
        tell(tracker, [1])
        tracker.finish({"best_epoch": 1.0})
    good, broken = runs_of_mlflow(tmp_path)
    assert (good.info.run_name, good.info.status, broken.info.status) == ("m-0", "FINISHED", "FAILED")
    assert good.data.params == {
        **{"model": "nin", "optimizer.kind": "sgd", "optimizer.learning_rate": "0.5"},
        **{"tta": '["original"]', "mixup": "0.0"},
    }
    assert good.data.metrics == {"best_epoch": 1.0, "val_accuracy": 0.75, "val_loss": 1.0}
    files = client_of(tmp_path).list_artifacts(good.info.run_id, "wrong")
    assert [file.path for file in files] == ["wrong/epoch-0001.png", "wrong/epoch-0001.txt"]


@pytest.mark.parametrize("kind", [needs("tensorboard")])
def test_tensorboard_keeps_settings_result_and_pictures(kind: str, tmp_path: Path) -> None:
    with opened([kind], tmp_path) as tracker:
        tell(tracker, [1, 2])
        tracker.finish({"best_epoch": 2.0})
    events = steps_of_tensorboard(tmp_path)
    assert [(event.step, event.value) for event in events.Scalars("result/best_epoch")] == [(2, 2.0)]
    assert [(event.step, event.width, event.height) for event in events.Images("wrong")] == [
        (1, 2 * TILE, TILE + 2 * LINE),
        (2, 2 * TILE, TILE + 2 * LINE),
    ]
    texts = {tag: events.Tensors(tag)[0].tensor_proto.string_val[0].decode() for tag in events.Tags()["tensors"]}
    assert '"learning_rate": 0.5' in texts["settings/text_summary"]
    assert texts["wrong/text_summary"].startswith("1. SG → Les Paul (99.0 %), 0000")


@pytest.mark.parametrize("kind", [needs("dvclive")])
def test_dvclive_keeps_settings_result_and_pictures(kind: str, tmp_path: Path) -> None:
    with opened([kind], tmp_path) as tracker:
        tell(tracker, [1, 2])
        tracker.finish({"best_epoch": 1.0})
    folder = tmp_path / "dvclive" / "m-0-abc"
    summary = json.loads((folder / "metrics.json").read_text())
    assert summary == {"val_loss": 0.5, "val_accuracy": 0.75, "best_epoch": 1.0, "step": 2}
    assert "learning_rate: 0.5" in (folder / "params.yaml").read_text()
    pictures = sorted(path.name for path in (folder / "plots" / "images" / "wrong").iterdir())
    assert pictures == ["1.png", "1.txt", "2.png", "2.txt"]


@pytest.mark.parametrize("kind", [needs("dvclive")])
def test_dvclive_leaves_git_and_dvc_alone(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would make a DVC project of any Git repository, and would take part in `dvc exp run`."""
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    before = sorted((tmp_path / ".git").rglob("*"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setenv("DVC_EXP_BASELINE_REV", "0" * 40)
    with opened([kind], tmp_path / "out") as tracker:
        tell(tracker, [1])
        tracker.finish({})
    assert sorted((tmp_path / ".git").rglob("*")) == before
    # a sign for editors, in DVC's own scratch folder, is all: no project was made, nothing was added
    assert [path.name for path in tmp_path.rglob("*") if path.is_file() and path.parts[-2] == ".dvc"] == []
    assert not list(tmp_path.rglob("dvc.yaml"))


@pytest.mark.parametrize("kind", [needs("wandb")])
def test_wandb_keeps_settings_result_and_pictures_and_tells_nothing_of_the_machine(kind: str, tmp_path: Path) -> None:
    with opened([kind], tmp_path) as tracker:
        tell(tracker, [1])
        tracker.finish({"best_epoch": 1.0})
    (path,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    records = whole_records_of_wandb(path)
    begun = next(record.run for record in records if record.WhichOneof("record_type") == "run")
    assert (begun.run_id, begun.display_name, begun.project) == ("m-0-abc", "m-0", "miwake")
    config = {item.key: json.loads(item.value_json) for item in begun.config.update}
    assert config["optimizer"] == {"kind": "sgd", "learning_rate": 0.5}
    logged = next(record.history for record in records if record.WhichOneof("record_type") == "history")
    values = {".".join(item.nested_key) or item.key: item.value_json for item in logged.item}
    assert json.loads(values["wrong.captions"]) == ["SG → Les Paul (99.0 %)", "SG → Les Paul (98.0 %)"]
    assert len(list(path.parent.glob("files/media/images/*.png"))) == 2
    result = [
        {(item.key or ".".join(item.nested_key)): item.value_json for item in record.summary.update}
        for record in records
        if record.WhichOneof("record_type") == "summary"
    ]
    assert any(update.get("best_epoch") == "1.0" for update in result)
    assert not any(record.WhichOneof("record_type") == "stats" for record in records)
    assert not (path.parent / "files" / "requirements.txt").exists()


@pytest.mark.parametrize("kind", REAL)
def test_a_tracker_that_begins_in_the_middle_of_a_training_is_told_its_past(kind: str, tmp_path: Path) -> None:
    with opened([kind], tmp_path, done=2) as tracker:
        tell(tracker, [3])
        tracker.finish({})
    assert losses(kind, tmp_path) == {1: 1.0, 2: 0.5, 3: pytest.approx(1 / 3)}


# what can go wrong -------------------------------------------------------------------------


def test_without_trackers_nothing_is_asked_for_or_written(tmp_path: Path) -> None:
    def never() -> Sequence[Misclassified]:
        raise AssertionError

    with opened([], tmp_path) as tracker:
        tracker.log_epoch(1, FIGURES, never)
        tracker.finish(FIGURES)
    assert list(tmp_path.iterdir()) == []


def test_training_without_trackers_imports_none_of_them() -> None:
    look = f"import sys, pipelines.train.train_network; print(*[m for m in {KINDS} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", look], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


def test_a_missing_package_is_refused_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "mlflow" else real(name))
    says = r"train.trackers names 'mlflow', whose package is not installed: run `pip install 'miwake\[mlflow\]'`"
    with pytest.raises(InputError, match=says):
        run(tmp_path, small_packs(tmp_path / "packs"), trackers=["mlflow"])
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "cache").exists()


class Fake:
    """A tracker whose library is another one's."""

    def __init__(self, *, fails_at: int = 99, last: int = 0) -> None:
        self.told: list[tuple[int, int]] = []
        self.closed: list[Mapping[str, float] | None] = []
        self.last_epoch, self._fails_at = last, fails_at

    def log_epoch(self, number: int, _figures: Mapping[str, float], mistakes: Sequence[Misclassified]) -> None:
        if number == self._fails_at:
            raise ConnectionResetError("the service is gone")
        self.told.append((number, len(mistakes)))

    def close(self, figures: Mapping[str, float] | None) -> None:
        self.closed.append(figures)
        if self._fails_at == 0:
            raise KeyError("no such run")


def faked(monkeypatch: pytest.MonkeyPatch, **kinds: Fake | Exception) -> None:
    """Put fakes in the place of trackers; an exception is raised on opening."""

    def backend(fake: Fake | Exception) -> Any:
        def open_run(_run: object) -> Fake:
            if isinstance(fake, Exception):
                raise fake
            return fake

        open_run.failures = lambda: (KeyError,)  # type: ignore[attr-defined]
        return open_run

    monkeypatch.setattr(tracker_backends, "BACKENDS", {kind: backend(fake) for kind, fake in kinds.items()})
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: object())


def test_a_tracker_that_fails_is_named_once_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, good = Fake(fails_at=2), Fake()
    faked(monkeypatch, wandb=bad, mlflow=good)
    with opened(["wandb", "mlflow"], tmp_path) as tracker:
        tell(tracker, [1, 2, 3])
        tracker.finish({"best_epoch": 3.0})
    assert (bad.told, bad.closed) == ([(1, 2)], [None])
    assert (good.told, good.closed) == ([(1, 2), (2, 2), (3, 2)], [{"best_epoch": 3.0}])
    assert capsys.readouterr().err == (
        "train: the tracker wandb fails (ConnectionResetError: the service is gone): it is told nothing more, and "
        "training goes on without it\n"
    )


def test_a_tracker_that_cannot_begin_or_end_harms_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    faked(monkeypatch, wandb=PermissionError(13, "Permission denied"), mlflow=Fake(fails_at=0))
    with opened(["wandb", "mlflow"], tmp_path) as tracker:
        tell(tracker, [1])
        tracker.finish({})
    said = capsys.readouterr().err.splitlines()
    assert [line.split(" (")[0] for line in said] == [
        "train: the tracker wandb fails",
        "train: the tracker mlflow fails",
    ]


def test_a_broken_package_is_refused_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    faked(monkeypatch, wandb=ImportError("no protobuf"))
    with pytest.raises(InputError, match=r"cannot be imported \(no protobuf\)"), opened(["wandb"], tmp_path):
        pass


def test_an_error_of_the_programs_own_is_not_taken_for_a_trackers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = Fake()
    faked(monkeypatch, wandb=fake)
    with pytest.raises(ZeroDivisionError), opened(["wandb"], tmp_path) as tracker:
        tracker.log_epoch(1, FIGURES, lambda: [wrong()[1 // 0]])
    assert fake.closed == [None]


def test_an_epoch_that_a_tracker_has_is_not_told_again_and_sixteen_pictures_are_the_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def many() -> list[Misclassified]:
        asked.append(1)
        return wrong(20)

    ahead, behind = Fake(last=2), Fake(last=1)
    faked(monkeypatch, wandb=ahead, mlflow=behind)
    with opened(["wandb", "mlflow"], tmp_path) as tracker:
        for number in (1, 2, 3):
            tracker.log_epoch(number, FIGURES, many)
    assert ahead.told == [(3, 16)]
    assert behind.told == [(2, 16), (3, 16)]
    assert len(asked) == 2


# in a training -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [needs("tensorboard")])
def test_a_training_that_is_killed_and_continued_is_tracked_whole_and_its_result_is_the_same(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packs = small_packs(tmp_path / "packs")
    run(tmp_path / "plain", packs)
    root = tmp_path / "tracked"
    real = loop.train_epoch

    def killed(state: Any, *rest: Any, **more: Any) -> Any:
        if state.epoch == 2:
            raise KeyboardInterrupt
        return real(state, *rest, **more)

    monkeypatch.setattr(loop, "train_epoch", killed)
    with pytest.raises(KeyboardInterrupt):
        run(root, packs, trackers=[kind])
    monkeypatch.undo()
    run(root, packs, trackers=[kind])
    assert written(root) == written(tmp_path / "plain")
    (folder,) = (root / "cache" / "trackers" / "tensorboard").iterdir()
    assert folder.name.startswith("m-0-")
    events = steps_of_tensorboard(root / "cache" / "trackers", folder.name)
    for name in ("train_loss", "val_loss", "val_accuracy", "learning_rate"):
        told = {event.step: event.value for event in events.Scalars(name)}
        assert told == pytest.approx({int(line["epoch"]): line[name] for line in history(root)})


def test_the_most_confident_mistakes_come_first() -> None:
    found = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.05, 0.95], [0.3, 0.7]])
    labels = np.array([0, 0, 0, 1, 0])
    reader: Any = SimpleNamespace(
        index=SimpleNamespace(image_id=np.array([f"id{i}" for i in range(9)])),
        picture=lambda row: np.full((2, 2, 3), row, np.uint8),
    )
    rows = np.array([4, 5, 6, 7, 8])
    shown = most_confident_mistakes(found, labels, classes=["a", "b"], reader=reader, rows=rows, limit=2)
    assert [(each.image_id, each.caption) for each in shown] == [("id5", "a → b (80.0 %)"), ("id6", "a → b (70.0 %)")]
    assert shown[0].pixels.tolist() == [[[5, 5, 5]] * 2] * 2
    right = most_confident_mistakes(found[:1], labels[:1], classes=["a", "b"], reader=reader, rows=rows[:1], limit=2)
    assert right == []


# the parts ---------------------------------------------------------------------------------


def test_a_sheet_shows_pictures_in_rows_of_four_above_their_labels() -> None:
    page = np.asarray(contact_sheet(wrong(5)))
    assert page.shape == (2 * (TILE + 2 * LINE), 4 * TILE, 3)
    assert page[TILE // 2, TILE + TILE // 2].tolist() == [40, 40, 40]
    assert page[TILE : TILE + 2 * LINE, :TILE].min() < 128
    assert page[TILE + 2 * LINE :, TILE:].min() == 255
    assert np.asarray(contact_sheet(wrong(1))).shape == (TILE + 2 * LINE, TILE, 3)


def test_a_label_too_long_for_its_picture_stays_in_its_place() -> None:
    long = Misclassified("0" * 64, np.zeros((32, 32, 3), np.uint8), "x" * 300, "ギター" * 50, 0.5)
    page = np.asarray(contact_sheet([long, long]))
    assert page[TILE:, TILE - 2 : TILE + 2].min() == 255


def test_the_list_beside_a_sheet_has_every_script() -> None:
    picture = Misclassified("ab" * 32, np.zeros((8, 8, 3), np.uint8), "ギター", "SG", 1.0)
    assert captions([picture]) == f"1. ギター → SG (100.0 %), {'ab' * 32}\n"


def test_nested_settings_become_dotted_names() -> None:
    assert flatten({"a": {"b": {"c": 1}}, "d": [1, {"e": 2}], "f": None, "g": True}) == {
        **{"a.b.c": 1, "d": '[1, {"e": 2}]'},
        **{"f": None, "g": True},
    }
