"""Weights from URLs, here of a server on this machine, and from torch's cache."""

import hashlib
import os
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.runner.checkpoint import CheckpointLoader

from mmdet_stable.engine.downloads import cached_file, fetch, fetch_weights, url_of
from tests.tools.command_line import CONFIG, free_port, options, run
from tests.utils import ROOT


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, text, *args):
        self.server.requests.append(self.path)


@pytest.fixture
def server(tmp_path):
    """Serves ``tmp_path/served`` and notes what was asked for."""
    (tmp_path / 'served').mkdir()
    handler = partial(Handler, directory=str(tmp_path / 'served'))
    with ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        server.requests, server.folder = [], tmp_path / 'served'
        server.url = f'http://127.0.0.1:{server.server_port}'
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache, and no network but to this machine: all else goes to a proxy that is not there."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    for name in ('http_proxy', 'https_proxy', 'HTTP_PROXY', 'HTTPS_PROXY'):
        monkeypatch.setenv(name, f'http://127.0.0.1:{free_port()}')
    for name in ('no_proxy', 'NO_PROXY'):
        monkeypatch.setenv(name, '127.0.0.1')
    return tmp_path / 'torch' / 'hub' / 'checkpoints'


def run_tool(*command, **kwargs):
    """A tool with this test's cache and proxies."""
    names = ('TORCH_HOME', 'http_proxy', 'https_proxy', 'HTTP_PROXY', 'HTTPS_PROXY', 'no_proxy', 'NO_PROXY')
    return run(*command, **kwargs, **{name: os.environ[name] for name in names})


def resnet(base_channels=8, **settings):
    model = MODELS.build(dict(type='ResNet', depth=18, base_channels=base_channels, **settings))
    model.init_weights()
    return model


def published(folder, weights):
    """A file whose name ends with its hash, as torch publishes them."""
    torch.save(weights, folder / 'new.pth')
    digest = hashlib.sha256((folder / 'new.pth').read_bytes()).hexdigest()
    return (folder / 'new.pth').rename(folder / f'resnet-{digest[:16]}.pth')


def test_downloaded_once_and_loaded(server, cache, capsys):
    torch.manual_seed(1)
    trained = resnet()
    url = f'{server.url}/{published(server.folder, trained.state_dict()).name}'
    for _ in range(2):
        loaded = resnet(init_cfg=dict(type='Pretrained', checkpoint=url)).state_dict()
        assert all(value.equal(loaded[name]) for name, value in trained.state_dict().items())
    assert len(server.requests) == 1 and cached_file(url).parent == cache and cached_file(url).exists()
    assert capsys.readouterr().err.count('100%') == 1  # torch's progress bar


def test_a_file_of_another_hash_is_refused(server, cache):
    path = published(server.folder, dict(weight=torch.ones(1)))
    expected = path.stem.split('-')[1]
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(OSError, match='invalid hash value') as error:
        fetch(f'{server.url}/{path.name}')
    assert f'put the file at {cache / path.name}; its SHA-256 begins with {expected}' in str(error.value)
    assert not [file for file in cache.iterdir() if file.suffix == '.pth']


def test_names_that_look_like_a_hash(server):
    """A date and an epoch are none."""
    for name in ('model-20230510.pth', 'model-12e.pth', 'model.pth'):
        torch.save(dict(weight=torch.ones(1)), server.folder / name)
        assert fetch(f'{server.url}/{name}').exists()


class Payload:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def test_downloads_run_no_code(server, tmp_path):
    torch.save(dict(state_dict=Payload(tmp_path / 'ran')), server.folder / 'c.pth')
    with pytest.raises(ValueError, match='asks to run code; nothing of it was run'):
        CheckpointLoader.load_checkpoint(f'{server.url}/c.pth')
    assert not (tmp_path / 'ran').exists()


def test_names_of_torchvision_from_the_cache(cache):
    """Where torchvision would have put the file; its package is not needed."""
    assert url_of('torchvision://resnet50') == 'https://download.pytorch.org/models/resnet50-0676ba61.pth'
    assert url_of('torchvision://resnet101') == 'https://download.pytorch.org/models/resnet101-63fe2227.pth'
    cache.mkdir(parents=True)
    torch.manual_seed(1)
    trained = resnet(base_channels=64).state_dict()
    torch.save(trained, cache / 'resnet18-f37072fd.pth')
    loaded = resnet(base_channels=64, init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet18'))
    assert all(value.equal(loaded.state_dict()[name]) for name, value in trained.items())


@pytest.mark.skipif('torchvision' in sys.modules, reason='torchvision knows more names')
def test_unknown_names_of_torchvision():
    with pytest.raises(
        ValueError, match=r'torchvision://resnet51: known without the torchvision package are .*resnet50'
    ):
        url_of('torchvision://resnet51')


def test_all_that_a_config_loads_is_looked_for(cache, tmp_path):
    cfg = Config.fromfile(ROOT / 'configs' / 'dn_detr' / 'dn_detr_r101_50e.py')
    with pytest.raises(OSError) as error:
        fetch_weights(cfg)
    for part in (
        'model.backbone.init_cfg.checkpoint=torchvision://resnet101: weights cannot be downloaded: ',
        'from:       https://download.pytorch.org/models/resnet101-63fe2227.pth',
        f'put the file at {cache / "resnet101-63fe2227.pth"}; its SHA-256 begins with 63fe2227',
        '--cfg-options model.backbone.init_cfg=None',
    ):
        assert part in str(error.value)
    cfg.model.backbone.init_cfg.checkpoint = str(tmp_path / 'none.pth')
    with pytest.raises(OSError, match=r'init_cfg.checkpoint=.*none.pth: there is no such file'):
        fetch_weights(cfg)
    cfg.model.backbone.init_cfg = None
    fetch_weights(cfg)
    cfg.model.neck.init_cfg = [dict(type='Xavier', layer='Conv2d'), dict(type='Pretrained', checkpoint='none.pth')]
    with pytest.raises(OSError, match=r'model.neck.init_cfg.1.checkpoint=none.pth'):
        fetch_weights(cfg)


@pytest.fixture
def config(tmp_path):
    """The demo with a backbone that loads weights."""

    def write(checkpoint):
        path = tmp_path / 'pretrained.py'
        init_cfg = dict(_delete_=True, type='Pretrained', checkpoint=checkpoint)
        path.write_text(f'_base_ = {str(CONFIG)!r}\nmodel = dict(backbone=dict(init_cfg={init_cfg}))\n')
        return path

    return write


def test_two_processes_download_once(server, config, folder, tmp_path):
    weights = resnet(base_channels=32).state_dict()
    path = config(f'{server.url}/{published(server.folder, weights).name}')
    arguments = ['--work-dir', tmp_path / 'runs', *options(folder)]
    frozen = ['model.backbone.frozen_stages=4', 'optim_wrapper.optimizer.lr=0.0']
    output = run_tool('tools/dist_train.sh', path, 2, *arguments, *frozen, PORT=free_port())
    assert len(server.requests) == 1 and 'coco/bbox_mAP' in output
    trained = torch.load(tmp_path / 'runs' / 'epoch_1.pth')['state_dict']
    assert trained['backbone.layer1.0.conv1.weight'].equal(weights['layer1.0.conv1.weight'])


def test_offline_the_error_comes_before_anything_is_built(cache, config, folder, tmp_path):
    arguments = ['--work-dir', tmp_path / 'runs', *options(folder)]
    output = run_tool(sys.executable, 'tools/train.py', config('torchvision://resnet18'), *arguments, check=False)
    assert 'error: model.backbone.init_cfg.checkpoint=torchvision://resnet18: weights cannot be downloaded' in output
    assert f'put the file at {cache / "resnet18-f37072fd.pth"}' in output and 'init_cfg=None' in output
    assert 'loading annotations' not in output and not list((tmp_path / 'runs').iterdir())
