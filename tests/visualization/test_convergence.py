import cv2
import pytest

from mmdet_stable.visualization import plot_convergence


def test_plot(tmp_path):
    path = tmp_path / 'plot.png'
    plot_convergence({'a': [{1: 10.0, 2: 20.0}, {1: 12.0, 2: 24.0, 3: 30.0}], 'b': [{2: 5.0}], 'c': []}, path, 'title')
    assert cv2.imread(str(path)).shape == (750, 1200, 3)


def test_nothing_to_plot(tmp_path):
    with pytest.raises(ValueError, match='no run was validated yet'):
        plot_convergence({'a': []}, tmp_path / 'plot.png')
