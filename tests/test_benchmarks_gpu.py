"""The training benchmarks: every part of benchmarks/gpu.py on drawn pictures, and what it shares with train.py."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from gpu_recipes import FULL, best, extras, fine_tuning, large, policies, small
from measure import claim
from train import Trained, claims, either_way
from training import Json, Project, choose, cifar_folder, draw_pictures, policy, recipe, write_project
from watching import watch

from pipelines.params import load_params

ROOT = Path(__file__).resolve().parents[1]


def smoke(*parts: str) -> tuple[str, Json]:
    """What gpu.py --smoke prints, and its JSON line."""
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--smoke", "--parts", *parts]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found: Json = json.loads(done.stdout.splitlines()[-1])
    return done.stdout, found


@pytest.mark.slow
def test_every_part_runs_and_ends_in_tables_and_a_json_line() -> None:
    output, found = smoke("fine_tune", "scratch", "extras", "augmentation")
    assert set(found) == {
        "fine-tune: seconds for 1,000 pictures, sustained",
        "fine-tune: whole",
        "fine-tune: whole, beside the usual loop",
        "to 94 %: whole",
        "to 94 %: test error",
        "best in 0 minutes: whole",
        "best in 0 minutes: test error",
        "small_cnn, 32 px: 1,000 pictures with cutmix",
    }
    assert all(line["ours"] > 0 for name, line in found.items() if "error" not in name)
    assert all(0 <= line["ours"] <= 1 for name, line in found.items() if "error" in name)
    assert "no weights given" in output
    assert "of 20 test pictures" in output
    for title in ("resnet18, 32 px", "the usual loop", "best: small_cnn, 2 epochs"):
        assert any(line.startswith(title) and len(line.split()) > 3 for line in output.splitlines()), title
    assert sum(line.split()[:2] == ["trivialaugment", "32"] for line in output.splitlines()) == 1


def test_a_part_alone_says_what_it_lacks_without_a_gpu() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "nowhere"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.strip() == "torch finds no NVIDIA GPU here: only --smoke runs without one"


def test_the_recipes_of_the_full_run_are_valid(tmp_path: Path) -> None:
    weights = {"kind": "file", "path": "resnet50.pth", "sha256": "0" * 64}
    recipes = {
        "fine_tune": fine_tuning(FULL, weights, compiled=True),
        "random": fine_tuning(FULL, None, compiled=False),
        "quick": small(FULL, 10),
        "longer": small(FULL, 40, augmentation="crops_erased"),
        "best": best(FULL, 300, compiled=False),
    }
    recipes |= {f"small_{name}": small(FULL, 4, **changes) for name, changes in extras(FULL).items()}
    recipes |= {f"large_{name}": recipe(**large(FULL) | changes) for name, changes in extras(FULL).items()}
    write_project(tmp_path, tmp_path, image_size=224, policies=policies(), recipes=recipes)
    params = load_params(tmp_path / "params.yaml")
    assert set(params.train.recipes) == set(recipes)
    assert params.train.recipes["random"].tuning == "scratch"
    assert params.augment.policies["crops"].translate == 0.125


def test_a_policy_changes_nothing_but_what_is_named() -> None:
    found = policy(hflip=0.5)
    assert found.pop("hflip") == 0.5
    # crop is the smallest share of the area that is cut out: 1 leaves all
    assert {value for name, value in found.items() if name != "random_resized_crop"} <= {0.0, None}
    assert found.get("random_resized_crop", 1.0) == 1.0


def test_validation_pictures_are_the_last_of_the_training_ones(tmp_path: Path) -> None:
    drawn = draw_pictures(tmp_path / "drawn", train=6, test=2)
    project = Project(tmp_path / "project")
    assert choose(drawn, project.pictures, train=3, val=2, test=1) == 30
    assert project.num_train == 30
    names = {
        subset: sorted(path.name for path in (project.pictures / subset / "class-7").iterdir())
        for subset in ("train", "val", "test")
    }
    assert names == {"train": ["0.jpg", "1.jpg", "2.jpg"], "val": ["4.jpg", "5.jpg"], "test": ["0.jpg"]}


def test_a_folder_without_train_and_test_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="holds no train/<class>/ and test/<class>/"):
        cifar_folder(tmp_path, tmp_path)


def test_epochs_are_timed_as_they_are_told_of(tmp_path: Path) -> None:
    script = (
        "import time\n"
        "for epoch in (1, 2):\n"
        "    time.sleep(0.4)\n"
        "    print(f'net-0: epoch {epoch} of 2, loss 0.1, {epoch},000 pictures a second', flush=True)\n"
    )
    done = watch([sys.executable, "-c", script], cwd=tmp_path)
    assert done.rates == (1000.0, 2000.0)
    assert done.rate == 2000.0
    assert 0.4 < done.epochs[0] < done.epochs[1] < done.seconds
    assert done.epochs[1] - done.epochs[0] >= 0.1


def test_a_failed_command_ends_the_benchmark_with_its_output(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="failed with 3.*\nno pictures"):
        watch([sys.executable, "-c", "print('no pictures'); raise SystemExit(3)"], cwd=tmp_path)


def test_ours_is_claimed_beside_each_peer_that_ran() -> None:
    runs = {"ours": [Trained(10.0, 120.0, 0.7)], "torchvision": [Trained(40.0, 100.0, 0.75)]}
    found = claims(runs, num_val=1000)
    assert found["seconds, beside torchvision"] == claim([10.0], peer=[40.0], goal=0.5, unit="s")
    assert found["peak memory, beside torchvision"].ratio == pytest.approx(1.2)
    accuracy = found["accuracy that torchvision has more"]
    assert accuracy.ours == pytest.approx(0.05)
    # 1.96 times the square root of 2 * 0.7 * 0.3 / 1,000
    assert accuracy.goal == 0.04
    assert not accuracy.kept
    assert "seconds, beside fastai" not in found


def test_a_share_of_all_or_none_has_no_spread() -> None:
    assert either_way(1.0, 100) == 0.0
    assert either_way(0.5, 100) == pytest.approx(0.098)
