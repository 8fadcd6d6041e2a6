"""Models with the data that they are evaluated on."""

import pytest

from mmdet_stable.evaluation import load_subject
from tests.inference.models import saved, small


def test_weights_of_another_model_are_refused(tmp_path):
    """Also by mmdet's own detectors, whose figures would be those of random weights."""
    checkpoint = saved(small('demo_digits.py'), tmp_path)
    cfg = small('mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py')
    with pytest.raises(ValueError, match='weights of the checkpoint do not fit the model'):
        load_subject('dino', cfg, checkpoint, 'cpu')
