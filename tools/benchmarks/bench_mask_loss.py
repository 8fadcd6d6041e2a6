"""Matching and all losses of MaskDINO, and their gradients, against the plain way, in one process.

The plain way is made of mmdet's and mmcv's parts: the masks of all queries are multiplied out, and every layer and
image is matched alone, at points of its own. The sizes are those of MaskDINO R50: 9 decoder layers, the queries before
them and the encoder, 300 queries, masks of 256 x 256, 12,544 points, two images with 10 and 40 objects. Peak memory is
measured in processes of their own.

    python tools/benchmarks/bench_mask_loss.py [--device cuda] [--repeats 3] [--config CONFIG]
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path
from typing import Dict, List, NamedTuple, Tuple

import numpy as np
import torch
from host_syncs import HostSyncCounter
from mmcv.ops import point_sample
from mmdet.models.utils import get_uncertain_point_coords_with_randomness
from mmdet.registry import MODELS, TASK_UTILS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from mmdet.structures.mask import BitmapMasks
from mmdet.utils import register_all_modules
from mmengine.config import Config, ConfigDict
from mmengine.structures import InstanceData
from timing import alternating_medians, machine
from torch import Tensor, nn

from mmdet_stable.models.dense_heads.mask_dino_predictor import MaskPredictions
from mmdet_stable.models.detectors.mask_ground_truth import targets_with_masks
from mmdet_stable.models.layers import DNQueryGenerator
from mmdet_stable.structures import Matched, QueryPlan, Segment

CONFIG = Path(__file__).resolve().parents[2] / 'configs' / 'mask_dino' / 'mask_dino_r50_12e.py'
SIZE, OBJECTS, DN_QUERIES = 1024, (10, 40), 100


class Inputs(NamedTuple):
    """What the decoder hands to the head, for T denoising and Q matching queries, and the ground truth."""

    hidden_states: Tensor
    references: Tensor
    content: Tensor
    mask_features: Tensor
    encoder: MaskPredictions
    batch: List[DetDataSample]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--repeats', type=int, default=3, help='steps to take the median of')
    parser.add_argument('--config', default=CONFIG, help='of MaskDINO; its costs and points count')
    parser.add_argument('--side', choices=['ours', 'plain'], help='only print the peak memory of this one, in MiB')
    args = parser.parse_args()
    register_all_modules()
    torch.manual_seed(0)
    model = Config.fromfile(args.config).model
    head = MODELS.build(
        dict(model.bbox_head, train_cfg=model.train_cfg, num_pred_layer=model.decoder.num_layers + 1, as_two_stage=True)
    ).to(args.device)
    inputs = make_inputs(model, args.device)
    norm = nn.LayerNorm(head.embed_dims).to(args.device)
    generator = DNQueryGenerator(head.num_classes, head.embed_dims, num_queries=DN_QUERIES, indicator=False)
    plain = PlainCriterion(head, model.train_cfg.assigner.match_costs)
    steps = dict(
        ours=lambda: step(ours, head, inputs, norm, generator), plain=lambda: step(plain, head, inputs, norm, generator)
    )
    if args.side:
        print(peak_memory(steps[args.side], args.device))
        return

    print(f'{machine(args.device)}\n')
    times = alternating_medians(list(steps.values()), args.repeats, args.device, warm_up=1)
    memory = [peak_in_own_process(side, args) for side in steps]
    syncs = []
    for run in steps.values():
        with HostSyncCounter(torch.device(args.device)) as counter:
            run()
        syncs.append(counter.count)
    print('| | ours | plain | ours / plain |\n|---|---|---|---|')
    for name, (a, b) in (('time, ms', times), ('peak memory, MiB', memory), ('host syncs', syncs)):
        print(f'| {name} | {a:,.0f} | {b:,.0f} | {a / b:.2f} |', flush=True)


def make_inputs(model: ConfigDict, device: str) -> Inputs:
    """Random states of a model early in training; objects are rectangles."""
    rng = np.random.default_rng(0)
    batch = []
    for number in OBJECTS:
        corners, sizes = rng.integers(0, SIZE * 9 // 10, (number, 2)), rng.integers(20, 300, (number, 2))
        boxes = np.concatenate([corners, np.minimum(corners + sizes, SIZE)], 1)
        masks = np.zeros((number, SIZE, SIZE), np.uint8)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes):
            mask[y1:y2, x1:x2] = 1
        sample = DetDataSample(metainfo=dict(img_shape=(SIZE, SIZE), batch_input_shape=(SIZE, SIZE)))
        labels = torch.from_numpy(rng.integers(0, model.bbox_head.num_classes, number)).to(device)
        sample.gt_instances = InstanceData(
            bboxes=torch.from_numpy(boxes).float().to(device), labels=labels, masks=BitmapMasks(masks, SIZE, SIZE)
        )
        batch.append(sample)
    slots = DN_QUERIES // max(OBJECTS) * max(OBJECTS)
    layers, width, mask_dims = model.decoder.num_layers, model.bbox_head.embed_dims, model.bbox_head.mask_dims
    queries, features = slots + model.num_queries, SIZE // 4

    def random(*shape: int, scale: float = 1.0) -> Tensor:
        return torch.randn(*shape, device=device).mul_(scale).requires_grad_()

    encoder = MaskPredictions(
        random(1, 2, model.num_queries, model.bbox_head.num_classes),
        torch.rand(1, 2, model.num_queries, 4, device=device) * 0.5 + 0.2,
        random(1, 2, model.num_queries, mask_dims, scale=mask_dims**-0.5),
    )
    return Inputs(
        random(layers, 2, queries, width),
        torch.rand(layers + 1, 2, queries, 4, device=device) * 0.5 + 0.2,
        random(2, queries, width),
        random(2, mask_dims, features, features),
        encoder,
        batch,
    )


def step(criterion, head: nn.Module, inputs: Inputs, norm: nn.Module, generator: DNQueryGenerator) -> None:
    """One forward and backward pass of the head."""
    targets = targets_with_masks(inputs.batch, head.num_things, head.num_classes)
    layout = generator.layout(targets)
    matching = Segment('', inputs.content.shape[1] - layout.num_queries, Matched())
    plan = QueryPlan((Segment('dn_', layout.num_queries, layout), matching), targets)
    sum(criterion(head, inputs, norm, plan).values()).backward()
    for value in (inputs.hidden_states, inputs.content, inputs.mask_features, *inputs.encoder):
        value.grad = None


def ours(head: nn.Module, inputs: Inputs, norm: nn.Module, plan: QueryPlan) -> Dict[str, Tensor]:
    return head.loss(
        inputs.batch,
        plan,
        encoder=inputs.encoder,
        hidden_states=inputs.hidden_states,
        references=list(inputs.references),
        norm=norm,
        mask_features=inputs.mask_features,
        content=inputs.content,
    )


class PlainCriterion:
    """The same losses, layer by layer and image by image, from mmdet's costs, assigner and losses."""

    def __init__(self, head: nn.Module, match_costs: List[dict]) -> None:
        self.assigner = TASK_UTILS.build(dict(type='HungarianAssigner', match_costs=match_costs))
        self.head = head
        self.loss_mask = MODELS.build(dict(type='CrossEntropyLoss', use_sigmoid=True, reduction='none'))
        self.loss_dice = MODELS.build(dict(type='DiceLoss', naive_dice=True, eps=1.0, reduction='none'))

    def __call__(self, head: nn.Module, inputs: Inputs, norm: nn.Module, plan: QueryPlan) -> Dict[str, Tensor]:
        layers = head(inputs.hidden_states, list(inputs.references), norm, inputs.mask_features, inputs.content)
        layout = plan.segments[0].supervision
        known = layout.matches(1, inputs.content.device)
        losses: Dict[str, Tensor] = {}
        for index, (logits, boxes, embeddings) in enumerate(zip(*layers)):
            masks = torch.einsum('bqe,behw->bqhw', embeddings, inputs.mask_features)
            of_dn, of_matching = slice(0, layout.num_queries), slice(layout.num_queries, None)
            pairs = self.assign(logits[:, of_matching], boxes[:, of_matching], masks[:, of_matching], inputs.batch)
            self.add(losses, f'd{index}.', (logits, boxes, masks), of_matching, pairs, inputs.batch)
            pairs = known.image_inds, known.query_inds, known.gt_inds
            self.add(losses, f'd{index}.dn_', (logits, boxes, masks), of_dn, pairs, inputs.batch)
        logits, boxes, embeddings = (value[0] for value in inputs.encoder)
        masks = torch.einsum('bqe,behw->bqhw', embeddings, inputs.mask_features)
        pairs = self.assign(logits, boxes, masks, inputs.batch)
        self.add(losses, 'enc_', (logits, boxes, masks), slice(None), pairs, inputs.batch)
        return losses

    @torch.no_grad()
    def assign(
        self, logits: Tensor, boxes: Tensor, masks: Tensor, batch: List[DetDataSample]
    ) -> Tuple[Tensor, Tensor, Tensor]:
        """Image, query and ground truth of each pair."""
        found = []
        for image, sample in enumerate(batch):
            points = torch.rand(1, self.head.mask_losses.sampler.num_points, 2, device=logits.device)
            truth = self.masks_of(sample, logits.device)[:, None]
            factor = boxes.new_tensor([SIZE] * 4)
            predictions = InstanceData(
                scores=logits[image],
                bboxes=bbox_cxcywh_to_xyxy(boxes[image]) * factor,
                masks=point_sample(masks[image][:, None], points.expand(len(logits[image]), -1, -1))[:, 0],
            )
            gts = InstanceData(
                labels=sample.gt_instances.labels,
                bboxes=sample.gt_instances.bboxes,
                masks=point_sample(truth, points.expand(len(truth), -1, -1))[:, 0],
            )
            gt_inds = self.assigner.assign(predictions, gts, sample.metainfo).gt_inds
            query_inds = gt_inds.nonzero()[:, 0]
            found.append((torch.full_like(query_inds, image), query_inds, gt_inds[query_inds] - 1))
        images, queries, gts = (torch.cat(inds) for inds in zip(*found))
        return images, queries, gts

    def add(self, losses, prefix, predictions, part, pairs, batch) -> None:
        """The five losses of the queries ``part`` of one layer."""
        head = self.head
        logits, boxes, masks = (value[:, part] for value in predictions)
        images, queries, gts = pairs
        number = max(len(images), 1)
        gt = [sample.gt_instances for sample in batch]
        starts = torch.tensor([0, len(gt[0])], device=images.device)
        rows = starts[images] + gts
        gt_labels, gt_boxes = torch.cat([each.labels for each in gt])[rows], torch.cat([each.bboxes for each in gt])
        labels = torch.full(logits.shape[:2], head.num_classes, device=logits.device)
        labels[images, queries] = gt_labels
        losses[f'{prefix}cls'] = head.loss_cls(logits.flatten(0, 1), labels.flatten(), avg_factor=number)
        found, truth = boxes[images, queries], gt_boxes[rows] / SIZE
        losses[f'{prefix}iou'] = head.loss_iou(bbox_cxcywh_to_xyxy(found), truth, avg_factor=number)
        centres = torch.cat([(truth[:, :2] + truth[:, 2:]) / 2, truth[:, 2:] - truth[:, :2]], 1)
        losses[f'{prefix}bbox'] = head.loss_bbox(found, centres, avg_factor=number)
        masks = masks[images, queries][:, None]
        truths = torch.cat([self.masks_of(sample, masks.device) for sample in batch])[rows][:, None]
        sampler = head.mask_losses.sampler
        with torch.no_grad():
            points = get_uncertain_point_coords_with_randomness(masks, None, sampler.num_points, 3.0, 0.75)
            values = point_sample(truths, points)[:, 0]
        sampled = point_sample(masks, points)[:, 0]
        weights = head.mask_loss_weights
        losses[f'{prefix}mask'] = weights['mask'] * self.loss_mask(sampled, values).mean(1).sum() / number
        losses[f'{prefix}dice'] = weights['dice'] * self.loss_dice(sampled, values).sum() / number

    @staticmethod
    def masks_of(sample: DetDataSample, device: torch.device) -> Tensor:
        return sample.gt_instances.masks.to_tensor(torch.float32, device)


def peak_memory(run, device: str) -> int:
    """MiB that a step takes on top of what was there before."""
    if device == 'cuda':
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return (torch.cuda.max_memory_allocated() - before) >> 20
    before = peak_of_this_process()
    run()
    return (peak_of_this_process() - before) >> 10


def peak_of_this_process() -> int:
    """KiB, on Linux. What ``resource`` says includes the process that started this one."""
    status = Path('/proc/self/status').read_text()
    return int(re.search(r'VmHWM:\s+(\d+)', status)[1])


def peak_in_own_process(side: str, args: argparse.Namespace) -> int:
    command = [sys.executable, __file__, '--side', side, '--device', args.device, '--config', args.config]
    result = subprocess.run(list(map(str, command)), check=True, stdout=subprocess.PIPE, text=True)
    return int(result.stdout.splitlines()[-1])


if __name__ == '__main__':
    main()
