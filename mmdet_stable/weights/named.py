"""Published weights by name: downloaded from their publisher, checked, converted once, and kept."""

import difflib
import hashlib
import json
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any, Dict, Mapping, NamedTuple, Optional, Union

import torch
import yaml
from mmengine.dist import barrier, get_dist_info
from mmengine.runner.checkpoint import CheckpointLoader

from mmdet_stable.engine.downloads import download_once
from mmdet_stable.engine.safe_loading import load_from_local
from mmdet_stable.utils.files import write_whole

from .conversion import convert
from .errors import DamagedError, WeightsError
from .rules import FOLDER

PREFIX = 'published://'
NAME = r'[a-z0-9]+(?:-[a-z0-9]+)+\Z'  # what every name looks like; no path of a checkpoint does, as they have suffixes
VERSION = 2  # of conversion; kept files of another one are made anew


class Named(NamedTuple):
    """Published weights that have a name here."""

    name: str
    publisher: str
    licence: str  # of the publisher's repository
    repository: str
    AP: Optional[float] = None  # of boxes on COCO val2017, in points, as published
    also: str = ''  # what else is published, e.g. mask AP
    url: Optional[str] = None
    folder: Optional[str] = None  # instead of the URL, where only a browser can download
    file: Optional[str] = None
    sha256: Optional[str] = None  # its first digits, where published
    config: Optional[str] = None  # to convert to; None for the one that fits
    dc5: Optional[bool] = None
    settings: Mapping[str, Any] = {}  # that the weights need and do not show

    @property
    def source(self) -> str:
        return self.url or f'{self.folder}/{self.file}'

    @property
    def published(self) -> str:
        """What the publisher reports, in words."""
        return ', '.join(([] if self.AP is None else [f'{self.AP} AP']) + ([self.also] if self.also else []))


class Kept(NamedTuple):
    """Weights that are converted and ready."""

    checkpoint: Path
    config: Path


@cache
def named_weights(path: Path = FOLDER / 'named.yml') -> Dict[str, Named]:
    """All weights by name."""
    data = yaml.safe_load(Path(path).read_text(encoding='utf-8'))
    return {
        name: Named(name=name, **data['publishers'][entry['publisher']], **entry)
        for name, entry in data['weights'].items()
    }


def fetch(name: str, weights: Optional[Mapping[str, Named]] = None) -> Kept:
    """Weights by name, from the cache or from their publisher.

    The published file goes to ``checkpoints/`` in torch's cache (``torch.hub.get_dir()``), where it may be deleted; the
    converted one and its config to ``mmdet_stable/`` beside it.

    Raises:
        WeightsError: for an unknown name; without network, naming URL and place; where the file is another than was
            published, or than was downloaded before.
    """
    entry = find(name, weights)
    kept = kept_files(name)
    record_file = kept.checkpoint.with_suffix('.json')
    record = json.loads(record_file.read_text()) if record_file.is_file() else {}
    up_to_date = record.get('version') == VERSION and record.get('source') == entry.source
    if up_to_date and kept.checkpoint.is_file() and kept.config.is_file():
        return kept
    path = download(entry)
    digest = _sha256(path)
    try:
        report = convert(path, kept.checkpoint, entry.config, dc5=entry.dc5, settings=entry.settings)
    except DamagedError as error:
        path.unlink()
        raise DamagedError(f'{error}. It was deleted: run the same command again') from error
    _say(str(report))
    _say(f'{name}: {entry.published} published by {entry.repository} ({entry.licence}), not measured by us')
    write_whole(record_file, json.dumps(dict(version=VERSION, source=entry.source, sha256=digest)))
    return kept


def _say(text: str) -> None:
    """To people, not to what reads the paths that a command prints."""
    print(text, file=sys.stderr)


def find(name: str, weights: Optional[Mapping[str, Named]] = None) -> Named:
    """The entry of a name.

    Raises:
        WeightsError: for an unknown name, with those that are like it.
    """
    weights = named_weights() if weights is None else weights
    if name in weights:
        return weights[name]
    near = [other for other in weights if other.startswith(name)] + difflib.get_close_matches(name, weights, 6, 0.5)
    near += [other for other in weights if other.startswith(name.split('-')[0])]
    words = f'near are {", ".join(list(dict.fromkeys(near))[:8])}' if near else f'known are {", ".join(weights)}'
    raise WeightsError(
        f'{name}: there is no such file, and there are no weights of this name; {words}. '
        '`python -m mmdet_stable weights` lists all'
    )


def entry_of(source: Union[str, Path]) -> Optional[Named]:
    """The published weights that a plain name, or ``published://NAME``, stands for; None for a file.

    Raises:
        WeightsError: for what looks like a name, but is none, nor a file.
    """
    text = str(source)
    if text.startswith(PREFIX):
        return find(text[len(PREFIX) :])
    return find(text) if re.match(NAME, text) and not Path(text).exists() else None


def kept_files(name: str) -> Kept:
    """Where converted weights and their config are kept."""
    folder = Path(torch.hub.get_dir()) / 'mmdet_stable'
    return Kept(folder / f'{name}.pth', folder / f'{name}.py')


def download_path(entry: Named) -> Path:
    """Where the published file is kept, or to be put by hand."""
    file = entry.file or str(entry.url).rsplit('/', 1)[-1]
    return Path(torch.hub.get_dir()) / 'checkpoints' / f'{entry.publisher}-{file}'


def download(entry: Named) -> Path:
    """The published file, from torch's cache or its publisher, compared with the hash that is known.

    Raises:
        WeightsError: see :func:`fetch`.
    """
    path = _downloaded(entry)
    record_file = kept_files(entry.name).checkpoint.with_suffix('.json')
    record = json.loads(record_file.read_text()) if record_file.is_file() else {}
    expected = entry.sha256 or (record.get('sha256') if record.get('source') == entry.source else None)
    if expected and not (digest := _sha256(path)).startswith(expected):
        path.unlink()
        raise WeightsError(
            f'{entry.name}: {entry.source} has the SHA-256 {digest[:16]}..., expected {expected[:16]}...; the file was '
            f'deleted. Try again, or tell {entry.repository}'
        )
    return path


def _downloaded(entry: Named) -> Path:
    path = download_path(entry)
    if path.is_file():  # perhaps put there by hand
        return path
    if entry.url is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        raise WeightsError(
            f'{entry.name}: only a browser opens {entry.folder}. Download {entry.file} there, and put it to {path}'
        )
    try:
        download_once(entry.url, path, entry.sha256)
    except OSError as error:
        raise WeightsError(f'{entry.name}: {error}') from None
    return path


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while part := file.read(2**22):
            digest.update(part)
    return digest.hexdigest()


@CheckpointLoader.register_scheme(prefixes=PREFIX)
def load_from_published(filename: str, map_location: Union[str, torch.device, None] = None) -> dict:
    """What mmengine loads for ``published://NAME``: in ``load_from``, for ``DetInferencer``, in our tools."""
    name = filename[len(PREFIX) :] if filename.startswith(PREFIX) else filename
    rank, processes = get_dist_info()
    if rank == 0:
        kept = fetch(name)
        _say(f'{name} computes what was published with the config {kept.config}')
    if processes > 1:
        barrier()
    return load_from_local(str(kept_files(name).checkpoint), map_location)


@CheckpointLoader.register_scheme(prefixes=NAME)  # a regular expression, as mmengine takes all prefixes
def load_from_name(filename: str, map_location: Union[str, torch.device, None] = None) -> dict:
    """What mmengine loads for a plain name: a file that is called so, or else published weights."""
    if Path(filename).expanduser().exists():
        return load_from_local(filename, map_location)
    return load_from_published(filename, map_location)


def table() -> str:
    """All names, what their publishers report, and whether they are here already."""
    lines = [f'{"name":42} {"AP*":>5}  {"publisher":9} {"licence":10} ']
    for name, entry in named_weights().items():
        here = 'here' if kept_files(name).checkpoint.is_file() else 'by hand' if entry.url is None else ''
        box_ap = '' if entry.AP is None else f'{entry.AP:.1f}'
        lines.append(f'{name:42} {box_ap:>5}  {entry.publisher:9} {entry.licence:10} {here:7} {entry.also}')
    lines.append('* of boxes on COCO val2017; all as published; not measured by us')
    lines.append('A name does wherever a checkpoint is asked for, e.g. --cfg-options load_from=NAME')
    return '\n'.join(line.rstrip() for line in lines)
