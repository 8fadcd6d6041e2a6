"""Exports a trained detector: writes the file, checks it, and only then gives it its name."""

import copy
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import mmcv
import numpy as np
import onnx
import torch
from mmdet.registry import TRANSFORMS
from mmengine.config import Config

from mmdet_stable import runtime
from mmdet_stable.inference.detector import build_detector
from mmdet_stable.inference.model_files import ModelFiles
from mmdet_stable.runtime import Detector
from mmdet_stable.runtime.pictures import batch_of, decode, prepared
from mmdet_stable.utils.files import check_writable

from . import onnx_file
from .agreement import INT8, Pair, agreement, pairs_of
from .ap import Scored, aps
from .errors import ExportError
from .graph import ExportableDetector
from .parity import FP16, FP32, batches, compare, synthetic_pictures
from .quantising import calibration_pictures, evenly, quantised
from .spec import Settings, metadata_of, pad_divisor

CHECKED_INT8 = 8  # pictures of the calibration on which a quantised file is checked, where no others are given
RUNTIME_NAME = 'mmdet_stable_runtime'
Outputs = Callable[[np.ndarray, np.ndarray], Dict[str, np.ndarray]]


class Evidence(NamedTuple):
    """What a file is checked on.

    Attributes:
        images: paths of pictures; none for synthetic ones.
        ann_file: annotations in COCO's format, for AP; None for none.
        img_dir: where their pictures lie; None for beside them.
    """

    images: Sequence[Path] = ()
    ann_file: Optional[Path] = None
    img_dir: Optional[Path] = None


class Source(NamedTuple):
    """A trained detector, twice: as it is, and as the module to export."""

    detector: Any
    module: ExportableDetector
    metadata: Dict[str, Any]
    settings: Settings


def load(files: ModelFiles, settings: Settings, changes: Optional[Mapping[str, Any]] = None) -> Source:
    """Build the detector of a config, with the ``changes`` of its settings, and load its weights.

    Raises:
        ExportError: for what cannot be exported.
        ValueError: for weights of another model.
    """
    files.config.merge_from_dict(dict(changes or {}))
    files.config.model.train_cfg = None  # nothing is matched
    cfg = copy.deepcopy(files.config)  # as mmdet's inferencer writes into its own
    detector = build_detector(files, 'cpu')
    return source_of(detector.model, cfg, detector.classes, settings)


def check_inputs(target: str, out: Path, settings: Settings, evidence: Evidence, with_runtime: bool = False) -> None:
    """Look for files and folders before the work that needs them is done.

    Args: as of :func:`export`.

    Raises:
        ExportError: for what is not there, or does not go together.
        OSError: where the folder of ``out`` cannot be written to.
    """
    if target == 'torch' and (settings.precision != 'float32' or evidence.ann_file is not None or with_runtime):
        raise ExportError('--fp16, --int8, --ann-file and --with-runtime are for --to onnx alone')
    if evidence.img_dir is not None and evidence.ann_file is None:
        raise ExportError(f'--img-dir {evidence.img_dir}: has the pictures of --ann-file; give that, too')
    for option, file in (*(('--images', path) for path in evidence.images), ('--ann-file', evidence.ann_file)):
        if file is not None and not file.is_file():
            raise ExportError(f'{option} {file}: there is no such file')
    for option, folder in (('--img-dir', evidence.img_dir), ('--int8', settings.int8)):
        if folder is not None and not folder.is_dir():
            raise ExportError(f'{option} {folder}: there is no such folder')
    if out.is_dir():
        raise ExportError(f'--out {out}: this is a folder; give a file in it, such as {out / "model.onnx"}')
    check_writable(out.parent, 'folder', '--out')


def source_of(model: Any, cfg: Config, classes: Sequence[str], settings: Settings) -> Source:
    """A detector in evaluation mode with the module to export, which has a copy of it."""
    if settings.fp16 and settings.int8 is not None:
        raise ExportError('--fp16 and --int8: a file has one precision, choose one of them')
    if settings.nms is not None:
        head = model.bbox_head
        if not hasattr(head, 'test_cfg') or hasattr(head, 'inference'):
            raise ExportError('--nms: of MaskDINO, the runtime applies test_cfg.nms; set that')
        head.test_cfg['nms'] = dict(type='nms', iou_threshold=settings.nms) if settings.nms else None
    padded = settings.padded or settings.size is not None or pad_divisor(model) > 1
    module = ExportableDetector(copy.deepcopy(model), padded, settings.sampling)
    return Source(model, module, metadata_of(module, cfg, classes, settings), settings)


def export(source: Source, target: str, out: Path, evidence: Evidence, with_runtime: bool = False) -> List[str]:
    """Write a checked file.

    Args:
        target: ``'onnx'`` or ``'torch'``.
        out: the file to write. Until it is checked, it lies in a folder of its own beside it.
        with_runtime: write the runtime beside an ONNX file, too.

    Returns:
        the report, line by line.

    Raises:
        ExportError: if the file does not compute what the detector computes. Then nothing is left.
    """
    check_inputs(target, out, source.settings, evidence, with_runtime)
    with tempfile.TemporaryDirectory(prefix=f'.{out.name}.', dir=out.parent) as folder:
        unchecked = Path(folder) / 'unchecked'
        lines = (_export_onnx if target == 'onnx' else _export_torch)(source, unchecked, evidence)
        unchecked.replace(out)
    if with_runtime:
        lines.append(f'wrote {write_runtime(out.parent)}')
    return [*lines, f'wrote {out}, {out.stat().st_size / 2**20:.1f} MiB']


def write_runtime(folder: Path) -> Path:
    """Copy :mod:`mmdet_stable.runtime` there, under a name of its own."""
    out = folder / RUNTIME_NAME
    shutil.copytree(
        Path(runtime.__file__).parent, out, ignore=shutil.ignore_patterns('__pycache__'), dirs_exist_ok=True
    )
    return out


def _export_onnx(source: Source, path: Path, evidence: Evidence) -> List[str]:
    settings = source.settings
    scored = None if evidence.ann_file is None else scored_pictures(source, evidence.ann_file, evidence.img_dir)
    pictures = calibration_pictures(settings.int8) if settings.int8 else []
    model = onnx_file.onnx_model(onnx_file.exported_program(source.module, settings), settings)
    lines, images = [], evidence.images
    if pictures:
        names = ('images', 'sizes')[: 1 + source.module.padded]
        calibration = (batch_of(source.metadata, [prepared(source.metadata, decode(one))]) for one in pictures)
        model = quantised(model, (dict(zip(names, inputs)) for inputs in calibration))
        source.metadata['calibrated_on'] = len(pictures)
        lines.append(f'calibrated on {len(pictures)} pictures of {settings.int8}')
        images = images or evenly(pictures, CHECKED_INT8)
    lines += write_checked(source, model, path, images)
    return lines if scored is None else [*lines, check_ap(source, Detector(path), scored)]


def scored_pictures(source: Source, ann_file: Path, img_dir: Optional[Path]) -> Scored:
    """The pictures on which AP is compared; see :class:`Evidence`."""
    if 'boxes' in source.module.unwanted:
        raise ExportError('--ann-file: scores instances, which test_cfg.instance_on=False leaves out')
    return Scored(ann_file, img_dir or ann_file.parent, source.metadata['classes'])


def write_checked(source: Source, model: onnx.ModelProto, path: Path, images: Sequence[Path] = ()) -> List[str]:
    """Write a model in ONNX, check it, and write it again without what only the check reads; returns the report."""
    onnx_file.write(model, path, source.metadata)
    detector = Detector(path)
    names = detector.outputs

    def outputs(images: np.ndarray, sizes: np.ndarray) -> Dict[str, np.ndarray]:
        inputs = dict(images=images, sizes=sizes) if source.module.padded else dict(images=images)
        return dict(zip(names, detector.session.run(names, inputs)))

    lines, parity = (check_agreement if source.settings.int8 else check)(source, outputs, images)
    onnx_file.write(onnx_file.without(source.module.unwanted, model), path, {**source.metadata, 'parity': parity})
    return lines


def _export_torch(source: Source, path: Path, evidence: Evidence) -> List[str]:
    program = onnx_file.exported_program(source.module, source.settings)
    torch.export.save(program, path.with_suffix('.pt2'), extra_files={'metadata.json': json.dumps(source.metadata)})
    path.with_suffix('.pt2').replace(path)
    module = program.module()

    def outputs(images: np.ndarray, sizes: np.ndarray) -> Dict[str, np.ndarray]:
        inputs = (torch.from_numpy(images), torch.from_numpy(sizes))[: 1 + source.module.padded]
        with torch.no_grad():
            return {name: value.numpy() for name, value in module(*inputs).items()}

    return check(source, outputs, evidence.images)[0]


def batches_of(source: Source, images: Sequence[Path]) -> Iterator[Tuple[np.ndarray, np.ndarray]]:
    """Inputs of the file, see :func:`mmdet_stable.runtime.pictures.batch_of`: pictures alone and in batches, synthetic
    ones where none are given."""
    pictures = [decode(path) for path in images] or synthetic_pictures()
    for picture in pictures:
        check_resizing(source.metadata, picture)
    inputs = [prepared(source.metadata, picture) for picture in pictures]
    for inds in batches([one.pixels.shape[:2] for one in inputs], source.module.padded):
        yield batch_of(source.metadata, [inputs[index] for index in inds])


def check(source: Source, outputs: Outputs, paths: Sequence[Path]) -> Tuple[List[str], Dict[str, Any]]:
    """Compare query by query, on pictures of several sizes, alone and in batches.

    Returns:
        the report, and what the file says about it.

    Raises:
        ExportError: for differences above the tolerance.
    """
    allowed = FP16 if source.settings.fp16 else FP32
    lines, differences, problems = [], [], []
    for images, sizes in batches_of(source, paths):
        difference = compare(
            source.module,
            source.detector,
            torch.from_numpy(images),
            torch.from_numpy(sizes),
            outputs(images, sizes),
            allowed,
        )
        differences.append(difference)
        lines.append(difference.line())
        problems += [f'{lines[-1]}: {problem}' for problem in difference.problems(allowed)]
    if problems:
        raise ExportError('the file does not compute what the model does:\n  ' + '\n  '.join(problems))
    lines.append(
        f'boxes within {allowed.boxes} of the longer side, scores {allowed.scores} ({source.settings.precision})'
    )
    kinds = ('boxes', 'scores', 'ties', 'masks')
    return lines, dict(
        checked_on=[[one.batch, one.height, one.width] for one in differences],
        measured={kind: max(getattr(one, kind) for one in differences) for kind in kinds},
        allowed=allowed._asdict(),
    )


def check_agreement(source: Source, outputs: Outputs, paths: Sequence[Path]) -> Tuple[List[str], Dict[str, Any]]:
    """Compare the confident detections, as :func:`check` does for files that compute the same."""
    pairs: List[Pair] = []
    checked_on = []
    for images, sizes in batches_of(source, paths):
        found = outputs(images, sizes)
        pairs += pairs_of(source.module, source.detector, torch.from_numpy(images), torch.from_numpy(sizes), found)
        checked_on.append([len(images), *images.shape[2:]])
    measured, number = agreement(pairs)
    line = f'{measured.line()}, of {number} confident detections of the model'
    problems = measured.problems(INT8)
    if problems:
        raise ExportError(f'the file does not see what the model does: {line}:\n  ' + '\n  '.join(problems))
    return [line], dict(checked_on=checked_on, measured=measured._asdict(), allowed=INT8._asdict())


def check_resizing(metadata: Dict[str, Any], picture: np.ndarray) -> None:
    """Raise ``ExportError`` unless the runtime resizes a picture (height, width, 3) RGB as mmdet's pipeline does."""
    pixels, rule = prepared(metadata, picture).pixels, metadata['resize']
    if metadata['input']['size'] is None:
        theirs = TRANSFORMS.build(dict(rule, type='Resize', scale=tuple(rule['scale'])))
        by_mmdet = theirs(dict(img=picture[:, :, ::-1], img_shape=picture.shape[:2]))['img'][:, :, ::-1]
    else:
        by_mmdet = mmcv.imresize(picture, pixels.shape[1::-1], backend=rule['backend'])
    if by_mmdet.shape != pixels.shape or (by_mmdet != pixels).any():
        raise ExportError(f'the runtime resizes to {pixels.shape}, mmdet to {by_mmdet.shape}, or to other pixels')


def check_ap(source: Source, detector: Detector, scored: Scored) -> str:
    """AP of the file and of the model, which differ by no more than the tolerance.

    Raises:
        ExportError: if they do.
    """
    kind = 'segm' if source.module.has_masks else 'bbox'
    of_file, of_model = aps(scored, detector, source.detector, kind)
    line = f'{kind} AP on {len(scored.ids)} pictures: {of_file:.4f}, of the model {of_model:.4f}'
    allowed = dict(float32=FP32.ap, float16=FP16.ap, int8=INT8.ap)[source.settings.precision]
    if not abs(of_file - of_model) <= allowed:
        raise ExportError(f'{line}; allowed are {allowed}')
    return line
