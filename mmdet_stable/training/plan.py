"""Decides how to train on given data with given hardware: pure functions, one line of reason for each decision."""

import math
from typing import Dict, List, NamedTuple, Optional, Tuple

from mmdet_stable.datasets.folder import DataStatistics
from mmdet_stable.weights.packaged import INSTALL

from .backbones import BACKBONES, Backbone, find_backbone
from .hardware import Hardware


class Size(NamedTuple):
    """A size of the detector.

    Attributes:
        encoder, decoder: layers.
        feedforward: channels of feed-forward layers.
        dn_queries: denoising queries of an image.
        cpu_side, gpu_side: the longest side of images, in pixels, that is chosen for it.
        lr, lr_batch: learning rate, and the batch that it is for.
    """

    encoder: int
    decoder: int
    feedforward: int
    dn_queries: int
    cpu_side: int
    gpu_side: int
    lr: float
    lr_batch: int


SIZES = {
    'tiny': Size(2, 3, 1024, 25, 320, 640, 4e-4, 8),
    'small': Size(3, 4, 1024, 50, 512, 800, 4e-4, 8),
    'base': Size(6, 6, 2048, 100, 640, 1333, 1e-4, 16),
    'large': Size(6, 6, 2048, 100, 640, 1333, 1e-4, 16),
}
SMALL_BOX = 14  # pixels that the side of small boxes is to have
SMALL_SHARE = 0.05  # of the boxes count as small
STEPS = 1500  # after which a training that starts from ImageNet weights is worth its name
EPOCHS = (12, 50)
QUERIES = (100, 900)
QUERIES_PER_BOX = 5
JITTER = (0.8, 1.25)  # factors of the image size in training
STRIDES = (8, 16, 32, 64)
AVERAGES = {
    'ema': 'weights of the last tenth of the steps count, later ones more; validated and kept',
    'swa': 'the mean of the weights of the last third of the epochs; validated and kept',
    'none': 'the weights as they are',
}
LAYER_DECAY = ((12, 0.7), (24, 0.8), (32, 0.9))  # up to so many layers: ViTDet's for ViT-B, -L and -H
GIB_PER_MEGAPIXEL = dict(tiny=2.0, small=2.5, base=4.3, large=9.0)  # estimates; base from 8.3 GiB for 2 images


class PlanError(ValueError):
    """A wish that cannot be fulfilled; says which, and what can."""


class Wishes(NamedTuple):
    """What the user decides; None for what the plan is to decide."""

    size: Optional[str] = None
    image_size: Optional[int] = None  # the longer side in pixels
    queries: Optional[int] = None
    batch_size: Optional[int] = None
    epochs: Optional[int] = None
    lr: Optional[float] = None
    workers: Optional[int] = None
    backbone: Optional[str] = None
    weights: Optional[str] = None
    average: Optional[str] = None
    patience: Optional[int] = None
    layer_decay: Optional[float] = None


class Decision(NamedTuple):
    """One line: what was decided, and why."""

    what: str
    value: str
    reason: str

    def __str__(self) -> str:
        return f'  {self.what + ":":<15} {self.value:<22} {self.reason}'


class Plan(NamedTuple):
    """All that a config is written from.

    Attributes:
        size: key of :data:`SIZES`; None where weights decide the model.
        backbone: None where weights decide the model.
        image_size: (width, height) that images are resized to fit into, in pixels.
        num_queries: None where weights decide the model.
        average: of weights: ``'ema'``, ``'swa'`` or ``'none'``.
        patience: validations without a better AP before the learning rate drops, and again before training stops;
            None for training to the end.
        layer_decay: by which learning rates of the backbone fall from layer to layer; 1 for not at all.
        decisions: in words, by what was decided, as ``'image size'``, in the order in which they are shown.
    """

    size: Optional[str]
    backbone: Optional[Backbone]
    image_size: Tuple[int, int]
    num_queries: Optional[int]
    batch_size: int
    epochs: int
    lr: float
    workers: int
    flip: bool
    weights: Optional[str]
    average: str
    patience: Optional[int]
    layer_decay: float
    decisions: Dict[str, Decision]

    def with_epochs(self, epochs: int, reason: str) -> 'Plan':
        """The same plan with another length."""
        decision = Decision('epochs', str(epochs), reason)
        return self._replace(epochs=epochs, decisions={**self.decisions, 'epochs': decision})


def make_plan(data: DataStatistics, hardware: Hardware, wishes: Wishes, has_pretrained: bool) -> Plan:
    """Decide everything that the wishes leave open.

    Args:
        has_pretrained: whether the package with weights of EfficientNet-Lite0 is installed.

    Raises:
        PlanError: for wishes that contradict each other or make no sense.
    """
    check_wishes(wishes)
    found: List[Decision] = []
    size = choose_size(hardware, wishes, found)
    backbone = None if wishes.weights else choose_backbone(size, wishes, has_pretrained, found)
    image_size = choose_image_size(size, data, hardware, wishes, found)
    queries = None if wishes.weights else choose_queries(data, image_size, wishes, found)
    batch_size = choose_batch_size(size, data, image_size, hardware, wishes, found)
    epochs = choose_epochs(data, batch_size, backbone is None or backbone.pretrained, wishes, found)
    lr = choose_lr(size, batch_size, wishes, found)
    layer_decay = choose_layer_decay(backbone, wishes, found)
    workers = choose_workers(hardware, wishes, found)
    flip = choose_flip(data, found)
    average = choose_average(wishes, found)
    return Plan(
        size=None if wishes.weights else size,
        backbone=backbone,
        image_size=image_size,
        num_queries=queries,
        batch_size=batch_size,
        epochs=epochs,
        lr=lr,
        workers=workers,
        flip=flip,
        weights=wishes.weights,
        average=average,
        patience=wishes.patience,
        layer_decay=layer_decay,
        decisions={decision.what: decision for decision in found},
    )


def check_wishes(wishes: Wishes) -> None:
    """See that wishes are possible, and do not contradict each other."""
    if wishes.size is not None and wishes.size not in SIZES:
        raise PlanError(f'size={wishes.size}: sizes are {", ".join(SIZES)}')
    for name in ('image_size', 'queries', 'batch_size', 'epochs', 'lr', 'patience'):
        value = getattr(wishes, name)
        if value is not None and not value > 0:
            raise PlanError(f'{name}={value} must be above 0')
    if wishes.layer_decay is not None and not 0 < wishes.layer_decay <= 1:
        raise PlanError(f'layer_decay={wishes.layer_decay} must be above 0 and at most 1, which is no decay')
    if wishes.image_size is not None and wishes.image_size < 64:
        raise PlanError(
            f'image_size={wishes.image_size}: at least 64 pixels are needed, a cell of the coarsest features'
        )
    if wishes.workers is not None and wishes.workers < 0:
        raise PlanError(f'workers={wishes.workers} must be 0 or more; 0 loads images in the training process')
    if wishes.weights:
        decided = [name for name in ('size', 'backbone', 'queries', 'layer_decay') if getattr(wishes, name) is not None]
        if decided:
            raise PlanError(f'weights={wishes.weights} decide the model; leave out {", ".join(decided)}')


def choose_size(hardware: Hardware, wishes: Wishes, found: List[Decision]) -> str:
    """Tiny on a CPU; by memory on a GPU. With weights, the size only bounds images and memory."""
    if wishes.weights:
        found.append(Decision('model', 'as its weights', f'{wishes.weights} decide it'))
        return 'base'
    if wishes.size:
        size, reason = wishes.size, 'as asked for'
    elif hardware.is_cpu:
        size, reason = 'tiny', 'few layers and small images, for a CPU'
    else:
        size = 'base' if hardware.memory >= 10 else 'small'
        reason = f'{hardware.name} has {hardware.memory:.0f} GiB; from 10 GiB on it is base'
    layers = f'{SIZES[size].encoder} + {SIZES[size].decoder} layers'
    found.append(Decision('model', f'{size}, {layers}', reason))
    return size


def choose_backbone(size: str, wishes: Wishes, has_pretrained: bool, found: List[Decision]) -> Backbone:
    """By size, and by what can be had without internet."""
    if wishes.backbone:
        backbone, reason = find_backbone(wishes.backbone), 'as asked for'
    elif size in ('base', 'large'):
        backbone = BACKBONES['resnet50' if size == 'base' else 'swin_l']
        reason = 'as published; ImageNet weights are downloaded'
    elif has_pretrained:
        backbone, reason = BACKBONES['efficientnet_lite0'], 'ImageNet weights are installed, and it is fast on a CPU'
    else:
        backbone = BACKBONES['resnet18_scratch']
        reason = f'WARNING: from random weights, far worse; {INSTALL} mends it'
    found.append(Decision('backbone', backbone.name, reason))
    return backbone


def choose_image_size(
    size: str, data: DataStatistics, hardware: Hardware, wishes: Wishes, found: List[Decision]
) -> Tuple[int, int]:
    """So large that small boxes are seen, and no larger than the images or than the hardware bears."""
    width, height = data.image_size
    longer = max(width, height)
    limit = SIZES[size].cpu_side if hardware.is_cpu else SIZES[size].gpu_side
    if wishes.image_size:
        side, reason = wishes.image_size, 'as asked for'
    else:
        small = data.box_side(SMALL_SHARE)
        needed = math.ceil(max(SMALL_BOX / max(small, 1e-3), 160) / 32) * 32 if hardware.is_cpu else limit
        side = min(needed, limit, max(longer, 64))
        if not hardware.is_cpu:
            reason = f'the largest for this model, and no larger than the images ({longer})'
        elif side == needed:
            reason = f'all but {SMALL_SHARE:.0%} of the boxes are {small * side:.0f} pixels or more then'
        else:
            what = f'images are {longer} pixels' if side == longer else f'{limit} is what a CPU bears'
            reason = f'{what}; small boxes ({small:.1%} of the side) are {small * side:.0f} pixels then'
    scale = side / longer
    chosen = max(round(width * scale), 64), max(round(height * scale), 64)
    found.append(Decision('image size', f'{chosen[0]} x {chosen[1]}', reason))
    return chosen


def tokens(image: Tuple[int, int], image_size: Tuple[float, float]) -> int:
    """Positions in the features of all strides, of an image that is resized to fit into ``image_size``."""
    scale = min(max(image_size) / max(image), min(image_size) / min(image))
    width, height = (int(side * scale) for side in image)
    return sum(math.ceil(width / stride) * math.ceil(height / stride) for stride in STRIDES)


def choose_queries(data: DataStatistics, image_size: Tuple[int, int], wishes: Wishes, found: List[Decision]) -> int:
    """Several for each object, and never more than there are positions to propose."""
    width, height = (side * JITTER[0] for side in image_size)
    available = tokens(data.smallest_image, (width, height))
    if wishes.queries:
        if wishes.queries > available:
            raise PlanError(
                f'queries={wishes.queries}: the smallest image has only {available} positions at {image_size[0]} x '
                f'{image_size[1]}; take fewer, or a larger image_size'
            )
        queries, reason = wishes.queries, 'as asked for'
    else:
        wanted = min(max(math.ceil(QUERIES_PER_BOX * data.max_boxes / 50) * 50, QUERIES[0]), QUERIES[1])
        queries = min(wanted, available)
        reason = f'{QUERIES_PER_BOX} for each of the {data.max_boxes} boxes of the fullest image, {QUERIES[0]} or more'
        if queries < wanted:
            reason = f'all positions of the smallest image, {data.smallest_image[0]} x {data.smallest_image[1]}'
    found.append(Decision('queries', str(queries), reason))
    return queries


def choose_batch_size(
    size: str,
    data: DataStatistics,
    image_size: Tuple[int, int],
    hardware: Hardware,
    wishes: Wishes,
    found: List[Decision],
) -> int:
    """What memory holds, and so small that an epoch has some 20 steps."""
    if wishes.batch_size:
        found.append(Decision('batch', str(wishes.batch_size), 'as asked for'))
        return wishes.batch_size
    per_image = GIB_PER_MEGAPIXEL[size] * image_size[0] * image_size[1] / 1e6
    fitting = max(int(0.6 * hardware.memory / per_image), 1)
    limits = {
        f'memory of {hardware.memory:.0f} GiB (estimated {per_image:.2f} GiB for an image)': fitting,
        f'{data.num_train} images give some 20 steps in an epoch': max(data.num_train // 20, 1),
        'more brings nothing on a CPU' if hardware.is_cpu else 'as published': 8 if hardware.is_cpu else 16,
    }
    reason = min(limits, key=lambda key: limits[key])
    found.append(Decision('batch', str(limits[reason]), reason))
    return limits[reason]


def steps_per_epoch(data: DataStatistics, batch_size: int) -> int:
    return math.ceil(data.num_train / batch_size)


def choose_epochs(
    data: DataStatistics, batch_size: int, pretrained: bool, wishes: Wishes, found: List[Decision]
) -> int:
    """By steps: small data need more epochs."""
    if wishes.epochs:
        found.append(Decision('epochs', str(wishes.epochs), 'as asked for'))
        return wishes.epochs
    steps = steps_per_epoch(data, batch_size)
    wanted = STEPS if pretrained else 2 * STEPS
    epochs = min(max(math.ceil(wanted / steps), EPOCHS[0]), EPOCHS[1])
    reason = f'{steps} steps each; {wanted} steps, but {EPOCHS[0]} to {EPOCHS[1]} epochs'
    found.append(Decision('epochs', str(epochs), reason))
    return epochs


def choose_lr(size: str, batch_size: int, wishes: Wishes, found: List[Decision]) -> float:
    """The rate that the size was tried with, by the square root of the batch, as AdamW's steps are noisy by it."""
    if wishes.lr:
        found.append(Decision('learning rate', f'{wishes.lr:g}', 'as asked for'))
        return wishes.lr
    base = SIZES[size]
    lr = float(f'{base.lr * math.sqrt(batch_size / base.lr_batch):.2g}')
    reason = f'{base.lr:g} for a batch of {base.lr_batch}, by the square root of the batch'
    found.append(Decision('learning rate', f'{lr:g}', reason))
    return lr


def choose_layer_decay(backbone: Optional[Backbone], wishes: Wishes, found: List[Decision]) -> float:
    """As ViTDet for a plain vision transformer, whose first layers are to keep what they know; none for others."""
    if wishes.layer_decay is not None:
        if backbone is None or not backbone.layers:
            name = backbone.name if backbone else wishes.weights
            raise PlanError(f'layer_decay={wishes.layer_decay}: {name} has no transformer layers; leave it out')
        rate, reason = wishes.layer_decay, 'as asked for'
    elif backbone is not None and backbone.plain:
        rate = next((rate for layers, rate in LAYER_DECAY if backbone.layers <= layers), LAYER_DECAY[-1][1])
        reason = f'for the {backbone.layers} layers of a plain vision transformer, as ViTDet'
    else:
        return 1.0
    found.append(Decision('layer decay', f'{rate:g}', reason))
    return rate


def choose_workers(hardware: Hardware, wishes: Wishes, found: List[Decision]) -> int:
    """Processes that load images."""
    if wishes.workers is not None:
        found.append(Decision('workers', str(wishes.workers), 'as asked for'))
        return wishes.workers
    workers = 1 if hardware.is_cpu else min(max(hardware.cores - 1, 1), 8)
    reason = 'the model needs the cores itself' if hardware.is_cpu else f'of {hardware.cores} cores'
    found.append(Decision('workers', str(workers), reason))
    return workers


def choose_average(wishes: Wishes, found: List[Decision]) -> str:
    """Only where it is asked for."""
    average = wishes.average or 'none'
    if average not in AVERAGES:
        raise PlanError(f'average={average}: averages are {", ".join(AVERAGES)}')
    if average != 'none':
        found.append(Decision('average', average, AVERAGES[average]))
    return average


def choose_flip(data: DataStatistics, found: List[Decision]) -> bool:
    """No mirror images where class names tell that these are something else."""
    words = [name.lower().replace('-', ' ').replace('_', ' ').split() for name in data.classes]
    sided = [name for name, parts in zip(data.classes, words) if {'left', 'right'} & set(parts)]
    letters = [name for name in data.classes if len(name) == 1]
    flip = not sided and len(letters) < 2
    reason = 'no class name speaks of left, right, letters or digits'
    if not flip:
        reason = f'a mirror image is something else: {", ".join((sided + letters)[:5])}'
    found.append(Decision('mirror images', 'yes' if flip else 'no', reason))
    return flip
