"""Set loss (matching, all losses, backward) of StableDINOHead against mmdet's DINOHead, in one process.

The sizes are those of DINO R50: 6 decoder layers and the encoder, 900 queries, 80 classes, 200 denoising queries.
Prints the median time of a step, the ratio, and how often the host waits for the device.

    python tools/benchmarks/bench_set_loss.py [--device cuda] [--repeats 20]
"""

import argparse
from pathlib import Path
from typing import Callable, List, NamedTuple, Tuple

import torch
from host_syncs import HostSyncCounter
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.structures import InstanceData
from timing import alternating_medians, machine
from torch import Tensor, nn

OURS = Path(__file__).resolve().parents[2] / 'configs' / 'stable_dino_r50_12e.py'
THEIRS = 'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py'
LAYERS, QUERIES, CLASSES, DN_POSITIVES, SIZE = 6, 900, 80, 100, (800, 1200)


class Inputs(NamedTuple):
    """Arguments of ``loss_by_feat``."""

    scores: Tensor
    boxes: Tensor
    enc_scores: Tensor
    enc_boxes: Tensor
    gt_instances: List[InstanceData]
    img_metas: List[dict]
    dn_meta: dict


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--repeats', type=int, default=20, help='steps to take the median of')
    args = parser.parse_args()
    register_all_modules()
    torch.manual_seed(0)
    heads = [build_head(config).to(args.device) for config in (Config.fromfile(OURS), get_config(THEIRS))]

    print(f'{machine(args.device)}\n')
    print('| batch | boxes per image | ours, ms | mmdet, ms | mmdet / ours | host syncs, ours | host syncs, mmdet |')
    print('|---|---|---|---|---|---|---|')
    for batch_size in (2, 8):
        for num_boxes in (7, 60):
            inputs = make_inputs(batch_size, num_boxes, args.device)
            steps = [lambda head=head, inputs=inputs: step(head, inputs) for head in heads]
            ours, theirs = alternating_medians(steps, args.repeats, args.device)
            syncs = [count_syncs(run, args.device) for run in steps]
            row = [batch_size, num_boxes, f'{ours:.1f}', f'{theirs:.1f}', f'{theirs / ours:.2f}', *syncs]
            print('| ' + ' | '.join(map(str, row)) + ' |', flush=True)


def build_head(cfg: Config) -> nn.Module:
    extra = dict(num_pred_layer=LAYERS + 1, share_pred_layer=False, as_two_stage=True)
    return MODELS.build(dict(cfg.model.bbox_head, train_cfg=cfg.model.train_cfg, test_cfg=cfg.model.test_cfg, **extra))


def make_inputs(batch_size: int, num_boxes: int, device: str) -> Inputs:
    """Random predictions of a model early in training: scores around 0.05, boxes anywhere."""
    groups = max(1, DN_POSITIVES // num_boxes)
    num_dn = 2 * num_boxes * groups

    def predictions(*shape: int) -> Tuple[Tensor, Tensor]:
        scores = torch.randn(*shape, CLASSES, device=device) - 3
        boxes = torch.rand(*shape, 4, device=device) * 0.5 + 0.2
        return scores.requires_grad_(), boxes.requires_grad_()

    height, width = SIZE
    limits = torch.tensor([width / 2, height / 2], device=device)
    gt_instances = []
    for _ in range(batch_size):
        corners, sizes = (
            torch.rand(num_boxes, 2, device=device) * limits,
            torch.rand(num_boxes, 2, device=device) * 200 + 10,
        )
        labels = torch.randint(0, CLASSES, (num_boxes,), device=device)
        gt_instances.append(InstanceData(bboxes=torch.cat([corners, corners + sizes], 1), labels=labels))
    return Inputs(
        *predictions(LAYERS, batch_size, num_dn + QUERIES),
        *predictions(batch_size, QUERIES),
        gt_instances,
        [dict(img_shape=SIZE)] * batch_size,
        dict(num_denoising_queries=num_dn, num_denoising_groups=groups),
    )


def step(head: nn.Module, inputs: Inputs) -> None:
    losses = head.loss_by_feat(*inputs)
    sum(losses.values()).sum().backward()
    for value in inputs[:4]:
        value.grad = None


def count_syncs(run: Callable, device: str) -> int:
    with HostSyncCounter(torch.device(device)) as counter:
        run()
    return counter.count


if __name__ == '__main__':
    main()
