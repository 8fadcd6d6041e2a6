"""Reads files of weights, of every kind in which detectors are published, without running anything that is in them."""

import collections
import contextlib
import json
import pickle
import pickletools
import warnings
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Dict, Iterator, List, Mapping, Tuple

import numpy as np
import torch
from torch import Tensor
from torch.serialization import get_safe_globals, safe_globals

from mmdet_stable.engine.safe_globals import allow_mmengine_checkpoints
from mmdet_stable.utils.checkpoint import WEIGHT_KEYS

from .errors import DamagedError, WeightsError

WEIGHTS = (*WEIGHT_KEYS, 'params', 'model_state_dict', 'net', 'weights', 'module')
AVERAGED = ('ema_model', 'ema_state', 'model_ema', 'params_ema', 'state_dict_ema', 'ema')
PREFIXES = ('module.', '_orig_mod.', 'model.')  # HuggingFace's names begin with the last, but not all of them
AVERAGES_COUNT = ('n_averaged', 'steps')  # numbers that averaging keeps beside the weights
LEGACY = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)  # what files of torch before 1.6 start with
# Python's own classes of plain data. Nothing else of these modules is ever data.
PLAIN = {
    f'builtins.{name}'
    for name in (
        *('bool', 'bytearray', 'bytes', 'complex', 'dict', 'float', 'frozenset', 'int', 'list', 'object', 'range'),
        *('set', 'slice', 'str', 'tuple', 'type'),
    )
}
NEVER_DATA = {
    *('asyncio', 'builtins', 'code', 'codeop', 'ctypes', 'importlib', 'multiprocessing', 'nt', 'os', 'pdb', 'pickle'),
    *('pkgutil', 'platform', 'posix', 'pty', 'runpy', 'shutil', 'socket', 'subprocess', 'sys', 'timeit', 'webbrowser'),
}
SAFETENSORS = {
    'F64': torch.float64,
    'F32': torch.float32,
    'F16': torch.float16,
    'BF16': torch.bfloat16,
    'I64': torch.int64,
    'I32': torch.int32,
    'I16': torch.int16,
    'I8': torch.int8,
    'U8': torch.uint8,
    'BOOL': torch.bool,
}


@dataclass(frozen=True)
class Published:
    """What a file holds: weights by name, and what helps to understand them."""

    path: Path
    weights: Dict[str, Tensor]
    taken: str = ''  # key of the container that the weights come from; '' for a bare dict
    others: Tuple[str, ...] = ()  # further keys that hold weights, e.g. moving averages
    args: Dict[str, Any] = field(default_factory=dict)  # command line of the training, where the file keeps it
    meta: Dict[str, Any] = field(default_factory=dict)  # of mmengine's checkpoints
    inert: Tuple[str, ...] = ()  # classes whose objects were taken as data


class Inert:
    """In place of every class that is not loaded: an ordered dict that holds what the file says about the object.

    Its attributes are those of the object, ``inert_arguments`` what its class would have been called with.
    """

    def __new__(cls, *arguments: Any, **_: Any) -> Any:
        data: Any = collections.OrderedDict()
        data.inert_arguments = arguments
        return data


def read(path: Path, averaged: bool = False) -> Published:
    """Read the weights of a file of torch (of any age), safetensors, or a pickle of numpy arrays (detectron2).

    Nothing in the file is called: objects of unknown classes, as a namespace of command line arguments or a config,
    become plain data.

    Args:
        path: the file.
        averaged: take the moving average of the weights, where the file holds one besides the weights.

    Raises:
        FileNotFoundError: if there is no such file.
        DamagedError: if the file is damaged, or no file of weights.
        WeightsError: if it asks to call what is no data, or holds no weights.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f'{path}: there is no such file')
    with open(path, 'rb') as file:
        start = file.read(32)
    if zipfile.is_zipfile(path) or start.startswith(LEGACY):
        content, inert = _read_torch(path, start)
    elif start[8:9] == b'{':
        content, inert = _read_safetensors(path), ()
    elif start[:1] == b'\x80':
        content, inert = _read_pickle(path)
    elif start.startswith(b'PK'):
        raise DamagedError(f'{path} is cut off: the end of its archive is missing. Copy or download it again')
    else:
        raise DamagedError(
            f'{path} starts with {start[:8]!r}: it is no file of torch, safetensors, or a pickle of arrays. Where it '
            'was downloaded, look at it: an error page of a web site, or an archive to be unpacked first?'
        )
    return _chosen(path, content, averaged, inert)


def _read_torch(path: Path, start: bytes) -> Tuple[Any, Tuple[str, ...]]:
    """By torch's safe loader, which calls only what is allow-listed; for all else, :class:`Inert` is."""
    unknown = _unknown_globals(path, start)
    mmap = not start.startswith(LEGACY)  # does not read tensors that nobody looks at
    try:
        with safe_globals([(Inert, name) for name in unknown]), warnings.catch_warnings():
            warnings.simplefilter('ignore', UserWarning)  # that pickles of another protocol may not be readable
            content = torch.load(path, map_location='cpu', weights_only=True, mmap=mmap)
        return content, tuple(name for name in unknown if name.split('.')[0] not in ('torch', 'collections', '_codecs'))
    except pickle.UnpicklingError as error:
        if 'Unsupported operand' in str(error):
            raise WeightsError(
                f"{path} is pickled by a newer protocol than torch's safe loader reads; nothing of it was run. Write "
                'it again by torch.save without pickle_protocol'
            ) from error
        raise WeightsError(
            f'{path} cannot be read without running code that is in it ({_first_line(error)}); nothing of it was run. '
            'Take the weights from whoever wrote it as a plain dict of tensors'
        ) from error
    except Exception as error:  # whatever torch meets in a damaged file
        raise DamagedError(f'{path} is cut off or damaged ({_first_line(error)}). Copy or download it again') from error


def _unknown_globals(path: Path, start: bytes) -> Tuple[str, ...]:
    """The classes and functions that a file of torch names, and torch's safe loader does not know.

    Raises:
        WeightsError: where one of them is no class of data.
    """
    allow_mmengine_checkpoints()
    known = {entry[1] if isinstance(entry, tuple) else _full_name(entry) for entry in get_safe_globals()}
    # Torch's own classes come first where it knows a name itself, so that a stand-in for these does nothing.
    unknown = sorted({name for name in _globals(path, start) if name not in known})
    for name in unknown:
        _refuse_code(path, name)
    return tuple(unknown)


def _full_name(known: Any) -> str:
    return f'{known.__module__}.{known.__qualname__}'


def _refuse_code(path: Path, name: str) -> None:
    if name.split('.')[0] in NEVER_DATA and name not in PLAIN:
        raise WeightsError(
            f'{path} asks to call {name}, which no file of weights needs; nothing of it was run. Do not use this file'
        )


def _globals(path: Path, start: bytes) -> Iterator[str]:
    """``module.name`` of all classes and functions that the pickles of a file of torch name, in Python 3's words."""
    try:
        if start.startswith(LEGACY):
            with open(path, 'rb') as file:
                yield from _globals_of_pickles(file, 4)  # magic number, version, system, content
            return
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith('data.pkl')]
            if not names:
                raise WeightsError(f'{path} is an archive without data of torch.save; unpack it, or take another file')
            with archive.open(names[0]) as file:
                yield from _globals_of_pickles(file, 1)
    except WeightsError:
        raise
    except Exception as error:  # whatever pickletools meets in a damaged file
        raise DamagedError(f'{path} is cut off or damaged ({_first_line(error)}). Copy or download it again') from error


def _globals_of_pickles(file: IO[bytes], number: int) -> Iterator[str]:
    for _ in range(number):
        for opcode, argument, _ in pickletools.genops(file):
            if opcode.name in ('GLOBAL', 'INST'):
                module, name = str(argument).split(' ', 1)
                module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
                yield f'{module}.{name}'


class _ArrayUnpickler(pickle.Unpickler):
    """Reads pickles of numpy arrays; everything else that they name becomes :class:`Inert`."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        super().__init__(file, encoding='latin1')  # as numpy asks for arrays that Python 2 wrote
        self.path = path
        self.inert: List[str] = []

    def find_class(self, module: str, name: str) -> Any:
        if module in ('numpy.core.multiarray', 'numpy._core.multiarray') and name in ('_reconstruct', 'scalar'):
            core: Any = getattr(np, '_core', None) or np.core
            return getattr(core.multiarray, name)
        known = {
            'numpy.ndarray': np.ndarray,
            'numpy.dtype': np.dtype,
            'collections.OrderedDict': collections.OrderedDict,
            '_codecs.encode': _latin1_bytes,
        }
        full = f'{module}.{name}'
        if full in known:
            return known[full]
        _refuse_code(self.path, full)
        self.inert.append(full)
        return Inert


def _latin1_bytes(text: str, encoding: str) -> bytes:
    """How pickles of an old protocol hold bytes."""
    if encoding != 'latin1':
        raise pickle.UnpicklingError(f'bytes in {encoding}')
    return text.encode('latin1')


def _read_pickle(path: Path) -> Tuple[Any, Tuple[str, ...]]:
    try:
        with open(path, 'rb') as file:
            unpickler = _ArrayUnpickler(file, path)
            return unpickler.load(), tuple(unpickler.inert)
    except WeightsError:
        raise
    except Exception as error:  # whatever pickle meets in a damaged file
        raise WeightsError(
            f'{path} is no readable pickle of arrays ({_first_line(error)}); nothing of it was run. Copy it again'
        ) from error


def _read_safetensors(path: Path) -> Dict[str, Tensor]:
    """The format: length of the header (8 bytes), header (JSON: type, shape, place of each tensor), raw bytes."""
    size = path.stat().st_size
    with open(path, 'rb') as file:
        length = int.from_bytes(file.read(8), 'little')
        if length > size - 8:
            raise DamagedError(f'{path} is cut off: its header alone takes {length} bytes. Copy or download it again')
        text = file.read(length)
    raw = np.memmap(path, dtype=np.uint8, mode='c', offset=8 + length) if size > 8 + length else np.empty(0, np.uint8)
    try:
        header = json.loads(text)
        header.pop('__metadata__', None)
        return {name: _of_safetensors(path, name, entry, raw) for name, entry in header.items()}
    except WeightsError:
        raise
    except Exception as error:  # whatever a damaged header leads to
        raise DamagedError(f'{path} is damaged ({_first_line(error)}). Copy or download it again') from error


def _of_safetensors(path: Path, name: str, entry: Mapping[str, Any], raw: np.ndarray) -> Tensor:
    """One tensor, as its entry in the header describes it, of the bytes behind the header."""
    begin, end = entry['data_offsets']
    if entry['dtype'] not in SAFETENSORS or end > len(raw):
        raise DamagedError(f'{path}: {name} ({entry["dtype"]}) is cut off, or of an unknown type')
    data = torch.from_numpy(raw[begin:end]) if end > begin else torch.empty(0, dtype=torch.uint8)
    data = data if data.data_ptr() % 8 == 0 else data.clone()
    return data.view(SAFETENSORS[entry['dtype']]).view(entry['shape'])


def safetensors(weights: Mapping[str, Tensor]) -> bytes:
    """A file of this format, see :func:`_read_safetensors`; a tensor of several names is there under each."""
    types = {dtype: name for name, dtype in SAFETENSORS.items()}
    header: Dict[str, Any] = {'__metadata__': {'format': 'pt'}}
    data = b''.join(_raw(tensor) for tensor in weights.values())
    end = 0
    for name, tensor in weights.items():
        begin, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = dict(dtype=types[tensor.dtype], shape=list(tensor.shape), data_offsets=[begin, end])
    text = json.dumps(header).encode()
    text += b' ' * (-len(text) % 8)
    return len(text).to_bytes(8, 'little') + text + data


def _raw(tensor: Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _chosen(path: Path, content: Any, averaged: bool, inert: Tuple[str, ...]) -> Published:
    """The weights of a container, without the prefixes that wrappers give to their names."""
    if not isinstance(content, Mapping):
        raise WeightsError(f'{path} holds a {type(content).__name__}; expected weights by name')
    held = [key for key in (*WEIGHTS, *AVERAGED) if _weights(content.get(key))]
    wanted = [key for key in held if (key in AVERAGED) == averaged]
    if averaged and not wanted:
        raise WeightsError(f'{path} holds no moving average of its weights (keys: {_some(content)}); leave out --ema')
    if wanted or held:
        taken = (wanted or held)[0]
        weights = _weights(content[taken])
    else:
        taken, weights = '', _weights(content)
    if not weights:
        raise WeightsError(
            f'{path} holds no tensors by name; found the keys {_some(content)}, expected one of {", ".join(WEIGHTS)}, '
            'or names of weights'
        )
    args, meta = content.get('args'), content.get('meta')
    return Published(
        path,
        without_prefixes(weights),
        taken,
        tuple(key for key in held if key != taken),
        _attributes(args),
        dict(meta) if isinstance(meta, Mapping) else {},
        inert,
    )


def _attributes(value: Any) -> Dict[str, Any]:
    """What a namespace, read as :class:`Inert`, or a dict holds."""
    if isinstance(value, collections.OrderedDict) and hasattr(value, 'inert_arguments'):
        return {name: held for name, held in vars(value).items() if name != 'inert_arguments'}
    return dict(value) if isinstance(value, Mapping) else {}


def _weights(value: Any) -> Dict[str, Tensor]:
    """The tensors of a mapping by name; empty where it holds something else."""
    if not isinstance(value, Mapping):
        return {}
    if isinstance(value.get('module'), Mapping):  # of a moving average, beside the number of its updates
        value = value['module']
    found = {}
    for name, tensor in value.items():
        if isinstance(tensor, np.ndarray) and tensor.dtype != object:
            tensor = torch.from_numpy(tensor)
        if isinstance(name, str) and isinstance(tensor, Tensor):
            found[name] = tensor.detach()
    return found


def without_prefixes(weights: Mapping[str, Tensor]) -> Dict[str, Tensor]:
    """Weights without the prefixes that ``DistributedDataParallel``, ``torch.compile`` and averaging give to all."""
    weights = {name: tensor for name, tensor in weights.items() if name not in AVERAGES_COUNT}
    while weights:
        prefix = next((prefix for prefix in PREFIXES if all(name.startswith(prefix) for name in weights)), None)
        if prefix is None:
            break
        weights = {name[len(prefix) :]: tensor for name, tensor in weights.items()}
    return weights


def _some(content: Mapping, number: int = 6) -> str:
    names = [str(key) for key in content]
    return ', '.join(names[:number]) + (f' and {len(names) - number} more' if len(names) > number else '')


def _first_line(error: Exception) -> str:
    with contextlib.suppress(IndexError):
        return str(error).splitlines()[0][:200]
    return type(error).__name__
