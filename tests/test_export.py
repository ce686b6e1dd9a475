"""`miwake export`: graphs that say what the model says, or nothing is written; the card; the example of a server."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from test_ingest import picture
from use_inputs import shared_project

from pipelines.core.errors import InputError
from pipelines.core.layout import Layout
from pipelines.use import export as module
from pipelines.use.classifier import load_classifier
from pipelines.use.export import export
from pipelines.use.model_folder import Model, read_model

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    return shared_project(tmp_path_factory)


@pytest.fixture(scope="module")
def model(layout: Layout) -> Model:
    return read_model(layout.root)


@pytest.fixture(scope="module")
def onnx_folder(model: Model, layout: Layout, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the small network, both folds."""
    pytest.importorskip("onnxscript", reason="the extra export is not installed")
    folder = tmp_path_factory.mktemp("export") / "onnx"
    parity = export(model, layout, folder, kind="onnx", member="tiny")
    assert parity is not None
    assert parity.num_flipped == 0
    assert parity.max_difference < 1e-3
    assert parity.accuracy == parity.accuracy_before
    return folder


LOAD = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "timm", "pipelines", "pandas", "sklearn", "scipy", "pyarrow"):
            raise ImportError(name)
sys.meta_path.insert(0, Block())
"""


def test_the_cards_own_lines_load_the_graph_where_only_onnxruntime_numpy_and_pillow_are(
    onnx_folder: Path, model: Model, tmp_path: Path
) -> None:
    """They are run as they stand, on the picture that they name."""
    card = (onnx_folder / "README.md").read_text(encoding="utf-8")
    code = card.split("```python\n")[1].split("```")[0]
    for name in ("model.onnx", "model.json"):
        (tmp_path / name).write_bytes((onnx_folder / name).read_bytes())
    (tmp_path / "photo.jpg").write_bytes(picture(seed=1))
    words = [sys.executable, "-P", "-c", LOAD + code + "\nprint(pixels.shape, float(probabilities.sum()))"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    label = done.stdout.splitlines()[0].rsplit(" ", 1)[0]
    assert label in model.info.classes
    about = json.loads((onnx_folder / "model.json").read_text())
    side = about["image_size"]
    assert f"(1, {side}, {side}, 3)" in done.stdout
    assert float(done.stdout.split()[-1]) == pytest.approx(1.0, abs=1e-4)
    assert about["classes"] == list(model.info.classes)


def test_the_card_says_data_figures_and_limits(onnx_folder: Path, model: Model) -> None:
    card = (onnx_folder / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlibrary_name: onnx\n")
    assert "# Guitars \\<&\\> more" in card or "# Guitars <&> more" in card
    value = model.info.figures["accuracy"]["value"]
    assert f"| accuracy | {value:.3f} |" in card
    assert "It knows these classes alone." in card
    assert f"Run `{model.info.run}`" in card
    assert "0 named otherwise" in card


def test_the_graph_answers_any_number_of_pictures(onnx_folder: Path, model: Model) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(onnx_folder / "model.onnx"), providers=["CPUExecutionProvider"])
    side = json.loads((onnx_folder / "model.json").read_text())["image_size"]
    pixels = np.random.default_rng(0).integers(0, 256, (5, side, side, 3)).astype(np.uint8)
    (whole,) = session.run(None, {"pixels": pixels})
    alone = np.concatenate([session.run(None, {"pixels": one[None]})[0] for one in pixels])
    assert whole == pytest.approx(alone, abs=1e-5)
    classifier = load_classifier(model, member="tiny", device="cpu", with_strangers=False)
    assert whole == pytest.approx(classifier.answer(pixels).probabilities, abs=2e-2)  # bfloat16 where it is native
    assert session.get_modelmeta().custom_metadata_map["classes"] == json.dumps(
        list(model.info.classes), ensure_ascii=False
    )


def test_a_graph_that_says_something_else_is_not_written(
    model: Model, layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = module._answers
    monkeypatch.setattr(module, "_answers", lambda *given: np.roll(whole(*given), 1, axis=1))
    with pytest.raises(InputError, match=r"the torch graph differs from the model on \d+ test pictures: \d+ named"):
        export(model, layout, tmp_path / "out", kind="torch", member="tiny")
    assert list(tmp_path.iterdir()) == []


def test_torch_export_loads_and_agrees(model: Model, layout: Layout, tmp_path: Path) -> None:
    import torch

    parity = export(model, layout, tmp_path / "out", kind="torch", member="tiny")
    assert parity is not None
    assert (parity.num_flipped, parity.max_difference < 1e-5) == (0, True)
    loaded = torch.export.load(tmp_path / "out" / "model.pt2").module()
    side = json.loads((tmp_path / "out" / "model.json").read_text())["image_size"]
    assert loaded(torch.zeros((3, side, side, 3), dtype=torch.uint8)).shape == (3, len(model.info.classes))


def test_int8_says_what_it_costs_and_is_refused_where_that_is_too_much(
    model: Model, layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime.quantization", reason="the extra export is not installed")
    parity = export(model, layout, tmp_path / "small", kind="onnx", member="tiny", int8=True, force=True)
    assert parity is not None
    assert json.loads((tmp_path / "small" / "model.json").read_text())["int8"] is True
    same = module.Parity(9, 0.0, 0, 1.0, 1.0)
    found = iter([same, module.Parity(9, 0.9, 9, 0.0, 1.0)])
    monkeypatch.setattr(module, "_compare", lambda *_: next(found))
    with pytest.raises(InputError, match=r"int8 costs 100.0 points of accuracy, more than the [\d.]+ that the test"):
        export(model, layout, tmp_path / "refused", kind="onnx", member="tiny", int8=True)
    assert not (tmp_path / "refused").exists()


def test_safetensors_is_a_folder_that_predicts_by_itself(model: Model, layout: Layout, tmp_path: Path) -> None:
    assert export(model, layout, tmp_path / "folder", kind="safetensors") is None
    assert read_model(tmp_path / "folder").info == model.info
    assert "miwake predict --model . photo.jpg" in (tmp_path / "folder" / "README.md").read_text()


def test_what_cannot_be_exported_is_told(model: Model, layout: Layout, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the members want squares of \d+ and \d+ px, and a graph takes one size"):
        export(model, layout, tmp_path / "a", kind="onnx")
    with pytest.raises(InputError, match="--member and --int8 are for onnx"):
        export(model, layout, tmp_path / "a", kind="safetensors", member="tiny")
    with pytest.raises(InputError, match="is checked on the test pictures of its run"):
        export(model, Layout(tmp_path / "elsewhere"), tmp_path / "a", kind="torch", member="tiny")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(InputError, match="exists and is not empty"):
        export(model, layout, tmp_path / "full", kind="onnx")


def test_a_missing_package_is_named(
    model: Model, layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(InputError, match=r"onnx needs packages that are not installed: `pip install onnx onnxscript"):
        export(model, layout, tmp_path / "a", kind="onnx", member="tiny")
    assert list(tmp_path.iterdir()) == []


# the server -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served(onnx_folder: Path) -> Any:
    """docs/serve/serve.py, imported as it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODEL", str(onnx_folder))
        spec = importlib.util.spec_from_file_location("serve", ROOT / "docs" / "serve" / "serve.py")
        assert spec is not None
        assert spec.loader is not None
        found = importlib.util.module_from_spec(spec)
        patch.setitem(sys.modules, "serve", found)
        spec.loader.exec_module(found)
        yield found


def test_the_server_names_pictures_and_refuses_the_rest(served: Any, model: Model) -> None:
    assert len((ROOT / "docs" / "serve" / "serve.py").read_text().splitlines()) <= 110
    import asyncio

    async def ask() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app=served.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            kinds = {"Content-Type": "image/png"}
            return [
                await client.get("/health"),
                await client.post("/predict", content=picture(seed=3), headers=kinds),
                await client.post("/predict", content=b"no picture", headers=kinds),
                await client.post("/predict", content=b"x", headers={"Content-Type": "text/plain"}),
                await client.post("/predict", content=b"x" * 20_000_001, headers=kinds),
            ]

    health, fine, broken, text, large = asyncio.run(ask())
    assert health.json() == {"status": "ok", "classes": len(model.info.classes)}
    top = fine.json()["top"]
    assert len(top) == 3
    assert top[0]["probability"] >= top[1]["probability"] >= top[2]["probability"]
    assert {one["label"] for one in top} <= set(model.info.classes)
    assert [one.status_code for one in (broken, text, large)] == [422, 415, 413]


def test_schemathesis_finds_nothing(served: Any) -> None:
    schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")
    from hypothesis import HealthCheck, given, settings

    schema = schemathesis.openapi.from_asgi("/openapi.json", served.app)
    for operation in schema.get_all_operations():

        @given(case=operation.ok().as_strategy())
        @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        def look(case: Any) -> None:
            case.call_and_validate()

        look()
