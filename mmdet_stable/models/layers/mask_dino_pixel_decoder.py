"""Pixel decoder of MaskDINO: from backbone maps to the decoder's memory and to features that masks are made of."""

from typing import List, NamedTuple, Sequence, Tuple

import torch
from mmcv.cnn import Conv2d, ConvModule
from mmcv.ops import MultiScaleDeformableAttention
from mmdet.models.layers import SinePositionalEncoding
from mmdet.registry import MODELS
from mmdet.utils import ConfigType, OptConfigType, OptMultiConfig
from mmengine.model import BaseModule, ModuleList, caffe2_xavier_init, normal_init, xavier_init
from torch import Tensor, nn
from torch.nn.functional import interpolate

from .level_sizes import level_sizes, level_starts
from .memory_fusion_encoder import MemoryFusionEncoder

LEVEL_ORDERS = ('low2high', 'high2low')
Size = Tuple[int, int]


class PixelDecoderOutputs(NamedTuple):
    """What the pixel decoder hands on.

    Attributes:
        mask_features: (B, E, h, w) at the stride of res2; a query's mask is its mask embedding (E) times them.
        maps: encoder output of each level, (B, D, height, width), in the order in which the encoder saw them.
    """

    mask_features: Tensor
    maps: Tuple[Tensor, ...]

    def memory(self) -> Tuple[Tensor, List[Size]]:
        """What proposals are made of and the decoder attends to: (B, N, D) tokens, and (height, width) of their L maps.

        The levels stand in reverse order of the encoder's. Proposals of level l are 0.05 * 2^l of the image, so that
        with ``'low2high'`` the coarsest map proposes the smallest boxes, as in the released code.
        """
        maps = self.maps[::-1]
        tokens = torch.cat([level.flatten(2).transpose(1, 2) for level in maps], 1)
        return tokens, [(level.shape[-2], level.shape[-1]) for level in maps]


@MODELS.register_module()
class MaskDINOPixelDecoder(BaseModule):
    """Deformable encoder over 3 to 5 levels, and one FPN step onto res2 for the mask features.

    Images are taken to fill the whole input: there is no padding mask, as MaskDINO counts in the padded input.

    Args:
        encoder: config of ``MemoryFusionEncoder``; with ``fusion`` it fuses the outputs of all layers, which decoder
            and mask features then both see.
        in_channels: of res2 to res5, four numbers.
        feat_channels: D, of the encoder.
        out_channels: E, of the mask features.
        num_levels: L, levels of the encoder: the coarsest ``num_encoder_inputs`` maps of the backbone, and further
            ones, each of half the size of the one before, from res5 on.
        num_encoder_inputs: 3 for res3 to res5 (R50), 4 for res2 to res5 (Swin-L).
        level_order: in which order the encoder sees the levels: ``'low2high'`` from fine to coarse (low to high
            stride; R50 and Swin-L), ``'high2low'`` from coarse to fine (hidden 1024, ADE20K, Cityscapes).
        norm_cfg: normalisation of all convolutions but the last; None for GroupNorm of 32 groups.
        positional_encoding: config of mmdet's ``SinePositionalEncoding``; None for the normalised one of width D.

    Raises:
        ValueError: for an unknown order, or numbers of levels or channels that do not fit each other.

    Source: arXiv:2206.02777 Sec. 3.3. The first layers, and the result for 3 levels in order ``'high2low'``, are those
        of Mask2Former's ``MSDeformAttnPixelDecoder`` in mmdet.
    """

    def __init__(
        self,
        encoder: ConfigType,
        in_channels: Sequence[int] = (256, 512, 1024, 2048),
        feat_channels: int = 256,
        out_channels: int = 256,
        num_levels: int = 4,
        num_encoder_inputs: int = 3,
        level_order: str = 'low2high',
        norm_cfg: OptConfigType = None,
        positional_encoding: OptConfigType = None,
        init_cfg: OptMultiConfig = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self._check(in_channels, num_levels, num_encoder_inputs, level_order, encoder)
        self.num_encoder_inputs = num_encoder_inputs
        self.level_order = level_order
        inputs = list(in_channels[-num_encoder_inputs:])
        norm_cfg = norm_cfg or dict(type='GN', num_groups=32)
        plain = dict(norm_cfg=norm_cfg, act_cfg=None)
        self.input_convs = ModuleList(
            ConvModule(channels, feat_channels, 1, bias=True, **plain) for channels in self._in_order(inputs)
        )
        for index in range(num_levels - num_encoder_inputs):
            channels = feat_channels if index else in_channels[-1]
            self.input_convs.append(ConvModule(channels, feat_channels, 3, stride=2, padding=1, bias=True, **plain))
        self.positional_encoding = SinePositionalEncoding(
            **(positional_encoding or dict(num_feats=feat_channels // 2, normalize=True))
        )
        self.level_encoding = nn.Embedding(num_levels, feat_channels)
        self.encoder = MemoryFusionEncoder(**encoder)
        # Lists of one, by the names of mmdet's pixel decoder.
        self.lateral_convs = ModuleList([ConvModule(in_channels[0], feat_channels, 1, bias=False, **plain)])
        self.output_convs = ModuleList(
            [ConvModule(feat_channels, feat_channels, 3, padding=1, bias=False, norm_cfg=norm_cfg)]
        )
        self.mask_feature = Conv2d(feat_channels, out_channels, 1)

    @staticmethod
    def _check(
        in_channels: Sequence[int], num_levels: int, num_encoder_inputs: int, level_order: str, encoder: ConfigType
    ) -> None:
        if level_order not in LEVEL_ORDERS:
            raise ValueError(f'level_order={level_order!r}: known are {LEVEL_ORDERS}')
        if len(in_channels) != 4 or not 1 <= num_encoder_inputs <= min(4, num_levels):
            raise ValueError(
                f'in_channels={list(in_channels)}, num_encoder_inputs={num_encoder_inputs}, num_levels={num_levels}: '
                'the pixel decoder takes the 4 maps res2 to res5, of which 1 to 4 enter an encoder of at least as many '
                'levels'
            )
        attended = encoder['layer_cfg']['self_attn_cfg']['num_levels']
        if attended != num_levels:
            raise ValueError(
                f'pixel_decoder.num_levels={num_levels}, but its encoder.layer_cfg.self_attn_cfg.num_levels='
                f'{attended}; set both to the same'
            )

    def _in_order(self, fine_to_coarse: Sequence) -> list:
        """Things of the backbone's maps, in the order in which the encoder sees these."""
        return list(fine_to_coarse if self.level_order == 'low2high' else reversed(fine_to_coarse))

    def init_weights(self) -> None:
        """The released code's initialisation."""
        for conv in self.input_convs:
            xavier_init(conv.conv, gain=1, bias=0, distribution='uniform')
        for conv in (*self.lateral_convs, *self.output_convs):
            caffe2_xavier_init(conv.conv, bias=0)
        caffe2_xavier_init(self.mask_feature, bias=0)
        normal_init(self.level_encoding, mean=0, std=1)
        for parameter in self.encoder.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        for part in self.encoder.modules():
            if isinstance(part, MultiScaleDeformableAttention):
                part.init_weights()

    def forward(self, feats: Sequence[Tensor]) -> PixelDecoderOutputs:
        """Memory and mask features of a batch.

        Args:
            feats: res2 to res5 of the backbone, (B, C, height, width) each.

        Raises:
            ValueError: for another number of maps.
        """
        if len(feats) != 4:
            raise ValueError(f'pixel decoder: takes 4 maps, res2 to res5, got {len(feats)}; see backbone.out_indices')
        maps = self._encoded(self._inputs(feats))
        finest = maps[0] if self.level_order == 'low2high' else maps[-1]
        lateral = self.lateral_convs[0](feats[0])
        finest = interpolate(finest, lateral.shape[-2:], mode='bilinear', align_corners=False)
        return PixelDecoderOutputs(self.mask_feature(self.output_convs[0](lateral + finest)), maps)

    def _inputs(self, feats: Sequence[Tensor]) -> List[Tensor]:
        """The encoder's inputs, (B, D, height, width) each, in its order."""
        num = self.num_encoder_inputs
        inputs = [conv(feat) for conv, feat in zip(self.input_convs[:num], self._in_order(feats[-num:]))]
        coarser, feat = [], feats[-1]
        for conv in self.input_convs[num:]:
            feat = conv(feat)
            coarser.append(feat)
        return inputs + coarser if self.level_order == 'low2high' else coarser[::-1] + inputs

    def _encoded(self, inputs: Sequence[Tensor]) -> Tuple[Tensor, ...]:
        """The encoder's outputs of the same shapes."""
        device = inputs[0].device
        sizes = [level.shape[-2:] for level in inputs]
        positions = []
        for size, embedding in zip(sizes, self.level_encoding.weight):
            position = self.positional_encoding(torch.zeros(1, *size, dtype=torch.bool, device=device))
            positions.append(position.flatten(2).transpose(1, 2) + embedding)
        lengths = [height * width for height, width in sizes]
        memory = self.encoder(
            query=torch.cat([level.flatten(2).transpose(1, 2) for level in inputs], 1),
            query_pos=torch.cat(positions, 1),
            key_padding_mask=None,
            spatial_shapes=level_sizes(sizes, device),
            level_start_index=level_starts(sizes, device),
            valid_ratios=inputs[0].new_ones(inputs[0].shape[0], len(inputs), 2, dtype=torch.float32),
        )
        outputs = memory.transpose(1, 2).split(lengths, 2)
        return tuple(output.unflatten(2, tuple(size)) for output, size in zip(outputs, sizes))
