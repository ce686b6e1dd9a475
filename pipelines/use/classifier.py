"""The networks of a model, combined as evaluate combines them: squares to probabilities of labels.

Torch is imported when a classifier is loaded.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from pipelines.augment.packing import least_size, place, to_square
from pipelines.core.decisions import WHOLE, Crop
from pipelines.core.errors import ImageError, InputError
from pipelines.core.tables import LABEL
from pipelines.evaluate.ensemble import vote, weighted_mean
from pipelines.evaluate.members import EvaluationIndex, LabelFactors, MemberPredictions, Predictions, join_factors
from pipelines.evaluate.strangers import StrangerScorer
from pipelines.images.decoding import ReducedImage, decode, decode_reduced, plain_jpeg, summarize
from pipelines.ingest.cropping import find_crop
from pipelines.params.base import did_you_mean
from pipelines.params.ingest import CenterCrop, FaceCrop
from pipelines.train.temperature import temper
from pipelines.use.model_folder import Model, ModelInfo, ModelMember

if TYPE_CHECKING:
    from pipelines.train.member import TrainedMember

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]


def prepare(data: bytes, info: ModelInfo) -> Pixels:
    """A picture as augment packs it: decoded within the limits, cropped, fitted into the square.

    data/decisions/crop.csv is about pictures of the run: others are whole where ingest.crop.kind is file.

    Args:
        data: the file.

    Returns:
        (S, S, 3) uint8.

    Raises:
        ImageError: by the reasons that ingest rejects pictures for.
    """
    limits, side = info.limits, info.fit.image_size
    header = plain_jpeg(data, max_pixels=limits.max_pixels)
    picture: ReducedImage | None = None
    if header is not None:
        width, height = header.width, header.height
        if header.orientation >= 5:
            width, height = height, width
    else:
        pixels = decode(data, max_pixels=limits.max_pixels).pixels
        height, width = pixels.shape[:2]
        picture = ReducedImage(pixels, width, height)
    if min(width, height) < limits.min_side:
        raise ImageError("too-small", f"{width} x {height} pixels; ingest.min_side is {limits.min_side}")
    placement = place(width, height, crop=_crop(data, info), resize_mode=info.fit.resize_mode, image_size=side)
    if picture is None:
        across, down = least_size(width, height, placement)
        picture = decode_reduced(data, max_pixels=limits.max_pixels, width=across, height=down)
    return to_square(picture, width=width, height=height, placement=placement, image_size=side)


def _crop(data: bytes, info: ModelInfo) -> Crop:
    if not isinstance(info.crop, CenterCrop | FaceCrop):
        return WHOLE
    summary = summarize(data, max_pixels=info.limits.max_pixels, min_side=info.limits.min_side)
    # the manifest keeps its fractions in this precision
    found = find_crop(info.crop, data, summary, None, max_pixels=info.limits.max_pixels)
    return Crop(*(float(np.float32(side)) for side in found))


class Answers(NamedTuple):
    """What a classifier says of B pictures."""

    probabilities: Floats
    """(B, K), in the order of its classes; rows sum to 1"""
    scores: Floats | None
    """(B,) of the test for strangers; None where there is no such test"""
    factors: Mapping[str, tuple[tuple[str, ...], Floats]]
    """by factor of the label its V values and (B, V)"""


@dataclass
class Classifier:
    """A loaded model.

    Args:
        info: of the model.
        classes: K labels, or values of the factor that the one chosen member tells apart.
        target: label, or that factor.
        threshold: below which no class is named; None where it is not known, as for a member chosen out of several.
        members: by recipe its trained folds, and what is known of each.
        scorer: the test for pictures of no known class; None where there is none.
    """

    info: ModelInfo
    classes: tuple[str, ...]
    target: str
    threshold: float | None
    members: Mapping[str, list[tuple[ModelMember, "TrainedMember"]]]
    device: str
    scorer: StrangerScorer | None = None
    _features: list[Any] = field(default_factory=list)

    @property
    def explained(self) -> "TrainedMember":
        """The network whose activation maps are shown: of the label member that counts most, its first fold."""
        return max(self.members.values(), key=lambda folds: folds[0][0].weight or 0.0)[0][1]

    def answer(self, pixels: Pixels) -> Answers:
        """Classify (B, S, S, 3) uint8 squares that `prepare` made."""
        self._features.clear()
        told: dict[str, Floats] = {}
        for name, folds in self.members.items():
            mean = np.mean([trained.predict(pixels).astype(np.float64) for _, trained in folds], axis=0)
            told[name] = temper(mean, folds[0][0].temperature)
        if len(self.members) == 1 and self.target != LABEL:
            (only,) = told.values()
            return Answers(only, None, {})
        of_factors = {name: folds[0][0].target for name, folds in self.members.items() if folds[0][0].target != LABEL}
        joined, factors = self._joined({name: told.pop(name) for name in of_factors}, of_factors)
        weights = {name: folds[0][0].weight or 0.0 for name, folds in self.members.items() if name in told}
        if joined is not None and self.info.factors is not None:
            told[self.info.factors.name] = joined
            weights[self.info.factors.name] = self.info.factors.weight
        return Answers(self._combined(told, weights), self._score(), factors)

    def _joined(
        self, told: Mapping[str, Floats], of_factors: Mapping[str, str]
    ) -> tuple[Floats | None, dict[str, tuple[tuple[str, ...], Floats]]]:
        """(B, K) of the members that tell factors apart, as evaluate joins them, and what they say of each factor."""
        known = self.info.factors
        if known is None or not told:
            return None, {}
        num = len(next(iter(told.values())))
        ids = np.array([f"{row:09d}" for row in range(num)], object)
        zeros = np.zeros(num, np.int64)
        members = []
        for name, probabilities in told.items():
            values = self.members[name][0][1].classes
            same = Predictions(ids, zeros, probabilities)
            members.append(MemberPredictions(name, of_factors[name], values, test=same, val=same))
        classes = list(self.info.classes)
        packed = EvaluationIndex(
            classes, Predictions(ids, zeros, np.zeros((num, len(classes)))), {(one, 0): one for one in ids}, {}
        )
        found = join_factors(members, LabelFactors(list(known.names), dict(known.labels)), packed)
        factors = {
            factor: (
                tuple(next(one.classes for one in members if one.target == factor)),
                np.mean([one.test.probabilities for one in members if one.target == factor], axis=0),
            )
            for factor in known.names
        }
        return temper(found.test.probabilities, known.temperature), factors

    def _combined(self, told: Mapping[str, Floats], weights: Mapping[str, float]) -> Floats:
        """(B, K) of all that tell labels; one alone stays as it is."""
        if len(told) == 1:
            return next(iter(told.values()))
        found = list(told.values())
        if self.info.ensemble == "vote":
            whole = vote(found)
        else:
            whole = weighted_mean(found, np.array([weights[name] for name in told]))
        return temper(whole, self.info.temperature)

    def _score(self) -> Floats | None:
        """(B,) of the features that a hook kept while the networks ran."""
        if self.scorer is None:
            return None
        views = self.watched.tta
        # one entry for each view of each batch that a member divides the pictures into
        plain = self._features[views.index("original") :: len(views)]
        return self.scorer.score(np.concatenate(plain))

    @property
    def watched(self) -> "TrainedMember":
        """The network whose features the test for strangers takes."""
        assert self.scorer is not None
        return next(
            one
            for folds in self.members.values()
            for known, one in folds
            if f"{known.name}-{known.fold}" == self.scorer.member
        )

    def watch(self) -> None:
        """Keep the features of that network each time it runs."""
        from pipelines.train.member import FrozenClassifier
        from pipelines.train.models.building import head_names

        module = self.watched.module
        head = module.head if isinstance(module, FrozenClassifier) else module.get_submodule(head_names(module)[0])

        def keep(_: Any, given: Any) -> None:
            features = given[0].detach().float()
            features = features.mean(dim=(2, 3)) if features.ndim == 4 else features
            # rounded as the features that the test was fitted to
            self._features.append(features.clamp(-6e4, 6e4).half().cpu().numpy())

        head.register_forward_pre_hook(keep)


def load_classifier(
    model: Model, *, member: str | None = None, device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
) -> Classifier:
    """Load the networks of `model`.

    Args:
        member: this recipe alone, all its folds; None for all of them together.

    Raises:
        InputError: there is no such member, or a file is broken.
    """
    from pipelines.train.runtime import keep_freed_memory, limit_thread_spinning

    info = model.info
    names = list(dict.fromkeys(one.name for one in info.members))
    if member is not None and member not in names:
        raise InputError(f"{member!r} is no member of {model.where}: {', '.join(names)}{did_you_mean(member, names)}")
    limit_thread_spinning()
    keep_freed_memory()
    from pipelines.train import load_member
    from pipelines.train.device import choose_device

    place_of = str(choose_device(device))
    members: dict[str, list[tuple[ModelMember, TrainedMember]]] = {}
    for one in info.members:
        if member in (None, one.name):
            trained = load_member(model.files[one.file], device=place_of)
            if one.target == LABEL and tuple(trained.classes) != info.classes:
                raise InputError(f"{model.files[one.file]} knows other classes than {model.where}: run `miwake run`")
            members.setdefault(one.name, []).append((one, trained))
    first_known, first = next(iter(members.values()))[0]
    target = first_known.target if len(members) == 1 and member is not None else LABEL
    # a threshold holds for what it was fitted to
    is_whole = len(members) == len(names)
    found = Classifier(
        info=info,
        classes=tuple(first.classes) if target != LABEL else info.classes,
        target=target,
        threshold=info.threshold.value if info.threshold and is_whole and target == LABEL else None,
        members=members,
        device=place_of,
    )
    names_here = [f"{known.name}-{known.fold}" for folds in members.values() for known, _ in folds]
    if info.strangers is not None and target == LABEL and info.strangers.member in names_here:
        from pipelines.evaluate.strangers import read_scorer

        found.scorer = read_scorer(model.files[info.strangers.file])
        # without the picture itself among the views there are no features to compare
        if found.scorer is not None and "original" in found.watched.tta:
            found.watch()
        else:
            found.scorer = None
    return found
