"""Fabricates, by the contracts, what the seven stages before report write, for any classes."""

import hashlib
import io
import json
import math
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from pipelines.core.files import write_csv, write_json
from pipelines.core.layout import Layout
from pipelines.core.tables import DEDUPED, PACK_INDEX, PREDICTIONS, read_table, write_table
from pipelines.evaluate import evaluate
from pipelines.params import load_params
from pipelines.params.evaluate import Ensemble, EvaluateParams
from pipelines.params.report import ReportParams
from pipelines.params.train import TrainParams
from pipelines.report import ReportArtifact, report

Draw = Callable[[int, int], bytes]
"""(class index, number) to the bytes of an image file"""
Origins = Callable[[int], dict[str, Any]]
ROOT = Path(__file__).parent.parent


def drawn_picture(class_index: int, number: int) -> bytes:
    """A 40 x 30 picture: a colour per class, a stripe per number."""
    pixels = np.full((30, 40, 3), 230, np.uint8)
    pixels[5:25, 5:35] = [(class_index * 53) % 256, (class_index * 97) % 256, 120]
    pixels[:, number % 40] = number % 256
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@dataclass(frozen=True)
class Fabricated:
    """A folder with data/ as the pipeline leaves it before report."""

    root: Path
    train: TrainParams

    def report(self, **changes: Any) -> ReportArtifact:
        values = {"title": "Look-alikes", "confused_pairs": 6, "pictures_per_pair": 3, "gallery": 12}
        params = ReportParams.model_validate({**values, "picture_size": 160, **changes})
        data = self.root / "data"
        return report(
            params,
            train=self.train,
            max_pixels=100_000_000,
            snapshot="1",
            folders=Layout(self.root).members(self.train),
            **{f"{s}_dir": data / s for s in ("ingest", "dedupe", "validate", "split", "augment", "evaluate")},
            out_dir=data / "report",
        )


@dataclass(frozen=True)
class _File:
    label: str
    class_index: int
    data: bytes
    path: str
    subset: str
    offset: int

    @property
    def image_id(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


def fabricate(
    root: Path,
    labels: Sequence[str],
    *,
    per_class: int = 20,
    mistakes: float = 0.12,
    flaws: bool = True,
    members: Sequence[str] = ("linear_probe",),
    ensemble: Ensemble = "mean",
    draw: Draw = drawn_picture,
    pack_size: int = 48,
    source: str = "0-sample",
    origins: Origins | None = None,
) -> Fabricated:
    """Write data/ below `root`.

    Args:
        mistakes: fraction of predictions that name a neighbouring class.
        flaws: whether there are duplicates, conflicts, rejects and a truth.csv.
        origins: number of a file to columns of the manifest that it has otherwise than the rest.
    """
    data = root / "data"
    rng = np.random.default_rng(len(labels))
    files = _pack(data, labels, per_class, draw)
    used = sorted(files, key=lambda f: (f.label, f.image_id))
    _manifest(data, files, flaws, source, origins)
    _packs(data, labels, used, pack_size)
    _flaws(data, files if flaws else [], source)
    train = load_params(ROOT / "tests" / "whole_params.yaml").train
    train = train.model_copy(update={"members": tuple(members), "folds": (0,)})
    for member in members:
        _member(data, labels, used, member, mistakes, rng, frozen=train.recipes[member].tuning == "linear_probe")
    _expectations(data, flaws)
    _audit(data, labels, used)
    evaluate(
        EvaluateParams(
            seed=1,
            ensemble=ensemble,
            confidence=0.95,
            leak_repeats=0,
        ),
        folders=Layout(root).members(train),
        index=data / "augment" / "index.parquet",
        manifest=data / "dedupe" / "manifest.parquet",
        out_dir=data / "evaluate",
        ask=False,
    )
    return Fabricated(root, train)


def _pack(data: Path, labels: Sequence[str], per_class: int, draw: Draw) -> list[_File]:
    """One shard with every picture; a fifth is test, a fifth val."""
    found = []
    (data / "ingest").mkdir(parents=True)
    with tarfile.open(data / "ingest" / "images-00000.tar", "w", format=tarfile.GNU_FORMAT) as shard:
        for k, label in enumerate(labels):
            for i in range(per_class):
                content = draw(k, i)
                info = tarfile.TarInfo(f"{k}/{hashlib.sha256(content).hexdigest()}.png")
                info.size = len(content)
                offset = shard.offset + 512
                shard.addfile(info, io.BytesIO(content))
                subset = ("test", "val", "train", "train", "train")[i % 5]
                found.append(_File(label, k, content, f"{label}/{i:04}.png", subset, offset))
    return found


def _manifest(data: Path, files: list[_File], flaws: bool, source: str, origins: Origins | None) -> None:
    rows = []
    for n, f in enumerate(files):
        with Image.open(io.BytesIO(f.data)) as image:
            width, height, kind = image.width, image.height, image.format
        # the second picture of all is a copy of the first, the last one a conflict with the first
        twin = flaws and n in (0, 1, len(files) - 1)
        verdict = "conflict" if flaws and n == len(files) - 1 else "copy" if twin and n else "keep"
        rows.append(
            {
                **{"image_id": f.image_id, "label": f.label, "shard": "images-00000.tar", "offset": f.offset},
                **{"size": len(f.data), "format": kind, "mode": "RGB", "width": width, "height": height},
                **{"orientation": 1, "num_frames": 1, "brightness": 128.0, "contrast": 40.0, "source": source},
                **{"source_path": f.path, "original_label": f.label, "verdict": verdict, "decision": ""},
                **{"group": files[0].image_id if twin else f.image_id, "best_id": f.image_id},
                **{"sharpness": 1500.0, "entropy": 6.0, "aspect": 4 / 3, "bytes_per_pixel": 1.0},
                **{"greyscale": False, "transparent": False},
                **{"crop_left": 0.0, "crop_top": 0.0, "crop_right": 1.0, "crop_bottom": 1.0},
                **dict.fromkeys(
                    ("url", "page_url", "query", "license", "creator", "given_subset", "factors", "given_groups"), ""
                ),
                **(origins(n) if origins else {}),
            }
        )
    rows.sort(key=lambda r: (r["label"], r["image_id"]))
    write_table(pa.Table.from_pylist(rows, schema=DEDUPED), data / "dedupe" / "manifest.parquet")


def _packs(data: Path, labels: Sequence[str], used: list[_File], size: int) -> None:
    (data / "augment").mkdir(parents=True)
    rows = []
    for subset in ("test", "train", "val"):
        members = [f for f in used if f.subset == subset]
        pack = np.empty((len(members), size, size, 3), np.uint8)
        for i, f in enumerate(members):
            with Image.open(io.BytesIO(f.data)) as image:
                pack[i] = np.asarray(image.convert("RGB").resize((size, size)))
            rows.append(
                {
                    **{"image_id": f.image_id, "label": f.label, "class_index": f.class_index, "group": f.image_id},
                    **{"subset": subset, "fold": 0 if subset == "val" else -1, "position": i},
                    **{"factors": "", "copy": 0},
                }
            )
        np.save(data / "augment" / f"{subset}.npy", pack)
    index = pa.Table.from_pylist(rows, schema=PACK_INDEX)
    write_table(index, data / "augment" / "index.parquet", classes=list(labels))


def _flaws(data: Path, files: list[_File], source: str) -> None:
    """duplicates.csv, rejected.csv and truth.csv; empty, and no truth, for no files."""
    duplicates, rejects, truth = [], [], []
    if files:
        first, second, last = files[0], files[1], files[-1]
        duplicates = [_twins(first, second, "near", 0.962, "copy"), _twins(first, last, "exact", 1.0, "conflict")]
        rejects = [
            (source, "<b>odd</b>/x.jpg", "odd", "truncated", "ends after 812 of 4,096 bytes"),
            (source, "odd/readme.txt", "odd", "not-an-image", "text"),
            (source, "odd/empty.jpg", "odd", "empty-file", "0 bytes"),
        ]
        truth = [
            (second.path, "near_copy", first.path, first.label, "mirrored"),
            (last.path, "label_conflict", first.path, first.label, ""),
            (files[5].path, "wrong_label", "", files[-1].label, ""),
            ("<b>odd</b>/x.jpg", "broken_file", "", "odd", ""),
            ("odd/readme.txt", "foreign_file", "", "odd", ""),
            ("odd/missed.txt", "foreign_file", "", "odd", ""),
        ]
        header = ("source_path", "flaw", "original_path", "true_label", "detail")
        write_csv(data / "ingest" / "truth.csv", header, truth)
    columns = "image_a,image_b,path_a,path_b,label_a,label_b,kind,score,verdict"
    write_csv(data / "dedupe" / "duplicates.csv", columns.split(","), duplicates)
    write_csv(data / "ingest" / "rejected.csv", ("source", "source_path", "label", "reason", "detail"), rejects)


def _twins(a: _File, b: _File, kind: str, score: float, verdict: str) -> tuple[object, ...]:
    return (a.image_id, b.image_id, a.path, b.path, a.label, b.label, kind, score, verdict)


def _member(
    data: Path,
    labels: Sequence[str],
    used: list[_File],
    member: str,
    mistakes: float,
    rng: np.random.Generator,
    *,
    frozen: bool,
) -> None:
    """Predictions that confuse neighbouring classes, and a plausible history."""
    folder, num_classes = data / "train" / f"{member}-0", len(labels)
    predicted = sorted((f for f in used if f.subset != "train"), key=lambda f: (f.subset, f.image_id))
    logits = rng.normal(0, 1, (len(predicted), num_classes))
    for i, f in enumerate(predicted):
        logits[i, f.class_index] += 5
        if num_classes > 1 and rng.random() < mistakes:
            step = 1 if f.class_index % 2 == 0 or rng.random() < 0.15 else -1
            logits[i, (f.class_index + step) % num_classes] += rng.choice([5.5, 6.0, 8.0])
    table = pa.table(
        {
            "image_id": [f.image_id for f in predicted],
            "subset": [f.subset for f in predicted],
            "class_index": pa.array([f.class_index for f in predicted], pa.int32()),
            "probabilities": pa.array(list(_softmax(logits)), pa.list_(pa.float32())),
        },
        schema=PREDICTIONS,
    )
    write_table(table, folder / "predictions.parquet", classes=list(labels))
    header = ["train_loss", "val_loss", "train_accuracy", "val_accuracy"]
    if frozen:
        strengths = [0.0001, 0.001, 0.01, 0.1, 1.0]
        rows = [
            (c, 2.2 - 0.5 * i, 2.25 - 0.55 * i + 0.08 * i * i, 0.6 + 0.095 * i, 0.58 + 0.13 * i - 0.013 * i * i)
            for i, c in enumerate(strengths)
        ]
        write_csv(folder / "history.csv", ["inverse_strength", *header], rows)
    else:
        rows = [
            (
                e,
                2.5 * math.exp(-e / 9),
                2.4 * math.exp(-e / 8) + 0.35 + e / 200,
                1 - math.exp(-e / 7),
                0.88 - 0.8 * math.exp(-e / 6),
            )
            for e in range(1, 31)
        ]
        write_csv(folder / "history.csv", ["epoch", *header, "learning_rate"], [(*r, 0.05) for r in rows])


def _audit(data: Path, labels: Sequence[str], used: list[_File]) -> None:
    """What split says of a sound division."""
    counts = {name: sum(f.subset == name for f in used) for name in ("train", "val", "test")}
    asked = {"train": 0.6, "val": 0.2, "test": 0.2}
    audit: dict[str, Any] = {
        **{"method": "stratified", "seed": 42, "group_by": None, "num_pictures": len(used), "num_groups": len(used)},
        "largest_group": {"group": used[0].image_id, "num_pictures": 2},
        "pairs": {
            **{"looked_at": 3, "apart": 0, "left_out": 2, "together": 1, "across": 0},
            **{"across_by_kind": {}, "examples": []},
        },
        **{"given": None, "train_only": [], "merged": None},
        "subsets": {
            name: {"num_pictures": n, "fraction": n / max(len(used), 1), "asked": asked[name]}
            for name, n in counts.items()
        },
        "folds": [],
        "worst_class": {"label": labels[-1], "subset": "val", "pictures": -0.4},
        "classes": {},
    }
    write_json(data / "split" / "audit.json", audit)


def _softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exponents / exponents.sum(axis=1, keepdims=True), np.float32)


def _expectations(data: Path, flaws: bool) -> None:
    rules = [
        ("min_classes", "at least 2 classes", "error", True, 2, 13, 0),
        ("max_imbalance", "the largest class at most 10 times the smallest", "warn", True, 10.0, 1.0, 0),
        (
            "max_conflict_fraction",
            "at most 2 % under two labels",
            "warn",
            not flaws,
            0.02,
            0.0312341,
            6,
        ),
    ]
    keys = ("rule", "description", "severity", "success", "limit", "observed", "num_offenders")
    listed = [
        dict(zip(keys, rule, strict=True))
        | {"offenders": [], "no_data": "", "fault": "" if rule[3] else "6 files are of pictures under two labels"}
        for rule in rules
    ]
    value = {"success": True, "num_errors": 0, "num_warnings": int(flaws), "rules": listed}
    write_json(data / "validate" / "expectations.json", json.loads(json.dumps(value)))


def add_figures(made: Fabricated, labels: Sequence[str]) -> dict[str, Any]:
    """Add to figures.json, and write mistakes.csv, embedding.csv and maps, by evaluate's contract."""
    folder = made.root / "data" / "evaluate"
    table = read_table(folder / "predictions.parquet", PREDICTIONS)
    ids, actual = table["image_id"].to_pylist(), table["class_index"].to_pylist()
    chances = np.asarray(table["probabilities"].to_pylist())
    said = chances.argmax(axis=1).tolist()
    wrong = [i for i in range(len(ids)) if said[i] != actual[i]]
    train = read_table(made.root / "data" / "augment" / "index.parquet", PACK_INDEX)
    near = [i for i, s in zip(train["image_id"].to_pylist(), train["subset"].to_pylist(), strict=True) if s == "train"]
    share = {"value": 0.9, "low": 0.8, "high": 0.95}
    figures: dict[str, Any] = {
        "verdict": {
            **{"status": "unclear", "metric": "accuracy", "goal": 0.9, "coverage": 1.0, "num_images": len(ids)},
            **{**share, "more_images_needed": 240, "sentence": "The goal of 90 % may be met: too few test pictures."},
        },
        "calibration": {
            **{"temperature": 0.9, "error": 0.05, "calibrated_mean": 0.04, "calibrated_low": 0.02},
            **{"calibrated_high": 0.08, "is_calibrated": True},
            "bins": [
                {"confidence": c, "accuracy": c - 0.02, "num": 9, "low": c - 0.1, "high": min(1.0, c + 0.1)}
                for c in (0.3, 0.5, 0.7, 0.9)
            ],
        },
        "coverage": {
            **{"threshold": 0.8, "wished_precision": 0.95},
            "at_threshold": {"coverage": share, "accuracy": {"value": 0.97, "low": 0.9, "high": 0.99}},
            "curve": [
                {"coverage": c, "threshold": 1 - c, "accuracy": 1 - c / 9, "low": 0.95 - c / 9, "high": 1.0}
                for c in (0.2, 0.4, 0.6, 0.8, 1.0)
            ],
        },
        "top_k": {"1": share, "2": {**share, "value": 0.95}, "3": None, "5": None},
        "change": {
            **{"num_shared": 50, "num_before": 51, "num_now": 52, "gained": 3, "lost": 1, "p_mcnemar": 0.62},
            **{"difference": {"value": 0.04, "low": -0.02, "high": 0.1}, "verdict": "unclear"},
            "per_class": {label: {"gained": int(k == 0), "lost": int(k == 1)} for k, label in enumerate(labels)},
            "changed": [
                {"image_id": ids[i][:16], "actual": labels[actual[i]], "before": labels[0], "now": labels[said[i]]}
                for i in wrong[:3]
            ],
        },
        "slices": {
            "num_looked_at": 12,
            "worse": [
                {"kind": "quality", "name": "most blurred", "num_images": 11, "rest": 0.95, "p_adjusted": 0.004,
                 "accuracy": {"value": 0.5, "low": 0.3, "high": 0.7}}
            ],
            "all": [],
        },
        "learning_curve": {
            **{"method": "frozen features", "fit": {"a": 0.1, "b": 1.0, "c": 0.5}},
            "per_class": {
                labels[0]: {
                    "points": [{"num_images": 12.5, "accuracy": 0.6, "low": 0.4, "high": 0.8}],
                    "forecast": [{"num_images": 24.0, "accuracy": 0.7, "low": 0.5, "high": 0.9}],
                }
            },
            "points": [
                {"num_images": n, "accuracy": 0.9 - 9 / n, "low": 0.85 - 9 / n, "high": 0.95 - 9 / n}
                for n in (25, 50, 100, 200)
            ],
            "forecast": [{"num_images": 400, "accuracy": 0.88, "low": 0.8, "high": 0.93}],
            "advice": {"class": labels[0], "more_images": 60, "expected_gain": 0.012, "low": 0.002, "high": 0.02,
                       "recall_gain": {"value": 0.1, "low": 0.0, "high": 0.2}},
        },
        "strangers": {
            **{"method": "ridge regression", "threshold": 1.2, "false_rate": 0.05, "num_test_flagged": 3},
            "auroc_left_out": share,
        },
        "robustness": {
            **{"baseline": share, "num_images": 40, "member": "linear_probe", "view": "original"},
            "kinds": {
                kind: [
                    {"strength": s, "accuracy": 0.9 - s * by, "low": 0.8 - s * by, "high": 0.95 - s * by,
                     "flip_rate": s * by, "worst_class": labels[0]}
                    for s in range(1, 6)
                ]
                for kind, by in (("blur", 0.02), ("noise", 0.1), ("scribble", 0.05))
            },
        },
        "maps": {"method": "LayerGradCam", "layer": "conv_head", "member": "linear_probe", "num": len(wrong)},
        "cost": {
            member: {"num_params": 4_650_000, "macs": 400_000_000, "file_bytes": 13_000_000, "image_size": 224}
            for member in made.train.members
        },
        "embedding": {"num_images": len(ids), "method": "PCA, t-SNE"},
        "factors": {"colour": {"classes": ["red", "blue"], "counts": [[20, 3], [2, 27]], "accuracy": share}},
    }  # fmt: skip
    figures = json.loads((folder / "figures.json").read_text(encoding="utf-8")) | figures
    write_json(folder / "figures.json", figures)
    causes = ("label", "picture", "too_few", "model")
    mistakes = [
        (ids[i], "", labels[actual[i]], labels[said[i]], "", "", "", "", "",
         " ".join(f"{near[(i + k) % len(near)]}:0.{9 - k}" for k in range(3)), causes[n % 4])
        for n, i in enumerate(wrong)
    ]  # fmt: skip
    header = "image_id,source_path,actual,predicted,confidence,top2,top2_probability,top3,top3_probability"
    write_csv(folder / "mistakes.csv", [*header.split(","), "neighbours", "cause"], mistakes)
    places = [
        (image_id, a % 5 + i % 7 / 9, a // 5 + i % 11 / 13, labels[a], "test", i in wrong)
        for i, (image_id, a) in enumerate(zip(ids, actual, strict=True))
    ]
    write_csv(folder / "embedding.csv", ("image_id", "x", "y", "label", "subset", "is_mistake"), places)
    rows = [(ids[i], labels[k]) for i in wrong for k in (said[i], actual[i])]
    rows += [(ids[i], labels[actual[i]]) for i in range(len(ids)) if i not in wrong]
    ramp = np.linspace(0, 1, 49, dtype=np.float16).reshape(7, 7)
    np.save(folder / "maps.npy", np.stack([np.roll(ramp, k, axis=1) for k in range(len(rows))]))
    write_csv(folder / "maps.csv", ("image_id", "class", "row"), [(*row, k) for k, row in enumerate(rows)])
    return figures
