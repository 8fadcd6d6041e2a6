"""Write what follows from configs/manifest.yml: configs/README.md and configs/metafile.yml. Example:

python tools/sync_manifest.py           # after a change to the manifest
python tools/sync_manifest.py --check   # fails where a file is out of date
"""

import argparse
import sys
from itertools import groupby
from pathlib import Path
from typing import Dict, List, Tuple

import yaml
from mmengine.config import Config
from terminaltables import GithubFlavoredMarkdownTable

from mmdet_stable.evaluation import METRICS, Row, load_manifest, published_gain

CONFIGS = Path(__file__).resolve().parents[1] / 'configs'
COLLECTIONS = {
    'Stable-DINO': ('Detection Transformer with Stable Matching', 'https://arxiv.org/abs/2304.04742'),
    'DN-DETR': (
        'DN-DETR: Accelerate DETR Training by Introducing Query DeNoising',
        'https://arxiv.org/abs/2203.01305',
    ),
    'DAB-DETR': (
        'DAB-DETR: Dynamic Anchor Boxes are Better Queries for DETR',
        'https://arxiv.org/abs/2201.12329',
    ),
    'MaskDINO': (
        'Mask DINO: Towards A Unified Transformer-based Framework for Object Detection and Segmentation',
        'https://arxiv.org/abs/2206.02777',
    ),
    'DINO': (
        'DINO: DETR with Improved DeNoising Anchor Boxes for End-to-End Object Detection',
        'https://arxiv.org/abs/2203.03605',
    ),
}
README = """# Configs

`python tools/sync_manifest.py` writes this page from `manifest.yml`; edit that file, not this one.

All AP values below are **published** ones, on COCO val2017. They are from the paper of
[Stable-DINO](https://arxiv.org/abs/2304.04742), in tables called dn from that of
[DN-DETR](https://arxiv.org/abs/2203.01305), and in tables called mask-dino from that of
[MaskDINO](https://arxiv.org/abs/2206.02777). AP is that of boxes. We have trained none of these configs on COCO. An
empty cell means that the paper does not print the value, or that our copy is not legible. A gain is relative to the
row named beside it.

A config lists only what differs from its `_base_`. `manifest.yml` lists the same differences, and a test compares.
Rows with equal settings share one config. Files in `_base_/` are inherited like any other; settings that several models
share have their own names there, because mmengine lets only one base set `model`: `model = _base_.five_scales`.

## Reproduce the tables

Every published row of Stable-DINO, Stable-Deformable-DETR, Stable-H-DETR and DN-DETR, and of their baselines, is one
config, from the five scales of Table 2 to each function and weight of Tables 7 to 9.

```bash
python tools/analysis/ablation_table.py --list                       # rows, configs, published values
tools/dist_train.sh configs/ablations/table7/f1_s3.py 8              # one row: row 5 of Table 7
python tools/analysis/ablation_table.py work_dirs --tables 7         # your results beside the paper's
python tools/analysis/ablation_table.py --run --tables 7 --gpus 8 --seeds 60 61   # all that is missing
```

You can stop and repeat a sweep (`--run`) at any time. It finds finished trainings, also those started by hand, by
mmengine's logs under `--work-root`.

You can do the same on 2 cores, with digit scenes. An overlay makes the rows of its family as small as the
demo: `demo_digits.py` any row of Tables 2 and 6 to 9 with four scales and ResNet-50, `demo_digits_dn_detr.py` those of
DN-DETR with ResNet-50, and `demo_digits_deformable.py` those of Table 5. `demo_digits_masks.py` is the small
Stable-MaskDINO. These four configs belong to no table.

```bash
python tools/make_digit_scenes.py
python tools/analysis/ablation_table.py --run --rows 6.1 6.2 6.3 6.6 6.7 \\
    --overlay configs/demo_digits.py --work-root work_dirs/small
python tools/benchmarks/convergence.py                               # AP against epochs, three seeds, table and plot
```

The [benchmarks](../docs/benchmarks.md#does-stable-matching-help-at-small-scale) have our results of both.
"""
CITE = """## Cite

```bibtex
@inproceedings{liu2023stable,
  title     = {Detection Transformer with Stable Matching},
  author    = {Liu, Shilong and Ren, Tianhe and Chen, Jiayu and Zeng, Zhaoyang and Zhang, Hao and Li, Feng and
               Li, Hongyang and Huang, Jun and Su, Hang and Zhu, Jun and Zhang, Lei},
  booktitle = {ICCV},
  year      = {2023}
}
@inproceedings{li2022dn,
  title     = {DN-DETR: Accelerate DETR Training by Introducing Query DeNoising},
  author    = {Li, Feng and Zhang, Hao and Liu, Shilong and Guo, Jian and Ni, Lionel M. and Zhang, Lei},
  booktitle = {CVPR},
  year      = {2022}
}
```
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--check', action='store_true', help='write nothing, fail where a file is out of date')
    args = parser.parse_args()
    rows = load_manifest(CONFIGS / 'manifest.yml')
    outdated = []
    for name, text in [('README.md', readme(rows)), ('metafile.yml', metafile(rows))]:
        file = CONFIGS / name
        if file.exists() and file.read_text() == text:
            continue
        outdated.append(f'configs/{name}')
        if not args.check:
            file.write_text(text)
    if outdated:
        print(f'{"out of date" if args.check else "written"}: {", ".join(outdated)}')
    return 1 if args.check and outdated else 0


def readme(rows: List[Row]) -> str:
    text = [README]
    for table, group in groupby(rows, key=lambda row: row.table):
        group = list(group)
        metrics = [metric for metric in METRICS if any(metric in row.published for row in group)]
        lines = [['row', 'name', 'config', *metrics, 'gain']]
        for row in group:
            gain = published_gain(row, rows)
            values = [f'{row.published[metric]:.1f}' if metric in row.published else '' for metric in metrics]
            gain = '' if gain is None else f'{gain:+.1f} from {row.baseline}'
            lines.append([row.id, row.name, f'[{row.stem}]({row.config})', *values, gain])
        heading = f'Table {table}' if table.isdigit() else table
        note = f'{group[0].note}\n\n' if group[0].note else ''
        text.append(f'## {heading}: {group[0].title}\n\n{note}{GithubFlavoredMarkdownTable(lines).table}\n')
    return '\n'.join([*text, CITE])


def metafile(rows: List[Row]) -> str:
    """OpenMMLab's model index; ``Results`` stay without metrics, which would mean that we measured them."""
    by_config: Dict[str, Row] = {}
    for row in rows:
        by_config.setdefault(row.config, row)
    collections = [
        dict(
            Name=name,
            Metadata={'Training Data': 'COCO', 'Architecture': ['ResNet', 'Swin Transformer', 'Transformer']},
            Paper=dict(Title=title, URL=url),
            README='configs/README.md',
        )
        for name, (title, url) in COLLECTIONS.items()
    ]
    models = []
    for config, row in by_config.items():
        cfg = Config.fromfile(CONFIGS / config)
        length = cfg.train_cfg
        metadata = {'Epochs': length.max_epochs} if 'max_epochs' in length else {'Iterations': length.max_iters}
        if row.published:
            metadata['Published by the paper, not measured by us'] = {
                metric if metric.startswith('mask') else f'box {metric}': value
                for metric, value in row.published.items()
            }
        task, data = task_and_data(cfg.model, cfg.train_dataloader.dataset)
        models.append(
            {
                'Name': row.stem,
                'In Collection': collection_of(cfg.model.type),
                'Config': f'configs/{config}',
                'Metadata': metadata,
                'Results': [{'Task': task, 'Dataset': data}],
            }
        )
    head = '# Written by tools/sync_manifest.py from manifest.yml; edit that file, not this one.\n'
    return head + yaml.safe_dump(dict(Collections=collections, Models=models), sort_keys=False, width=120)


def task_and_data(model: dict, dataset: dict) -> Tuple[str, str]:
    """What a config learns, and from which data, as OpenMMLab calls them."""
    for part, name in {'objects365': 'Objects365', 'ADE': 'ADE20K', 'cityscapes': 'Cityscapes'}.items():
        if part.lower() in dataset['data_root'].lower():
            data = name
            break
    else:
        data = 'COCO'
    if model['type'] != 'MaskDINO':
        return 'Object Detection', data
    wanted = model['test_cfg']
    kinds = {'semantic_on': 'Semantic Segmentation', 'panoptic_on': 'Panoptic Segmentation'}
    return next((kind for key, kind in kinds.items() if wanted.get(key)), 'Instance Segmentation'), data


def collection_of(detector: str) -> str:
    if detector.startswith('DN'):
        return 'DN-DETR'
    return {'DINO': 'DINO', 'DABDETR': 'DAB-DETR', 'MaskDINO': 'MaskDINO'}.get(
        detector, 'Stable-DINO'
    )  # and what its Table 5 compares


if __name__ == '__main__':
    sys.exit(main())
