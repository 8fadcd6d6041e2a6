"""Writing checkpoints that are either whole or not there."""

import shutil
from pathlib import Path
from typing import Union

from mmengine.fileio import LocalBackend, register_backend
from torch import nn

from mmdet_stable.utils.files import remove_scratch_files, write_whole


class AtomicBackend(LocalBackend):
    """mmengine's local files, written by :func:`write_whole`."""

    def put(self, obj: bytes, filepath: Union[str, Path]) -> None:
        """Write ``obj``, whole or not at all.

        Raises:
            OSError: where that fails, as on a full disk; whatever stood there before is untouched.
        """
        write_whole(Path(filepath), obj, 'make room or choose another --work-dir, and go on with --resume')


register_backend('atomic', AtomicBackend, force=True)


def prepare_folder(folder: Path, model: nn.Module) -> None:
    """Create a folder for checkpoints of a model, clear away what is half-written there, and see that one has room.

    Raises:
        OSError: where the disk has no room for a single checkpoint: weights, and the two moments of Adam.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remove_scratch_files(folder)
    needed = 3 * sum(value.numel() * value.element_size() for value in model.state_dict().values())
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            f'{folder} has {free / 2**20:.0f} MB left, but a checkpoint needs about {needed / 2**20:.0f} MB; '
            'make room, or choose another --work-dir'
        )
