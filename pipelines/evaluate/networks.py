"""What evaluate asks of the trained networks themselves: activation maps, robustness, cost."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from pipelines.augmentation.packs import PackReader, Pixels, read_index
from pipelines.core.errors import InputError
from pipelines.core.files import whole_file, write_csv
from pipelines.evaluate.members import EvaluationIndex, MemberPredictions, Predictions, val_accuracy
from pipelines.evaluate.metrics import Ints, score
from pipelines.evaluate.robustness import HEADER, choose_pictures, csv_rows, measure_robustness
from pipelines.params.evaluate import EvaluateParams

if TYPE_CHECKING:
    from pipelines.train.member import TrainedMember


def ask_networks(
    params: EvaluateParams,
    *,
    folders: Mapping[tuple[str, int], Path],
    members: Sequence[MemberPredictions],
    test: Predictions,
    packed: EvaluationIndex,
    augment_dir: Path,
    device: Literal["auto", "cpu", "cuda", "mps"],
    num_threads: int,
    out_dir: Path,
) -> dict[str, Any]:
    """The parts maps, robustness and cost of figures.json; writes maps.npy, maps.csv and robustness.csv.

    Maps and robustness are of one member, which they name: the one that tells most validation pictures right, by its
    first fold; robustness by its first view alone. Where no member tells labels they are None, and the files empty.

    Args:
        folders: (member, fold) to the folder that train wrote.
        members: those that tell labels; others, such as one joined from factors, are passed over.
        test: the test pictures, as all members together tell them.
        augment_dir: with the packs.
        device: as train.device.
        num_threads: of torch on a CPU, as train.num_threads: another number may change last digits.
        out_dir: exists.

    Raises:
        InputError: a model or a pack is missing, or of another run.
    """
    from pipelines.train.runtime import keep_freed_memory, limit_thread_spinning

    limit_thread_spinning()
    keep_freed_memory()
    import torch

    from pipelines.evaluate.cost import member_cost
    from pipelines.train import load_member
    from pipelines.train.device import choose_device

    torch.set_num_threads(num_threads)
    place = str(choose_device(device))
    first_folds: dict[str, Path] = {}
    for (name, _), folder in folders.items():
        first_folds.setdefault(name, folder)
    best = max(
        (member for member in members if member.name in first_folds),
        key=val_accuracy,
        default=None,
    )
    found: dict[str, Any] = {"maps": None, "robustness": None, "cost": {}}
    maps, of_maps = np.zeros((0, 1, 1), np.float16), list[tuple[str, str]]()
    for name, folder in first_folds.items():
        trained = load_member(folder, device=place)
        found["cost"][name] = member_cost(trained, folder / "model.safetensors")
        if best is not None and name == best.name:
            if trained.classes != packed.classes:
                raise InputError(f"{folder} knows other classes than {augment_dir}: run `dvc repro train`")
            pictures = _TestPictures(augment_dir, test)
            found["maps"], maps, of_maps = _maps(params, trained, test, pictures)
            found["robustness"] = _robustness(params, trained, test, pictures, packed)
    with whole_file(out_dir / "maps.npy") as file:
        np.lib.format.write_array(file, maps, version=(1, 0))
    write_csv(out_dir / "maps.csv", ("image_id", "class", "row"), ((*of, row) for row, of in enumerate(of_maps)))
    write_csv(out_dir / "robustness.csv", HEADER, csv_rows(found["robustness"]) if found["robustness"] else [])
    return found


class _TestPictures:
    """Reads pixels of test pictures by their row of the predictions."""

    def __init__(self, augment_dir: Path, test: Predictions) -> None:
        index = read_index(augment_dir / "index.parquet")
        self._reader = PackReader(augment_dir, index)
        keys = zip(index.image_id.tolist(), index.class_index.tolist(), strict=True)
        self._places = {key: row for row, key in enumerate(keys)}
        self._keys = list(zip(test.image_ids.tolist(), test.actual.tolist(), strict=True))

    def read(self, rows: Ints) -> Pixels:
        """(n, S, S, 3) uint8."""
        return self._reader.read(np.array([self._places[self._keys[row]] for row in rows], np.int64))


def _maps(
    params: EvaluateParams, member: "TrainedMember", test: Predictions, pictures: _TestPictures
) -> tuple[dict[str, Any], npt.NDArray[np.float16], list[tuple[str, str]]]:
    """The figures, the maps, and the (image_id, class) of each."""
    from pipelines.evaluate.maps import choose_maps, class_maps

    pairs = choose_maps(score(test.actual, test.probabilities), test.image_ids, num_mistakes=params.map_mistakes)
    rows, wanted = np.array(pairs, np.int64).reshape(-1, 2).T
    shown, places = np.unique(rows, return_inverse=True)
    maps, method, layer = class_maps(member, pictures.read(shown), places, wanted)
    figures = {"method": method, "layer": layer, "member": member.info["member"], "num": len(maps)}
    return figures, maps, [(test.image_ids[row], member.classes[k]) for row, k in pairs]


def _robustness(
    params: EvaluateParams,
    member: "TrainedMember",
    test: Predictions,
    pictures: _TestPictures,
    packed: EvaluationIndex,
) -> dict[str, Any] | None:
    groups = packed.group_numbers(test.image_ids)
    rows = choose_pictures(test.image_ids, test.actual, groups, num=params.robustness_images)
    if len(rows) == 0:
        return None
    found = measure_robustness(
        replace(member, tta=member.tta[:1]).predict,
        pictures.read(rows),
        test.actual[rows],
        classes=member.classes,
        image_ids=test.image_ids[rows],
        seed=params.seed,
        confidence=params.confidence,
    )
    return {"member": member.info["member"], "view": member.tta[0], **found}
