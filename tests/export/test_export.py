"""Every family, exported and compared with the detector in PyTorch, and what happens where that fails."""

import copy
import json
import re
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config

from mmdet_stable.__main__ import main
from mmdet_stable.export import Evidence, ExportError, Settings, export, exporting, source_of
from mmdet_stable.export.exporting import write_checked
from mmdet_stable.export.graph import ExportableDetector
from mmdet_stable.export.nms import survivors
from mmdet_stable.export.onnx_file import EXAMPLE
from mmdet_stable.export.parity import FP16, FP32, batches
from mmdet_stable.export.sampling import gathered_samples, grid_samples
from mmdet_stable.export.spec import resize_rule, rule_of_masks
from mmdet_stable.models import detectors
from mmdet_stable.models.dense_heads.mask_inference import MaskInference
from mmdet_stable.models.layers.deformable_attention import weighted_samples
from mmdet_stable.runtime import Detector
from mmdet_stable.runtime.detector import METADATA
from mmdet_stable.runtime.pictures import prepared
from mmdet_stable.weights import read, to_ours
from mmdet_stable.weights.configs import text_of
from mmdet_stable.weights.conversion import model_of
from tests.models.layers.test_deformable_attention import MAPS, sampling_inputs
from tests.utils import ROOT, build
from tests.weights.fixtures import FILES
from tests.weights.fixtures import tiny_config as published_config

from .models import CLASSES, FAMILIES, lively, source, tiny_config

PAGE = ROOT / 'docs' / 'export.md'


def metadata(path):
    (entry,) = onnx.load(path).metadata_props
    assert entry.key == METADATA
    return json.loads(entry.value)


@pytest.mark.parametrize('name', FAMILIES)
class TestFamily:
    """One cell of the table in docs/export.md each; writing a file compares it, or raises."""

    def test_exports(self, name, families):
        session = onnxruntime.InferenceSession(families(name).path)
        outputs = ['boxes', 'scores', 'labels']
        if name.startswith('MaskDINO'):
            outputs += ['masks', *(['query_logits', 'query_masks'] if 'panoptic' in name else [])]
        assert [output.name for output in session.get_outputs()] == outputs
        domains = {node.domain for node in onnx.load(families(name).path).graph.node}
        assert domains <= {'', 'ai.onnx'}  # no operator of our own
        assert b'.py' not in families(name).path.read_bytes()  # no traces of the code, in loops either

    @pytest.mark.parametrize('half', [False, True], ids=['float32', 'float16'])
    def test_parity(self, name, half, families):
        found = families(name)
        said = metadata(found.half if half else found.path)
        assert (
            said['precision'] == ('float16' if half else 'float32')
            and said['detector'] == type(found.source.detector).__name__
        )
        allowed = FP16 if half else FP32
        assert said['parity']['allowed'] == allowed._asdict()
        assert all(said['parity']['measured'][kind] <= getattr(allowed, kind) for kind in said['parity']['measured'])
        assert f'within {allowed.boxes} of the longer side' in (found.half_report if half else found.report)[-1]

    def test_dynamic_batch(self, name, families):
        found = families(name)
        checked = [batch for batch, _, _ in metadata(found.path)['parity']['checked_on']]
        assert {1, 2} <= set(checked) or {1, 3} <= set(checked)
        pictures = [np.full((40, 60, 3), value, np.uint8) for value in (0, 90, 200)]
        detector = Detector(found.path, threads=1)
        for one, of_three in zip(pictures, detector.many(pictures, batch_size=3)):
            np.testing.assert_allclose(detector(one).boxes, of_three.boxes, atol=0.02)

    def test_dynamic_size(self, name, families):
        sizes = {(height, width) for _, height, width in metadata(families(name).path)['parity']['checked_on']}
        assert len(sizes) >= 2 and EXAMPLE not in sizes  # and none is the one of tracing

    def test_half_precision_is_smaller(self, name, families):
        found = families(name)
        assert found.half.stat().st_size < 0.8 * found.path.stat().st_size
        model = onnx.load(found.half)
        norms = [node for node in model.graph.node if node.op_type == 'LayerNormalization']
        assert norms and not [name for node in norms for name in (*node.input, *node.output) if name.endswith('.half')]


def test_every_family_is_in_the_table():
    rows = re.findall(r'^\| ([^|]+?) +\|(.*)\|$', PAGE.read_text(), flags=re.M)
    cells = {name: [cell.strip() for cell in rest.split('|')] for name, rest in rows}
    for name in FAMILIES:
        assert cells[name] == ['yes'] * 5, name


def test_every_detector_is_tried():
    tried = {Config.fromfile(ROOT / config).model.type for config in FAMILIES.values()}
    assert tried == set(detectors.__all__)


def test_as_many_queries_as_published(tmp_path):
    """More than a small picture has positions, so that what is done for small ones must not be recorded."""
    cfg = tiny_config(FAMILIES['Stable-DINO'])
    cfg.model.num_queries = 900
    for transform in cfg.test_dataloader.dataset.pipeline:
        if transform.type == 'Resize':
            transform.scale = (512, 384)
    detector = source_of(lively(build(copy.deepcopy(cfg.model))), cfg, CLASSES, Settings())
    assert export(detector, 'torch', tmp_path / 'model.pt2', Evidence()) and (tmp_path / 'model.pt2').is_file()


def test_a_wrong_file_is_found_and_nothing_is_left(dino, tmp_path):
    """One weight of the box branch is another: every box moves, by more than the tolerance."""
    model = onnx.ModelProto.FromString(dino.content)
    (bias,) = [weight for weight in model.graph.initializer if re.search(r'reg_branches\.1\.4\.bias', weight.name)]
    array = onnx.numpy_helper.to_array(bias) + np.float32(0.05)
    bias.CopyFrom(onnx.numpy_helper.from_array(array, bias.name))
    with pytest.raises(ExportError, match=r'the file does not compute what the model does:\n.*boxes .*, allowed are'):
        write_checked(dino.source, model, tmp_path / 'file')


@pytest.mark.parametrize('branch', ['cls_branches', 'query_embedding', 'memory_trans_fc', 'backbone.conv1'])
def test_any_weight_counts(branch, dino, tmp_path):
    """The detector is another one than what was exported."""
    detector = copy.deepcopy(dino.source.detector)
    for name, parameter in detector.named_parameters():
        if branch in name:
            parameter.data += torch.randn(parameter.shape)
    with pytest.raises(ExportError, match='the file does not compute what the model does'):
        model = onnx.ModelProto.FromString(dino.content)
        write_checked(dino.source._replace(detector=detector), model, tmp_path / 'file')


def test_a_failed_check_leaves_nothing(dino, tmp_path, monkeypatch):
    def failing(source, path, evidence):
        path.write_bytes(b'unchecked')
        raise ExportError('different')

    monkeypatch.setattr(exporting, '_export_onnx', failing)
    (tmp_path / 'model.onnx').write_bytes(b'an older one')
    with pytest.raises(ExportError, match='different'):
        export(dino.source, 'onnx', tmp_path / 'model.onnx', Evidence(), with_runtime=True)
    assert [path.name for path in tmp_path.iterdir()] == ['model.onnx']
    assert (tmp_path / 'model.onnx').read_bytes() == b'an older one'


def test_command(trained, tmp_path, capsys):
    """Of one size, with NMS inside, GridSample, AP and the runtime beside it."""
    out = tmp_path / 'model.onnx'
    words = ['export', trained / 'config.py', trained / 'weights.pth', '-o', out, '--size', 128, 192, '--nms', 0.3]
    words += ['--with-runtime', '--sampling', 'grid_sample', '--img-dir', trained / 'data' / 'val']
    words += ['--ann-file', trained / 'data' / 'annotations' / 'instances_val.json']
    words += ['--images', *sorted((trained / 'data' / 'val').glob('*.png'))]
    assert main([str(word) for word in words]) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    assert '2 x 192 x 128: boxes' in printed and 'bbox AP on 2 pictures: 0.' in printed
    assert sorted(path.name for path in tmp_path.iterdir()) == ['mmdet_stable_runtime', 'model.onnx']
    assert 'GridSample' in {node.op_type for node in onnx.load(out).graph.node}
    detector = Detector(out, threads=1)
    pictures = [np.full(shape, 77, np.uint8) for shape in ((40, 60, 3), (90, 30, 3))]
    together = detector.many(pictures, batch_size=2)
    for picture, found in zip(pictures, together):
        alone = detector(picture)
        np.testing.assert_allclose(alone.boxes, found.boxes, atol=0.02)
        assert len(alone.scores) < 15  # NMS has removed some


def test_to_torch(trained, tmp_path, capsys):
    """A program that runs where mmdet, mmcv and this package cannot be imported."""
    out = tmp_path / 'model.pt2'
    words = ['export', str(trained / 'weights.pth'), '--trust', '--to', 'torch', '-o', str(out)]
    assert main(words) == 0, capsys.readouterr().err
    assert 'Loads checkpoint' not in capsys.readouterr().out
    code = (
        'import sys\n'
        'for name in ("mmcv", "mmdet", "mmengine", "mmdet_stable"): sys.modules[name] = None\n'
        'import torch\n'
        'files = {"metadata.json": ""}\n'
        f'run = torch.export.load({str(out)!r}, extra_files=files).module()\n'
        'found = run(torch.zeros(3, 3, 96, 224, dtype=torch.uint8))\n'
        'print(sorted(found), tuple(found["boxes"].shape), "classes" in files["metadata.json"])\n'
    )
    done = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, capture_output=True, text=True)
    assert "'boxes', 'labels'" in done.stdout and '(3, 15, 4) True' in done.stdout, done.stderr


@pytest.mark.parametrize(
    'words,message',
    [
        (
            ['{model}', '-o', '{out}/x.onnx'],
            'nothing was built, as what the configs there name can run any code',
        ),
        (['{config}', '-o', '{out}/x.onnx'], 'config.py: a config has no weights'),
        (['{model}', '-o', '{out}'], 'this is a folder; give a file in it, such as'),
        (
            ['{model}', '-o', '{config}/x.onnx'],
            'config.py cannot be written to; choose another by --out',
        ),
        (
            ['{model}', '-o', '{out}/x.onnx', '--images', 'no.jpg'],
            '--images no.jpg: there is no such file',
        ),
        (
            ['{model}', '-o', '{out}/x.onnx', '--ann-file', 'no.json'],
            '--ann-file no.json: there is no such file',
        ),
        (
            ['{model}', '-o', '{out}/x.onnx', '--img-dir', '{out}'],
            'has the pictures of --ann-file; give that, too',
        ),
        (
            ['{model}', '-o', '{out}/x.onnx', '--int8', 'nowhere'],
            '--int8 nowhere: there is no such folder',
        ),
        (['{model}', '-o', '{out}/x.onnx', '--to', 'torch', '--with-runtime'], 'are for --to onnx alone'),
        (
            ['{model}', '--trust', '-o', '{out}/x.onnx', '--cfg-options', 'model.num_queries=17'],
            'in the checkpoint, (17, ',
        ),
        (
            ['{model}', '--trust', '-o', '{out}/x.onnx', '--cfg-options', 'model.num_querys=17'],
            'model.num_querys=17: StableDeformableDETR does not take it; did you mean num_queries?',
        ),
    ],
)
def test_mistakes_are_told_before_the_work(words, message, trained, tmp_path, capsys):
    places = dict(model=trained / 'weights.pth', config=trained / 'config.py', out=tmp_path)
    assert main(['export', *(word.format(**places) for word in words)]) == 1
    shown = capsys.readouterr()
    assert shown.err.startswith('error: ') and message in shown.err and not shown.out
    assert not list(tmp_path.iterdir())


def test_soft_nms_cannot_be_exported(dino):
    with pytest.raises(ExportError, match=r'test_cfg\.nms=.*soft_nms'):
        survivors(torch.zeros(1, 3, 4), torch.zeros(1, 3), dict(type='soft_nms', iou_threshold=0.5))
    with pytest.raises(ExportError, match=r'test_cfg\.nms=.*soft_nms'):
        rule_of_masks(MaskInference(4, 7, nms=dict(type='soft_nms', iou_threshold=0.5)))


@pytest.mark.parametrize(
    'pipeline, problem',
    [
        ([], 'has no Resize'),
        ([dict(type='Resize', scale=(9, 9)), dict(type='RandomFlip')], 'RandomFlip is not among the transforms'),
        ([dict(type='Resize', scale=(9, 9), interpolation='area')], "interpolation='bilinear'"),
        ([dict(type='Resize', scale_factor=2.0)], 'exported is Resize with scale='),
        ([dict(type='Resize', scale=(9, 9), backend='tifffile')], "backend='cv2' or 'pillow'"),
        ([dict(type='LoadImageFromFile', color_type='unchanged')], "color_type='unchanged': the runtime reads colours"),
    ],
)
def test_pipelines_that_cannot_be_exported(pipeline, problem):
    with pytest.raises(ExportError, match=problem):
        resize_rule(Config(dict(test_dataloader=dict(dataset=dict(pipeline=pipeline)))))


@pytest.mark.parametrize('size', [None, (128, 192)], ids=['any size', 'fixed'])
@pytest.mark.parametrize('keep_ratio', [True, False])
@pytest.mark.parametrize('backend', ['cv2', 'pillow'])
def test_resizing_is_that_of_the_pipeline(backend, keep_ratio, size):
    """Checked before a file is written, for each of the pictures."""
    resize = dict(type='mmdet.Resize', scale=(160, 128), keep_ratio=keep_ratio, backend=backend)
    rule = resize_rule(Config(dict(test_dataloader=dict(dataset=dict(pipeline=[resize])))))
    metadata = dict(resize=rule, input=dict(size=size))
    for shape in ((37, 53, 3), (600, 200, 3), (1, 1, 3)):
        picture = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        exporting.check_resizing(metadata, picture)
    picture = np.random.default_rng(0).integers(0, 256, (600, 800, 3), np.uint8)
    other = dict(rule, backend='cv2' if backend == 'pillow' else 'pillow')
    assert (prepared(metadata, picture).pixels != prepared(dict(metadata, resize=other), picture).pixels).any()


def test_published_weights_can_be_exported(tmp_path):
    """Their configs resize as the publishers do, by Pillow."""
    config = tmp_path / 'tiny.py'
    config.write_text(text_of(published_config('detrex_stable_dino_tiny')))
    converted = to_ours(read(FILES / 'detrex_stable_dino_tiny.pth'), str(config))
    model = model_of(converted.cfg)
    model.load_state_dict(converted.weights)
    exported = source_of(model.eval(), converted.cfg, [f'class {number}' for number in range(15)], Settings())
    assert exported.metadata['resize']['backend'] == 'pillow'


@pytest.mark.parametrize('sampled', [gathered_samples, grid_samples])
@pytest.mark.parametrize('shapes', MAPS.values(), ids=MAPS)
def test_samplings_are_those_of_the_detectors(sampled, shapes):
    value, shapes, locations, weights = sampling_inputs(shapes, dtype=torch.float32)
    expected = weighted_samples(value, shapes, locations, weights)
    for given in (shapes, [tuple(shape) for shape in shapes.tolist()]):
        torch.testing.assert_close(sampled(value, given, locations, weights), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('threshold', [0.0, 0.3, 0.8])
def test_nms_is_mmcvs(threshold):
    from mmcv.ops import batched_nms

    corners = torch.rand(4, 60, 2) * 50
    boxes = torch.cat([corners, corners + torch.rand(4, 60, 2) * 60], -1)
    labels = torch.randint(0, 3, (4, 60))
    cfg = dict(type='nms', iou_threshold=threshold)
    kept = survivors(boxes, labels, cfg)
    scores = torch.linspace(1, 0.1, 60)
    for image in range(4):
        expected = batched_nms(boxes[image], scores, labels[image], dict(cfg))[1].sort().values
        assert kept[image].nonzero()[:, 0].tolist() == expected.tolist()


def test_pictures_are_tried_alone_and_together():
    assert batches([(3, 4), (5, 6), (3, 4)], padded=False) == [[0], [1], [0, 2]]
    assert batches([(3, 4), (5, 6), (3, 4)], padded=True) == [[0], [0, 1, 2]]
    assert batches([(3, 4)], padded=True) == [[0]]


def test_missing_packages_are_named(trained, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr('mmdet_stable.commands.export.NEEDED', ('onnx', 'no_such_package'))
    assert main(['export', 'config.py', 'weights.pth', '-o', str(tmp_path / 'x.onnx')]) == 1
    assert 'no_such_package: not installed. Fix: pip install "mmdet_stable[export]"' in capsys.readouterr().err


def test_classes_must_fit(dino):
    detector, cfg = dino.source.detector, dino.cfg
    with pytest.raises(ExportError, match='2 names of classes for bbox_head'):
        exporting.source_of(detector, cfg, ('a', 'b'), Settings())


@pytest.mark.parametrize('name', ['DETR', 'DDQDETR'])
def test_mmdets_own_detectors_are_named_with_the_remedy(name):
    with pytest.raises(ExportError, match=rf"model\.type='{name}'.*StableDINO.*StableDDQDETR"):
        ExportableDetector(MODELS.get(name).__new__(MODELS.get(name)))


def test_sources_of_the_tests_are_lively():
    """Detections that all look alike would hide mistakes."""
    detector, _ = source(FAMILIES['DN-DETR'], Settings())
    found = detector.module(torch.randint(0, 256, (2, 3, 96, 128), dtype=torch.uint8))
    assert found['boxes'].std(1).min() > 1 and found['labels'].unique().numel() > 1
