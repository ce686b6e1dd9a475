"""The torchvision source: data sets in their own formats on disk, made on the spot; nothing is downloaded."""

import functools
import hashlib
import io
import json
import pickle
import shutil
import struct
import subprocess
import sys
import urllib.error
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_ingest import Result, params, picture, put, run

from pipelines.core.errors import InputError
from pipelines.images.shards import ShardReader
from pipelines.ingest import run as ingest_run
from pipelines.ingest.listing import Place
from pipelines.ingest.sources import list_source
from pipelines.ingest.torchvision_data.datasets import ARRAYS, FILES, given_subset
from pipelines.parallel.pool import map_chunks
from pipelines.params.ingest import IngestParams

datasets = pytest.importorskip("torchvision.datasets")


def settings(
    dataset: str, *splits: str, download: bool = False, options: dict[str, Any] | None = None, more: str = ""
) -> IngestParams:
    """Each choice of pictures has a snapshot of its own name, which ends in `more`."""
    source = {
        "kind": "torchvision", "dataset": dataset, "root": "sets", "splits": splits, "options": options or {},
        "download": download,
    }  # fmt: skip
    name = "-".join([dataset, *splits, *map(str, (options or {}).values())]).replace("+", "-")
    return params(sources=[source], snapshot=name + more)


def labels(result: Result) -> dict[str, str]:
    return {row["source_path"]: row["label"] for row in result.rows}


def subsets(result: Result) -> dict[str, str]:
    return {row["source_path"]: row["given_subset"] for row in result.rows}


def packed(result: Result) -> dict[str, bytes]:
    with ShardReader(result.folder) as reader:
        return {row["source_path"]: reader.read(row["shard"], row["offset"], row["size"]) for row in result.rows}


def idx(array: np.ndarray[Any, Any]) -> bytes:
    """LeCun's format: two zeros, the type (8: bytes, 12: int32), the number of sides, their lengths, the values."""
    kind = {1: 8, 4: 12}[array.dtype.itemsize]
    return struct.pack(f">HBB{array.ndim}I", 0, kind, array.ndim, *array.shape) + array.tobytes()


def put_mnist(folder: Path, *, train: list[int], test: list[int]) -> None:
    random = np.random.default_rng(0)
    for name, targets in (("train", train), ("t10k", test)):
        pixels = random.integers(0, 256, (len(targets), 28, 28), np.uint8)
        put(folder / f"raw/{name}-images-idx3-ubyte", idx(pixels))
        put(folder / f"raw/{name}-labels-idx1-ubyte", idx(np.array(targets, np.uint8)))


def put_cifar10(root: Path, monkeypatch: pytest.MonkeyPatch, *, size: int = 4) -> np.ndarray[Any, Any]:
    """Five training batches and a test batch of `size` pictures each, (6 * size, 32, 32, 3), in CIFAR's layout."""
    folder = root / "cifar-10-batches-py"
    pixels = np.random.default_rng(1).integers(0, 256, (6, size, 3, 32, 32), np.uint8)
    names = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
    sums = {}
    for name, own in zip(names, pixels, strict=True):
        batch = {"data": own.reshape(size, -1), "labels": [number % 10 for number in range(size)]}
        sums[name] = hashlib.md5(put(folder / name, pickle.dumps(batch)).read_bytes()).hexdigest()
    words = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    meta = put(folder / "batches.meta", pickle.dumps({"label_names": words})).read_bytes()
    own = datasets.CIFAR10
    monkeypatch.setattr(own, "train_list", [[name, sums[name]] for name in names[:5]])
    monkeypatch.setattr(own, "test_list", [[names[5], sums[names[5]]]])
    monkeypatch.setattr(own, "meta", {**own.meta, "md5": hashlib.md5(meta).hexdigest()})
    return pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


def test_cifar10_becomes_png_of_the_very_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = put_cifar10(tmp_path / "sets", monkeypatch)
    result = run(tmp_path, settings("CIFAR10", "train", "test"))
    assert Counter(subsets(result).values()) == {"train": 20, "test": 4}
    assert labels(result)["test/0000003.png"] == "cat"
    assert {row["format"] for row in result.rows} == {"PNG"}
    files = packed(result)
    for number in range(20):
        found = np.asarray(Image.open(io.BytesIO(files[f"train/{number:07d}.png"])))
        assert np.array_equal(found, pixels[number])
    assert run(tmp_path, settings("CIFAR10", "train", "test"), out="again").bytes == result.bytes
    assert run(tmp_path, settings("CIFAR10", "test", "train"), out="other order").bytes == result.bytes


def test_the_cache_may_be_deleted_and_the_pictures_may_change_between_runs(tmp_path: Path) -> None:
    put_mnist(tmp_path / "sets/KMNIST", train=[0, 1], test=[9])
    first = run(tmp_path, settings("KMNIST", "train"))
    for file in (tmp_path / "cache/torchvision").iterdir():
        file.unlink()
    assert run(tmp_path, settings("KMNIST", "train"), out="again").bytes == first.bytes
    put(tmp_path / "sets/KMNIST/raw/train-images-idx3-ubyte", idx(np.full((2, 28, 28), 7, np.uint8)))
    with pytest.raises(InputError, match=r"hold others: 2 changed \(train/0000000.png, train/0000001.png\)"):
        run(tmp_path, settings("KMNIST", "train"), out="changed")
    changed = run(tmp_path, settings("KMNIST", "train", more="-2"), out="changed")
    assert {row["brightness"] for row in changed.rows} == {7.0}


def test_a_damaged_cifar10_is_refused_before_it_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_cifar10(tmp_path / "sets", monkeypatch)
    put(tmp_path / "sets/cifar-10-batches-py/data_batch_3", b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(InputError, match="Dataset not found or corrupted.*set download: true"):
        run(tmp_path, settings("CIFAR10", "test"))


@pytest.mark.parametrize(
    ("dataset", "names"),
    [("KMNIST", ["o", "ki", "wo"]), ("FashionMNIST", ["T-shirt/top", "Trouser", "Ankle boot"]),
     ("MNIST", ["0 - zero", "1 - one", "9 - nine"])],
)  # fmt: skip
def test_the_mnist_family_has_the_names_of_its_classes(tmp_path: Path, dataset: str, names: list[str]) -> None:
    put_mnist(tmp_path / "sets" / dataset, train=[0, 1, 9], test=[1])
    result = run(tmp_path, settings(dataset, "train", "test"))
    assert labels(result) == {
        "train/0000000.png": names[0],
        "train/0000001.png": names[1],
        "train/0000002.png": names[2],
        "test/0000000.png": names[1],
    }
    assert {row["mode"] for row in result.rows} == {"L"}


def test_emnist_and_qmnist_name_their_parts_in_their_own_way(tmp_path: Path) -> None:
    raw = tmp_path / "sets/EMNIST/raw"
    put(raw / "emnist-letters-test-images-idx3-ubyte", idx(np.zeros((2, 28, 28), np.uint8) + 9))
    put(raw / "emnist-letters-test-labels-idx1-ubyte", idx(np.array([1, 26], np.uint8)))
    result = run(tmp_path, settings("EMNIST", "letters-test"))
    assert labels(result) == {"letters-test/0000000.png": "a", "letters-test/0000001.png": "z"}
    assert set(subsets(result).values()) == {"test"}

    raw = tmp_path / "sets/QMNIST/raw"
    put(raw / "qmnist-test-images-idx3-ubyte", idx(np.zeros((3, 28, 28), np.uint8) + 9))
    targets = np.zeros((3, 8), ">i4")
    targets[:, 0] = [4, 5, 4]
    put(raw / "qmnist-test-labels-idx2-int", idx(targets))
    result = run(tmp_path, settings("QMNIST", "test10k"), out="qmnist")
    assert sorted(labels(result).values()) == ["4 - four", "4 - four", "5 - five"]
    with pytest.raises(InputError, match="the parts of EMNIST are <split>-train and <split>-test"):
        run(tmp_path, settings("EMNIST", "letters"))


def test_usps_svhn_stl10_semeion_and_fer2013_are_read_from_their_own_formats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import bz2

    from scipy.io import savemat

    root = tmp_path / "sets"
    monkeypatch.setattr("torchvision.datasets.utils.check_md5", lambda *_, **__: True)
    values = " ".join(f"{place}:{place / 256 * 2 - 1:.4f}" for place in range(1, 257))
    put(root / "usps.t.bz2", bz2.compress(f"1 {values}\n10 {values}\n".encode()))
    assert sorted(labels(run(tmp_path, settings("USPS", "test"), out="usps")).values()) == ["0", "9"]

    pixels = np.random.default_rng(2).integers(0, 256, (32, 32, 3, 2), np.uint8)
    savemat(root / "extra_32x32.mat", {"X": pixels, "y": np.array([[10], [3]], np.uint8)})
    result = run(tmp_path, settings("SVHN", "extra"), out="svhn")
    assert labels(result) == {"extra/0000000.png": "0", "extra/0000001.png": "3"}
    first = np.asarray(Image.open(io.BytesIO(packed(result)["extra/0000000.png"])))
    assert np.array_equal(first, pixels[..., 0])

    folder = root / "stl10_binary"
    for name, count in (("train_X", 2), ("unlabeled_X", 3), ("test_X", 1)):
        put(folder / f"{name}.bin", np.random.default_rng(3).integers(0, 256, count * 3 * 96 * 96, np.uint8).tobytes())
    put(folder / "train_y.bin", bytes([1, 10]))
    put(folder / "test_y.bin", bytes([2]))
    put(folder / "class_names.txt", b"airplane\nbird\ncar\ncat\ndeer\ndog\nhorse\nmonkey\nship\ntruck\n")
    result = run(tmp_path, settings("STL10", "train+unlabeled"), out="stl10")
    assert sorted(labels(result).values()) == ["airplane", "truck"]
    assert Counter(result.reasons.values()) == {"no-label": 3}

    ones = np.eye(10)[[3, 8]]
    rows = np.concatenate([np.random.default_rng(4).integers(0, 2, (2, 256)), ones], axis=1)
    put(root / "semeion.data", "\n".join(" ".join(f"{value:.4f}" for value in row) for row in rows).encode())
    assert sorted(labels(run(tmp_path, settings("SEMEION", "all"), out="semeion")).values()) == ["3", "8"]

    values = " ".join(["9"] * 48 * 48)
    put(root / "fer2013/fer2013.csv", f"emotion,pixels,Usage\n6,{values},Training\n2,{values},PrivateTest\n".encode())
    assert labels(run(tmp_path, settings("FER2013", "test"), out="fer")) == {"test/0000000.png": "2"}
    put(root / "fer2013/test.csv", f"pixels\n{values}\n".encode())
    (root / "fer2013/fer2013.csv").unlink()
    with pytest.raises(InputError, match="none of its 1 files can be used .1 no-label."):
        run(tmp_path, settings("FER2013", "test", more="-2"), out="fer")


def test_flowers102_keeps_the_bytes_of_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from scipy.io import savemat

    folder = tmp_path / "sets/flowers-102"
    files = {number: put(folder / f"jpg/image_{number:05d}.jpg", picture(number)) for number in range(1, 7)}
    savemat(folder / "imagelabels.mat", {"labels": np.array([[1, 1, 2, 2, 102, 102, 102]])})
    savemat(
        folder / "setid.mat",
        {"trnid": np.array([[1, 3, 5]]), "valid": np.array([[2, 4]]), "tstid": np.array([[6, 7]])},
    )
    names = {"label": "imagelabels.mat", "setid": "setid.mat"}
    sums = {key: (name, hashlib.md5((folder / name).read_bytes()).hexdigest()) for key, name in names.items()}
    monkeypatch.setattr(datasets.Flowers102, "_file_dict", {**datasets.Flowers102._file_dict, **sums})

    result = run(tmp_path, settings("Flowers102", "train", "val", "test"))
    assert labels(result)["flowers-102/jpg/image_00006.jpg"] == "blackberry lily"
    assert labels(result)["flowers-102/jpg/image_00004.jpg"] == "hard-leaved pocket orchid"
    assert [subsets(result)[f"flowers-102/jpg/image_0000{number}.jpg"] for number in range(1, 7)] == [
        "train", "val", "train", "val", "train", "test",
    ]  # fmt: skip
    assert packed(result) == {f"flowers-102/jpg/{file.name}": file.read_bytes() for file in files.values()}
    assert result.reasons == {"flowers-102/jpg/image_00007.jpg": "missing-file"}


def test_imagenette_is_named_in_english_and_comes_in_several_sizes(tmp_path: Path) -> None:
    for folder in ("imagenette2/train", "imagenette2-160/train", "imagenette2-160/val"):
        for number, name in enumerate(["n01440764", "n02102040"]):
            put(tmp_path / "sets" / folder / name / "1.JPEG", picture(number))
    result = run(tmp_path, settings("Imagenette", "train", "val", options={"size": "160px"}))
    assert labels(result)["imagenette2-160/val/n02102040/1.JPEG"] == "English springer"
    assert result.labels == ["English springer", "tench"]
    assert Counter(subsets(result).values()) == {"train": 2, "val": 2}


def test_oxford_pets_say_their_breed(tmp_path: Path) -> None:
    folder = tmp_path / "sets/oxford-iiit-pet"
    lists: dict[str, list[str]] = {"trainval": [], "test": []}
    for place, name in enumerate(["Abyssinian_1", "basset_hound_7", "Abyssinian_2", "basset_hound_9"]):
        put(folder / f"images/{name}.jpg", picture(place))
        lists["trainval" if place < 2 else "test"].append(f"{name} {place % 2 + 1} {place % 2 + 1} 1")
    for part, lines in lists.items():
        put(folder / f"annotations/{part}.txt", "\n".join(lines).encode())
    result = run(tmp_path, settings("OxfordIIITPet", "trainval", "test"))
    assert labels(result) == {
        "oxford-iiit-pet/images/Abyssinian_1.jpg": "Abyssinian",
        "oxford-iiit-pet/images/Abyssinian_2.jpg": "Abyssinian",
        "oxford-iiit-pet/images/basset_hound_7.jpg": "Basset Hound",
        "oxford-iiit-pet/images/basset_hound_9.jpg": "Basset Hound",
    }
    assert Counter(subsets(result).values()) == {"train": 2, "test": 2}


def test_a_file_that_stands_in_two_parts_is_taken_once(tmp_path: Path) -> None:
    folder = tmp_path / "sets/fgvc-aircraft-2013b/data"
    put(folder / "variants.txt", b"707-320\nA340-300\n")
    put(folder / "families.txt", b"Boeing 707\nA340\n")
    for name in ("001", "002"):
        put(folder / f"images/{name}.jpg", picture(int(name)))
    for part, names in {"train": [1], "trainval": [1, 2]}.items():
        for level, words in {"variant": ["707-320", "A340-300"], "family": ["Boeing 707", "A340"]}.items():
            lines = "\n".join(f"{name:03d} {words[name - 1]}" for name in names)
            put(folder / f"images_{level}_{part}.txt", lines.encode())
    result = run(tmp_path, settings("FGVCAircraft", "train", "trainval"))
    assert result.labels == ["707-320", "A340-300"]
    assert result.reasons == {"fgvc-aircraft-2013b/data/images/001.jpg": "duplicate-row"}
    families = run(tmp_path, settings("FGVCAircraft", "trainval", options={"annotation_level": "family"}), out="two")
    assert families.labels == ["A340", "Boeing 707"]


def put_small_sets(root: Path) -> dict[str, tuple[str, dict[str, str]]]:
    """One or two pictures of each remaining data set, as it lies on disk; part, and labels by path."""
    jpg, ppm, png = picture(1), picture(2, format="PPM"), picture(3, format="PNG")
    put(root / "dtd/dtd/images/banded/banded_1.jpg", jpg)
    put(root / "dtd/dtd/labels/val1.txt", b"banded/banded_1.jpg\n")
    put(root / "eurosat/2750/Forest/Forest_1.jpg", jpg)
    put(root / "food-101/images/apple_pie/1.jpg", jpg)
    put(root / "food-101/meta/test.json", b'{"apple_pie": ["apple_pie/1"]}')
    put(root / "gtsrb/GTSRB/Training/00014/00000_1.ppm", ppm)
    put(root / "country211/valid/AD/1.jpg", jpg)
    put(root / "rendered-sst2/valid/negative/1.png", png)
    put(root / "rendered-sst2/valid/positive/2.png", png)
    put(root / "caltech101/101_ObjectCategories/BACKGROUND_Google/image_0001.jpg", jpg)
    put(root / "caltech101/101_ObjectCategories/accordion/image_0001.jpg", jpg)
    put(root / "caltech256/256_ObjectCategories/001.ak47/001_0001.jpg", jpg)
    put(root / "omniglot-py/images_background/Greek/character02/0394_01.png", png)
    put(root / "omniglot-py/images_background.zip", b"")
    put(root / "SUN397/ClassName.txt", b"/a/abbey\n/a/apartment_building/outdoor\n")
    put(root / "SUN397/a/apartment_building/outdoor/sun_a.jpg", jpg)
    put(root / "clevr/CLEVR_v1.0/images/val/CLEVR_val_000000.png", png)
    scenes = {"scenes": [{"image_filename": "CLEVR_val_000000.png", "objects": [{}, {}, {}]}]}
    put(root / "clevr/CLEVR_v1.0/scenes/CLEVR_val_scenes.json", json.dumps(scenes).encode())
    species = "00000_Animalia_Chordata_Aves_Strigiformes_Strigidae_Bubo_scandiacus"
    put(root / f"2021_valid/{species}/1.jpg", jpg)
    put(root / "lfw-py/lfw_funneled/Ada_Lovelace/Ada_Lovelace_0001.jpg", jpg)
    put(root / "lfw-py/peopleDevTest.txt", b"1\nAda_Lovelace\t1\n")
    put(root / "lfw-py/lfw-names.txt", b"Ada_Lovelace\t1\n")
    put(root / "lfw-py/lfw-funneled.tgz", b"")
    put(root / "categories_places365.txt", b"/a/airfield 0\n/a/alley 1\n")
    put(root / "places365_val.txt", b"Places365_val_1.jpg 1\n")
    put(root / "val_large/Places365_val_1.jpg", jpg)
    return {
        "DTD": ("val", {"dtd/dtd/images/banded/banded_1.jpg": "banded"}),
        "EuroSAT": ("all", {"eurosat/2750/Forest/Forest_1.jpg": "Forest"}),
        "Food101": ("test", {"food-101/images/apple_pie/1.jpg": "apple_pie"}),
        "GTSRB": ("train", {"gtsrb/GTSRB/Training/00014/00000_1.ppm": "0"}),
        "Country211": ("valid", {"country211/valid/AD/1.jpg": "AD"}),
        "RenderedSST2": (
            "val",
            {"rendered-sst2/valid/negative/1.png": "negative", "rendered-sst2/valid/positive/2.png": "positive"},
        ),
        "Caltech101": ("all", {"caltech101/101_ObjectCategories/accordion/image_0001.jpg": "accordion"}),
        "Caltech256": ("all", {"caltech256/256_ObjectCategories/001.ak47/001_0001.jpg": "001.ak47"}),
        "Omniglot": (
            "background",
            {"omniglot-py/images_background/Greek/character02/0394_01.png": "Greek/character02"},
        ),
        "SUN397": ("all", {"SUN397/a/apartment_building/outdoor/sun_a.jpg": "apartment_building/outdoor"}),
        "CLEVRClassification": ("val", {"clevr/CLEVR_v1.0/images/val/CLEVR_val_000000.png": "3"}),
        "INaturalist": ("2021_valid", {f"2021_valid/{species}/1.jpg": species}),
        "LFWPeople": ("test", {"lfw-py/lfw_funneled/Ada_Lovelace/Ada_Lovelace_0001.jpg": "Ada_Lovelace"}),
        "Places365": ("val", {"val_large/Places365_val_1.jpg": "a/alley"}),
    }


def test_every_other_data_set_of_files_is_read_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchvision.datasets.utils.check_md5", lambda *_, **__: True)
    expected = put_small_sets(tmp_path / "sets")
    for name, (part, wanted) in expected.items():
        result = run(tmp_path, settings(name, part), out=name)
        assert labels(result) == wanted, name
        assert not result.rejects, name
        assert packed(result) == {path: (tmp_path / "sets" / path).read_bytes() for path in wanted}


def test_imagenet_does_not_merge_its_two_cranes(tmp_path: Path) -> None:
    import torch

    root = tmp_path / "sets"
    names = {"n02012849": ("crane",), "n03126707": ("crane",), "n01440764": ("tench", "Tinca tinca")}
    for number, name in enumerate(names):
        put(root / f"val/{name}/{number}.JPEG", picture(number))
    torch.save((names, []), root / "meta.bin")
    result = run(tmp_path, settings("ImageNet", "val"))
    assert result.labels == ["crane (1)", "crane (2)", "tench"]


def test_stanford_cars_are_read_from_their_matlab_files(tmp_path: Path) -> None:
    from scipy.io import savemat

    folder = tmp_path / "sets/stanford_cars"
    for name in ("1.jpg", "2.jpg"):
        put(folder / "cars_train" / name, picture(int(name[0])))
    (folder / "devkit").mkdir()
    kind = [("class", object), ("fname", object)]
    savemat(
        folder / "devkit/cars_train_annos.mat",
        {"annotations": np.array([(2, "1.jpg"), (1, "2.jpg")], dtype=kind)},
    )
    savemat(folder / "devkit/cars_meta.mat", {"class_names": np.array(["AM General Hummer", "Acura RL"], object)})
    result = run(tmp_path, settings("StanfordCars", "train"))
    assert labels(result) == {
        "stanford_cars/cars_train/1.jpg": "Acura RL",
        "stanford_cars/cars_train/2.jpg": "AM General Hummer",
    }


def test_a_list_that_leads_out_of_the_root_is_not_followed(tmp_path: Path) -> None:
    folder = tmp_path / "sets/dtd/dtd"
    put(folder / "images/banded/1.jpg", picture(2))
    put(folder / "labels/val1.txt", b"banded/1.jpg\nbanded/..\n")
    result = run(tmp_path, settings("DTD", "val"))
    assert result.reasons == {"dtd/dtd/images/banded/..": "unsafe-path"}


def test_every_data_set_that_is_offered_exists_and_takes_a_root() -> None:
    assert not FILES & ARRAYS
    for name in FILES | ARRAYS:
        assert "root" in datasets.__dict__[name].__init__.__code__.co_varnames


@pytest.mark.parametrize(
    ("part", "subset"),
    [("train", "train"), ("trainval", "train"), ("train-standard", "train"), ("2021_train_mini", "train"),
     ("train+unlabeled", "train"), ("extra", "train"), ("val", "val"), ("valid", "val"), ("2021_valid", "val"),
     ("test", "test"), ("letters-test", "test"), ("test50k", "test"), ("all", ""), ("10fold", ""), ("evaluation", "")],
)  # fmt: skip
def test_a_part_is_a_subset_where_its_name_says_so(part: str, subset: str) -> None:
    assert given_subset(part) == subset


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ("CIFAR11", "no CIFAR11; did you mean CIFAR10? Those that can be used: CIFAR10, CIFAR100, "),
        ("Cifar10", "did you mean CIFAR10?"),
        ("VOCDetection", "VOCDetection is not about one class a picture; use one of CIFAR10,"),
        ("CelebA", "40 attributes a picture, not a class.*use kind: table"),
        ("ImageFolder", "use kind: folder"),
    ],
)
def test_an_unusable_data_set_is_refused_with_what_to_do(tmp_path: Path, dataset: str, message: str) -> None:
    (tmp_path / "sets").mkdir()
    with pytest.raises(InputError, match=message.replace("?", r"\?")):
        run(tmp_path, settings(dataset, "train"))


def test_wrong_parts_options_and_switches_are_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="root: sets is no folder; name the one that holds KMNIST, or set download"):
        run(tmp_path, settings("KMNIST", "train"))
    put_mnist(tmp_path / "sets/KMNIST", train=[1], test=[2])
    with pytest.raises(InputError, match="splits: val: the parts of KMNIST are train and test"):
        run(tmp_path, settings("KMNIST", "val"))
    with pytest.raises(InputError, match="options: KMNIST has no size; take it out"):
        run(tmp_path, settings("KMNIST", "train", options={"size": "160px"}))
    with pytest.raises(InputError, match="DTD: Unknown value 'dev' for argument split. Valid values are .'train', "):
        run(tmp_path, settings("DTD", "dev"))
    with pytest.raises(InputError, match="EuroSAT has no parts; write all"):
        run(tmp_path, settings("EuroSAT", "train"))
    with pytest.raises(InputError, match="torchvision cannot download ImageNet; get it yourself"):
        run(tmp_path, settings("ImageNet", "train", download=True))
    with pytest.raises(InputError, match="EuroSAT .all. cannot be read from sets: Dataset not found.*download: true"):
        run(tmp_path, settings("EuroSAT", "all"))


def test_a_failed_download_and_a_cut_file_are_errors_that_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("torchvision.datasets.utils._urlretrieve", unreachable)
    monkeypatch.setattr("torchvision.datasets.utils._get_redirect_url", lambda url, **_: url)
    with pytest.raises(InputError, match="EuroSAT .all. could not be downloaded to sets, or .*no route to host"):
        run(tmp_path, settings("EuroSAT", "all", download=True))

    put_mnist(tmp_path / "sets/MNIST", train=[1, 2], test=[2])
    images = tmp_path / "sets/MNIST/raw/train-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:-100])
    with pytest.raises(InputError, match="MNIST .train. cannot be read from sets: .*download: true"):
        run(tmp_path, settings("MNIST", "train"))


def test_stamps_tell_pictures_apart_and_stay_from_run_to_run(tmp_path: Path) -> None:
    put_mnist(tmp_path / "sets/KMNIST", train=[0, 1, 2], test=[9])

    def stamps() -> list[list[int]]:
        own = settings("KMNIST", "train")
        place = Place(tmp_path, tmp_path / "cache", own)
        listing = list_source(own.sources[0], source="0-torchvision", place=place)
        assert listing.stamps is not None
        assert listing.stamps.shape == (3, 3)
        found: list[list[int]] = listing.stamps.tolist()
        return found

    first = stamps()
    assert len({tuple(stamp) for stamp in first}) == 3
    assert stamps() == first


def test_workers_read_pixels_without_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_mnist(tmp_path / "sets/KMNIST", train=[0, 1, 2], test=[9])
    whole = run(tmp_path, settings("KMNIST", "train"))
    shutil.rmtree(tmp_path / "cache" / "snapshots")  # nothing is taken over
    monkeypatch.setattr(ingest_run, "FILES_PER_CHUNK", 1)
    monkeypatch.setattr(ingest_run, "map_chunks", functools.partial(map_chunks, pool_pays_seconds=0.0))
    assert run(tmp_path, settings("KMNIST", "train"), out="two", workers=2).bytes == whole.bytes
    own = settings("KMNIST", "train")
    read = list_source(own.sources[0], source="0-torchvision", place=Place(tmp_path, tmp_path / "cache", own)).read
    put(tmp_path / "reader", pickle.dumps(read))
    assert (tmp_path / "reader").stat().st_size < 1000
    code = (
        "import pickle, sys, pathlib; read = pickle.loads(pathlib.Path(sys.argv[1]).read_bytes()); "
        "print(len(read('train/0000002.png')), 'torchvision' in sys.modules)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "reader")],
        cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert found.stdout.split() == [str(len(read("train/0000002.png"))), "False"]
