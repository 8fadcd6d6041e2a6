"""Where an image cannot be loaded, the error names its file."""

import cv2
import numpy as np
import pytest
from mmdet.registry import TRANSFORMS

from mmdet_stable.datasets import NamingInferencerLoader
from mmdet_stable.datasets.loading import named

GOOD = cv2.imencode('.png', np.zeros((30, 40, 3), np.uint8))[1].tobytes()


@pytest.fixture
def loader():
    """As mmdet's DetInferencer builds it."""
    loader = TRANSFORMS.build(dict(type='mmdet.InferencerLoader'))
    assert type(loader) is NamingInferencerLoader
    return loader


@pytest.mark.parametrize('wrap', [str, lambda path: dict(img_path=str(path))], ids=['path', 'dict'])
@pytest.mark.parametrize(
    'content,message',
    [
        (b'', r'the file is empty \(0 bytes\); write the file again'),
        (b'no image', 'cannot identify image file; write the file again'),
        (None, 'FileNotFoundError'),
    ],
    ids=['empty', 'text', 'missing'],
)
def test_broken_images_of_an_inferencer(loader, tmp_path, wrap, content, message):
    path = tmp_path / 'street.png'
    path.write_bytes(GOOD)
    assert loader(wrap(path))['img'].shape == (30, 40, 3)
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=rf'street.png: {message}') as caught:
        loader(wrap(path))
    assert str(caught.value).startswith(str(path)) and caught.value.__cause__ is not None


def test_images_in_memory(loader):
    assert loader(np.zeros((30, 40, 3), np.uint8))['img'].shape == (30, 40, 3)
    with pytest.raises(KeyError), named(None):
        raise KeyError('as it is')
