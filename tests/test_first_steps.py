"""The notebook of first steps runs from top to bottom, shortened, and shows what it promises."""

import json

from PIL import Image

from tests.utils import ROOT

NOTEBOOK = json.loads((ROOT / 'docs' / 'first_steps.ipynb').read_text())


def test_the_cells_run_in_order(tmp_path, monkeypatch):
    """With 8 scenes and an epoch."""
    code = [''.join(cell['source']) for cell in NOTEBOOK['cells'] if cell['cell_type'] == 'code']
    sizes = 'num_train, num_val, epochs = 800, 100, 7'
    assert sizes in code[0]
    code[0] = code[0].replace(sizes, 'num_train, num_val, epochs = 8, 4, 1')
    monkeypatch.chdir(tmp_path)
    namespace = {}
    for cell in code:
        exec(compile(cell, 'first_steps.ipynb', 'exec'), namespace)
    assert namespace['drawn'].shape == (128, 160, 3) and len(namespace['outcomes']) == 4
    assert namespace['scores']['bbox'].metrics['AP'] >= 0
    assert Image.open(tmp_path / 'first_steps' / 'evaluation' / 'reliability.png').width > 300


def test_it_is_saved_without_outputs():
    assert not any(cell.get('outputs') or cell.get('execution_count') for cell in NOTEBOOK['cells'])
