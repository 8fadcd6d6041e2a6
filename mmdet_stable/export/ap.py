"""COCO AP of an exported file beside that of the detector, on the same pictures."""

from pathlib import Path
from typing import Any, Dict, List, Sequence, Tuple

import numpy as np
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmdet_stable.runtime import Detector
from mmdet_stable.utils.quiet import quiet

from .errors import ExportError


class Scored:
    """The pictures of an annotation file, of which a detector's AP is measured.

    Args:
        ann_file: in COCO's format.
        folder: in which the pictures lie by their file names.
        classes: names of the classes in the order of their labels.

    Raises:
        ExportError: if the file has none of the classes, or lists a picture that is not there.
    """

    def __init__(self, ann_file: Path, folder: Path, classes: Sequence[str]) -> None:
        with quiet():
            self.coco = COCO(str(ann_file))
        numbers = {category['name']: category['id'] for category in self.coco.dataset['categories']}
        self.categories = [numbers.get(name, -1) for name in classes]
        if max(self.categories) < 0:
            raise ExportError(f'{ann_file}: has none of the classes {list(classes)[:5]}..., but {list(numbers)[:5]}...')
        self.ids: List[int] = sorted(self.coco.imgs)
        self.paths = [folder / self.coco.imgs[number]['file_name'] for number in self.ids]
        missing = [path for path in self.paths if not path.is_file()]
        if missing:
            raise ExportError(f'{missing[0]}: not there, and {len(missing) - 1} others; --img-dir says where they are')

    def ap(self, results: List[Dict[str, Any]], kind: str) -> float:
        """AP of results in COCO's format; ``kind`` is ``'bbox'`` or ``'segm'``."""
        if not results:
            return 0.0
        with quiet():
            evaluation = COCOeval(self.coco, self.coco.loadRes(results), kind)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        return float(evaluation.stats[0])

    def results(self, number: int, boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, masks: Any) -> List[dict]:
        """Detections of one picture in COCO's format."""
        rows = []
        for index, (box, score, label) in enumerate(zip(boxes.tolist(), scores.tolist(), labels.tolist())):
            left, top, right, bottom = box
            row = dict(
                image_id=number,
                category_id=self.categories[label],
                score=score,
                bbox=[left, top, right - left, bottom - top],
            )
            if masks is not None:
                row['segmentation'] = rle.encode(np.asfortranarray(masks[index].astype(np.uint8)))
            rows.append(row)
        return rows

    def of_file(self, detector: Detector, kind: str) -> float:
        """AP of an exported file, by our runtime."""
        rows: List[dict] = []
        for number, path in zip(self.ids, self.paths):
            found = detector(path)
            rows += self.results(number, found.boxes, found.scores, found.labels, found.masks)
        return self.ap(rows, kind)

    def of_model(self, model: Any, kind: str) -> float:
        """AP of the model, by mmdet's pipeline; it has its config in ``cfg``."""
        from mmdet.apis import inference_detector

        rows: List[dict] = []
        for number, path in zip(self.ids, self.paths):
            found = inference_detector(model, str(path)).pred_instances.cpu().numpy()
            rows += self.results(number, found.bboxes, found.scores, found.labels, found.get('masks'))
        return self.ap(rows, kind)


def aps(scored: Scored, detector: Detector, model: Any, kind: str) -> Tuple[float, float]:
    """AP of the file, and of the model."""
    return scored.of_file(detector, kind), scored.of_model(model, kind)
