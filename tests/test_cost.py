"""cost: what a member's weights and arithmetic are, by hand; and milliseconds, where asked."""

import json
import re
from pathlib import Path

import pytest
from train_inputs import FROZEN, SCRATCH, run, small_packs

from pipelines.commands import models
from pipelines.core.errors import InputError
from pipelines.evaluate.cost import member_cost, write_latency
from pipelines.train import load_member


def test_an_mlp_costs_its_products(tmp_path: Path) -> None:
    mlp = {**SCRATCH, "model": {"kind": "mlp", "hidden_sizes": [8]}, "in_chans": 1, "epochs": 1}
    run(tmp_path, small_packs(tmp_path / "packs"), {**mlp, "tta": ["original", "hflip"]})
    path = tmp_path / "out" / "model.safetensors"
    assert member_cost(load_member(tmp_path / "out"), path) == {
        "num_params": 256 * 8 + 8 + 8 * 3 + 3,
        "macs": 256 * 8 + 8 * 3,
        "file_bytes": path.stat().st_size,
        "image_size": 16,
        "num_views": 2,
    }


def test_a_linear_probe_costs_its_backbone_and_its_head(tmp_path: Path) -> None:
    """EfficientNet-Lite0 has 4,652,008 parameters, as published, of which 1,281,000 are its own head's."""
    run(tmp_path, small_packs(tmp_path / "packs", size=32), FROZEN)
    found = member_cost(load_member(tmp_path / "out"), tmp_path / "out" / "model.safetensors")
    assert found["num_params"] == 4_652_008 - 1_281_000 + 3 * 1280 + 3
    # 385 million MACs at 224 px, as published, of which its own head is 1.3
    assert found["macs"] == pytest.approx(384e6 * (32 / 224) ** 2, rel=0.05)


def test_milliseconds_are_written_beside_the_outputs_of_dvc(tmp_path: Path) -> None:
    run(tmp_path, small_packs(tmp_path / "packs"), {**SCRATCH, "epochs": 1})
    path = tmp_path / ".miwake" / "latency.json"
    folders = {("m", 0): tmp_path / "out", ("m", 1): tmp_path / "none"}  # of folds the first
    found = write_latency(folders, device="cpu", num_threads=1, path=path)
    assert json.loads(path.read_text(encoding="utf-8")) == found
    assert found["machine"]["num_threads"] == 1
    for size in ("1", "32"):
        figures = found["members"]["m"][size]
        assert 0 < figures["quartile_low_ms"] <= figures["median_ms"] <= figures["quartile_high_ms"]
        assert figures["num_calls"] >= 5
    with pytest.raises(InputError, match="does not exist: run `dvc repro train`"):
        write_latency({("m", 0): tmp_path / "none"}, device="cpu", num_threads=1, path=path)


def test_miwake_latency_says_what_each_member_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path, small_packs(tmp_path / "packs"), {**SCRATCH, "epochs": 1})
    (tmp_path / "data" / "train").mkdir(parents=True)
    (tmp_path / "out").rename(tmp_path / "data" / "train" / "scratch-0")
    (tmp_path / "params.yaml").write_text(
        "ingest: {snapshot: '1', sources: [{kind: sample}]}\ntrain: {members: [scratch], device: cpu}\n"
    )
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    models.latency()
    said = capsys.readouterr().out
    assert re.search(r"latency: on cpu \(\w+\), 2 threads, all views\n", said)
    assert re.search(r"latency: scratch: [\d.,]+ ms for one picture, [\d.,]+ ms for 32 \([\d,]+ a second\)\n", said)
    assert (tmp_path / ".miwake" / "latency.json").is_file()
