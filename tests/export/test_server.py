"""The example server, asked by a real client."""

import importlib.util
import io
import sys

import numpy as np
import pytest
from PIL import Image

from mmdet_stable.export.exporting import write_runtime
from mmdet_stable.runtime import Detector
from tests.utils import ROOT

pytest.importorskip('fastapi')
pytest.importorskip('httpx')
pytest.importorskip('multipart')


@pytest.fixture(scope='module')
def server(dino, tmp_path_factory):
    """The server's file, which finds the runtime as `export --with-runtime` writes it."""
    folder = tmp_path_factory.mktemp('deployed')
    write_runtime(folder)
    sys.path.insert(0, str(folder))
    spec = importlib.util.spec_from_file_location('server', ROOT / 'examples' / 'server.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(str(folder))
    for name in [name for name in sys.modules if name.startswith('mmdet_stable_runtime')]:
        del sys.modules[name]


@pytest.fixture(scope='module')
def client(server, dino):
    from fastapi.testclient import TestClient

    return TestClient(server.create_app(str(dino.path)))


def png(height=40, width=60):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, 'png')
    return content.getvalue()


def test_the_page(client):
    answer = client.get('/')
    assert answer.status_code == 200 and 'Drop a picture' in answer.text


def test_detections_are_the_runtimes(client, dino):
    answer = client.post('/detect?threshold=0', files=[('pictures', ('a.png', png())), ('pictures', ('b.txt', b'no'))])
    assert answer.status_code == 200
    good, bad = answer.json()
    assert good == dict(picture='a.png', detections=Detector(dino.path)(png()).records())
    assert len(good['detections']) == 15 and 'not a picture' in bad['error']


def test_limits(client, server, monkeypatch):
    many = [('pictures', (f'{number}.png', png())) for number in range(server.MOST_PICTURES + 1)]
    assert client.post('/detect', files=many).status_code == 400
    assert client.post('/detect').status_code in (400, 411)
    assert client.post('/detect', data=dict(text='x')).status_code == 400
    assert client.post('/detect?threshold=2', files=many[:1]).status_code == 422
    monkeypatch.setattr(server, 'MOST_BYTES', 1000)
    assert client.post('/detect', files=many[:1]).status_code == 413
    assert client.post('/detect', content=iter([b'x'] * 10)).status_code == 411  # of unknown length


def test_a_bomb(client, server):
    """Few bytes that would become many pixels."""
    content = io.BytesIO()
    Image.new('L', (20000, 3000)).save(content, 'png')
    (answer,) = client.post('/detect', files=[('pictures', ('bomb.png', content.getvalue()))]).json()
    assert '20000 x 3000 pixels' in answer['error']
