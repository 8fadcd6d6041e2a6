"""Class names in scripts that matplotlib's own font does not have: drawn where a font is installed, else warned of."""

import io
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from mmdet.structures import DetDataSample
from mmdet.visualization import DetLocalVisualizer
from mmengine.structures import InstanceData

import mmdet_stable
from mmdet_stable.evaluation.detections import Boxes
from mmdet_stable.visualization import fonts
from mmdet_stable.visualization.detections import plot_truth
from tests.inference.models import noise, saved, small

CAT, DOG, BIRD = '\N{CJK UNIFIED IDEOGRAPH-732B}', '\N{CJK UNIFIED IDEOGRAPH-72AC}', '\N{CJK UNIFIED IDEOGRAPH-9CE5}'
HAND = '\N{HANGUL SYLLABLE SON}'
LATIN = ''.join(map(chr, range(32, 127)))


def write_font(path: Path, name: str, characters: str) -> None:
    """A font whose characters are all the same, a low bar, unlike the square of a missing one."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 150), (900, 150), (900, 0)):
        pen.lineTo(corner)
    pen.closePath()
    bar, empty = pen.glyph(), TTGlyphPen(None).glyph()
    names = {ord(one): f'uni{ord(one):04X}' for one in characters}
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(['.notdef', *names.values()])
    builder.setupCharacterMap(names)
    builder.setupGlyf({'.notdef': empty, **dict.fromkeys(names.values(), bar)})
    builder.setupHorizontalMetrics(dict.fromkeys(['.notdef', *names.values()], (1000, 0)))
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    builder.setupNameTable(dict(familyName=name, styleName='Regular'))
    builder.setupOS2(sTypoAscender=900, usWinAscent=900, usWinDescent=100)
    builder.setupPost()
    builder.save(path)


def forget():
    for function in (fonts._fonts_for, fonts._characters, fonts._warn_of):
        function.cache_clear()
    font_manager.fontManager._findfont_cached.cache_clear()


@pytest.fixture
def installed(monkeypatch):
    """The fonts that matplotlib brings, whatever this machine has; a test may add others."""
    manager = font_manager.fontManager
    own = Path(font_manager.__file__).parent
    monkeypatch.setattr(manager, 'ttflist', [one for one in manager.ttflist if own in Path(one.fname).parents])
    forget()
    yield manager
    forget()


def test_names_that_need_no_other_font(installed, recwarn):
    assert fonts.fallback_fonts(f'{LATIN} \u00e4\u00e9 \N{BALLOT X}\n') == [] and not recwarn


def test_the_fewest_fonts_that_have_the_characters(installed, tmp_path, recwarn):
    for name, characters in (('Cats', CAT), ('Animals', CAT + DOG), ('Hands', HAND), ('Last Resort', CAT + DOG + HAND)):
        write_font(tmp_path / f'{name}.ttf', name, characters)
        installed.addfont(tmp_path / f'{name}.ttf')
    assert fonts.fallback_fonts(f'a {CAT}{DOG} 1') == ['Animals']
    assert fonts.fallback_fonts(CAT + DOG + HAND) == ['Animals', 'Hands']
    assert not recwarn
    (tmp_path / 'Animals.ttf').unlink()
    forget()
    assert fonts.fallback_fonts(CAT) == ['Cats']


def test_without_a_font_it_is_said_once_for_each_script(installed, recwarn):
    for _ in range(2):
        assert fonts.fallback_fonts(CAT + DOG + HAND) == []
    said = [str(warning.message) for warning in recwarn]
    assert len(said) == 2 and 'fonts-noto-cjk' in said[0]
    assert re.match(rf"no font that matplotlib knows has '{DOG}' \(CJK\)", said[0]) and '(HANGUL)' in said[1]


def figure(name):
    """The ground truth of a black image, whose one object is called so."""
    memory = io.BytesIO()
    plot_truth(np.zeros((60, 90, 3), np.uint8), Boxes(np.array([[5, 5, 80, 50.0]]), np.array([0])), [name], memory)
    return cv2.imdecode(np.frombuffer(memory.getvalue(), np.uint8), cv2.IMREAD_COLOR)


def test_figures(installed, tmp_path, recwarn):
    """With the font, two such names look alike, as its characters do; without it, matplotlib's warning is not heard."""
    square = figure(CAT)
    assert [str(warning.message).split(' has ')[0] for warning in recwarn] == ['no font that matplotlib knows']
    write_font(tmp_path / 'Animals.ttf', 'Animals', CAT + DOG)
    installed.addfont(tmp_path / 'Animals.ttf')
    forget()
    assert (figure(CAT) != square).any() and (figure(CAT) == figure(DOG)).all()
    assert (figure(f'7 {CAT}') != figure(f'8 {CAT}')).any()  # matplotlib's own font comes first


def test_dollar_signs_are_no_mathematics():
    assert (figure('$^$') != figure('')).any()


def test_drawings_of_the_detector(installed, tmp_path):
    """By mmdet's visualiser, whose font is sans-serif, and stays that for others."""
    cfg = small('demo_digits.py')
    detector = mmdet_stable.load(cfg, saved(cfg, tmp_path), 'cpu')
    instances = InstanceData(
        bboxes=torch.tensor([[20.0, 30, 70, 50]]), scores=torch.ones(1), labels=torch.zeros(1).long()
    )
    sample = DetDataSample(pred_instances=instances)

    def drawn(name):
        meta = dict(classes=(name, *'123456789'), palette=[(255, 0, 0)] * 10)
        detector.model.dataset_meta = detector.inferencer.visualizer.dataset_meta = meta
        return detector.draw(noise(), sample)

    assert isinstance(detector.inferencer.visualizer, DetLocalVisualizer)
    latin = drawn('a')
    with pytest.warns(UserWarning, match='no font that matplotlib knows'):
        square = drawn(BIRD)
    write_font(tmp_path / 'Animals.ttf', 'Animals', LATIN + CAT + DOG)
    installed.addfont(tmp_path / 'Animals.ttf')
    forget()
    assert (drawn(CAT) != square).any() and (drawn(CAT) == drawn(DOG)).all()
    assert (drawn('a') == latin).all()
