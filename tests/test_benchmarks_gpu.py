"""The training benchmarks: every part of benchmarks/gpu.py on drawn pictures, and what it shares with train.py."""

import contextlib
import io
import json
import runpy
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import gpu
import pytest
import training
from gpu_recipes import FULL, best, extras, fine_tuning, large, policies, small
from measure import claim
from train import Trained, claims, either_way
from training import Json, Project, choose, cifar_folder, draw_pictures, recipe, write_project
from watching import EPOCH, Watched, watch

from pipelines.params import load_params

Watch = Callable[..., Watched]


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> Watch:
    """Stands for `watch`: stages run here, where torch is imported already; scripts in a process of their own."""

    def watch_here(command: Sequence[str], *, cwd: Path, env: Mapping[str, str] | None = None) -> Watched:
        if command[1] != "-m":
            return watch(command, cwd=cwd, env=env)
        started, said = time.perf_counter(), io.StringIO()
        with monkeypatch.context() as patch, contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            patch.chdir(cwd)
            patch.setattr(sys, "argv", list(command[2:]))
            runpy.run_module(command[2], run_name="__main__")
        seconds = time.perf_counter() - started
        rates = [float(found[3].replace(",", "")) for found in EPOCH.finditer(said.getvalue())]
        ends = tuple(seconds * (number + 1) / (len(rates) + 1) for number in range(len(rates)))
        return Watched(seconds, 1.0, 0.0, ends, tuple(rates), said.getvalue())

    return watch_here


def test_every_part_runs_and_ends_in_tables_and_a_json_line(
    in_this_process: Watch, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in (gpu, training):
        monkeypatch.setattr(module, "watch", in_this_process)
    monkeypatch.setenv("MIWAKE_WORKERS", "1")
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--smoke"])
    gpu.main()
    output = capsys.readouterr().out
    found: Json = json.loads(output.splitlines()[-1])
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


def test_a_part_alone_says_what_it_lacks_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "nowhere"])
    with pytest.raises(SystemExit, match="torch finds no NVIDIA GPU here: only --smoke runs without one"):
        gpu.main()


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
