import pytest

from mmdet_stable.utils.words import counted


@pytest.mark.parametrize(
    'number,noun,text',
    [(1, 'box', '1 box'), (2, 'box', '2 boxes'), (0, 'image', '0 images'), (3, 'class', '3 classes')],
)
def test_counted(number, noun, text):
    assert counted(number, noun) == text
