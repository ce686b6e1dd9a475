"""Classify pictures: threads read, decode and fit them while the network runs on those before."""

import hashlib
import os
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pipelines.core.errors import ImageError, count
from pipelines.use.classifier import Answers, Classifier, Floats, Pixels, prepare
from pipelines.use.model_folder import ModelInfo
from pipelines.use.pictures import Picture

BATCH = 32
LOOK_AHEAD = 4 * BATCH
"""pictures being read or waiting for the network: 20 MB at 224 px"""
TOP = 3
NAMED, UNSURE, STRANGER = "named", "unsure", "stranger"


@dataclass(frozen=True)
class Prediction:
    """What is said of one picture.

    Args:
        path: as it was named.
        image_id: sha256 of the file, "" where it could not be read.
        status: named; unsure (below the threshold) or stranger (of no known class), which are none of the classes; or
            the reason why the picture cannot be used, by which ingest would reject it.
        label: the most probable class where `status` is named, else "".
        top: the TOP most probable classes and their probabilities, the first first; () where it could not be read.
        score: of the test for strangers; None where there is none.
        factors: by factor of the label its most probable value, and that one's probability.
        detail: what a person needs to know of this very file.
        probabilities: (K,).
        pixels: (S, S, 3) as the network saw it.
    """

    path: str
    image_id: str
    status: str
    label: str
    top: tuple[tuple[str, float], ...]
    score: float | None = None
    factors: Mapping[str, tuple[str, float]] | None = None
    detail: str = ""
    probabilities: Floats | None = None
    pixels: Pixels | None = None

    @property
    def probability(self) -> float | None:
        return self.top[0][1] if self.top else None

    @property
    def is_read(self) -> bool:
        return bool(self.top)

    @property
    def doubt(self) -> tuple[bool, float]:
        """Sort key, the most doubtful first."""
        return (self.status != STRANGER, self.probability or 0.0)


class _Read(NamedTuple):
    image_id: str
    pixels: Pixels


def predict(
    classifier: Classifier, pictures: Iterable[Picture], *, num_threads: int | None = None
) -> Iterator[list[Prediction]]:
    """Answers in the order of `pictures`, BATCH at a time; the memory does not depend on how many there are.

    Args:
        num_threads: that decode; one a core, and at least four, when None.
    """
    info, source = classifier.info, iter(pictures)
    waiting: deque[tuple[Picture, Future[_Read]]] = deque()
    pool = ThreadPoolExecutor(num_threads or max(4, os.cpu_count() or 1))

    def fill() -> None:
        while len(waiting) < LOOK_AHEAD and (picture := next(source, None)) is not None:
            waiting.append((picture, pool.submit(_read, picture, info)))

    try:
        while True:
            fill()
            if not waiting:
                return
            taken = [waiting.popleft() for _ in range(min(BATCH, len(waiting)))]
            found: list[_Read | ImageError] = []
            for _, future in taken:
                try:
                    found.append(future.result())
                except ImageError as error:
                    found.append(error)
            fill()
            yield _answer(classifier, [picture for picture, _ in taken], found)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _read(picture: Picture, info: ModelInfo) -> _Read:
    data = picture.read()
    return _Read(hashlib.sha256(data).hexdigest(), prepare(data, info))


def _answer(classifier: Classifier, pictures: list[Picture], found: list[_Read | ImageError]) -> list[Prediction]:
    good = [one for one in found if isinstance(one, _Read)]
    told = iter(decide(classifier, classifier.answer(np.stack([one.pixels for one in good])))) if good else iter(())
    answers = []
    for picture, one in zip(pictures, found, strict=True):
        if isinstance(one, ImageError):
            answers.append(Prediction(picture.path, "", one.reason, "", (), detail=one.detail))
        else:
            answers.append(
                Prediction(path=picture.path, image_id=one.image_id, pixels=one.pixels, **next(told)._asdict())
            )
    return answers


class NamedClass(NamedTuple):
    """The part of an answer that does not depend on the file; see `Prediction`."""

    status: str
    label: str
    top: tuple[tuple[str, float], ...]
    score: float | None
    factors: Mapping[str, tuple[str, float]] | None
    probabilities: Floats


def decide(classifier: Classifier, answers: Answers) -> Iterator[NamedClass]:
    """Name a class where threshold and the test for strangers allow it."""
    strange_below = classifier.scorer.threshold if classifier.scorer is not None else None
    # of equally probable classes the first counts as more probable, as in argmax
    order = np.argsort(-answers.probabilities, axis=1, kind="stable")[:, :TOP]
    for row, columns in enumerate(order.tolist()):
        top = tuple((classifier.classes[k], float(answers.probabilities[row, k])) for k in columns)
        score = None if answers.scores is None else float(answers.scores[row])
        factors = {
            name: (values[best := int(likely[row].argmax())], float(likely[row, best]))
            for name, (values, likely) in answers.factors.items()
        }
        status = NAMED
        if score is not None and strange_below is not None and score < strange_below:
            status = STRANGER
        elif classifier.threshold is not None and top[0][1] < classifier.threshold:
            status = UNSURE
        yield NamedClass(
            status, top[0][0] if status == NAMED else "", top, score, factors or None, answers.probabilities[row]
        )


@dataclass
class Tally:
    """Counts answers, and says what they come to."""

    counts: Counter[str]
    first_problem: Prediction | None = None

    def add(self, answers: Iterable[Prediction]) -> None:
        for one in answers:
            self.counts[one.status] += 1
            if not one.is_read and self.first_problem is None:
                self.first_problem = one

    @property
    def num(self) -> int:
        return self.counts.total()

    @property
    def num_unreadable(self) -> int:
        return self.num - sum(self.counts[status] for status in (NAMED, UNSURE, STRANGER))

    def sentence(self, classifier: Classifier) -> str:
        none = self.counts[UNSURE] + self.counts[STRANGER]
        parts = [f"{self.counts[NAMED]:,} named"]
        if none:
            why = [f"{self.counts[UNSURE]:,} below the threshold {classifier.threshold:.3g}"] * bool(
                self.counts[UNSURE]
            ) + [f"{count(self.counts[STRANGER], 'stranger')}"] * bool(self.counts[STRANGER])
            parts.append(f"{none:,} none of these ({', '.join(why)})")
        if self.num_unreadable:
            reasons = [
                f"{reason}: {num:,}"
                for reason, num in self.counts.most_common()
                if reason not in (NAMED, UNSURE, STRANGER)
            ]
            parts.append(f"{self.num_unreadable:,} could not be used ({', '.join(reasons)})")
        return f"{count(self.num, 'picture')}: {', '.join(parts)}"
