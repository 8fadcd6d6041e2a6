"""What a detector predicts after its encoder and after every decoder layer."""

from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import torch
from mmdet.models.detectors import DDQDETR, DINO, GroundingDINO
from mmdet.models.detectors.base_detr import DetectionTransformer
from mmdet.structures import DetDataSample
from torch import Tensor

from mmdet_stable.models.detectors import MaskDINO
from mmdet_stable.structures import BatchTargets, Predictions


class LayerPredictions(NamedTuple):
    """Predictions of all layers for B images, and what is to be found there.

    Attributes:
        decoder: of K decoder layers.
        encoder: the proposals that became the queries, in the queries' order, as one layer; None where queries are
            learned.
        targets: ground truth in pixels of the original images.
    """

    decoder: Predictions
    encoder: Optional[Predictions]
    targets: BatchTargets

    @property
    def groups(self) -> List[Predictions]:
        """The encoder's predictions, if there are any, then the decoder's."""
        return [group for group in (self.encoder, self.decoder) if group is not None]

    @property
    def layers(self) -> Tuple[int, ...]:
        """The numbers of all layers in ``groups``: 0 is the encoder, 1 to K are decoder layers."""
        return tuple(range(0 if self.encoder is not None else 1, len(self.decoder.logits) + 1))


@torch.no_grad()
def predict_layers(model: DetectionTransformer, data_batch: Dict[str, list]) -> LayerPredictions:
    """Predictions of every layer, for detectors of this package and mmdet's own DETR, Deformable-DETR, DINO and so on.

    Args:
        model: in evaluation mode.
        data_batch: as a data loader gives it to the model, with ground truth in pixels of the original images: in
            mmdet's test pipelines, ``LoadAnnotations`` comes after ``Resize``.

    Raises:
        ValueError: if the model is no DETR, or one that selects its queries in another way than Deformable-DETR and
            DINO; if it still trains; if the data carry no ground truth.
    """
    if not isinstance(model, DetectionTransformer):
        raise ValueError(f'{type(model).__name__} has no decoder layers to look into: it is no DETR of mmdet')
    if isinstance(model, (DDQDETR, GroundingDINO)):
        raise ValueError(f'{type(model).__name__} selects its queries by NMS or text: its proposals cannot be read')
    if model.training:
        raise ValueError('the model is in training mode, where it adds denoising queries: call model.eval() first')
    data = model.data_preprocessor(data_batch, False)
    samples = data['data_samples']
    # The flow of all detectors of mmdet, by its steps: what it returns lacks the encoder's proposals.
    encoder_inputs, decoder_inputs = model.pre_transformer(model.extract_feat(data['inputs']), samples)
    encoded = model.forward_encoder(**encoder_inputs)
    queries, head_inputs = model.pre_decoder(**encoded)
    outputs = model.forward_decoder(**{**decoder_inputs, **queries})
    logits, boxes_cxcywh, *_ = model.bbox_head(**head_inputs, **outputs)
    prefixes = tuple(f'd{layer}.' for layer in range(len(logits) - 1))
    decoder = Predictions(logits, boxes_cxcywh, (*prefixes, ''))
    encoder = encoder_proposals(model, encoded, queries) if getattr(model, 'as_two_stage', False) else None
    if isinstance(model, MaskDINO):
        decoder, encoder = in_images(decoder, samples), encoder and in_images(encoder, samples)
    return LayerPredictions(decoder, encoder, ground_truth(samples))


def in_images(predictions: Predictions, samples: List[DetDataSample]) -> Predictions:
    """Predictions whose boxes are normalised by the padded input, with boxes normalised by the images in it."""
    shapes = [(*sample.batch_input_shape, *sample.img_shape[:2]) for sample in samples]
    scale = [(width / image_width, height / image_height) * 2 for height, width, image_height, image_width in shapes]
    boxes = predictions.boxes_cxcywh
    return predictions._replace(boxes_cxcywh=boxes * boxes.new_tensor(scale)[:, None])


def ground_truth(samples: List[DetDataSample]) -> BatchTargets:
    """The boxes to be found in B images, in pixels of the original images."""
    for sample in samples:
        if 'gt_instances' not in sample or 'bboxes' not in sample.gt_instances:
            raise ValueError(
                f'{sample.get("img_path", "an image")} comes without ground truth; add dict(type="LoadAnnotations", '
                'with_bbox=True) to the pipeline of the data set, after Resize'
            )
    metas = [dict(img_shape=sample.metainfo['ori_shape']) for sample in samples]
    return BatchTargets.from_instances([sample.gt_instances for sample in samples], metas)


def class_scores(model: DetectionTransformer, logits: Tensor) -> Tensor:
    """Scores in [0, 1] of the classes, (..., C), from the logits of the model's head, whether by sigmoid or softmax."""
    return logits.sigmoid() if model.bbox_head.loss_cls.use_sigmoid else logits.softmax(-1)[..., :-1]


def encoder_proposals(model: DetectionTransformer, encoded: Dict[str, Any], queries: Dict[str, Tensor]) -> Predictions:
    """The proposals that a two-stage detector has turned into queries, which mmdet returns in training only.

    Their boxes are what the decoder starts from. Their scores are computed here once more, and selected from those of
    all tokens in the way of the detector's ``pre_decoder``: by the best class in DINO, by the score of an object, which
    is class 0, in Deformable-DETR.

    Args:
        encoded: what ``forward_encoder`` has returned.
        queries: what ``pre_decoder`` has made of that for the decoder.
    """
    tokens, _ = model.gen_encoder_output_proposals(
        encoded['memory'], encoded.get('memory_mask'), encoded['spatial_shapes']
    )
    logits, boxes = model.bbox_head.cls_branches[model.decoder.num_layers](tokens), queries['reference_points']
    class_agnostic = getattr(model, 'class_agnostic_encoder', not isinstance(model, DINO))
    objectness = logits[..., 0] if class_agnostic else logits.amax(-1)
    best = objectness.topk(boxes.shape[1], dim=1).indices[..., None].expand(-1, -1, logits.shape[-1])
    return Predictions(logits.gather(1, best)[None], boxes[None], ('enc_',), class_agnostic=class_agnostic)
