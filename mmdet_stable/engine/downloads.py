"""Weights that configs name by ``torchvision://`` or a URL: downloaded once, checked, and loaded like any other file.

mmengine imports torchvision only to find URLs, and unpickles downloads without torch's safe loader. Here neither
happens. Files lie where torch keeps them, so that what is there already is used.
"""

import json
import re
from importlib import resources, util
from pathlib import Path
from typing import Any, Iterator, Optional, Tuple
from urllib.parse import urlparse

import torch
from filelock import FileLock
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.model import PretrainedInit
from mmengine.runner.checkpoint import get_torchvision_models

from .safe_loading import load_from_local

TORCHVISION = re.compile(r'(?:torchvision|modelzoo)://')
HTTP = re.compile(r'https?://')
# The beginning of the file's SHA-256, where torch and mmdet write it. Without a letter it may be a date.
HASH = re.compile(r'-(?=\d*[a-f])([0-9a-f]{8,})\.')


def load_from_torchvision(filename: str, map_location: Any = None) -> dict:
    """Load ``torchvision://NAME``, without the torchvision package."""
    return load_from_http(url_of(filename), map_location)


def load_from_http(filename: str, map_location: Any = None) -> dict:
    """Load a URL, from torch's cache where it is there.

    Raises:
        OSError: if it is not there and cannot be downloaded.
        ValueError: as :func:`load_from_local`.
    """
    return load_from_local(str(fetch(filename)), map_location)


def url_of(checkpoint: str) -> str:
    """The URL behind ``torchvision://NAME``; any other URL as it is.

    Raises:
        ValueError: for a name that nobody knows.
    """
    if not TORCHVISION.match(checkpoint):
        return checkpoint
    name = checkpoint.split('://', 1)[1]
    urls = json.loads((resources.files('mmengine') / 'hub' / 'torchvision_0.12.json').read_text())
    if name not in urls and util.find_spec('torchvision'):
        urls = get_torchvision_models()  # with the newer names
    if name not in urls:
        raise ValueError(
            f'{checkpoint}: known without the torchvision package are {", ".join(urls)}. Install torchvision, or '
            'give the path of a file'
        )
    return urls[name]


def cached_file(url: str) -> Path:
    """Where torch keeps the file of a URL: in ``checkpoints`` of ``torch.hub.get_dir()``."""
    return Path(torch.hub.get_dir()) / 'checkpoints' / Path(urlparse(url).path).name


def fetch(url: str) -> Path:
    """The file of a URL in torch's cache, downloaded and compared with the hash in its name unless it is there.

    Raises:
        OSError: as :func:`download_once`.
    """
    path = cached_file(url)
    digest = HASH.search(path.name)
    download_once(url, path, digest and digest[1])
    return path


def download_once(url: str, path: Path, sha256: Optional[str] = None) -> None:
    """Download a file with torch's progress bar, unless it is there.

    Processes that want the same file wait for the one that downloads it, also those of another training.

    Args:
        sha256: its first digits, where they are known.

    Raises:
        OSError: if it cannot be downloaded, or has another hash; nothing is kept then, and the error says what to do.
    """
    if path.exists():
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f'.{path.name}.lock')):
            if not path.exists():
                print_log(f'downloading {url} to {path}', 'current')
                torch.hub.download_url_to_file(url, str(path), sha256)
    except (OSError, RuntimeError) as error:  # the latter for a wrong hash
        sha = f'; its SHA-256 begins with {sha256}' if sha256 else ''
        raise OSError(
            f'weights cannot be downloaded: {error}\n  from:       {url}\n  by hand:    put the file at {path}{sha}'
        ) from None  # which says nothing more, in some fifty lines


def fetch_weights(cfg: Config) -> None:
    """Download all that a training will load, and look for its files, before anything is built.

    Raises:
        OSError: naming key, URL and place of the first that is not to be had, and how to do without it.
    """
    for key, checkpoint in pretrained(cfg.model, 'model'):
        try:
            if TORCHVISION.match(checkpoint) or HTTP.match(checkpoint):
                fetch(url_of(checkpoint))
            elif '://' not in checkpoint and not Path(checkpoint).expanduser().is_file():
                raise FileNotFoundError('there is no such file')
        except (OSError, ValueError) as error:
            raise OSError(
                f'{key}.checkpoint={checkpoint}: {error}\n'
                f'  without it: --cfg-options {key}=None starts from random weights'
            ) from None
    load_from = cfg.get('load_from') or ''
    if HTTP.match(load_from):
        fetch(load_from)


def pretrained(node: object, key: str) -> Iterator[Tuple[str, str]]:
    """The ``init_cfg`` of a model's parts that load weights, with their keys, and what they load."""
    if isinstance(node, dict):
        if node.get('type') in ('Pretrained', PretrainedInit) and isinstance(node.get('checkpoint'), str):
            yield key, node['checkpoint']
        for name, value in node.items():
            yield from pretrained(value, f'{key}.{name}')
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            yield from pretrained(value, f'{key}.{index}')
