import copy
import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from mmdet.registry import DATASETS, TRANSFORMS
from mmengine.hub import get_config
from mmengine.logging import MessageHub, MMLogger
from mmengine.runner.base_loop import BaseLoop
from mmengine.runner.checkpoint import _load_checkpoint_to_model
from torch.utils.data import DataLoader

from mmdet_stable.engine.hooks import DatasetCheckHook, DenoisingNoiseHook, FineTuneClassesHook, check_dataset
from tests.models.detectors.test_dn_detr import dn_detr_cfg
from tests.utils import build, tiny_model_cfg


def dataset(classes=('a', 'b'), labels=(0, 1), box=(1, 1, 5, 5), **attributes):
    """What the checks read of an mmdet dataset."""
    infos = [dict(img_path=f'{i}.jpg', instances=[dict(bbox_label=label, bbox=box)]) for i, label in enumerate(labels)]
    result = SimpleNamespace(
        metainfo=dict(classes=classes), ann_file='train.json', get_data_info=infos.__getitem__, **attributes
    )
    return type('Dataset', (SimpleNamespace,), {'__len__': lambda self: len(infos)})(**vars(result))


@pytest.fixture(autouse=True)
def images(tmp_path, monkeypatch):
    """The image files of the datasets below, which are only looked for."""
    for name in ('0.jpg', '1.jpg'):
        (tmp_path / name).write_bytes(b'pixels')
    monkeypatch.chdir(tmp_path)


def test_a_good_dataset_passes():
    check_dataset(dataset(), 2, 'train_dataloader.dataset')


@pytest.mark.parametrize(
    'data,message',
    [
        (dataset(('a', 'b', 'c')), r'num_classes=2, but train_dataloader.dataset has 3 classes .*num_classes=3'),
        (
            dataset(labels=(0, 2)),
            r'1.jpg: train_dataloader.dataset: label 2 is outside 0 to 1, as model.bbox_head.num_classes=2',
        ),
        (dataset(labels=(-1,)), '0.jpg: train_dataloader.dataset: label -1 '),
        (dataset('ab'), "metainfo.classes='ab' is a string"),
        (dataset(None), 'has no "classes"'),
        (dataset(labels=(0, 1, 0)), '2.jpg: train_dataloader.dataset: there is no such file; restore'),
        (dataset(box=[0, 0, float('nan'), 5]), '0.jpg: .* is not finite; remove'),
        (dataset(box=[9, 0, 3, 5]), '0.jpg: .* has a right or lower edge before'),
    ],
)
def test_a_bad_dataset_is_explained(data, message):
    with pytest.raises(ValueError, match=message):
        check_dataset(data, 2, 'train_dataloader.dataset')


@pytest.fixture
def coco(tmp_path):
    """A CocoDataset of one image with categories a, b, c in the file."""

    def build_coco(classes, label='a', left=1):
        names = ('a', 'b', 'c')
        annotation = dict(
            id=1, image_id=1, category_id=names.index(label) + 1, bbox=[left, 1, 5, 5], area=25, iscrowd=0
        )
        content = dict(
            images=[dict(id=1, file_name='1.jpg', width=20, height=20)],
            annotations=[annotation],
            categories=[dict(id=i + 1, name=name) for i, name in enumerate(names)],
        )
        (tmp_path / 'train.json').write_text(json.dumps(content))
        return DATASETS.build(
            dict(
                type='CocoDataset',
                ann_file=str(tmp_path / 'train.json'),
                metainfo=dict(classes=classes),
                data_prefix=dict(img=''),
                pipeline=[],
            )
        )

    return build_coco


def test_class_names_of_a_coco_file(coco):
    check_dataset(coco(('a', 'b', 'c')), 3, 'data')
    check_dataset(coco(('a', 'c')), 2, 'data')  # a subset, in the file's order
    with pytest.raises(ValueError, match=r"data: \['x'\] of metainfo.classes are no categories of .*train.json"):
        check_dataset(coco(('a', 'x')), 2, 'data')


def test_mmdet_counts_labels_in_the_files_order(coco):
    """The trap behind the check: with classes c, b, a, a true "c" gets label 2, which would be called "a"."""
    shuffled = coco(('c', 'b', 'a'), label='c')
    assert shuffled.get_data_info(0)['instances'][0]['bbox_label'] == 2
    with pytest.raises(ValueError, match=r"not in the order of .*; set it to \('a', 'b', 'c'\)"):
        check_dataset(shuffled, 3, 'data')


def test_wrapped_datasets_are_checked(coco):
    wrong = coco(('a', 'x'))
    repeated = SimpleNamespace(dataset=wrong, metainfo=wrong.metainfo)
    joined = SimpleNamespace(datasets=[coco(('a', 'b')), wrong])
    for wrapper, key in ((repeated, 'data.dataset'), (joined, r'data.datasets\[1\]')):
        with pytest.raises(ValueError, match=rf"{key}: \['x'\]"):
            check_dataset(wrapper, 2, 'data')


@pytest.mark.parametrize('number', ['NaN', 'Infinity', '-Infinity'])
def test_a_nan_in_a_coco_file_is_an_error(coco, tmp_path, number):
    """mmdet drops such a box while it reads the file, so that the data set knows nothing of it."""
    data = coco(('a', 'b', 'c'), left=float(number))
    assert data.get_data_info(0)['instances'] == []
    with pytest.raises(ValueError, match=r'train.json: annotations\[0\].bbox: is \[-?(nan|inf), 1, 5, 5\]; remove'):
        check_dataset(data, 3, 'data')


def test_an_empty_image_is_an_error(tmp_path):
    (tmp_path / '1.jpg').write_bytes(b'')
    with pytest.raises(ValueError, match=r'1.jpg: data: the file is empty \(0 bytes\); write the file again'):
        check_dataset(dataset(), 2, 'data')


def test_data_without_objects_is_warned_of(capsys):
    data = dataset()
    info = data.get_data_info
    data.get_data_info = lambda index: dict(info(index), instances=[])
    MMLogger.get_instance('dataset_check')  # one that prints where this test looks
    check_dataset(data, 2, 'data')
    printed = capsys.readouterr()
    assert 'WARNING - train.json: data: none of 2 images has a box; correct ann_file' in printed.out + printed.err
    with pytest.raises(ValueError, match=r'train.json: data: no image is left of this data set; correct ann_file'):
        check_dataset(dataset(labels=()), 2, 'data')


def test_hook_checks_training_and_validation_before_the_first_step():
    good, bad = (SimpleNamespace(dataset=dataset(labels=labels)) for labels in ((0,), (5,)))
    model = SimpleNamespace(bbox_head=SimpleNamespace(num_classes=2))
    runner = SimpleNamespace(
        model=model, train_dataloader=good, val_dataloader=bad, test_dataloader=bad, val_loop=object()
    )
    for call in (DatasetCheckHook().before_train, DatasetCheckHook().before_test):
        with pytest.raises(ValueError, match='label 5'):
            call(runner)
    runner.model = object()  # a model without such a head is none of the hook's business
    DatasetCheckHook().before_train(runner)


@pytest.mark.parametrize('num_workers', [0, 1])
def test_errors_of_a_pipeline_name_the_image(coco, tmp_path, num_workers):
    """Also from a data worker, for images that go bad while training runs."""
    data = coco(('a', 'b', 'c'))
    data.pipeline.transforms.append(TRANSFORMS.build(dict(type='LoadImageFromFile')))
    cv2.imwrite(str(tmp_path / '1.jpg'), np.zeros((20, 20, 3), np.uint8))
    joined = SimpleNamespace(datasets=[SimpleNamespace(dataset=data)])
    loader = SimpleNamespace(dataset=joined)
    runner = SimpleNamespace(model=object(), train_dataloader=loader, val_loop=None, test_dataloader=loader)
    DatasetCheckHook().before_train(runner)
    DatasetCheckHook().before_test(runner)  # once is enough
    batches = DataLoader(data, num_workers=num_workers, collate_fn=list)
    assert next(iter(batches))[0]['img'].shape == (20, 20, 3)
    for content, message in ((b'', r'the file is empty \(0 bytes\)'), (b'no image', 'cannot identify image file')):
        (tmp_path / '1.jpg').write_bytes(content)
        with pytest.raises(ValueError, match=rf'1.jpg: {message}.*; write the file again'):
            next(iter(batches))
    cv2.imwrite(str(tmp_path / '1.jpg'), np.zeros((20, 20, 3), np.uint8))
    data.pipeline.transforms.append(lambda results: results['nothing'])
    with pytest.raises(ValueError, match=r"1.jpg: KeyError: 'nothing'"):
        next(iter(batches))


LABELS = 'dn_query_generator.label_embedding.weight'


def data_of(classes):
    return SimpleNamespace(dataset=SimpleNamespace(metainfo=dict(classes=tuple(classes))))


class TestFineTuning:
    @pytest.fixture
    def runner(self):
        return SimpleNamespace(
            model=build(tiny_model_cfg(num_classes=3)),
            _resume=False,
            _train_loop=object.__new__(type('Loop', (BaseLoop,), {'run': None})),
            train_dataloader=data_of('bcd'),
            logger=MMLogger.get_instance('fine_tune'),
        )

    @pytest.fixture
    def checkpoint(self):
        return dict(state_dict=build(tiny_model_cfg(num_classes=7), seed=1).state_dict())

    @pytest.mark.parametrize('key', ['classes', 'CLASSES'])
    def test_rows_of_the_same_classes_are_kept(self, runner, checkpoint, key, caplog):
        """Ours are b, c and d; c and b stand at 0 and 4 of the checkpoint."""
        before = copy.deepcopy(checkpoint['state_dict'])
        checkpoint['meta'] = dict(dataset_meta={key: ('c', 'x', 'y', 'z', 'b', 'u', 'v')})
        runner.logger.addHandler(caplog.handler)
        FineTuneClassesHook().after_load_checkpoint(runner, checkpoint)
        runner.logger.removeHandler(caplog.handler)
        runner.model.load_state_dict(checkpoint['state_dict'])
        loaded, fresh = runner.model.state_dict(), build(tiny_model_cfg(num_classes=3)).state_dict()
        for name in ('bbox_head.cls_branches.1.weight', 'bbox_head.cls_branches.3.bias', LABELS):
            assert loaded[name][:2].equal(before[name][[4, 0]]) and loaded[name][2].equal(fresh[name][2])
        assert 'Kept: b, c; the other rows of these weights start afresh' in caplog.text and LABELS in caplog.text

    def test_classes_in_another_order_move(self, runner, checkpoint):
        """The shapes agree, so that without their names every class would get another one's weights."""
        checkpoint = dict(
            state_dict=build(tiny_model_cfg(num_classes=3), seed=1).state_dict(),
            meta=dict(dataset_meta=dict(classes=('d', 'c', 'b'))),
        )
        before = copy.deepcopy(checkpoint['state_dict'])
        FineTuneClassesHook().after_load_checkpoint(runner, checkpoint)
        assert checkpoint['state_dict'][LABELS].equal(before[LABELS].flip(0))
        checkpoint['meta']['dataset_meta']['classes'] = ('b', 'c', 'd')
        after = copy.deepcopy(checkpoint['state_dict'])
        FineTuneClassesHook().after_load_checkpoint(runner, checkpoint)
        assert all(value.equal(after[name]) for name, value in checkpoint['state_dict'].items())

    def test_what_is_not_loaded_is_listed(self, runner, checkpoint, caplog):
        state_dict = checkpoint['state_dict']
        state_dict['other.weight'] = state_dict.pop('query_embedding.weight')
        runner.logger.addHandler(caplog.handler)
        FineTuneClassesHook().after_load_checkpoint(runner, checkpoint)
        runner.logger.removeHandler(caplog.handler)
        assert '1 weights are not in the checkpoint and start afresh: query_embedding.weight' in caplog.text
        assert '1 weights are not used: other.weight' in caplog.text

    def test_class_weights_start_afresh_and_everything_else_is_kept(self, runner, checkpoint):
        before, fresh = copy.deepcopy(checkpoint['state_dict']), runner.model.state_dict()
        FineTuneClassesHook().after_load_checkpoint(runner, checkpoint)
        after = checkpoint['state_dict']
        changed = {name for name, value in before.items() if not value.equal(after[name])}
        branches = [f'bbox_head.cls_branches.{i}.{part}' for i in range(4) for part in ('weight', 'bias')]
        assert changed == {*branches, LABELS} and all(after[name].equal(fresh[name]) for name in changed)
        runner.model.load_state_dict(after)

    def test_bare_state_dicts_and_other_mismatches(self, runner, checkpoint):
        """A file without "state_dict" is one; a weight that differs for another reason stays, and is refused later."""
        state_dict = checkpoint['state_dict']
        state_dict['query_embedding.weight'] = state_dict['query_embedding.weight'][:5]
        FineTuneClassesHook().after_load_checkpoint(runner, state_dict)
        assert len(state_dict['bbox_head.cls_branches.0.weight']) == 3 and 'query_embedding.weight' in state_dict
        with pytest.raises(ValueError, match=r'query_embedding.weight: \(5, 32\)'):
            runner.model.load_state_dict(state_dict, strict=False)

    def test_resuming_and_testing_are_left_alone(self, runner, checkpoint):
        for attribute, value in (('_resume', True), ('_train_loop', dict(type='EpochBasedTrainLoop'))):
            other = SimpleNamespace(**{**vars(runner), attribute: value})
            FineTuneClassesHook().after_load_checkpoint(other, checkpoint)
            assert len(checkpoint['state_dict']['bbox_head.cls_branches.0.weight']) == 7


class TestDenoisingNoise:
    @staticmethod
    def runner(iteration, max_iters=101):
        model = SimpleNamespace(dn_query_generator=SimpleNamespace(noise_factor=1.0, negatives=None))
        return SimpleNamespace(model=model, iter=iteration, max_iters=max_iters, message_hub=MessageHub('noise'))

    @pytest.mark.parametrize(
        'settings,factors',
        [
            (dict(), {0: 0.0, 25: 0.25, 100: 1.0}),
            (dict(start=0.5, until=0.5), {0: 0.5, 25: 0.75, 50: 1.0, 100: 1.0}),
            (dict(start=2.0, end=1.0), {0: 2.0, 100: 1.0}),
            (dict(shape='cosine'), {0: 0.0, 25: 0.1464, 50: 0.5, 100: 1.0}),
        ],
        ids=['linear', 'until', 'falling', 'cosine'],
    )
    def test_schedule(self, settings, factors):
        hook = DenoisingNoiseHook(**settings)
        for iteration, factor in factors.items():
            runner = self.runner(iteration)  # nothing but the iteration decides: so it is after resuming
            hook.before_train(runner)
            hook.before_train_iter(runner, 0)
            assert runner.model.dn_query_generator.noise_factor == pytest.approx(factor, abs=1e-4)
            assert runner.message_hub.get_scalar('train/denoising_noise').current() == pytest.approx(factor, abs=1e-4)
            checkpoint = dict(meta={})
            hook.before_save_checkpoint(runner, checkpoint)
            assert checkpoint['meta']['denoising_noise'] == runner.model.dn_query_generator.noise_factor

    def test_wrong_settings(self):
        for settings in (dict(shape='step'), dict(start=-1.0), dict(until=0.0)):
            with pytest.raises(ValueError, match=next(iter(settings))):
                DenoisingNoiseHook(**settings)

    def test_a_model_without_the_generator_is_refused(self):
        runner = self.runner(0)
        runner.model = build(
            tiny_model_cfg(
                overrides=dict(
                    dn_cfg=dict(
                        _delete_=True, **get_config('mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py').model.dn_cfg
                    )
                )
            )
        )
        with pytest.raises(ValueError, match='StableDINO has CdnQueryGenerator: set type="DNQueryGenerator"'):
            DenoisingNoiseHook().before_train(runner)

    def test_negatives_must_not_fall_onto_positives(self):
        runner = self.runner(0)
        runner.model.dn_query_generator.negatives = 'near'
        with pytest.raises(ValueError, match=r'start=0\.0, end=1\.0: without noise, negatives="near"'):
            DenoisingNoiseHook().before_train(runner)
        DenoisingNoiseHook(start=0.1).before_train(runner)


def test_fine_tuning_keeps_the_content_of_matching_queries():
    """DN-DETR's label embedding has a row that is no class: "unknown", of which all matching queries are made."""
    trained, model = build(dn_detr_cfg(), seed=1), build(dn_detr_cfg(num_classes=3))
    runner = SimpleNamespace(
        model=model,
        _resume=False,
        _train_loop=object.__new__(type('Loop', (BaseLoop,), {'run': None})),
        train_dataloader=data_of('abc'),
        logger=MMLogger.get_instance('fine_tune'),
    )
    state_dict = trained.state_dict()
    with pytest.raises(ValueError, match='weights of the checkpoint do not fit the model'):
        _load_checkpoint_to_model(model, dict(state_dict=dict(state_dict)))
    FineTuneClassesHook().after_load_checkpoint(runner, dict(state_dict=state_dict))
    _load_checkpoint_to_model(model, dict(state_dict=state_dict))
    ours, theirs = (m.dn_query_generator for m in (model, trained))
    assert ours.unknown_content.equal(theirs.unknown_content) and len(ours.label_embedding.weight) == 4
