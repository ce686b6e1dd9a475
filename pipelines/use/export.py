"""`miwake export`: the model as ONNX, as a program of torch.export, or as the folder that `miwake predict` reads.

ONNX and torch get one graph from squares of uint8 to probabilities: normalisation, views, the mean over folds and
members, temperatures. It is written only if it says of all test pictures of the run what the model says.
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import numpy.typing as npt

from pipelines.core.errors import InputError, count
from pipelines.core.files import TEMPORARY_SUFFIX, empty_folder, write_json, write_text
from pipelines.core.layout import Layout
from pipelines.core.tables import LABEL
from pipelines.use.classifier import Classifier, load_classifier
from pipelines.use.model_folder import Model, write_model

if TYPE_CHECKING:
    import torch

Format = Literal["onnx", "torch", "safetensors"]
Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

OPSET = 18
BATCH = 32
MOST_DIFFERENT = 1e-3
"""of a probability: float32 sums in another order differ by about 1e-5"""
NUM_CALIBRATION = 128
"""validation pictures by which int8 finds the ranges of values"""
FILES = {"onnx": "model.onnx", "torch": "model.pt2"}
EXTRA = "`pip install onnx onnxscript onnxruntime` (the extra `export`)"


@dataclass(frozen=True)
class Parity:
    """How what was exported differs from the model on N test pictures.

    Args:
        max_difference: of a probability.
        num_flipped: pictures that get another class.
        accuracy, accuracy_before: of what was exported, and of the model.
    """

    num_images: int
    max_difference: float
    num_flipped: int
    accuracy: float
    accuracy_before: float

    def __str__(self) -> str:
        return (
            f"{count(self.num_images, 'test picture')}: {self.num_flipped} named otherwise, largest difference of a "
            f"probability {self.max_difference:.1e}"
        )


def export(
    model: Model,
    layout: Layout,
    folder: Path,
    *,
    kind: Format,
    member: str | None = None,
    int8: bool = False,
    force: bool = False,
) -> Parity | None:
    """Write `folder`, whole or not at all; how what was written differs from the model, None for a copy of its files.

    Args:
        layout: of the project with the test pictures.
        member: this recipe alone, all its folds; None for all of them together.
        int8: weights and activations of ONNX in 8 bits.
        force: take int8 though it costs more than the test pictures can tell.

    Raises:
        InputError: the folder holds something, a package is missing, the model cannot be one graph, or parity fails.
    """
    from pipelines.use.card import model_card

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not empty: name a new folder, or delete it first")
    if kind == "safetensors":
        if member is not None or int8:
            raise InputError("safetensors keeps the members as they are: --member and --int8 are for onnx")
        write_model(model, folder)
        write_text(folder / "README.md", model_card(model.info, kind=kind, parity=None, layout=layout))
        return None
    if int8 and kind != "onnx":
        raise InputError("--int8 is for onnx")
    classifier = load_classifier(model, member=member, device="cpu", with_strangers=False)
    # a graph computes in float32: so must what it is held against
    classifier = replace(
        classifier,
        members={
            name: [(known, replace(trained, precision="float32")) for known, trained in folds]
            for name, folds in classifier.members.items()
        },
    )
    graph, side = _graph(classifier)
    pixels, actual = _pictures(layout, "test", side)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = empty_folder(folder.with_name(folder.name + TEMPORARY_SUFFIX))
    try:
        path = partial / FILES[kind]
        _write_graph(graph, side, path, kind, {"classes": json.dumps(list(classifier.classes), ensure_ascii=False)})
        before = np.concatenate([classifier.answer(batch).probabilities for batch in _batches(pixels)])
        parity = _compare(before, _answers(path, kind, pixels), actual)
        if parity.num_flipped or parity.max_difference > MOST_DIFFERENT:
            raise InputError(
                f"the {kind} graph differs from the model on {parity}: nothing was written; export safetensors instead"
            )
        if int8:
            parity = _quantize(path, layout, side, before, pixels, actual, model.info.figures["accuracy"], force=force)
        _whole_graph(path)
        about = {"classes": list(classifier.classes), "image_size": side, "resize_mode": model.info.fit.resize_mode}
        about |= {"threshold": classifier.threshold, "parity": asdict(parity), "int8": int8, "run": model.info.run}
        write_json(partial / "model.json", about)
        write_text(partial / "README.md", model_card(model.info, kind=kind, parity=parity, layout=layout, side=side))
        partial.replace(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return parity


def _graph(classifier: Classifier) -> tuple["torch.nn.Module", int]:
    """One module from (N, S, S, 3) uint8 to (N, K) probabilities, and S."""
    import torch

    from pipelines.train.inference import to_float, to_input
    from pipelines.train.tta import view

    folds = [one for own in classifier.members.values() for one in own]
    if any(known.target != LABEL for known, _ in folds) and len(classifier.members) > 1:
        raise InputError("members that tell factors apart make no single graph: export them one by one with --member")
    if classifier.info.ensemble == "vote" and len(classifier.members) > 1:
        raise InputError(
            "evaluate.ensemble is vote, which is no graph: export one member with --member, or safetensors"
        )
    sides = sorted({trained.image_size for _, trained in folds})
    if len(sides) > 1:
        raise InputError(
            f"the members want squares of {' and '.join(map(str, sides))} px, and a graph takes one size: export one "
            "member with --member, or safetensors"
        )

    class Graph(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.networks = torch.nn.ModuleList([trained.module.float() for _, trained in folds])

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            images, told, number = to_float(pixels), [], 0
            for own in classifier.members.values():
                of_folds = []
                for _, trained in own:
                    network = self.networks[number]
                    views = [to_input(view(images, name), trained.spec, trained.in_chans) for name in trained.tta]
                    of_folds.append(sum(network(one).softmax(dim=1) for one in views) / len(views))
                    number += 1
                told.append(_temper(sum(of_folds) / len(of_folds), own[0][0].temperature))
            if len(told) == 1:
                return cast("torch.Tensor", told[0])
            weights = [own[0][0].weight or 0.0 for own in classifier.members.values()]
            mean = sum(weight * one for weight, one in zip(weights, told, strict=True)) / sum(weights)
            return cast("torch.Tensor", _temper(mean, classifier.info.temperature))

    return Graph().eval(), sides[0]


def _temper(probabilities: Any, temperature: float) -> Any:
    """`pipelines.train.temperature.temper` in torch."""
    return probabilities if temperature == 1.0 else (probabilities.clamp_min(1e-12).log() / temperature).softmax(dim=1)


def _write_graph(graph: "torch.nn.Module", side: int, path: Path, kind: str, about: dict[str, str]) -> None:
    import logging
    import warnings

    import torch

    example = (torch.zeros((2, side, side, 3), dtype=torch.uint8),)
    shapes = ({0: torch.export.Dim("batch")},)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.export.export(graph, example, dynamic_shapes=shapes)
        if kind == "torch":
            torch.export.save(program, path, extra_files=about)
            return
        try:
            import onnx
            import onnxscript  # noqa: F401
        except ImportError as error:
            raise InputError(f"onnx needs packages that are not installed: {EXTRA}") from error
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        found = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=["pixels"],
            output_names=["probabilities"],
            verbose=False,
        )
        assert found is not None
        found.save(str(path), external_data=False)
    whole = onnx.load(str(path))
    for key, value in about.items():
        whole.metadata_props.add(key=key, value=value)
    onnx.save(whole, str(path))


def _whole_graph(path: Path) -> None:
    """Fail where a second file belongs to the graph: it would be lost when the first is moved alone."""
    beside = [one.name for one in path.parent.iterdir() if one != path]
    if beside:
        raise InputError(f"{path.name} was written in parts ({', '.join(beside)}): the model is too large for one file")


def _answers(path: Path, kind: str, pixels: Pixels) -> Floats:
    """(N, K) of what was written, in a session of its own."""
    if kind == "torch":
        import torch

        module = torch.export.load(path).module()
        with torch.no_grad():
            return np.concatenate([module(torch.from_numpy(batch)).numpy() for batch in _batches(pixels)]).astype(
                np.float64
            )
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError(f"onnx is checked with onnxruntime, which is not installed: {EXTRA}") from error
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"pixels": batch})[0] for batch in _batches(pixels)]).astype(np.float64)


def _batches(pixels: Pixels) -> Iterator[Pixels]:
    for start in range(0, len(pixels), BATCH):
        yield np.ascontiguousarray(pixels[start : start + BATCH])


def _compare(before: Floats, after: Floats, actual: npt.NDArray[np.int64]) -> Parity:
    names = [one.argmax(axis=1) for one in (before, after)]
    return Parity(
        len(before),
        float(np.abs(before - after).max()),
        int((names[0] != names[1]).sum()),
        float((names[1] == actual).mean()),
        float((names[0] == actual).mean()),
    )


def _pictures(layout: Layout, subset: str, side: int) -> tuple[Pixels, npt.NDArray[np.int64]]:
    """(N, s, s, 3) of a subset at the networks' size, and (N,) classes."""
    from pipelines.augmentation.packs import PackReader, read_index
    from pipelines.train.data_loader import read_resized

    if not layout.pack_index.is_file():
        raise InputError(
            f"{layout.pack_index} does not exist: a graph is checked on the test pictures of its run, so export there"
        )
    index = read_index(layout.pack_index)
    if subset == "val" and not (index.subset == "val").any():
        subset = "train"  # whose folds validate in turn
    rows = np.flatnonzero((index.subset == subset) & (index.copy == 0))
    return read_resized(PackReader(layout.stage("augment"), index), rows, side), index.class_index[rows].astype(
        np.int64
    )


def _quantize(
    path: Path,
    layout: Layout,
    side: int,
    before: Floats,
    pixels: Pixels,
    actual: npt.NDArray[np.int64],
    measured: dict[str, float],
    *,
    force: bool,
) -> Parity:
    """Replace the graph by one in int8, calibrated on validation pictures; refused where that costs too much."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    some = iter([{"pixels": batch} for batch in _batches(_pictures(layout, "val", side)[0][:NUM_CALIBRATION])])

    class CalibrationPictures(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, Pixels] | None:
            return next(some, None)

    plain, small = path.with_suffix(".plain.onnx"), path.with_suffix(".int8.onnx")
    quant_pre_process(str(path), str(plain), skip_symbolic_shape=True)
    quantize_static(
        str(plain), str(small), CalibrationPictures(), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, op_types_to_quantize=["Conv", "MatMul", "Gemm"],
    )  # fmt: skip
    plain.unlink()
    small.replace(path)
    parity = _compare(before, _answers(path, "onnx", pixels), actual)
    allowed = measured["value"] - measured["low"]
    lost = parity.accuracy_before - parity.accuracy
    if lost > allowed and not force:
        raise InputError(
            f"int8 costs {100 * lost:.1f} points of accuracy, more than the {100 * allowed:.1f} that the test pictures "
            "leave in doubt: nothing was written; --force takes it, leave out --int8 for float32"
        )
    return parity
