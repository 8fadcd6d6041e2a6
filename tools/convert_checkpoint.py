"""Convert published weights to this package, with a config that fits them, and back. Examples:

python tools/convert_checkpoint.py dino_r50_4scale_12ep.pth work_dirs/dino.pth                     # writes dino.py, too
python tools/convert_checkpoint.py dino.pth configs/stable_dino_r50_12e.py work_dirs/start.pth     # to fine-tune
python tools/convert_checkpoint.py work_dirs/dino/epoch_12.pth detrex.pth --to detrex
python tools/convert_checkpoint.py --list                                                          # weights by name
python tools/convert_checkpoint.py --get dino-r50-12e
python tools/convert_checkpoint.py --check                                                         # against recordings
"""

import sys

from mmdet_stable.weights.cli import main

if __name__ == '__main__':
    sys.exit(main())
