"""From what a user calls a model to its config and its checkpoint."""

import copy
import difflib
from pathlib import Path
from typing import NamedTuple, NoReturn, Optional, Union

from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.utils import import_modules_from_strings

from mmdet_stable.shipped import config as shipped_config
from mmdet_stable.shipped import shipped_configs
from mmdet_stable.utils.work_dir import checkpoint_of, config_beside, saved_config
from mmdet_stable.weights.named import PREFIX, fetch, named_weights

CONFIG_SUFFIXES = ('.py', '.json', '.yml', '.yaml')  # that mmengine reads
Model = Union[str, Path, Config]


class ModelFiles(NamedTuple):
    """A config and the checkpoint that belongs to it.

    Attributes:
        found: whether the config was found by its place, in a work dir or beside a checkpoint, and not named by the
            user. What it names as model or imports can be any code.
    """

    config: Config
    checkpoint: str
    found: bool = False


def find_model(model: Model, checkpoint: Union[str, Path, None] = None) -> ModelFiles:
    """The config and the checkpoint of a model.

    Args:
        model: a config, its file, the name of one of this package's, or ``'mmdet::...'``; a work dir, of which the
            best, otherwise the last whole checkpoint is taken; a checkpoint, beside which its config lies; or the name
            of published weights, also as ``'published://NAME'``, which are downloaded and converted.
        checkpoint: a file, a URL, or ``'published://NAME'``; it replaces the one that would be taken.

    Raises:
        ValueError: for a name that nobody knows, or a folder without a config, or with several.
        FileNotFoundError: where a checkpoint is needed, or is not there.
    """
    given = None if checkpoint is None else _existing(str(checkpoint))
    if isinstance(model, Config):
        given = given or _missing_checkpoint('the config')
        return ModelFiles(copy.deepcopy(model), given)  # as the caller's must not change
    name, path = str(model), Path(model).expanduser()
    if name.startswith(PREFIX) or (name in named_weights() and not path.exists()):
        kept = fetch(name.removeprefix(PREFIX))
        return ModelFiles(Config.fromfile(kept.config), given or str(kept.checkpoint))
    if '://' in name:
        raise ValueError(f'{name}: a URL tells no config; give the config as MODEL, and the URL as --checkpoint')
    if path.is_dir():
        return ModelFiles(saved_config(path), given or checkpoint_of(path), found=True)
    if path.suffix == '.pth':
        given = given or _existing(str(path))
        return ModelFiles(config_beside(path), given, found=True)
    if path.is_file():
        _check_is_config(path)
        return ModelFiles(_config_of_a_model(path), given or _missing_checkpoint(name))
    if '::' in name:
        return _of_a_package(name, given)
    return ModelFiles(Config.fromfile(_by_name(name)), given or _missing_checkpoint(name))


def _config_of_a_model(path: Path) -> Config:
    try:
        config = Config.fromfile(path)
    except SyntaxError as error:
        raise ValueError(f'{path} is no config, as it is no Python: line {error.lineno}: {error.msg}') from error
    if 'model' not in config:
        raise ValueError(f'{path}: has no "model"; give the config of a detector, not a part of one')
    return config


def _check_is_config(path: Path) -> None:
    if path.suffix in CONFIG_SUFFIXES:
        return
    hint = 'an exported file is run by `python -m mmdet_stable.runtime`; ' if path.suffix == '.onnx' else ''
    raise ValueError(
        f'{path} is no config ({", ".join(CONFIG_SUFFIXES)}) and no checkpoint (.pth); {hint}weights in a file of '
        'another name are given by --checkpoint, with their config as the model'
    )


def _of_a_package(name: str, checkpoint: Optional[str]) -> ModelFiles:
    """A config as ``'mmdet::...'``, with the weights that its package publishes for it, where none are given."""
    if '/' not in name.partition('::')[2]:
        raise ValueError(f'{name}: write it like mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py, with folder and file')
    try:
        config = get_config(name, pretrained=checkpoint is None)
    except AssertionError:  # mmengine's, where the package publishes none
        _missing_checkpoint(name)
    return ModelFiles(config, checkpoint or config.get('model_path') or _missing_checkpoint(name))


def _by_name(name: str) -> str:
    """The path of a config of this package."""
    stem = name[: -len('.py')] if name.endswith('.py') else name
    if not any(Path(stem).name == path.stem for path in shipped_configs()):
        known = [*named_weights(), *(path.stem for path in shipped_configs())]
        similar = difflib.get_close_matches(stem, known, n=3)
        hint = f'did you mean {" or ".join(similar)}? ' if similar else ''
        raise ValueError(
            f'{name}: there is no such file or folder, and no config or published weights have this name; {hint}'
            '`python -m mmdet_stable configs` and `python -m mmdet_stable weights` list the names'
        )
    return shipped_config(name)


def _existing(checkpoint: str) -> str:
    path = Path(checkpoint).expanduser()
    if '://' not in checkpoint and not path.is_file():
        raise FileNotFoundError(f'{checkpoint}: there is no such checkpoint')
    return checkpoint if '://' in checkpoint else str(path)


def _missing_checkpoint(what: str) -> NoReturn:
    raise FileNotFoundError(
        f'{what}: a config has no weights; give the checkpoint too, or name a work dir or published weights instead'
    )


def import_custom(config: Config) -> None:
    """Import what a config asks for, as ``Config.fromfile`` does, and reading a saved one does not."""
    if config.get('custom_imports'):
        import_modules_from_strings(**config.custom_imports)
