"""Find what is wrong with the data of a config before training does. Example:

python tools/check_dataset.py configs/stable_dino_r50_12e.py

Prints one row for each fault and exits with 1 where there is any.
"""

import os
import sys
from collections import Counter
from typing import Iterator, Tuple

from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS
from mmdet.utils import register_all_modules
from mmengine.config import Config, ConfigDict

from mmdet_stable.datasets.checks import HARMLESS, REMEDIES, Finding, dataset_findings
from mmdet_stable.datasets.coco_checks import coco_findings
from mmdet_stable.datasets.image_checks import ImageEntry, image_findings
from mmdet_stable.datasets.mask_checks import loads_masks
from mmdet_stable.engine.launch import annotated, argument_parser, load_config

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def main() -> int:
    parser = argument_parser('Check the data sets of a config')
    parser.add_argument('--decode', action='store_true', help='decode every image, which also finds damage inside')
    parser.add_argument(
        '--ignore', nargs='+', default=[], choices=sorted(REMEDIES), metavar='KIND', help='kinds that are known'
    )
    parser.add_argument('--limit', type=int, default=20, help='rows printed for each kind; all are counted')
    args = parser.parse_args()
    register_all_modules()
    ignored = {*args.ignore, *HARMLESS}

    counts = Counter()
    for finding in findings_of(load_config(args), args.decode):
        counts[finding.kind] += 1
        if counts[finding.kind] <= args.limit:
            print(' | '.join((finding.kind, finding.file, finding.key, finding.problem, finding.remedy)), flush=True)
    print()
    for kind, count in counts.items():
        print(f'{count:>8} {kind}{" (does not count)" if kind in ignored else ""}')
    wrong = sum(count for kind, count in counts.items() if kind not in ignored)
    print(f'{wrong} fault{"s" * (wrong != 1)} found' if wrong else 'no faults found')
    return int(wrong > 0)


def findings_of(cfg: Config, decode: bool) -> Iterator[Finding]:
    """The faults of all data sets of a config, each of them checked once."""
    num_classes = cfg.model.get('bbox_head', {}).get('num_classes')
    seen = set()
    for loader in LOADERS:
        for key, node in annotated(cfg.get(loader), loader):
            files = annotation_file(node), image_folder(node)
            if files not in seen:
                seen.add(files)
                print(f'{key}: {files[0]}', flush=True)
                yield from node_findings(node, key, files, num_classes, cfg.model.get('num_queries'), decode)


def node_findings(
    node: ConfigDict, key: str, files: Tuple[str, str], num_classes: int, num_queries: int, decode: bool
) -> Iterator[Finding]:
    kind = DATASETS.get(node.type)
    if issubclass(kind, CocoDataset) and kind.load_data_list is CocoDataset.load_data_list:
        classes = node.get('metainfo', {}).get('classes', kind.METAINFO.get('classes'))
        masks = loads_masks(node.get('pipeline', ()))
        yield from coco_findings(*files, classes, num_classes, num_queries, key, decode, masks)
        return
    dataset = DATASETS.build(node)  # a format that only its class can read
    yield from dataset_findings(dataset, num_classes or len(dataset.metainfo['classes']), key)
    infos = (dataset.get_data_info(index) for index in range(len(dataset)))
    yield from image_findings((ImageEntry(info['img_path'], key, None) for info in infos), decode)


def annotation_file(node: ConfigDict) -> str:
    return os.path.join(node.get('data_root') or '', node.ann_file)


def image_folder(node: ConfigDict) -> str:
    return os.path.join(node.get('data_root') or '', node.get('data_prefix', {}).get('img', ''))


if __name__ == '__main__':
    sys.exit(main())
