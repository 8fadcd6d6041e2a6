"""Configs of others are read, and not run."""

import pytest
from mmengine.config import Config

from mmdet_stable.utils.saved_config import read_saved_config
from tests.utils import ROOT


@pytest.mark.parametrize('name', ['demo_digits', 'stable_dino_r50_12e', 'dn_detr/dn_detr_r50_50e'])
def test_what_mmengine_saves(name, tmp_path):
    """The same as mmengine reads by running the file."""
    file = tmp_path / 'saved.py'
    cfg = Config.fromfile(ROOT / 'configs' / f'{name}.py')
    cfg.odd = dict(dict_of={'a.b': 1, 'c': [dict(x=(1, -2.5))], 3: {}}, none=None, empty=(), text='a\\n"\'{{ x }}')
    cfg.dump(file)
    assert read_saved_config(file).to_dict() == Config.fromfile(file, use_predefined_variables=False).to_dict()
    assert read_saved_config(file).filename == str(file)


@pytest.mark.parametrize(
    'line',
    [
        'import os',
        'x = open("ran", "w")',
        'x = dict(a=[__import__("os").mkdir("ran")])',
        'x = dict(open("ran", "w"))',
        'x = {**dict(a=1)}',
        'x = dict(**dict(a=1))',
        'x = [open("ran", "w") for _ in range(1)]',
        "x = f\"{open('ran', 'w')}\"",
        'x = y = 1',
        'x.y = 1',
        'x += 1',
        'open("ran", "w")',
        'with open("ran", "w"): pass',
        'x = inf',
    ],
)
def test_anything_else_is_refused(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / 'saved.py'
    file.write_text(f'a = 1\n{line}\n')
    with pytest.raises(ValueError, match=f'{file}, line 2: not a plain value'):
        read_saved_config(file)
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    'text', [b'x = (', b'x = {[1]: 2}', b'text = 1', b'\xff\xfe', b'x = 1\0', b'x = ' + b'[' * 5000 + b']' * 5000]
)
def test_broken_files(text, tmp_path):
    file = tmp_path / 'saved.py'
    file.write_bytes(text)
    with pytest.raises(ValueError):
        read_saved_config(file)
