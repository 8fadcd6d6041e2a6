import pytest

from mmdet_stable.datasets import write_digit_scenes


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('tools')
    write_digit_scenes(folder / 'scenes', num_train=8, num_val=4)
    return folder
