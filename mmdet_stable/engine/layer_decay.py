"""Learning rates that fall from the last layer of a backbone to its first."""

import re
from typing import Dict, List, Optional, Tuple, Union

from mmdet.registry import OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn

BLOCK = re.compile(r'(.*?\bblocks\.\d+)\.')  # a layer, as of model.blocks.11, or of stages.2.blocks.5
UNDECAYED = re.compile(r'(?:.*\.)?[^.]*(?:pos_embed|token|position_bias|freqs)[^.]*')  # weights that are no matrices


def blocks_of(backbone: nn.Module) -> List[str]:
    """Names of the modules in lists called ``blocks``, in the order in which they were registered."""
    found = (BLOCK.match(name) for name, _ in backbone.named_parameters())
    return list(dict.fromkeys(match[1] for match in found if match))


def layers_of(backbone: nn.Module) -> Tuple[Dict[str, int], int]:
    """The layer of each parameter, by name, and the number of layers.

    Layers are those of :func:`blocks_of`, counted from 1, as vision transformers of timm, and Swin of timm and of
    mmdet, have them. What comes before the first one is layer 0: patches, position embeddings, tokens. What lies
    between two is of the former, what comes after the last one of the next.

    Raises:
        ValueError: for a backbone without such lists.
    """
    numbers = {block: number for number, block in enumerate(blocks_of(backbone), 1)}
    if not numbers:
        raise ValueError(
            f'{type(backbone).__name__} has no layers for optim_wrapper.paramwise_cfg.layer_decay_rate: no list of '
            'modules called blocks. Take the setting out, with optim_wrapper.constructor'
        )
    names = [name for name, _ in backbone.named_parameters()]
    found = [BLOCK.match(name) for name in names]
    last = max(place for place, match in enumerate(found) if match)
    layers, current = {}, 0
    for place, (name, match) in enumerate(zip(names, found)):
        if match:
            current = numbers[match[1]]
        elif place > last:
            current = len(numbers) + 1
        layers[name] = current
    return layers, len(numbers)


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """mmengine's constructor, with rates of the backbone that fall layer by layer.

    The rate of a backbone's parameter is what mmengine's other options make of it, as ``custom_keys.backbone.lr_mult``,
    times ``layer_decay_rate ** (num_layers + 1 - layer)``; :func:`layers_of` counts layers. There is no weight decay on
    the backbone's norms, biases and other vectors, position embeddings and tokens. The rest of the detector is left to
    mmengine's options.

    Args:
        optim_wrapper_cfg: as in mmengine.
        paramwise_cfg: as in mmengine, with ``layer_decay_rate`` above 0 and at most 1, and optionally ``num_layers``,
            which must then be the backbone's.

    Raises:
        ValueError: for other rates, a backbone without layers or with another number of them.

    Source: BEiT, arXiv:2106.08254; for detection ViTDet, arXiv:2203.16527, with 0.7, 0.8 and 0.9 for ViT-B, -L and -H.
    """

    def _validate_cfg(self) -> None:
        super()._validate_cfg()
        key = 'optim_wrapper.paramwise_cfg'
        rate = self.paramwise_cfg.get('layer_decay_rate')
        if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 < rate <= 1:
            raise ValueError(
                f'{key}.layer_decay_rate={rate!r} must be above 0 and at most 1; 0.7 is usual for 12 layers'
            )
        if not isinstance(self.base_lr, (int, float)):
            raise ValueError(f'optim_wrapper.optimizer.lr={self.base_lr!r}: {key}.layer_decay_rate needs a number')

    def add_params(
        self,
        params: List[dict],
        module: nn.Module,
        prefix: str = '',
        is_dcn_module: Optional[Union[int, float]] = None,
    ) -> None:
        super().add_params(params, module, prefix, is_dcn_module)
        if not prefix:  # the whole model, of which mmengine has gone through all parts
            self._decay(params, module)

    def _decay(self, params: List[dict], model: nn.Module) -> None:
        backbone = getattr(model, 'backbone', None)
        if backbone is None:
            raise ValueError(
                f'{type(model).__name__} has no backbone for optim_wrapper.paramwise_cfg.layer_decay_rate; take it '
                'out, with optim_wrapper.constructor'
            )
        layers, num_layers = layers_of(backbone)
        wanted = self.paramwise_cfg.get('num_layers', num_layers)
        if wanted != num_layers:
            raise ValueError(
                f'optim_wrapper.paramwise_cfg.num_layers={wanted}: {type(backbone).__name__} has {num_layers} layers; '
                'write that number, or leave it out'
            )
        rate = self.paramwise_cfg['layer_decay_rate']
        names = {id(param): name for name, param in backbone.named_parameters()}
        for group in params:
            (param,) = group['params']
            name = names.get(id(param))
            if name is None:
                continue
            group['lr'] = group.get('lr', self.base_lr) * rate ** (num_layers + 1 - layers[name])
            if param.ndim < 2 or UNDECAYED.fullmatch(name):
                group['weight_decay'] = 0.0
        print_log(f'learning rates of the backbone fall by {rate} for each of its {num_layers} layers', 'current')
