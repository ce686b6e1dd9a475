"""What benchmarks/gpu.py trains: sizes, policies and recipes."""

from dataclasses import dataclass

from training import Json, recipe, sgd

MIXINGS = {
    "mixup": {"mixup": 0.2, "cutmix": 0.0, "mixup_prob": 1.0},
    "cutmix": {"mixup": 0.0, "cutmix": 1.0, "mixup_prob": 1.0},
}


@dataclass(frozen=True)
class Sizes:
    """What is trained on what; sizes in pixels."""

    pictures: int | None
    """training pictures of a class; None for all"""
    val: int
    step_pictures: int
    """training pictures of a class, of the extras at the larger size"""
    large: int
    small: int
    large_model: str
    small_model: str
    best_model: str
    fine_tune_epochs: int
    quick_epochs: int
    extra_epochs: int
    large_batch: int
    small_batch: int
    naive_steps: int
    seconds: float
    """of each measurement of augmentation"""


FULL = Sizes(None, 100, 1000, 224, 32, "resnet50", "resnet18", "resnet34", 15, 10, 4, 256, 512, 60, 1.0)
SMOKE = Sizes(4, 2, 4, 32, 32, "resnet18", "small_cnn", "small_cnn", 2, 2, 2, 8, 16, 2, 0.01)


def policies() -> dict[str, Json]:
    """What may happen to a picture, by the names that the recipes use."""
    crops: Json = {"hflip": 0.5, "translate": 0.125}
    return {
        "moves": {"hflip": 0.5, "degrees": 10.0, "translate": 0.1, "scale": 0.1},
        "crops": crops,
        "crops_erased": crops | {"random_erasing": 0.5},
        "colours": {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2},
        "randaugment": crops | {"auto_augment": {"kind": "randaugment", "num_ops": 2, "magnitude": 9}},
        "trivialaugment": crops | {"auto_augment": {"kind": "trivialaugment"}},
    }


def fine_tuning(sizes: Sizes, weights: Json | None, *, compiled: bool) -> Json:
    """The large network, all of it.

    Args:
        weights: of a file, as a recipe names it; None for random ones.
    """
    start: Json = {"optimizer": sgd(0.2)}
    if weights:
        start = {"tuning": "finetune", "weights": weights, "layer_decay": 1.0, "freeze_norms": False}
        start["optimizer"] = sgd(0.02)
    return recipe(**large(sizes) | {"epochs": sizes.fine_tune_epochs, "compile": compiled} | start)


def large(sizes: Sizes) -> Json:
    """Fields of a recipe for the large network."""
    return {"model": sizes.large_model, "image_size": sizes.large, "batch_size": sizes.large_batch}


def small(sizes: Sizes, epochs: int, **changes: object) -> Json:
    """A recipe for pictures of 32 px: full resolution from the first layer on, large batches, a high rate."""
    common: Json = {
        "model": sizes.small_model,
        "image_size": sizes.small,
        "stem": "cifar",
        "epochs": epochs,
        "batch_size": sizes.small_batch,
        "optimizer": sgd(0.4, nesterov=True),
        "loss": {"kind": "cross_entropy", "label_smoothing": 0.1},
        "augmentation": "crops",
        "tta": ["original", "hflip"],
    }
    return recipe(**(common | changes))


def best(sizes: Sizes, epochs: int, *, compiled: bool) -> Json:
    """For long training: strong augmentation against learning pictures by heart, and averaged weights."""
    return small(
        sizes,
        epochs,
        model=sizes.best_model,
        augmentation="trivialaugment",
        ema_decay=0.999,
        compile=compiled,
        **MIXINGS["cutmix"] | {"mixup_prob": 0.5},
    )


def extras(sizes: Sizes) -> dict[str, Json]:
    """Changes of a recipe whose cost is asked, by name; `plain` is what they are compared with."""
    if sizes is SMOKE:
        return {"plain": {}, "cutmix": MIXINGS["cutmix"]}
    found: dict[str, Json] = {"plain": {"augmentation": "crops"}}
    found |= {name: mixing | {"augmentation": "crops"} for name, mixing in MIXINGS.items()}
    return found | {name: {"augmentation": name} for name in ("randaugment", "trivialaugment")}
