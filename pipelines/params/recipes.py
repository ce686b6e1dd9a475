"""One typed recipe a member, from which its training follows."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipelines.params.base import Count, Fraction, Name, PathText, PositiveFloat, PositiveInt, Section
from pipelines.params.networks import OWN_NETWORKS, Mlp, Network, NetworkName, Weights
from pipelines.params.optimizers import AdamW, OneCycle, Optimizer, Schedule

TtaView = Literal["original", "hflip", "center_crop", "center_crop_hflip", "turn_left", "turn_right"]
"""original: as packed; hflip: mirrored; center_crop: its middle 87.5 %; turned by 10 degrees"""
Precision = Literal["auto", "float32", "bfloat16", "float16"]
"""of the arithmetic; auto: the fastest that is safe for network and device, recorded with the member"""
InChans = Literal[1, 3]
"""channels of the input; 1: luma, for pictures whose colour says nothing"""
Target = Name
"""label, or one of the label columns of a table that were joined to it (gender, status)"""


class LogisticHead(Section):
    """Multinomial logistic regression on cached features, fitted by L-BFGS to the optimum."""

    kind: Literal["logistic_regression"] = "logistic_regression"
    Cs: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = (0.0001, 0.001, 0.01, 0.1, 1.0)
    """values of C to try; the one with the best validation loss is kept"""


class SgdHead(Section):
    """A linear layer on cached features, trained by AdamW in batches: for more than L-BFGS takes in reasonable time."""

    kind: Literal["sgd"] = "sgd"
    learning_rate: PositiveFloat = 0.001
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.0001
    epochs: PositiveInt = 20
    """the one with the best validation loss is kept"""
    batch_size: PositiveInt = 256


class LinearProbeRecipe(Section):
    """Pretrained backbones as they are; only a head is fitted, on features computed once."""

    tuning: Literal["linear_probe"] = "linear_probe"
    model: NetworkName | None = "tf_efficientnet_lite0"
    """the backbone; null where `models` names several"""
    models: tuple[NetworkName, ...] = ()
    """several backbones in place of `model`: the head is fitted on their joined features"""
    weights: Weights = "imagenet"
    image_size: Annotated[int, Field(ge=32, le=1024)] = 224
    """side of the pictures the backbone sees, pixels"""
    target: Target = "label"
    tta: Annotated[tuple[TtaView, ...], Field(min_length=1)] = ("original", "hflip")
    """of each picture: the head learns from all, a prediction is their mean"""
    precision: Precision = "auto"
    head: Annotated[LogisticHead | SgdHead, Field(discriminator="kind")] = LogisticHead()

    @model_validator(mode="after")
    def _backbones_agree(self) -> Self:
        if (self.model is None) == (not self.models):
            raise ValueError("a linear probe has either model or models: set the other to null or []")
        if self.models and self.weights != "imagenet":
            raise ValueError(
                "models: each begins with its own ImageNet weights; set weights: imagenet, or take one model"
            )
        if len(set(self.models)) < len(self.models):
            raise ValueError(f"models {', '.join(self.models)}: one stands there twice; delete it")
        return self

    @property
    def backbones(self) -> tuple[NetworkName, ...]:
        """Whose features are joined, in this order."""
        return self.models or (self.model or "",)


class CrossEntropy(Section):
    kind: Literal["cross_entropy"] = "cross_entropy"
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0


class Focal(Section):
    """Lin et al., "Focal loss for dense object detection", 2017: easy pictures count less."""

    kind: Literal["focal"] = "focal"
    gamma: Annotated[float, Field(ge=0.0, le=10.0)] = 2.0
    """0 is cross-entropy; 2 is usual"""


Loss = Annotated[CrossEntropy | Focal, Field(discriminator="kind")]


class EarlyStopping(Section):
    monitor: Literal["val_loss", "val_accuracy", "val_macro_f1"] = "val_loss"
    """by which an epoch is the best so far; its weights are kept"""
    patience: PositiveInt = 10
    """epochs without a better one before training stops"""


class Distillation(Section):
    """Hinton et al. 2015: learn from the probabilities of trained members, not from the labels alone."""

    teachers: Annotated[tuple[Name, ...], Field(min_length=1)]
    """of train.members, each on the same fold; several teach by their mean"""
    temperature: Annotated[float, Field(gt=0.0, le=100.0)] = 3.0
    """softens both sides' probabilities; 2 to 5 is usual"""
    weight: Fraction = 0.7
    """of the teachers' loss; the labels' loss gets the rest"""
    teacher_input: Literal["augmented", "original"] = "original"
    """what teachers look at: the same augmented pictures, at each step; or each picture once, as it is"""


class PseudoLabels(Section):
    """Unlabelled pictures, labelled by a former run where it was sure."""

    path: PathText
    """of that run's predictions.parquet"""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """of the file: another one is refused, and the message gives what it should say"""
    min_confidence: Annotated[float, Field(ge=0.5, le=1.0)] = 0.95
    weight: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """of such a picture's loss; a labelled one counts 1"""


class TrainedRecipe(Section):
    """What every recipe says whose network is trained by gradient descent."""

    image_size: Annotated[int, Field(ge=8, le=1024)] = 224
    """side of the pictures the network sees, pixels"""
    in_chans: InChans = 3
    stem: Literal["standard", "cifar"] = "standard"
    """first layers: as published; or, for pictures up to about 64 px, at full resolution and up to 16 times the work"""
    target: Target = "label"
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """before the last layer; of an mlp and of nin, after every hidden one"""
    augmentation: Name = "standard"
    """one of augment.policies"""
    mixup: Annotated[float, Field(ge=0.0, le=10.0)] = 0.0
    """alpha of Mixup (Zhang et al. 2018), the weighted mean of two pictures and their labels; 0 is off, 0.2 is usual"""
    cutmix: Annotated[float, Field(ge=0.0, le=10.0)] = 0.0
    """alpha of CutMix (Yun et al. 2019), a rectangle of another picture; 0 is off, 1.0 is usual. With both, each
    picture gets one of them"""
    mixup_prob: Fraction = 1.0
    """probability that a picture is mixed, where mixup or cutmix is on"""
    class_balance: Literal["none", "loss_weights", "oversampling"] = "none"
    """of rare classes: nothing; their loss counts more; or they are drawn more often (each class as often as any)"""
    loss: Loss = CrossEntropy()
    optimizer: Optimizer = AdamW()
    schedule: Schedule = OneCycle()
    warmup_epochs: Count = 0
    """in which the learning rate rises in a straight line"""
    epochs: PositiveInt = 15
    batch_size: PositiveInt = 32
    """pictures of one step of the optimiser; a lone last picture, which batch norm cannot take, joins another step"""
    grad_accum_steps: PositiveInt = 1
    """parts that a batch is computed in, to save memory; doubled by itself where memory runs out. Where batch norms
    learn or pictures are mixed, each holds two or more"""
    clip_grad_norm: PositiveFloat | None = None
    ema_decay: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    """per step: validate and keep an exponential moving average of the weights; 0.999 is usual"""
    early_stopping: EarlyStopping = EarlyStopping()
    precision: Precision = "auto"
    compile: bool = False
    """torch.compile: pays from minutes of training on a GPU on, costs about one to begin with; slower on most CPUs"""
    tta: Annotated[tuple[TtaView, ...], Field(min_length=1)] = ("original", "hflip")
    """test-time augmentation: a prediction is the mean over these"""
    distillation: Distillation | None = None
    pseudo_labels: PseudoLabels | None = None

    @model_validator(mode="after")
    def _keys_agree(self) -> Self:
        if self.grad_accum_steps > self.batch_size:
            raise ValueError(
                f"grad_accum_steps {self.grad_accum_steps} parts of batch_size {self.batch_size}: make it smaller"
            )
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"warmup_epochs {self.warmup_epochs} leave nothing of {self.epochs} epochs; make it smaller"
            )
        if self.loss.kind == "focal" and self.mixes:
            raise ValueError(
                "loss focal counts easy pictures less, which mixed ones are not: set mixup and cutmix to 0"
            )
        return self

    @property
    def mixes(self) -> bool:
        """Whether pictures are mixed in pairs."""
        return (self.mixup > 0.0 or self.cutmix > 0.0) and self.mixup_prob > 0.0


class ScratchRecipe(TrainedRecipe):
    """A network trained from random weights."""

    tuning: Literal["scratch"] = "scratch"
    model: Network = "resnet18"


class _PretrainedRecipe(TrainedRecipe):
    """What recipes say that begin with weights."""

    model: Network = "tf_efficientnet_lite0"
    weights: Weights = "imagenet"
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """factor of the learning rate from each stage of the network to the one before it; 1 trains all alike"""
    freeze_norms: bool = False
    """batch norms keep the statistics that they came with"""

    @model_validator(mode="after")
    def _weights_fit(self) -> Self:
        if isinstance(self.model, Mlp) and self.weights == "imagenet":
            raise ValueError("weights imagenet: there are none for an mlp; use a file or a member, or tuning: scratch")
        if self.model in OWN_NETWORKS and self.weights == "imagenet":
            raise ValueError(
                f"weights imagenet: there are none for {self.model}; use a file or a member, or tuning: scratch"
            )
        return self


class FinetuneRecipe(_PretrainedRecipe):
    """Every weight goes on learning."""

    tuning: Literal["finetune"] = "finetune"


class PartialFinetuneRecipe(_PretrainedRecipe):
    """The first stages stay as they came; their batch norms too."""

    tuning: Literal["partial_finetune"] = "partial_finetune"
    freeze_stages: PositiveInt = 2
    """how many, counted from the picture; the head is the last stage and is never frozen"""


class LinearThenFinetuneRecipe(_PretrainedRecipe):
    """First the head alone, then all of it."""

    tuning: Literal["linear_then_finetune"] = "linear_then_finetune"
    head_epochs: PositiveInt = 2
    """of `epochs`, those for the head alone; the schedule covers the rest"""
    head_learning_rate: PositiveFloat = 0.001

    @model_validator(mode="after")
    def _epochs_remain(self) -> Self:
        if self.head_epochs + self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"head_epochs {self.head_epochs} and warmup_epochs {self.warmup_epochs} leave nothing of "
                f"{self.epochs} epochs; make them smaller"
            )
        return self


PretrainedRecipe = FinetuneRecipe | PartialFinetuneRecipe | LinearThenFinetuneRecipe
NetworkRecipe = ScratchRecipe | FinetuneRecipe | PartialFinetuneRecipe | LinearThenFinetuneRecipe
Recipe = Annotated[LinearProbeRecipe | NetworkRecipe, Field(discriminator="tuning")]


def needs(recipe: LinearProbeRecipe | NetworkRecipe) -> tuple[str, ...]:
    """The members that must be trained before a recipe: those it starts from or learns from."""
    found: list[str] = []
    weights = getattr(recipe, "weights", None)
    if weights is not None and weights != "imagenet" and weights.kind == "member":
        found.append(weights.member)
    if not isinstance(recipe, LinearProbeRecipe) and recipe.distillation:
        found += recipe.distillation.teachers
    return tuple(dict.fromkeys(found))


def smallest_part(recipe: NetworkRecipe, *, learns_norms: bool) -> int:
    """Pictures that every part of a step must hold: batch norm has nothing to normalise in one, mixing nothing to mix.

    Args:
        learns_norms: whether any batch norm of the network learns.
    """
    return 2 if learns_norms or recipe.mixes else 1


def too_small_parts(recipe: NetworkRecipe, *, num_devices: int, learns_norms: bool = False) -> str:
    """Why parts of the recipe's steps would hold too few pictures, and what to do; "" where they do not.

    Args:
        num_devices: that share every step.
        learns_norms: whether any batch norm of the network learns, which is known once it is built.
    """
    least = smallest_part(recipe, learns_norms=learns_norms)
    parts = recipe.grad_accum_steps * num_devices
    if recipe.batch_size >= parts * least:
        return ""
    among = f", grad_accum_steps {recipe.grad_accum_steps} and train.num_devices {num_devices}" if parts > 1 else ""
    why = f"batch_size {recipe.batch_size}{among} make parts of {recipe.batch_size // parts} pictures"
    remedy = f"raise batch_size to {parts * least}{' or make fewer parts' if parts > 1 else ''}"
    if learns_norms:
        others = "take a network without batch norm (convnext_tiny, vit_small_patch16_224, an mlp)"
        if not isinstance(recipe, ScratchRecipe):
            others = f"set freeze_norms: true, or {others}"
        return f"{why}, of which batch norm needs 2: {remedy}, or {others}"
    return (
        f"{why}, of which mixing needs 2: {remedy}, or set mixup and cutmix to 0"
        if recipe.mixes
        else f"{why}: {remedy}"
    )
