"""Check somebody's labels: what a trained model disputes, copies, pictures under two labels, strangers, broken files.

Labels are disputed as evaluate disputes its own (`pipelines.evaluate.suspects`): confident learning, with the run's own
out-of-sample predictions beside those of the pictures in question, so that a class of two pictures has a threshold too.
How many of the disputed labels are really wrong is estimated as there, by labels flipped on purpose.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from pipelines.core.errors import ImageError, InputError
from pipelines.core.progress import progress
from pipelines.evaluate.metrics import Floats, Ints
from pipelines.evaluate.suspects import disputed, expected_precision, label_margins
from pipelines.images.decoding import ImageSummary, decode, summarize
from pipelines.ingest.listing import Listing
from pipelines.params.base import did_you_mean
from pipelines.params.dedupe import DedupeParams
from pipelines.use.classifier import Classifier
from pipelines.use.pictures import Picture
from pipelines.use.predict import STRANGER, Prediction, predict

SEED = 42
COPY_KINDS = {"exact": "the same bytes", "pixels": "the same pixels", "near": "a near copy", "recrop": "another crop"}
"""kinds of pairs that show one picture; mere look-alikes are not named"""


@dataclass(frozen=True)
class Flaw:
    """One picture and what is wrong with it.

    Args:
        problem: one of PROBLEMS.
        path, label: as given.
        image_id: sha256 of the file, "" where it cannot be read.
        suggested: the class that the model prefers, "" where it has no say.
        probability_label, probability_suggested: of both; None where the model has no say.
        other: the path of the other picture of a pair.
        detail: what a person needs to know of it.
    """

    problem: str
    path: str
    label: str
    image_id: str
    suggested: str = ""
    probability_label: float | None = None
    probability_suggested: float | None = None
    other: str = ""
    detail: str = ""


@dataclass(frozen=True)
class Audit:
    """What was found.

    Args:
        num_pictures: read, of known classes or not; num_unreadable could not be.
        findings: by problem, the most certain first.
        precision: by problem the expected fraction of its rows that are really wrong, 1 where that is certain; None
            where it is not known.
        unknown: labels that are no class of the model, with their number and the class that may be meant.
    """

    num_pictures: int
    num_unreadable: int
    findings: dict[str, list[Flaw]]
    precision: dict[str, float | None]
    unknown: dict[str, tuple[int, str]]


PROBLEMS = ("disputed", "conflicting", "duplicated", "strange", "unknown class", "unreadable")


def audit(
    classifier: Classifier, listing: Listing, *, known: tuple[Ints, Floats] | None, dedupe: DedupeParams
) -> Audit:
    """Check the labels of `listing`.

    Args:
        known: (M,) labels and (M, K) predictions of the run for pictures that its members did not learn from; None
            where they are not here.
        dedupe: what counts as a copy.

    Raises:
        InputError: no label is a class of the model, or no picture can be read.
    """
    unknown = _unknown_labels(classifier, listing)
    facts: dict[int, ImageSummary] = {}
    told = list(_told(classifier, listing, facts))
    good = [place for place, one in enumerate(told) if one.is_read]
    if not good:
        reason = Counter(one.status for one in told).most_common(1)
        raise InputError(
            f"none of {len(told) + len(listing.rejects):,} pictures can be read"
            + (f" (most: {reason[0][0]})" if reason else "")
            + ": name pictures"
        )
    predictions = [told[place] for place in good]
    labels = [listing.labels[place] for place in good]
    paths = [listing.paths[place] for place in good]
    found: dict[str, list[Flaw]] = {problem: [] for problem in PROBLEMS}
    found["unreadable"] = [
        Flaw("unreadable", listing.paths[place], listing.labels[place], "", detail=f"{one.status}: {one.detail}")
        for place, one in enumerate(told)
        if not one.is_read
    ] + [
        Flaw("unreadable", one.source_path, one.label, "", detail=f"{one.reason}: {one.detail}")
        for one in listing.rejects
    ]
    judged = _Labelled(classifier, predictions, labels, paths)
    found["unknown class"] = [
        judged.finding("unknown class", row, detail=f"not a class of the model{_meant(unknown[label][1])}")
        for row, label in enumerate(labels)
        if label in unknown
    ]
    found["strange"] = [judged.finding("strange", row) for row in judged.strangers()]
    found["disputed"], precision = judged.disputed(known)
    pairs = list(_copies(listing, good, told, facts, dedupe, classifier.info.limits.max_pixels))
    for first, second, kind in pairs:
        if labels[first] == labels[second]:
            # the smaller one is the copy
            areas = [facts[good[row]].width * facts[good[row]].height for row in (first, second)]
            copy, kept = (first, second) if areas[0] < areas[1] else (second, first)
            found["duplicated"].append(judged.finding("duplicated", copy, other=paths[kept], detail=COPY_KINDS[kind]))
        else:
            doubtful, other = sorted((first, second), key=judged.of_label)
            detail = f"{COPY_KINDS[kind]} under {labels[other]}"
            found["conflicting"].append(judged.finding("conflicting", doubtful, other=paths[other], detail=detail))
    rates: dict[str, float | None] = {
        "disputed": precision,
        "conflicting": 1.0 if all(kind in ("exact", "pixels") for *_, kind in pairs) else None,
        "duplicated": 1.0 if all(kind in ("exact", "pixels") for *_, kind in pairs) else None,
        "strange": judged.stranger_precision(len(found["strange"])),
        "unknown class": 1.0,
        "unreadable": 1.0,
    }
    return Audit(len(good), len(found["unreadable"]), found, rates, unknown)


def _meant(near: str) -> str:
    return f"; did you mean {near!r}?" if near else ""


def _unknown_labels(classifier: Classifier, listing: Listing) -> dict[str, tuple[int, str]]:
    counts = Counter(listing.labels)
    unknown = [label for label in counts if label not in classifier.classes]
    if listing.labels and len(unknown) == len(counts):
        shown = ", ".join(list(counts)[:5])
        raise InputError(
            f"no label is a class of the model: {shown}{', …' if len(counts) > 5 else ''}; it knows "
            f"{', '.join(classifier.classes)}{did_you_mean(next(iter(counts)), classifier.classes)}"
        )
    return {label: (counts[label], _closest(label, classifier.classes)) for label in sorted(unknown)}


def _closest(label: str, classes: tuple[str, ...]) -> str:
    from pipelines.params.mistakes import closest

    folded = {name.casefold().replace(" ", "").replace("_", "").replace("-", ""): name for name in classes}
    plain = label.casefold().replace(" ", "").replace("_", "").replace("-", "")
    return folded.get(plain) or folded.get(closest(plain, list(folded)) or "") or ""


def _told(classifier: Classifier, listing: Listing, facts: dict[int, ImageSummary]) -> Iterator[Prediction]:
    """Answers in the order of the listing; `facts` of each picture are filled in on the way, by its place."""
    limits = classifier.info.limits

    def read(place: int) -> bytes:
        data = listing.read(listing.paths[place])
        facts[place] = summarize(data, max_pixels=limits.max_pixels, min_side=limits.min_side)
        return data

    def pictures() -> Iterator[Picture]:
        for place, path in enumerate(listing.paths):
            yield Picture(path, lambda place=place: read(place))  # type: ignore[misc]

    with progress("audit", len(listing.paths), unit="pictures") as advance:
        for answers in predict(classifier, pictures()):
            # 150 kB each: those that are shown are read again
            yield from (replace(one, pixels=None) for one in answers)
            advance(len(answers))


@dataclass(frozen=True)
class _Labelled:
    """N pictures with what the model says of them."""

    classifier: Classifier
    predictions: list[Prediction]
    labels: list[str]
    paths: list[str]

    def _class(self, row: int) -> int:
        label = self.labels[row]
        return self.classifier.classes.index(label) if label in self.classifier.classes else -1

    def of_label(self, row: int) -> float:
        """The probability of the picture's label; 0 for an unknown one."""
        likely, k = self.predictions[row].probabilities, self._class(row)
        return 0.0 if likely is None or k < 0 else float(likely[k])

    def finding(self, problem: str, row: int, *, other: str = "", detail: str = "") -> Flaw:
        one = self.predictions[row]
        label, probability = one.top[0]
        differs = label != self.labels[row]
        return Flaw(
            problem=problem,
            path=self.paths[row],
            label=self.labels[row],
            image_id=one.image_id,
            suggested=label if differs else "",
            probability_label=self.of_label(row),
            probability_suggested=probability if differs else None,
            other=other,
            detail=detail,
        )

    def strangers(self) -> list[int]:
        rows = [row for row, one in enumerate(self.predictions) if one.status == STRANGER]
        return sorted(rows, key=lambda row: (self.predictions[row].score or 0.0, self.paths[row]))

    def stranger_precision(self, num_found: int) -> float | None:
        """Of `num_found` strangers those that are more than the false ones to be expected among so many pictures."""
        test = self.classifier.info.strangers
        if test is None or test.false_rate is None or not num_found:
            return None
        return max(0.0, 1.0 - test.false_rate * len(self.predictions) / num_found)

    def disputed(self, known: tuple[Ints, Floats] | None) -> tuple[list[Flaw], float | None]:
        """The findings, the most certain first, and the expected fraction of wrong labels among them."""
        rows = [row for row in range(len(self.labels)) if self._class(row) >= 0]
        if not rows or len(self.classifier.classes) < 2:
            return [], None
        actual = np.array([self._class(row) for row in rows], np.int64)
        likely = np.stack([np.asarray(self.predictions[row].probabilities) for row in rows])
        num = len(rows)
        if known is not None:
            actual, likely = np.concatenate([actual, known[0]]), np.concatenate([likely, known[1]])
        margins, _ = label_margins(actual, likely)
        suspicious = disputed(actual, likely)
        own = sorted(
            (i for i in suspicious if i < num), key=lambda i: (round(float(margins[i]), 6), self.paths[rows[i]])
        )
        # labels that may be flipped: the run's, which were measured, or else those that nothing disputes
        first = num if known is not None else 0
        free = np.setdiff1d(np.arange(first, len(actual)), suspicious)
        precision = None
        if own and len(free):
            told = expected_precision(margins[own], free, actual, likely, lambda sets: [likely for _ in sets], SEED)
            precision = None if told is None else told.value
        return [self.finding("disputed", rows[i]) for i in own], precision


def _copies(
    listing: Listing,
    good: list[int],
    told: list[Prediction],
    facts: dict[int, ImageSummary],
    params: DedupeParams,
    max_pixels: int,
) -> Iterator[tuple[int, int, str]]:
    """Pairs of rows that show one picture, and their kind, as dedupe finds them."""
    from pipelines.dedupe.find_pairs import find_pairs
    from pipelines.dedupe.inputs import ImageSet, ManifestRows

    image_id = [told[place].image_id for place in good]
    labels = [listing.labels[place] for place in good]
    extent = np.array([(facts[place].width, facts[place].height) for place in good], np.int64).reshape(-1, 2)

    def pixels(row: int) -> npt.NDArray[np.uint8]:
        try:
            return decode(listing.read(listing.paths[good[row]]), max_pixels=max_pixels).pixels
        except ImageError as error:
            raise InputError(f"{listing.paths[good[row]]} changed while it was audited ({error}): run again") from error

    paths = [listing.paths[place] for place in good]
    rows = ManifestRows(image_id, labels, labels, [""] * len(good), extent.prod(axis=1).tolist(), paths, extent, {})
    images = ImageSet(image_id, extent, np.stack([facts[place].thumbnail for place in good]), pixels)
    nothing = ImageSet([], np.zeros((0, 2), np.int64), images.thumbnails[:0], pixels)
    first = rows.first_rows()
    for pair in find_pairs(params, rows, list(first.values()), images, nothing).pairs:
        if pair.kind in COPY_KINDS:
            yield pair.first, pair.second, pair.kind
    for row, key in enumerate(zip(image_id, labels, strict=True)):
        if first[key] != row:
            yield first[key], row, "exact"
