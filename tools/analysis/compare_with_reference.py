"""Compare a converted checkpoint with the code that it was published with, on a picture. Example:

python tools/analysis/compare_with_reference.py street.jpg dino_r50_4scale_12ep.pth --reference detrex_dino.py

Needs both packages in one environment. The file of --reference defines `outputs(image)`: for an image (3, H, W), uint8,
RGB, at the network's size, it gives logits (1, Q, C) and boxes (1, Q, 4), normalised cxcywh, of the last decoder layer
as torch tensors. docs/weights.md has such files for detrex and for the official DINO. What the reference gave is kept
in --out, so that the check can be repeated without it.
"""

import argparse
import runpy
import sys
from pathlib import Path
from typing import Optional, Sequence

import mmcv
import numpy as np
import torch

from mmdet_stable.weights import WeightsError
from mmdet_stable.weights.cli import given_weights
from mmdet_stable.weights.parity import check_files


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('picture', type=Path, help='any picture')
    parser.add_argument('source', help='published weights: a file, or a name')
    parser.add_argument('--config', help='config to convert to; default: the one that fits the weights')
    parser.add_argument('--reference', type=Path, required=True, help='file that defines outputs(image)')
    parser.add_argument('--scale', type=int, nargs=2, default=(1333, 800), help='longest and shortest side in pixels')
    parser.add_argument('--out', type=Path, default=Path('recorded.npz'), help='where the outputs are kept')
    args = parser.parse_args(argv)
    image = mmcv.imread(str(args.picture), channel_order='rgb')
    image = mmcv.imrescale(image, tuple(args.scale), backend='pillow').transpose(2, 0, 1)
    with torch.no_grad():
        logits, boxes = runpy.run_path(str(args.reference))['outputs'](np.ascontiguousarray(image))
    np.savez(args.out, image=image, logits=logits.cpu().numpy(), boxes=boxes.cpu().numpy())
    try:
        source, options = given_weights(args.source)
        lines, good = check_files([args.out], source, args.config, **options)
    except (WeightsError, FileNotFoundError) as error:
        print(f'{type(error).__name__}: {error}', file=sys.stderr)
        return 1
    print(lines)
    return 0 if good else 1


if __name__ == '__main__':
    sys.exit(main())
