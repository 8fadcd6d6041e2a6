"""The config beside converted weights: all settings without which they would not compute what they did."""

import ast
import contextlib
from pathlib import Path
from pprint import pformat
from typing import Any, Dict, List, Mapping, NamedTuple, Optional

from mmengine.config import Config, ConfigDict
from mmengine.hub import get_config

from mmdet_stable.models.settings import scores_by_softmax
from mmdet_stable.shipped import config_folder

from .errors import WeightsError
from .families import ONE_TO_MANY, num_classes, one_to_many_queries
from .kinds import Kind, load_kinds
from .rules import Family
from .sizes import (
    DEFAULTS,
    PUBLISHED_HEADS,
    Settings,
    Weights,
    backbone_name,
    class_loss,
    different,
    is_mask_dino,
    num_levels,
    scores_background,
    size_settings,
    structure_settings,
)

# mmdet's classes, in whose place ours take settings that mmdet's do not have.
OURS_FOR = {
    'DINO': 'StableDINO',
    'DINOHead': 'StableDINOHead',
    'DeformableDETR': 'StableDeformableDETR',
    'DeformableDETRHead': 'StableDeformableDETRHead',
    'HungarianAssigner': 'StableHungarianAssigner',
}
DC5 = 'DilatedResNet'  # dilates as torchvision's ResNet, with which DC5 weights are trained
DC5_SETTINGS = {'strides': (1, 2, 2, 1), 'dilations': (1, 1, 1, 2), 'type': DC5}


class Setting(NamedTuple):
    """A setting that was written because the weights need it."""

    key: str
    before: Any  # in the config that was started from
    value: Any
    why: str


def load_config(name: str) -> Config:
    """A config of mmdet (``mmdet::...``), of a file, or of this package, relative to its folder of configs.

    Raises:
        WeightsError: if there is none.
        FileNotFoundError: if this package came without its configs.
    """
    if '::' in name:
        return get_config(name)
    for path in (Path(name), config_folder() / name, config_folder() / f'{name}.py'):
        if path.is_file():
            return Config.fromfile(path)
    raise WeightsError(f'{name}: there is no such config, neither here nor in {config_folder()}')


def named_config(weights: Weights, kind: Kind) -> str:
    """The config of a kind of detector that is nearest to weights in our names."""
    configs = kind.by_classes.get(num_classes(weights, kind.name), kind.configs)
    by_levels = configs.get(backbone_name(weights)) or configs['resnet']
    return by_levels.get(num_levels(weights)) or by_levels[max(by_levels)]


def named_config_of_names(kind: str) -> str:
    """The config of a kind of detector, for any size."""
    configs = load_kinds()[kind].configs['resnet']
    return configs[max(configs)]


def text_of(cfg: Config) -> str:
    """A config as a Python file without ``_base_``."""
    return ''.join(f'{key} = {pformat(value, width=120, sort_dicts=False)}\n' for key, value in cfg.to_dict().items())


def kind_of_config(model: Mapping[str, Any]) -> Optional[str]:
    """The kind of detector that a config builds; None for others than those of which weights are published."""
    types = {
        'DINO': 'dino',
        'StableDINO': 'stable_dino' if model.get('encoder', {}).get('fusion') else 'dino',
        'DeformableDETR': 'deformable_detr',
        'StableDeformableDETR': 'deformable_detr',
        'HDeformableDETR': 'h_deformable_detr',
        'DABDeformableDETR': 'dab_deformable_detr',
        'DNDeformableDETR': 'dn_deformable_detr',
        'DABDETR': 'dab_detr',
        'DNDETR': 'dn_detr',
        'ConditionalDETR': 'conditional_detr',
        'DETR': 'detr',
        'MaskDINO': mask_dino_kind(model),
    }
    return types.get(model['type'].rsplit('.', 1)[-1])


def mask_dino_kind(model: Mapping[str, Any]) -> str:
    if model.get('neck', {}).get('encoder', {}).get('fusion'):
        return 'stable_mask_dino'
    return 'mask_dino' if model.get('as_two_stage', True) else 'mask_dino_semantic'


class ConfigWriter:
    """Changes a config until it fits weights, and remembers why.

    Args:
        cfg: what to start from.
        weights: in our names.
        source_kind: of detector, that the weights come from.
        args: command line of their training, where the file keeps it.
        kept: model of the config that the file keeps, see :func:`kept_model`.
    """

    def __init__(
        self, cfg: Config, weights: Weights, source_kind: str, args: Mapping[str, Any], kept: Mapping[str, Any]
    ) -> None:
        self.cfg = cfg
        self.weights = weights
        self.kind = kind_of_config(cfg.model) or source_kind
        self.args = args
        self.kept = kept
        self.one_to_many = one_to_many_queries(args, kept)
        self.settings: List[Setting] = []

    def set(self, settings: Mapping[str, Any], why: str) -> None:
        """Change settings of the model, and note those that were different."""
        for key, before, value in different(dict(settings), self.cfg.model):
            _assign(self.cfg.model, key.split('.'), value)
            self.settings.append(Setting(f'model.{key}', before, value, why))

    def fit_structure(self) -> None:
        """Parts that names show, e.g. biases of the neck; of the target, where the weights go into another detector."""
        trained = self.args.get('transformer_activation') or 'relu'
        if trained not in ('relu', 'prelu'):
            raise WeightsError(
                f'transformer_activation={trained!r}, say the arguments of the training; converted are weights of relu '
                'and prelu, and nothing was written'
            )
        settings = structure_settings(self.weights, self.kind)
        for key, before, value in different(settings, self.cfg.model):
            if key.endswith('act_cfg') and 'PReLU' not in (before['type'], value['type']):
                del settings[key]  # functions without weights, of which names say nothing
        self.set(settings, 'names of the weights')

    def fit_sizes(self) -> None:
        """Sizes that shapes show."""
        is_hybrid = self.kind == 'h_deformable_detr'
        if self.one_to_many and not is_hybrid and self.kept:
            raise WeightsError(
                f'{self.one_to_many} of the queries are for one-to-many matching, says the config in the checkpoint, '
                f'and no config of {self.kind} here has such ones: give the CONFIG of this model; nothing was written'
            )
        default = ONE_TO_MANY if self.one_to_many is None else self.one_to_many
        sizes = size_settings(self.weights, self.kind, self._known_heads(), default if is_hybrid else 0)
        asked = self.args.get('num_queries_one2one', self.args.get('num_queries'))
        if 'num_queries' not in sizes and isinstance(asked, int):  # of queries that are not learned
            self.set({'num_queries': asked}, 'the arguments of the training say so')
        if sizes.get('backbone.type', 'ResNet') != self.cfg.model.backbone.type:
            backbone = {key.split('.')[1]: value for key, value in sizes.items() if key.startswith('backbone.')}
            self.settings.append(Setting('model.backbone', self.cfg.model.backbone.type, backbone, 'names and shapes'))
            self.cfg.model.backbone = backbone
        if is_mask_dino(self.weights):
            self._fit_class_loss(sizes)
        absent = {key for key in sizes if key.startswith('positional_encoding.')} - {'positional_encoding.num_feats'}
        self.set({key: value for key, value in sizes.items() if key not in absent}, 'shapes of the weights')

    def _fit_class_loss(self, sizes: Settings) -> None:
        """The loss of MaskDINO's classes tells its head whether there is one for background."""
        loss = self.cfg.model.bbox_head.loss_cls
        rows = sizes['bbox_head.num_classes'] + 1
        if self._scores_otherwise() or (scores_by_softmax(loss) and len(loss.class_weight) != rows):
            self.set({'bbox_head.loss_cls': class_loss(self.weights)}, 'shapes of the weights')

    def _scores_otherwise(self) -> bool:
        softmax = scores_by_softmax(self.cfg.model.bbox_head.get('loss_cls'))
        return is_mask_dino(self.weights) and softmax != scores_background(self.weights)

    def _num_heads(self) -> int:
        """Heads of the decoder's attention, which shapes do not show."""
        return self._known_heads() or int(_first(self.cfg.model.decoder, 'num_heads') or PUBLISHED_HEADS)

    def _known_heads(self) -> Optional[int]:
        """Those that the file tells."""
        return self.args.get('nheads') or _first(self.kept.get('decoder'), 'num_heads')

    def _sizes(self) -> Settings:
        """Sizes that shapes show, where they leave it open as the config says."""
        number = self.one_to_many
        if number is None:
            number = _first(self.cfg.model.get('one_to_many'), 'num_queries') or 0
            number = number if number < len(self.weights.get('query_embedding.weight', ())) else 0
        return size_settings(self.weights, self.kind, self._num_heads(), number)

    def unseen(self) -> Settings:
        """Settings of the model that these weights do not show, with the values of the config."""
        shown = self._sizes()
        names = load_kinds()[self.kind].unseen
        told = {*shown, *(setting.key[len('model.') :] for setting in self.settings)}
        return {name: self.cfg.model[name] for name in names if name not in told and name in self.cfg.model}

    def misfits(self) -> List[str]:
        """Sizes in which the config differs from the weights, in words."""
        unseen = ('num_heads', 'pretrain_img_size')
        sizes = {key: value for key, value in self._sizes().items() if not key.endswith(unseen)}
        found = different(sizes, self.cfg.model)
        if self._scores_otherwise():
            found.append(('bbox_head.loss_cls', self.cfg.model.bbox_head.loss_cls, class_loss(self.weights)))
        return [f'model.{key}={before!r}, but the weights need {value!r}' for key, before, value in found]

    def fit_outputs(self, family: Family, own_config: bool, dc5: bool) -> None:
        """What neither names nor shapes show: encodings of positions, cut-offs, dilation, resizing, top-k.

        Args:
            family: that the weights come from.
            own_config: whether the user chose the config, whose number of detections then stays.
            dc5: whether the last stage of the backbone is dilated.
        """
        settings = family.settings
        why = f'{family.name} computes so'
        if 'temperature' in settings:
            temperature = self.args.get('pe_temperatureH', settings['temperature'])
            if dc5 and 'pe_temperatureH' not in self.args and family.kind == 'dab_detr':
                temperature = 20 if 'patterns.weight' in self.weights else 10
            self.fit_encoding({'temperature': temperature, 'offset': settings['offset']}, why)
        if 'sigmoid_eps' in settings:
            self._fit_eps(settings['sigmoid_eps'], why)
        if dc5:
            self.set({f'backbone.{key}': value for key, value in DC5_SETTINGS.items()}, 'the backbone is DC5')
        if not own_config:
            self.fit_detections(self.args.get('num_select', settings.get('max_per_img', 300)), why)
        if settings.get('resize'):
            self._resize_by(settings['resize'], why)

    def fit_detections(self, number: int, why: str) -> None:
        """How many detections an image has at most: no more than scores to choose from."""
        model = self.cfg.model
        softmax = scores_by_softmax(model.bbox_head.get('loss_cls'))
        scores = model.num_queries * (1 if softmax else model.bbox_head.num_classes)
        self.set({'test_cfg.max_per_img': min(number, scores)}, why)

    def fit_encoding(self, encoding: Mapping[str, Any], why: str) -> None:
        """Temperature and offset of the positional encoding."""
        self.set({f'positional_encoding.{key}': value for key, value in encoding.items()}, why)

    def fit_kept(self, own_config: bool) -> None:
        """What neither names nor shapes show, from the config that mmengine keeps in a checkpoint.

        Args:
            own_config: whether the user chose the config to write, whose other settings then stay.
        """
        model = self.kept
        why = 'the config in the checkpoint says so'
        if 'positional_encoding' in model:
            defaults = {key: DEFAULTS[f'positional_encoding.{key}'] for key in ('temperature', 'offset')}
            self.fit_encoding({key: model['positional_encoding'].get(key, defaults[key]) for key in defaults}, why)
        eps = (model.get('bbox_head') or {}).get('sigmoid_eps')
        if eps is not None:
            self._fit_eps(eps, why)
        for part in ('encoder', 'decoder'):
            activation = _first(model.get(part), 'act_cfg')
            if activation:
                self.set({f'{part}.layer_cfg.ffn_cfg.act_cfg': activation}, why)
        backbone = model.get('backbone') or {}
        if 'dilations' in backbone and self.cfg.model.backbone.type in ('ResNet', DC5):
            self.set({f'backbone.{key}': backbone[key] for key in DC5_SETTINGS if key in backbone}, why)
        if not own_config:
            self.set({key: model[key] for key in load_kinds()[self.kind].unseen if key in model}, why)

    def override(self, settings: Mapping[str, Any]) -> None:
        """Settings, by whole key of the config, that whoever converts asks for."""
        for key, value in settings.items():
            _assign(self.cfg, key.split('.'), value)
            self.settings.append(Setting(key, '...', value, 'asked for'))

    def _fit_eps(self, eps: float, why: str) -> None:
        """Where the inverse sigmoid of references is cut off: a setting of some parts of our models."""
        kind = load_kinds()[self.kind]
        if kind.eps and eps != kind.default_eps:
            self._use_our_classes(why)
            self.set({f'{part}.sigmoid_eps': eps for part in kind.eps}, why)

    def _use_our_classes(self, why: str) -> None:
        model = self.cfg.model
        replaced = {'type': model.type, 'bbox_head.type': model.bbox_head.type}
        if model.get('train_cfg'):
            replaced['train_cfg.assigner.type'] = model.train_cfg.assigner.type
        self.set({key: OURS_FOR.get(value, value) for key, value in replaced.items()}, f'{why}; this class can be told')

    def _resize_by(self, backend: str, why: str) -> None:
        """Resize test images as the publisher does, where the pipeline of the config has the step."""
        changed = False
        for loader in ('val_dataloader', 'test_dataloader'):
            for step in self.cfg.get(loader, {}).get('dataset', {}).get('pipeline', ()):
                if step['type'].rsplit('.', 1)[-1] == 'Resize' and step.get('backend', 'cv2') != backend:
                    step['backend'] = backend
                    changed = True
        if changed:
            self.settings.append(Setting('test_dataloader.dataset.pipeline: Resize.backend', 'cv2', backend, why))


def _assign(node: Dict[str, Any], keys: List[str], value: Any) -> None:
    """Set a value deep in a config, in place of what stands there, not merged into it."""
    for key in keys[:-1]:
        if not isinstance(node.get(key), dict):
            node[key] = ConfigDict()
        node = node[key]
    node[keys[-1]] = ConfigDict(value) if isinstance(value, dict) else value


def _first(node: Any, key: str) -> Any:
    """The first value of a key anywhere in a config."""
    if isinstance(node, Mapping):
        if key in node:
            return node[key]
        for value in node.values():
            found = _first(value, key)
            if found is not None:
                return found
    return None


def kept_model(meta: Mapping[str, Any]) -> Dict[str, Any]:
    """The model in the config that mmengine keeps in a checkpoint.

    The text is taken as data: nothing of it is run. Empty where there is no such text, or it is no plain config; what
    is no plain data in it is None.
    """
    text = meta.get('cfg')
    if not isinstance(text, str):
        return {}
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):  # the latter for null bytes
        return {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == 'model':
            model = _plain(node.value)
            return model if isinstance(model, dict) else {}
    return {}


def _plain(node: ast.AST) -> Any:
    if isinstance(node, ast.Call) and ast.unparse(node.func) == 'dict' and not node.args:
        return {keyword.arg: _plain(keyword.value) for keyword in node.keywords if keyword.arg}
    if isinstance(node, ast.Dict):
        return {_plain(key): _plain(value) for key, value in zip(node.keys, node.values) if key}
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_plain(value) for value in node.elts]
    with contextlib.suppress(ValueError):  # where it is no literal
        return ast.literal_eval(node)
    return None
