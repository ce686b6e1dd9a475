"""maps: where in a picture a network sees a class, and which pictures are shown."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from train_inputs import FROZEN, SCRATCH, run, write_packs

from pipelines.evaluate.maps import choose_maps, class_maps, feature_layers
from pipelines.evaluate.metrics import score
from pipelines.train import load_member
from pipelines.train.models import build_network

SIZE = 32
PLACES = [(3, 3), (3, 19), (19, 3), (19, 19)]
"""top left corners of an object of 10 pixels"""


def draw(label: int, place: tuple[int, int], *, seed: int, scale: int = 1) -> npt.NDArray[np.uint8]:
    """A red, green or blue square on grey noise; pixels are repeated `scale` times."""
    picture = np.random.default_rng(seed).integers(110, 146, (SIZE, SIZE, 3)).astype(np.uint8)
    top, left = place
    picture[top : top + 10, left : left + 10] = 40
    picture[top : top + 10, left : left + 10, label] = 220
    return picture.repeat(scale, axis=0).repeat(scale, axis=1)


def train_on_squares(folder: Path, **recipe: Any) -> Path:
    """A member that tells the squares' colours apart, wherever they are."""
    labels = np.arange(96) % 3
    scale = recipe["image_size"] // SIZE
    pixels = np.stack([draw(int(k), PLACES[i // 3 % 4], seed=i, scale=scale) for i, k in enumerate(labels)])
    subsets = ["train"] * 60 + ["val"] * 24 + ["test"] * 12
    packs = write_packs(folder / "packs", subsets, labels, pixels, [-1] * 60 + [0] * 24 + [-1] * 12)
    assert run(folder, packs, recipe).val_accuracy > 0.9
    return folder / "out"


LITE = ["tf_efficientnet_lite0", "tf_efficientnet_lite1"]
SCRATCHED = {**SCRATCH, "image_size": SIZE, "augmentation": "nothing", "epochs": 4, "dropout": 0.0}
MEMBERS: dict[str, tuple[dict[str, Any], str]] = {
    "two backbones": ({**FROZEN, "model": None, "models": LITE, "image_size": 4 * SIZE}, "grad-cam"),
    "small": ({**FROZEN, "image_size": SIZE}, "integrated gradients"),
    "small_cnn": (SCRATCHED, "grad-cam"),
    "mlp": ({**SCRATCHED, "model": {"kind": "mlp", "hidden_sizes": [32]}}, "integrated gradients"),
}


@pytest.mark.parametrize("name", MEMBERS)
def test_the_map_of_a_class_moves_with_its_object(name: str, tmp_path: Path) -> None:
    recipe, method = MEMBERS[name]
    member = load_member(train_on_squares(tmp_path, **recipe))
    scale = recipe["image_size"] // SIZE
    cases = [(k, place) for k in range(3) for place in PLACES]
    pixels = np.stack([draw(*case, seed=1000 + i, scale=scale) for i, case in enumerate(cases)])
    found = class_maps(member, pixels, np.arange(12), np.repeat(np.arange(3), 4))
    assert found.method == method
    assert len(found.layer.split(", ")) == len(recipe.get("models", [""]))
    maps = found.maps.astype(np.float64)
    side = maps.shape[1]
    assert maps.shape == (12, side, side)
    assert (maps.max(axis=(1, 2)) == 1.0).all()
    assert maps.min() >= 0.0
    centre, weight = (np.arange(side) + 0.5) / side, maps.sum(axis=(1, 2))
    for axis, line in enumerate((maps.sum(axis=2), maps.sum(axis=1))):
        middle = ((line * centre).sum(axis=1) / weight).reshape(3, 4)  # of each class and place
        beyond = np.array([place[axis] > 10 for place in PLACES])
        moved = middle[:, beyond].mean(axis=1) - middle[:, ~beyond].mean(axis=1)  # the object itself moves by 0.5
        assert (moved > 0.02).all()
        assert moved.mean() > 0.08


def test_of_two_classes_of_a_picture_the_stronger_is_one_and_no_picture_is_no_map(tmp_path: Path) -> None:
    member = load_member(train_on_squares(tmp_path, **MEMBERS["small_cnn"][0]))
    pixels = np.stack([draw(0, PLACES[0], seed=1), draw(1, PLACES[3], seed=2)])
    maps = class_maps(member, pixels, np.array([0, 0, 1, 1]), np.array([0, 1, 1, 0])).maps
    assert maps.max(axis=(1, 2))[[0, 2]].tolist() == [1.0, 1.0]
    assert (maps.max(axis=(1, 2))[[1, 3]] < 1.0).all()
    none = np.zeros(0, np.int64)
    assert class_maps(member, pixels, none, none).maps.shape == (0, 1, 1)
    again = class_maps(member, pixels, np.array([0, 0, 1, 1]), np.array([0, 1, 1, 0])).maps
    assert again.tobytes() == maps.tobytes()


@pytest.mark.parametrize(
    ("model", "size", "layer"),
    [
        ("resnet18", 128, "layer4"),
        ("resnet18", 64, None),  # its last map is 2 x 2
        ("resnet18", 32, None),  # 1 x 1
        ("torchvision/mobilenet_v3_small", 128, "features"),
        ("convnext_atto", 128, "norm_pre"),
        ("vit_tiny_patch16_224", 224, None),
        ("nin", 32, "blocks.2"),
    ],
)
def test_the_layer_is_the_last_feature_map_that_says_where(model: str, size: int, layer: str | None) -> None:
    network = build_network(model, num_classes=3, image_size=size, stem="standard", in_chans=3, dropout=0.0).eval()
    found = feature_layers(network, torch.zeros(1, 3, size, size))
    names = {module: name for name, module in network.named_modules()}
    assert [names[one] for one in found] == ([] if layer is None else [layer])


def test_a_map_is_made_of_each_mistake_the_surest_first_and_of_one_right_picture_a_class() -> None:
    probabilities = np.array([[0.9, 0.1, 0], [0.6, 0.4, 0], [0.2, 0.8, 0], [0.3, 0.7, 0], [0.1, 0.2, 0.7], [1, 0, 0]])
    scored = score(np.array([0, 0, 1, 1, 1, 2]), probabilities)
    ids = np.array(list("abcdef"), object)
    right = [(0, 0), (2, 1)]  # none of class 2 is right
    assert choose_maps(scored, ids, num_mistakes=9) == [(5, 0), (5, 2), (4, 2), (4, 1), *right]
    assert choose_maps(scored, ids, num_mistakes=1) == [(5, 0), (5, 2), *right]
    assert choose_maps(scored, ids, num_mistakes=0) == right
