"""Published weights by name, from a server on this machine."""

import http.server
import json
import re
import shutil
import threading
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from mmdet.apis import DetInferencer
from mmengine.config import Config
from mmengine.runner.checkpoint import CheckpointLoader

from mmdet_stable.__main__ import main as package_main
from mmdet_stable.shipped import config_folder
from mmdet_stable.weights import WeightsError, named, read
from mmdet_stable.weights.cli import main
from mmdet_stable.weights.configs import text_of
from mmdet_stable.weights.kinds import load_kinds
from tests.weights.fixtures import FILES, tiny_config

NAME = 'tiny-stable-dino'


@contextmanager
def served(folder):
    """An address under which the files of a folder can be downloaded, and what was asked for."""
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def do_GET(self):
            asked.append(self.path)
            super().do_GET()

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f'http://127.0.0.1:{server.server_port}', asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A cache of torch's, a folder to serve, and no proxies."""
    (tmp_path / 'served').mkdir()
    shutil.copy(FILES / 'detrex_stable_dino_tiny.pth', tmp_path / 'served' / 'weights.pth')
    (tmp_path / 'tiny.py').write_text(text_of(tiny_config('detrex_stable_dino_tiny')))
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'cache'))
    monkeypatch.setenv('no_proxy', '*')
    return tmp_path


def entry(url=None, **others):
    others = {'AP': 50.4, 'publisher': 'us', 'licence': 'MIT', 'repository': 'https://example.org', **others}
    return {NAME: named.Named(name=NAME, url=url, **others)}


def fetch(weights, place):
    return named.fetch(NAME, {NAME: weights[NAME]._replace(config=str(place / 'tiny.py'))})


def test_downloaded_converted_and_kept(place, capsys):
    with served(place / 'served') as (address, asked):
        weights = entry(f'{address}/weights.pth')
        kept = fetch(weights, place)
        again = fetch(weights, place)
    assert asked == ['/weights.pth'] and again == kept
    assert kept.checkpoint == place / 'cache' / 'mmdet_stable' / f'{NAME}.pth'
    cfg = Config.fromfile(kept.config)
    assert cfg.model.neck.bias and cfg.model.bbox_head.num_classes == 15
    assert '50.4 AP published by https://example.org (MIT), not measured by us' in capsys.readouterr().err
    record = json.loads(kept.checkpoint.with_suffix('.json').read_text())
    assert len(record['sha256']) == 64


def test_mmengine_loads_it_by_prefix(place, monkeypatch):
    with served(place / 'served') as (address, _):
        weights = {NAME: entry(f'{address}/weights.pth')[NAME]._replace(config=str(place / 'tiny.py'))}
        monkeypatch.setattr(named, 'named_weights', lambda: weights)
        loaded = CheckpointLoader.load_checkpoint(f'published://{NAME}', map_location='cpu')
    assert 'encoder.fusion.fusion.proj.weight' in loaded['state_dict']


@pytest.fixture
def by_name(place, monkeypatch):
    """The only published weights, which are here already."""
    weights = {NAME: entry('http://127.0.0.1:9/weights.pth')[NAME]._replace(config=str(place / 'tiny.py'))}
    monkeypatch.setattr(named, 'named_weights', lambda: weights)
    path = named.download_path(weights[NAME])
    path.parent.mkdir(parents=True)
    shutil.copy(FILES / 'detrex_stable_dino_tiny.pth', path)
    monkeypatch.chdir(place)
    return place


def test_plain_names_are_checkpoints(by_name, capsys):
    """Wherever mmengine loads a checkpoint; a file that is called so is that file."""
    loaded = CheckpointLoader.load_checkpoint(NAME, map_location='cpu')
    assert 'encoder.fusion.fusion.proj.weight' in loaded['state_dict']
    printed = capsys.readouterr().err
    assert '50.4 AP published by https://example.org (MIT), not measured by us' in printed
    assert f'with the config {named.kept_files(NAME).config}' in printed
    torch.save(dict(state_dict=dict(weight=torch.ones(1))), by_name / NAME)
    assert list(CheckpointLoader.load_checkpoint(NAME, map_location='cpu')['state_dict']) == ['weight']


@pytest.mark.parametrize('prefix', ['', 'published://'])
def test_inference_by_name_alone(by_name, prefix):
    """The converted checkpoint holds its config, from which DetInferencer builds the detector."""
    inferencer = DetInferencer(weights=prefix + NAME, device='cpu', show_progress=False)
    assert inferencer.model.neck.convs[0].conv.bias is not None
    assert inferencer.model.dataset_meta['classes'][14] == 'class 14'
    picture = np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)
    assert len(inferencer(picture)['predictions'][0]['scores']) == 300 or inferencer.model.num_queries < 300


def test_unknown_names(by_name, capsys):
    for text in ('tiny-stable-dimo', 'published://tiny-dino'):
        with pytest.raises(WeightsError, match=f'there are no weights of this name; near are {NAME}'):
            CheckpointLoader.load_checkpoint(text, map_location='cpu')
    capsys.readouterr()
    assert main(['--get', 'resnet-50']) == 1 and 'there are no weights of this name' in capsys.readouterr().err
    assert main(['--get', NAME]) == 0
    assert capsys.readouterr().out.split() == [str(path) for path in reversed(named.kept_files(NAME))]
    with pytest.raises(FileNotFoundError, match='there is no such checkpoint'):
        CheckpointLoader.load_checkpoint('tiny-stable-dino.pth', map_location='cpu')  # a file


def test_names_are_converted_like_files(by_name, capsys):
    """To a config of one's own, to another publisher's names, and checked; with what the entry says."""
    assert main([NAME, str(by_name / 'tiny.py'), 'out.pth', '--cfg-options', 'model.test_cfg.nms=None']) == 0
    assert Config.fromfile('out.py').model.test_cfg.nms is None
    assert '50.4 AP published by https://example.org (MIT)' in capsys.readouterr().out
    assert main([NAME, 'detrex.pth', '--to', 'detrex']) == 0
    assert read(by_name / 'detrex.pth').weights.keys() == read(FILES / 'detrex_stable_dino_tiny.pth').weights.keys()
    recorded = str(FILES / 'detrex_stable_dino_tiny_expected.npz')
    assert main([NAME, str(by_name / 'tiny.py'), '--check', recorded]) == 0
    assert main(['tiny-dino', 'other.pth']) == 1
    assert f'near are {NAME}' in capsys.readouterr().err


def test_settings_of_an_entry_count(by_name, monkeypatch):
    weights = named.named_weights()
    settings = {'model.positional_encoding.temperature': 7}
    monkeypatch.setattr(named, 'named_weights', lambda: {NAME: weights[NAME]._replace(settings=settings)})
    assert main([NAME, str(by_name / 'tiny.py'), 'out.pth']) == 0
    assert Config.fromfile('out.py').model.positional_encoding.temperature == 7
    assert Config.fromfile(named.fetch(NAME).config).model.positional_encoding.temperature == 7


def test_hashes(place):
    """Another file than was published, or than the first download, is refused and not kept."""
    with served(place / 'served') as (address, _):
        with pytest.raises(WeightsError, match=r'cannot be downloaded: .*expected "12345678"'):
            fetch(entry(f'{address}/weights.pth', sha256='12345678'), place)
        assert not list((place / 'cache').rglob('*.pth'))
        weights = entry(f'{address}/weights.pth')
        kept = fetch(weights, place)
        for path in (place / 'cache').rglob('*.pth'):
            path.unlink()
        shutil.copy(FILES / 'official_dino_tiny.pth', place / 'served' / 'weights.pth')
        with pytest.raises(WeightsError, match=r'has the SHA-256 .*expected .*the file was deleted'):
            fetch(weights, place)
    assert not kept.checkpoint.exists()


def test_cut_off_downloads_are_not_kept(place):
    whole = (place / 'served' / 'weights.pth').read_bytes()
    (place / 'served' / 'weights.pth').write_bytes(whole[: len(whole) // 2])
    with served(place / 'served') as (address, _):
        weights = entry(f'{address}/weights.pth')
        with pytest.raises(WeightsError, match='run the same command again'):
            fetch(weights, place)
        assert not list((place / 'cache').rglob('*.pth'))
        (place / 'served' / 'weights.pth').write_bytes(whole)
        assert fetch(weights, place).checkpoint.is_file()


def test_without_network(place):
    """The error says what to download, and where to put it; then it works."""
    with served(place / 'served') as (address, _):
        pass
    weights = entry(f'{address}/weights.pth')
    path = named.download_path(weights[NAME])
    with pytest.raises(WeightsError, match=f'(?s)cannot be downloaded.*{address}/weights.pth.*put the file at {path}'):
        fetch(weights, place)
    by_hand = entry(folder='https://example.org/folder', file='weights.pth')
    assert named.download_path(by_hand[NAME]) == path
    with pytest.raises(WeightsError, match=f'only a browser opens https://example.org/folder.*{path}'):
        fetch(by_hand, place)
    shutil.copy(FILES / 'detrex_stable_dino_tiny.pth', path)
    assert fetch(by_hand, place).checkpoint.is_file()


def test_missing_files_on_the_server(place):
    with served(place / 'served') as (address, _), pytest.raises(WeightsError, match=r'cannot be downloaded.*404'):
        fetch(entry(f'{address}/other.pth'), place)


def test_list(place, capsys):
    """Every entry is whole, and the list says that AP are published ones."""
    assert main(['--list']) == 0
    printed = capsys.readouterr().out
    assert 'as published; not measured by us' in printed
    for name, weights in named.named_weights().items():
        assert name in printed and re.match(named.NAME, name) and weights.licence in ('Apache-2.0', 'MIT')
        assert 39 < weights.AP < 60 if weights.AP else 'mIoU' in weights.also
        assert (weights.url or '').startswith('https://') != bool(weights.folder and weights.file)
    with pytest.raises(WeightsError, match='no weights of this name; near are dino-r50-12e, '):
        named.fetch('dino-r50')


def test_every_kind_has_configs():
    for kind in load_kinds().values():
        for configs in kind.configs.values():
            for config in configs.values():
                assert config.startswith('mmdet::') or (config_folder() / config).is_file()


def test_commands_of_the_package(capsys):
    """``python -m mmdet_stable weights`` and ``convert`` are joined to the package's commands."""
    assert package_main(['weights']) == 0 and 'dino-r50-12e' in capsys.readouterr().out
    assert package_main(['convert', 'none.pth', 'out.pth']) == 1 and 'none.pth' in capsys.readouterr().err
