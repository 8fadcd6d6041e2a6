"""Our detectors where mmdet or torch builds, wraps or copies them."""

import copy
import pickle

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import ConfigDict

from tests.models.test_mixing import MATRIX, model_cfg
from tests.utils import build, samples

OURS = [
    ('DINO', 'denoising'),
    ('Deformable-DETR, two-stage', 'fusion'),
    ('DAB-DETR', 'denoising'),
    ('Conditional-DETR', 'denoising'),
    ('DDQ-DETR', 'fusion'),
    ('DAB-Deformable-DETR', 'denoising'),
    ('H-DETR', 'one_to_many'),
    ('Stable-DINO', 'fusion'),
    ('MaskDINO', 'one_to_many'),
]


def cfg_of(detector, part):
    return model_cfg(detector, MATRIX[detector][1][part])


@pytest.mark.parametrize('detector, part', OURS)
def test_configs_stay_as_they_are(detector, part):
    """As ``init_detector`` is called with the same config again, and ``SemiBaseDetector`` builds two models of one."""
    cfg = cfg_of(detector, part)
    before = copy.deepcopy(cfg.to_dict())
    MODELS.build(cfg)
    assert cfg.to_dict() == before
    MODELS.build(cfg)


@pytest.mark.parametrize('detector, part', [('Stable-DINO', 'fusion'), ('DAB-DETR', 'denoising')])
def test_a_teacher_and_its_student(detector, part):
    cfg = cfg_of(detector, part)
    preprocessor = cfg.pop('data_preprocessor')
    thresholds = dict(pseudo_label_initial_score_thr=0.0, cls_pseudo_thr=0.0, min_pseudo_bbox_wh=(0.01, 0.01))
    model = build(
        ConfigDict(
            type='SemiBaseDetector',
            detector=cfg,
            data_preprocessor=dict(type='MultiBranchDataPreprocessor', data_preprocessor=preprocessor),
            semi_train_cfg=dict(thresholds, freeze_teacher=True, sup_weight=1.0, unsup_weight=2.0),
            semi_test_cfg=dict(predict_on='teacher'),
        )
    ).train()

    def branch(num_gts):
        batch = samples(num_gts, (64, 96))
        for sample in batch:
            sample.set_metainfo(dict(homography_matrix=np.eye(3, dtype=np.float32)))
        return [torch.randint(0, 255, (3, 64, 96), dtype=torch.uint8) for _ in num_gts], batch

    branches = dict(sup=branch((3, 1)), unsup_teacher=branch((0, 0)), unsup_student=branch((0, 0)))
    inputs, batches = ({name: parts[index] for name, parts in branches.items()} for index in (0, 1))
    losses = model(**model.data_preprocessor(dict(inputs=inputs, data_samples=batches), True), mode='loss')
    assert losses['sup_loss_cls'] > 0 and losses['unsup_loss_bbox'] > 0  # from boxes that the teacher found
    total, _ = model.parse_losses(losses)
    total.backward()
    assert not [name for name, p in model.student.named_parameters() if p.requires_grad and p.grad is None]
    assert not [name for name, p in model.teacher.named_parameters() if p.grad is not None]
    model.load_state_dict(model.student.state_dict())  # a checkpoint of the detector alone


@pytest.mark.parametrize('copied', [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_compute_the_same(copied):
    model = build(cfg_of('Stable-DINO', 'fusion')).train()
    images, batch = torch.randn(2, 3, 64, 96), samples((3, 1), (64, 96))
    results = []
    for each in (model, copied(model)):
        torch.manual_seed(1)
        np.random.seed(1)
        results.append(each.loss(images, batch))
    assert results[0].keys() == results[1].keys()
    assert all(torch.equal(loss, results[1][name]) for name, loss in results[0].items())
