"""Networks: every family builds, learns, is cut into stages, takes weights and gives features."""

import hashlib
import math
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from urllib.error import URLError

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from pydantic import TypeAdapter, ValidationError
from torch import nn

from pipelines.core.errors import InputError
from pipelines.features.backbones import fold_batch_norms, packaged_weights, rename_packaged
from pipelines.params.networks import (
    OWN_NETWORKS,
    TORCHVISION,
    FileWeights,
    MemberWeights,
    Mlp,
    Network,
    NetworkName,
    Weights,
    library_networks,
)
from pipelines.train.models import (
    Stem,
    build_backbone,
    build_network,
    load_weights,
    spec_for,
    stages,
    weights_file,
)
from pipelines.train.models.building import first_conv, head_names

MLP = Mlp(kind="mlp", hidden_sizes=(8, 6))
WIDE = Mlp(kind="mlp", hidden_sizes=(64,))
SLOW = pytest.mark.slow
# of timm's, torchvision's and ours, each at a size at which a step is quick
SMALL: list[Any] = [
    (MLP, 8),
    ("nin", 16),
    ("small_cnn", 16),
    ("tf_efficientnet_lite0", 32),
    ("resnet18", 32),
    ("densenet121", 32),
    ("mobilenetv3_small_050", 64),
    ("regnetx_002", 64),
    ("vit_tiny_patch16_224", 32),
    ("torchvision/resnet18", 32),
    ("torchvision/squeezenet1_1", 32),
    ("torchvision/mobilenet_v3_small", 64),
    ("torchvision/mnasnet0_5", 64),
    ("torchvision/shufflenet_v2_x0_5", 64),
    ("torchvision/googlenet", 64),
    pytest.param(("convnext_atto", 32), marks=SLOW),
    pytest.param(("swin_tiny_patch4_window7_224", 64), marks=SLOW),
    pytest.param(("maxvit_pico_rw_256", 64), marks=SLOW),
    pytest.param(("deit_tiny_distilled_patch16_224", 32), marks=SLOW),
    pytest.param(("torchvision/efficientnet_b0", 64), marks=SLOW),
    pytest.param(("torchvision/regnet_x_400mf", 64), marks=SLOW),
    pytest.param(("torchvision/inception_v3", 75), marks=SLOW),
    pytest.param(("torchvision/convnext_tiny", 32), marks=SLOW),
    pytest.param(("torchvision/swin_t", 32), marks=SLOW),
    pytest.param(("torchvision/vit_b_32", 64), marks=SLOW),
    pytest.param(("torchvision/vgg11_bn", 32), marks=SLOW),
    pytest.param(("torchvision/maxvit_t", 224), marks=SLOW),
]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


def build(
    model: Network,
    size: int,
    *,
    classes: int = 3,
    stem: Stem = "standard",
    grey: bool = False,
    dropout: float = 0.0,
) -> nn.Module:
    in_chans = 1 if grey else 3
    return build_network(
        model, num_classes=classes, image_size=size, stem=stem, in_chans=cast(Any, in_chans), dropout=dropout
    )


def pinned(path: Path) -> FileWeights:
    return FileWeights(kind="file", path=str(path), sha256=hashlib.sha256(path.read_bytes()).hexdigest())


def saved(module: nn.Module, path: Path) -> FileWeights:
    safetensors.torch.save_file(module.state_dict(), path)
    return pinned(path)


def load(
    module: nn.Module, weights: Weights, model: Network, *, root: Path = Path(), member: Path | None = None
) -> str:
    return load_weights(module, weights, model=model, member_path=member, root=root)


@torch.no_grad()
def shake(module: nn.Module) -> nn.Module:
    """Give batch norms something to do, and a head that begins at 0 a value."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d) and layer.running_mean is not None and layer.running_var is not None:
            layer.running_mean.normal_(0.0, 0.1)
            layer.running_var.uniform_(0.5, 2.0)
            layer.weight.uniform_(0.5, 1.5)
            layer.bias.normal_(0.0, 0.1)
        elif isinstance(layer, nn.Linear) and not layer.weight.any():
            layer.weight.normal_(0.0, 0.1)
    return module


def parameters(modules: list[nn.Module]) -> list[nn.Parameter]:
    return [parameter for module in modules for parameter in module.parameters()]


# which there are


def test_names_read_from_the_sources_are_those_of_timm_and_torchvision() -> None:
    import timm
    from torchvision import models

    named = {*timm.list_models(), *(TORCHVISION + name for name in models.list_models(module=models))}
    assert named == library_networks()
    assert not named & set(OWN_NETWORKS)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet19", "neither timm nor torchvision has a network resnet19; did you mean resnet1[08]"),
        ("torchvision/resnet19", "did you mean torchvision/resnet1"),
        ("mobilenet_v2", "mobilenet_v2 is torchvision's, not timm's: write torchvision/mobilenet_v2"),
        ("efficientnet_lite0", "efficientnet_lite0 is called tf_efficientnet_lite0 now"),
        ("../resnet18", "String should match pattern"),
    ],
)
def test_an_unknown_network_is_refused_with_the_nearest_one(name: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TypeAdapter(NetworkName).validate_python(name)


def test_a_network_may_be_named_with_the_tag_of_its_weights() -> None:
    assert TypeAdapter(NetworkName).validate_python("resnet18.a1_in1k") == "resnet18.a1_in1k"
    assert build("resnet18.a1_in1k", 32)(torch.zeros(2, 3, 32, 32)).shape == (2, 3)
    with pytest.raises(InputError, match="model resnet18.none: timm has no weights 'none' for it, but: .*a1_in1k"):
        build("resnet18.none", 32)


def test_neither_params_nor_networks_import_a_library_of_networks() -> None:
    look = (
        "import sys, pipelines.train.models as m; from pipelines.params.networks import library_networks;"
        "library_networks(); print('torchvision' in sys.modules, 'timm' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False", "False"]


def test_input_is_normalised_as_the_imagenet_weights_expect() -> None:
    assert spec_for("tf_efficientnet_lite2").mean == (127.0,) * 3
    assert spec_for("tf_efficientnet_lite0").std == (128.0,) * 3
    assert spec_for("vit_tiny_patch16_224").mean == (127.5,) * 3
    imagenet = spec_for("resnet18")
    assert imagenet.mean == pytest.approx([123.675, 116.28, 103.53])
    assert imagenet.std == pytest.approx([58.395, 57.12, 57.375])
    assert spec_for("torchvision/efficientnet_v2_l").mean == (127.5,) * 3
    for other in (MLP, "nin", "torchvision/googlenet"):
        assert spec_for(other).mean == pytest.approx(imagenet.mean)


# building


@pytest.mark.parametrize("case", SMALL)
def test_every_network_builds_and_its_stages_hold_every_weight_once(case: tuple[Network, int]) -> None:
    model, size = case
    module = build(model, size, classes=5, dropout=0.25)
    cut = stages(module, model)
    held = [id(parameter) for stage in cut for parameter in parameters(stage)]
    assert sorted(held) == sorted(map(id, module.parameters()))
    assert len(cut) >= 3
    assert all(parameters(stage) for stage in cut)
    # the head, alone: layers of 5 classes and no other
    assert {len(weight) for weight in parameters(cut[-1])} == {5}
    if model != MLP:  # the first stage sees the picture
        assert any(parameter is first_conv(module)[1].weight for stage in cut[:3] for parameter in parameters(stage))


@pytest.mark.parametrize("case", SMALL)
def test_a_network_learns_a_step_and_reloads_to_the_same_output(case: tuple[Network, int]) -> None:
    model, size = case
    module = build(model, size, dropout=0.1)
    number = 8 if size < 224 else 2
    images, labels = torch.randn(number, 3, size, size), torch.arange(number) % 3
    assert all(layer.momentum == 0.1 for layer in module.modules() if isinstance(layer, nn.BatchNorm2d))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    logits = module(images)
    assert logits.shape == (number, 3)
    loss = F.cross_entropy(logits, labels)
    assert loss < 2 * math.log(3)  # a head that knows nothing yet, and does not pretend to
    loss.backward()  # type: ignore[no-untyped-call]
    torch.optim.SGD(module.parameters(), 0.01).step()
    assert all(value.isfinite().all() for value in module.state_dict().values())
    assert any(not torch.equal(value, before[name]) for name, value in module.state_dict().items())
    # as a member's file keeps it: names and tensors alone
    kept = safetensors.torch.load(safetensors.torch.save(module.state_dict()))
    again = build(model, size, dropout=0.1)
    again.load_state_dict(kept, strict=True)
    with torch.inference_mode():
        expected = module.eval()(images)
        assert expected.isfinite().all()
        assert torch.equal(again.eval()(images), expected)


def test_equal_seeds_give_equal_networks() -> None:
    first, second = [(torch.manual_seed(7), build("small_cnn", 16))[1].state_dict() for _ in range(2)]
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(("model", "steps"), [(WIDE, 40), ("small_cnn", 25), ("nin", 25)])
def test_our_own_networks_learn_32_pictures_by_heart(model: Network, steps: int) -> None:
    images, labels = torch.randn(32, 3, 16, 16), torch.arange(32) % 4
    module = build(model, 16, classes=4)
    optimizer = torch.optim.Adam(module.parameters(), 3e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(module(images), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert (module(images).argmax(dim=1) == labels).all()


def test_an_mlp_is_its_hidden_sizes() -> None:
    module = build(MLP, 8, classes=5, dropout=0.5)
    shapes = [tuple(parameter.shape) for parameter in module.parameters()]
    assert shapes == [(8, 192), (8,), (6, 8), (6,), (5, 6), (5,)]
    assert [layer.p for layer in module.modules() if isinstance(layer, nn.Dropout)] == [0.5, 0.5]
    assert len(stages(module, MLP)) == 3


def test_an_mlp_sees_a_large_picture() -> None:
    module = build(Mlp(kind="mlp", hidden_sizes=(4,)), 256)
    assert module(torch.zeros(1, 3, 256, 256)).shape == (1, 3)
    assert next(module.parameters()).shape == (4, 196_608)


def test_an_mlp_reads_pixels_in_the_same_order_however_memory_is_laid_out() -> None:
    module, images = build(MLP, 8), torch.randn(2, 3, 8, 8)
    assert torch.equal(module(images), module(images.to(memory_format=torch.channels_last)))


def test_small_cnn_has_about_300_000_weights_and_nin_a_million() -> None:
    assert sum(p.numel() for p in build("small_cnn", 16, classes=10).parameters()) == pytest.approx(308_000, rel=0.01)
    assert sum(p.numel() for p in build("nin", 32, classes=10).parameters()) == pytest.approx(968_000, rel=0.01)


@pytest.mark.parametrize(
    "model", [WIDE, "nin", "small_cnn", "resnet18", "mobilenetv3_small_050", "tf_efficientnet_lite0"]
)
def test_dropout_acts_in_training_alone_and_leaves_names_as_they_are(model: Network) -> None:
    wet, dry = (shake(build(model, 16, dropout=p)) for p in (0.9, 0.0))
    assert list(wet.state_dict()) == list(dry.state_dict())
    wet.load_state_dict(dry.state_dict())
    images = torch.randn(4, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(wet.eval()(images), dry.eval()(images))
        for layer in [*wet.modules(), *dry.modules()]:
            layer.training = not isinstance(layer, nn.BatchNorm2d)
        assert not torch.equal(wet(images), wet(images))
        assert torch.equal(dry(images), dry(images))


# stems, colours and sizes

STEMS = [
    "resnet18",
    "densenet121",
    "tf_efficientnet_lite0",
    "mobilenetv3_small_050",
    "regnetx_002",
    "convnext_atto",
    "small_cnn",
    "torchvision/squeezenet1_1",
    "torchvision/mnasnet0_5",
    "torchvision/googlenet",
]


def sides(module: nn.Module, size: int) -> list[int]:
    """Sides of the first convolution's output and of the next layer's that has places."""
    found: list[int] = []

    def note(_layer: nn.Module, _given: Any, output: torch.Tensor) -> None:
        found.append(output.shape[-1])

    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(note)
    with torch.inference_mode():
        module.eval()(torch.zeros(1, 3, size, size))
    return found[:2]


@pytest.mark.parametrize("model", STEMS)
def test_the_small_stem_keeps_the_resolution_and_the_standard_one_does_not(model: NetworkName) -> None:
    small = sides(build(model, 32, stem="cifar"), 32)
    standard = sides(build(model, 32), 32)
    assert small[0] == 32
    assert small[1] in (32, 16)  # an inverted residual of shufflenet begins with a stride
    assert standard[0] <= 16
    assert standard[1] <= small[1] // 2


@pytest.mark.parametrize("model", STEMS)
def test_small_stems_work_from_8_pixels_on(model: NetworkName) -> None:
    module = build(model, 8, stem="cifar", grey=True)
    assert module(torch.zeros(2, 1, 8, 8)).shape == (2, 3)


@pytest.mark.parametrize("model", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_a_network_without_a_small_stem_says_so(model: NetworkName) -> None:
    with pytest.raises(InputError, match=f"stem cifar of {model}: there is none, only stem: standard; for small"):
        build(model, 224, stem="cifar")


@pytest.mark.parametrize(
    ("model", "size"), [("torchvision/alexnet", 62), ("torchvision/inception_v3", 74), ("densenet121", 16)]
)
def test_a_size_that_does_not_work_is_refused(model: NetworkName, size: int) -> None:
    with pytest.raises(InputError, match=f"image_size {size} for {model} with stem standard: .*multiples of 32"):
        build(model, size)


def test_a_size_that_no_patches_fit_is_refused() -> None:
    with pytest.raises(InputError, match="vit_tiny_patch16_224 .*100"):
        build("vit_tiny_patch16_224", 100)


@pytest.mark.parametrize("model", [MLP, "resnet18", "tf_efficientnet_lite0", "small_cnn", "nin"])
@pytest.mark.parametrize("stem", ["standard", "cifar"])
def test_weights_of_colours_do_the_same_on_grey_and_back(model: Network, stem: Stem, tmp_path: Path) -> None:
    colour = shake(build(model, 16, stem=stem)).eval()
    weights = saved(colour, tmp_path / "colour.safetensors")
    grey = build(model, 16, stem=stem, grey=True).eval()
    load(grey, weights, model)
    again = build(model, 16, stem=stem).eval()
    load(again, saved(grey, tmp_path / "grey.safetensors"), model)
    images = torch.randn(4, 1, 16, 16)
    with torch.inference_mode():
        expected = colour(images.expand(-1, 3, -1, -1))
        torch.testing.assert_close(grey(images), expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(again(images.expand(-1, 3, -1, -1)), expected, rtol=1e-4, atol=1e-4)


# stages


@pytest.mark.parametrize(
    "model", [MLP, "nin", "small_cnn", "tf_efficientnet_lite0", "resnet18", "mobilenetv3_small_050"]
)
def test_freezing_the_first_stages_leaves_only_the_others_learning(model: Network) -> None:
    images = torch.randn(4, 3, 16, 16)
    for frozen in range(len(stages(build(model, 16), model))):
        module = build(model, 16)
        cut = stages(module, model)
        for stage in cut[:frozen]:
            for layer in stage:
                layer.requires_grad_(False)
        module(images).square().sum().backward()
        assert all(p.grad is None for stage in cut[:frozen] for p in parameters(stage))
        assert all(p.grad is not None for stage in cut[frozen:] for p in parameters(stage))


def test_stages_go_from_the_picture_to_the_head() -> None:
    module = build("resnet18", 32)
    names = {layer: name for name, layer in module.named_modules()}
    assert [[names[layer] for layer in stage] for stage in stages(module, "resnet18")] == [
        ["conv1", "bn1"], ["layer1"], ["layer2"], ["layer3"], ["layer4"], ["fc"],
    ]  # fmt: skip


def test_a_vits_first_stage_holds_its_tokens_and_every_layer_is_one() -> None:
    module = build("vit_tiny_patch16_224", 64)
    cut = stages(module, "vit_tiny_patch16_224")
    assert len(cut) == 1 + 12 + 1
    for layer in cut[0]:
        layer.requires_grad_(False)
    still = [name for name, parameter in module.named_parameters() if not parameter.requires_grad]
    assert still == ["cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias"]


# weights


def test_positions_of_a_vit_are_fitted_to_another_size(tmp_path: Path) -> None:
    large, small = build("vit_tiny_patch16_224", 64), build("vit_tiny_patch16_224", 32)
    with torch.no_grad():  # positions that differ from top to bottom alone: -3, -1, 1, 3
        ramp = torch.arange(-3.0, 4.0, 2.0).repeat_interleave(4)[None, :, None]
        large.get_parameter("pos_embed")[:, 1:] = ramp
    load(small, saved(large, tmp_path / "w.safetensors"), "vit_tiny_patch16_224")
    places = small.get_parameter("pos_embed")[0, :, 0].tolist()
    assert places[0] == large.get_parameter("pos_embed")[0, 0, 0]
    assert places[1] == places[2] < -1.0
    assert places[3] == places[4] > 1.0


@pytest.mark.parametrize("model", ["tf_efficientnet_lite0", "tf_efficientnet_lite1", "tf_efficientnet_lite2"])
def test_packaged_networks_come_with_their_imagenet_weights_whatever_the_stem(
    model: NetworkName, capsys: pytest.CaptureFixture[str]
) -> None:
    module = build(model, 32, classes=5, stem="cifar")
    digest = load(module, "imagenet", model)
    assert digest == hashlib.sha256(packaged_weights(model).read_bytes()).hexdigest()
    held = rename_packaged(torch.load(packaged_weights(model), weights_only=True), module)
    for name, value in module.state_dict().items():
        if not name.startswith("classifier") and not name.endswith("num_batches_tracked"):
            assert torch.equal(value, held[name]), name
    assert capsys.readouterr().err == ""


def test_the_head_is_left_out_where_classes_differ_and_kept_where_they_do_not(tmp_path: Path) -> None:
    taught = build("small_cnn", 16, classes=3)
    weights = saved(taught, tmp_path / "three.safetensors")
    same, other = build("small_cnn", 16, classes=3), build("small_cnn", 16, classes=7)
    own = other.get_parameter("head.weight").clone()
    assert load(same, weights, "small_cnn") == weights.sha256
    load(other, weights, "small_cnn")
    assert all(torch.equal(a, b) for a, b in zip(taught.parameters(), same.parameters(), strict=True))
    assert torch.equal(other.get_parameter("head.weight"), own)
    assert torch.equal(other.get_parameter("conv.weight"), taught.get_parameter("conv.weight"))


def test_another_stem_keeps_its_first_layer_random_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taught = build("resnet18", 32)
    small = build("resnet18", 32, stem="cifar", grey=True)
    own = small.get_parameter("conv1.weight").clone()
    load(small, saved(taught, tmp_path / "w.safetensors"), "resnet18")
    assert torch.equal(small.get_parameter("conv1.weight"), own)
    assert torch.equal(small.get_parameter("layer1.0.conv1.weight"), taught.get_parameter("layer1.0.conv1.weight"))
    assert "conv1.weight does not fit, and begins with random weights" in capsys.readouterr().err


def test_a_file_of_torch_save_is_read_too(tmp_path: Path) -> None:
    taught, module = build(MLP, 8), build(MLP, 8)
    torch.save(taught.state_dict(), tmp_path / "w.pth")
    named = FileWeights(kind="file", path="w.pth", sha256=pinned(tmp_path / "w.pth").sha256)
    load(module, named, MLP, root=tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(taught.parameters(), module.parameters(), strict=True))


def test_a_member_trained_frozen_gives_its_backbone(tmp_path: Path) -> None:
    taught, _ = build_backbone("resnet18", image_size=32)
    tensors = {f"backbone.{name}": value for name, value in taught.state_dict().items()}
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(tensors | {"head.weight": torch.zeros(3, 512, dtype=torch.float64)}, path)
    module = build("resnet18", 32)
    weights = MemberWeights(kind="member", member="taught")
    assert load(module, weights, "resnet18", member=path) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert torch.equal(module.get_parameter("conv1.weight"), taught.get_parameter("conv1.weight"))
    assert module.get_parameter("fc.weight").any()


def test_weights_under_torchvisions_older_names_are_understood(tmp_path: Path) -> None:
    taught, module = build("torchvision/densenet121", 32), build("torchvision/densenet121", 32)
    old = {
        name.replace("norm1.", "norm.1.").replace("norm2.", "norm.2.").replace("conv1.", "conv.1."): value
        for name, value in taught.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    assert old.keys() != taught.state_dict().keys()
    torch.save(old, tmp_path / "old.pth")
    load(module, pinned(tmp_path / "old.pth"), "torchvision/densenet121")
    assert all(torch.equal(a, b) for a, b in zip(taught.parameters(), module.parameters(), strict=True))


def test_heads_that_only_help_in_training_are_left_out(tmp_path: Path) -> None:
    from torchvision.models import googlenet

    taught, module = googlenet(num_classes=3, aux_logits=True, init_weights=True), build("torchvision/googlenet", 32)
    load(module, saved(taught, tmp_path / "w.safetensors"), "torchvision/googlenet")
    assert torch.equal(module.get_parameter("fc.weight"), taught.fc.weight)


def test_weights_of_another_network_are_refused_with_what_differs(tmp_path: Path) -> None:
    weights = saved(build("small_cnn", 16), tmp_path / "w.safetensors")
    with pytest.raises(
        InputError,
        match=r"w.safetensors are those of another network than nin: tensors .* missing \(blocks.0.0.weight, .*, …\); "
        r".* of no use \(blocks.0.bn1.bias, .*Name the model that they were trained with",
    ):
        load(build("nin", 16), weights, "nin")
    with pytest.raises(InputError, match=r"this mlp: tensors 1 of another shape \(hidden.0.0.weight \(8, 768\), not"):
        load(build(MLP, 8), saved(build(MLP, 16), tmp_path / "mlp.safetensors"), MLP)


def test_a_file_of_another_sha256_is_refused_with_the_one_it_has(tmp_path: Path) -> None:
    true = saved(build(MLP, 8), tmp_path / "w.safetensors")
    false = FileWeights(kind="file", path=true.path, sha256="0" * 64)
    with pytest.raises(
        InputError, match=f"has sha256 {true.sha256}, but weights.sha256 says 000.*set sha256: {true.sha256}"
    ):
        load(build(MLP, 8), false, MLP)


def test_missing_files_are_named(tmp_path: Path) -> None:
    missing = FileWeights(kind="file", path="none.pth", sha256="0" * 64)
    with pytest.raises(InputError, match="weights.path none.pth does not exist: put the file there"):
        load(build(MLP, 8), missing, MLP, root=tmp_path)
    taught = MemberWeights(kind="member", member="taught")
    with pytest.raises(InputError, match="weights of member taught: .*none.safetensors does not exist; train that"):
        load(build(MLP, 8), taught, MLP, member=tmp_path / "none.safetensors")


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_a_broken_file_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"no tensors here")
    with pytest.raises(InputError, match=f"{name} is no whole file of tensors: get it again"):
        load(build(MLP, 8), pinned(tmp_path / name), MLP)


def test_a_file_that_holds_more_than_tensors_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "state_dict": build(MLP, 8).state_dict()}, tmp_path / "w.pth")
    with pytest.raises(
        InputError, match=r"w.pth holds more than tensors \(epoch, state_dict\): save the weights alone"
    ):
        load(build(MLP, 8), pinned(tmp_path / "w.pth"), MLP)


class Trap:
    """Unpickled, it would make a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return (Path.mkdir, (self.folder,))


def test_a_file_that_would_run_code_runs_none(tmp_path: Path) -> None:
    torch.save({"weight": Trap(tmp_path / "made")}, tmp_path / "w.pth")
    with pytest.raises(InputError, match="w.pth is no whole file of tensors"):
        load(build(MLP, 8), pinned(tmp_path / "w.pth"), MLP)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(("model", "name"), [(MLP, "an mlp"), ("nin", "nin"), ("small_cnn", "small_cnn")])
def test_a_network_without_imagenet_weights_says_so(model: Network, name: str) -> None:
    with pytest.raises(InputError, match=f"weights imagenet: there are none for {name}; use a file or a member"):
        load(build(model, 16), "imagenet", model)


# the download


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """mnasnet0_5's ImageNet weights as if they were `file`; `calls` counts downloads, `fault` breaks them."""
    import torchvision

    file = tmp_path / "published.pth"
    taught = build("torchvision/mnasnet0_5", 32, classes=1000)
    torch.save(taught.state_dict(), file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    name = f"mnasnet0.5-{digest[:10]}.pth"
    state = SimpleNamespace(
        taught=taught, digest=digest, cached=tmp_path / "home" / "hub" / "checkpoints" / name, calls=0, fault=None
    )

    def download(url: str, path: str, *, hash_prefix: str, progress: bool) -> None:
        assert (url, hash_prefix, progress) == (f"https://example.org/models/{name}", digest[:10], False)
        state.calls += 1
        if state.fault:
            raise state.fault
        shutil.copy(file, path)

    weights = SimpleNamespace(DEFAULT=SimpleNamespace(url=f"https://example.org/models/{name}"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(torchvision.models, "get_model_weights", lambda _model: weights)
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    return state


def test_imagenet_weights_are_downloaded_once(published: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        module = build("torchvision/mnasnet0_5", 32)
        assert load(module, "imagenet", "torchvision/mnasnet0_5") == published.digest
        assert torch.equal(module.get_parameter("layers.0.weight"), published.taught.get_parameter("layers.0.weight"))
    assert published.calls == 1
    assert capsys.readouterr().err.count("ImageNet weights of torchvision/mnasnet0_5") == 1


@pytest.mark.parametrize(
    "fault", [URLError("no route to host"), TimeoutError("timed out"), RuntimeError("invalid hash")]
)
def test_a_download_that_fails_names_the_network_and_the_remedy(published: SimpleNamespace, fault: Exception) -> None:
    published.fault = fault
    with pytest.raises(InputError, match="weights imagenet of torchvision/mnasnet0_5: the download failed") as caught:
        load(build("torchvision/mnasnet0_5", 32), "imagenet", "torchvision/mnasnet0_5")
    assert str(getattr(fault, "reason", fault)) in str(caught.value)
    assert "{kind: file, path: …, sha256: …}" in str(caught.value)
    assert "tf_efficientnet_lite0" in str(caught.value)
    assert "example.org" not in str(caught.value)


def test_a_broken_download_of_former_times_is_refused(published: SimpleNamespace) -> None:
    published.cached.parent.mkdir(parents=True)
    published.cached.write_bytes(b"half of it")
    with pytest.raises(InputError, match="is broken .*: delete it, and it is downloaded anew"):
        weights_file("imagenet", model="torchvision/mnasnet0_5", member_path=None, root=Path())
    assert published.calls == 0


def test_timms_weights_come_from_the_hubs_cache_or_are_downloaded_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    taught = build("resnet18", 32, classes=1000)
    file = tmp_path / "model.safetensors"
    safetensors.torch.save_file(taught.state_dict(), file)
    asked = []

    def download(*values: Any, **named: Any) -> str:
        asked.append((values, named))
        return str(file)

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_values, **_named: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    module = build("resnet18", 32)
    assert load(module, "imagenet", "resnet18") == hashlib.sha256(file.read_bytes()).hexdigest()
    assert torch.equal(module.get_parameter("conv1.weight"), taught.get_parameter("conv1.weight"))
    assert [values for values, _ in asked] == [("timm/resnet18.a1_in1k", "model.safetensors")]
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_values, **_named: str(file))
    load(module, "imagenet", "resnet18")
    assert len(asked) == 1


def test_without_a_network_timms_weights_are_refused_with_those_that_are_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def fail(*_values: Any, **_named: Any) -> str:
        raise LocalEntryNotFoundError("no connection, and nothing cached")

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_values, **_named: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(InputError, match=r"weights imagenet of resnet18: .*no connection.*tf_efficientnet_lite2"):
        load(build("resnet18", 32), "imagenet", "resnet18")


# backbones


@pytest.mark.parametrize(
    ("model", "left"),
    [
        ("tf_efficientnet_lite0", 0),
        ("resnet18", 0),
        ("densenet121", 62),  # those before a convolution, not after one
        ("mobilenetv3_small_050", 0),
        ("torchvision/shufflenet_v2_x0_5", 0),
        ("regnetx_002", 0),
        ("torchvision/googlenet", 0),
        ("nin", 0),
        ("small_cnn", 0),
        ("torchvision/squeezenet1_1", 0),
        ("vit_tiny_patch16_224", 0),
        pytest.param("torchvision/inception_v3", 0, marks=SLOW),
        pytest.param("maxvit_pico_rw_256", 11, marks=SLOW),
    ],
)
def test_a_folded_backbone_gives_the_features_of_the_unfolded_one(model: NetworkName, left: int) -> None:
    size = 96 if "inception" in model else 64
    module, num_features = build_backbone(model, image_size=size)
    shake(module).eval()
    images = torch.randn(2, 3, size, size)
    with torch.inference_mode():
        expected = module(images)
        assert expected.shape == (2, num_features)
        folded = fold_batch_norms(module)
        torch.testing.assert_close(folded(images), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in folded.modules()) == left
    assert not any(parameter.requires_grad for parameter in folded.parameters())


@pytest.mark.parametrize(
    "model", ["resnet18", "mobilenetv3_small_050", "torchvision/squeezenet1_1", "small_cnn", "nin"]
)
def test_features_are_what_the_head_sees(model: NetworkName) -> None:
    module = build(model, 32, dropout=0.5).eval()
    body, num_features = build_backbone(model, image_size=32)
    [name] = head_names(module)
    assert head_names(body) == (name,)
    head = module.get_submodule(name)
    body.load_state_dict({key: value for key, value in module.state_dict().items() if not key.startswith(f"{name}.")})
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        features = body.eval()(images)
        assert features.shape == (2, num_features)
        weight, bias = (cast(torch.Tensor, getattr(head, part)) for part in ("weight", "bias"))
        torch.testing.assert_close(F.linear(features, weight.flatten(1), bias), module(images), rtol=1e-4, atol=1e-5)


def test_a_backbone_may_be_another_members(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    taught = shake(build("resnet18", 32)).eval()
    safetensors.torch.save_file(taught.state_dict(), path)
    body, num_features = build_backbone("resnet18", image_size=32)
    load(body, MemberWeights(kind="member", member="taught"), "resnet18", member=path)
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        head = taught.get_submodule("fc")
        torch.testing.assert_close(head(fold_batch_norms(body.eval())(images)), taught(images), rtol=1e-4, atol=1e-4)
    assert num_features == 512
