"""Answers as a table, by the suffix of the file: .csv, .parquet, .jsonl, or .html, a page of pictures.

Files appear whole, with every answer that was given, also after Ctrl-C.
"""

import base64
import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.core.errors import InputError
from pipelines.core.files import whole_file, write_text
from pipelines.use.classifier import Classifier, Pixels
from pipelines.use.predict import NAMED, STRANGER, TOP, UNSURE, Prediction

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = (".csv", ".parquet", ".jsonl", ".html")
NONE = "none of these"
DIGITS = 6
MAX_SHOWN = 1000
"""pictures of a page, the most doubtful ones: 4 MB"""
THUMBNAIL_SIDE = 128
TEMPLATES = Path(__file__).parent / "templates"

Write = Callable[[Sequence[Prediction]], None]


def flat(answer: Prediction, factors: Sequence[str]) -> dict[str, Any]:
    """A row of CSV and Parquet; None where the picture could not be read."""
    row: dict[str, Any] = {"path": answer.path, "answer": shown(answer), "status": answer.status}
    for rank in range(TOP):
        label, probability = answer.top[rank] if rank < len(answer.top) else ("", None)
        row[f"top{rank + 1}"] = label
        row[f"probability{rank + 1}"] = None if probability is None else round(probability, DIGITS)
    for name in factors:
        value, probability = (answer.factors or {}).get(name, ("", None))
        row[name] = value
        row[f"{name}_probability"] = None if probability is None else round(probability, DIGITS)
    return {**row, "detail": answer.detail, "image_id": answer.image_id}


def shown(answer: Prediction) -> str:
    """The label, `none of these`, or "" for what could not be read."""
    return (answer.label or NONE) if answer.is_read else ""


def as_json(answer: Prediction) -> str:
    """A line of JSON Lines."""
    value = {
        "path": answer.path,
        "answer": answer.label or None,
        "status": answer.status,
        "top": [{"label": label, "probability": round(probability, DIGITS)} for label, probability in answer.top],
        "score": answer.score,
        "factors": {
            name: {"value": value, "probability": round(probability, DIGITS)}
            for name, (value, probability) in (answer.factors or {}).items()
        },
        "detail": answer.detail,
        "image_id": answer.image_id,
    }
    return json.dumps(value, ensure_ascii=False)


def check_out(path: Path) -> None:
    """Refuse a file that no answers can be written to, before anything is read."""
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"--out {path} ends in none of {', '.join(SUFFIXES)}: what it ends in says what is written")
    if path.is_dir():
        raise InputError(f"--out {path} is a folder: name a file in it")


@contextmanager
def open_answers(path: Path, classifier: Classifier) -> Iterator[Write]:
    """A function that writes answers to `path`.

    Raises:
        InputError: the disk is full or cannot be written; an older file is left as it was.
    """
    names = list(classifier.info.factors.names) if classifier.info.factors and len(classifier.members) > 1 else []
    try:
        if path.suffix.lower() == ".html":
            kept = _Doubtful()
            yield kept.add
            write_text(path, page(kept, classifier))
            return
        with whole_file(path) as file:
            if path.suffix.lower() == ".csv":
                yield csv_writer(lambda text: file.write(text.encode("utf-8", "replace")), names)
            elif path.suffix.lower() == ".jsonl":
                yield lambda answers: file.writelines(
                    as_json(one).encode("utf-8", "replace") + b"\n" for one in answers
                )
            else:
                import pyarrow as pa

                from pipelines.core.tables import TableWriter

                schema = _schema(names)
                with TableWriter(file, schema) as table:
                    yield lambda answers: table.write(
                        pa.RecordBatch.from_pylist([_clean(flat(one, names)) for one in answers], schema=schema)
                    )
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror or error}): free some space or name another file; nothing "
            "half-written was left"
        ) from error


def csv_writer(put: Callable[[str], object], factors: Sequence[str]) -> Write:
    """A function that hands answers on as text, the header first."""
    began = False

    def write(answers: Sequence[Prediction]) -> None:
        nonlocal began
        rows = [flat(one, factors) for one in answers]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if not began and rows:
            writer.writerow(rows[0])
            began = True
        writer.writerows(row.values() for row in rows)
        put(text.getvalue())

    return write


def _schema(factors: Sequence[str]) -> "pa.Schema":
    import pyarrow as pa

    row = flat(Prediction("", "", "", "", ()), factors)
    return pa.schema([(name, pa.float64() if value is None else pa.string()) for name, value in row.items()])


def _clean(row: Mapping[str, Any]) -> dict[str, Any]:
    """Without half of a surrogate pair, which names of files may hold and Parquet may not."""
    return {k: v.encode("utf-8", "replace").decode() if isinstance(v, str) else v for k, v in row.items()}


class _Doubtful:
    """The most doubtful answers, with their thumbnails; the others are counted."""

    def __init__(self) -> None:
        self.answers: list[tuple[Prediction, str]] = []
        self.counts = {NAMED: 0, UNSURE: 0, STRANGER: 0}
        self.unread: list[Prediction] = []
        self.num_unread = 0

    def add(self, answers: Iterable[Prediction]) -> None:
        for one in answers:
            if not one.is_read or one.pixels is None:
                self.num_unread += 1
                self.unread += [one] if self.num_unread <= MAX_SHOWN else []
                continue
            self.counts[one.status] += 1
            if len(self.answers) < 2 * MAX_SHOWN or one.doubt < self.answers[MAX_SHOWN - 1][0].doubt:
                self.answers.append((one, thumbnail(one.pixels)))
            if len(self.answers) > 2 * MAX_SHOWN:
                self.sort()

    def sort(self) -> None:
        self.answers.sort(key=lambda one: (one[0].doubt, one[0].path))
        del self.answers[MAX_SHOWN:]


def thumbnail(pixels: Pixels, *, side: int = THUMBNAIL_SIDE) -> str:
    """A JPEG of (S, S, 3) as data URI."""
    from PIL import Image

    image = Image.fromarray(pixels)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=75)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def page(kept: _Doubtful, classifier: Classifier) -> str:
    """One file that needs nothing else, the most doubtful pictures first."""
    from pipelines.report.page import render_page

    kept.sort()
    context = {
        "language": "en",
        "title": f"Answers of {classifier.info.title}",
        "info": classifier.info,
        "threshold": classifier.threshold,
        "answers": kept.answers,
        "counts": kept.counts,
        "num": sum(kept.counts.values()),
        "unread": kept.unread,
        "num_unread": kept.num_unread,
        "no_class": NONE,
    }
    return render_page(context, "predict.html.j2", folder=TEMPLATES)
