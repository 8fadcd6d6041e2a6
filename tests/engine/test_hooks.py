import copy
from types import SimpleNamespace

import pytest
from mmengine.logging import MMLogger
from mmengine.runner.base_loop import BaseLoop

from mmdet_stable.engine.hooks import DatasetCheckHook, FineTuneClassesHook, check_dataset
from tests.utils import build, tiny_model_cfg


def dataset(classes=('a', 'b'), labels=(0, 1), **attributes):
    """What the checks read of an mmdet dataset."""
    infos = [dict(img_path=f'{i}.jpg', instances=[dict(bbox_label=label)]) for i, label in enumerate(labels)]
    result = SimpleNamespace(
        metainfo=dict(classes=classes), ann_file='train.json', get_data_info=infos.__getitem__, **attributes
    )
    return type('Dataset', (SimpleNamespace,), {'__len__': lambda self: len(infos)})(**vars(result))


def test_a_good_dataset_passes():
    check_dataset(dataset(), 2, 'train_dataloader.dataset')


@pytest.mark.parametrize(
    'data,message',
    [
        (dataset(('a', 'b', 'c')), r'num_classes=2, but train_dataloader.dataset has 3 classes .*num_classes=3'),
        (dataset(labels=(0, 2)), r'label 2 in 1.jpg is outside 0 to 1, as model.bbox_head.num_classes=2'),
        (dataset(labels=(-1,)), 'label -1 in 0.jpg'),
        (dataset('ab'), "metainfo.classes='ab' is a string"),
        (dataset(None), 'has no "classes"'),
        (dataset(cat_ids=[7]), 'only 1 of their names are categories of train.json'),
    ],
)
def test_a_bad_dataset_is_explained(data, message):
    with pytest.raises(ValueError, match=message):
        check_dataset(data, 2, 'train_dataloader.dataset')


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


class TestFineTuning:
    @pytest.fixture
    def runner(self):
        return SimpleNamespace(
            model=build(tiny_model_cfg(num_classes=3)),
            _resume=False,
            _train_loop=object.__new__(type('Loop', (BaseLoop,), {'run': None})),
            logger=MMLogger.get_instance('fine_tune'),
        )

    @pytest.fixture
    def checkpoint(self):
        return dict(state_dict=build(tiny_model_cfg(num_classes=7), seed=1).state_dict())

    def test_class_weights_are_dropped_and_everything_else_is_kept(self, runner, checkpoint, caplog):
        before = copy.deepcopy(checkpoint['state_dict'])
        FineTuneClassesHook().after_load_checkpoint(runner, checkpoint)
        dropped = set(before) - set(checkpoint['state_dict'])
        branches = [f'bbox_head.cls_branches.{i}.{part}' for i in range(4) for part in ('weight', 'bias')]
        assert dropped == {*branches, 'dn_query_generator.label_embedding.weight'}
        runner.model.load_state_dict(checkpoint['state_dict'], strict=False)

    def test_resuming_and_testing_are_left_alone(self, runner, checkpoint):
        for attribute, value in (('_resume', True), ('_train_loop', dict(type='EpochBasedTrainLoop'))):
            other = SimpleNamespace(**{**vars(runner), attribute: value})
            FineTuneClassesHook().after_load_checkpoint(other, checkpoint)
            assert 'bbox_head.cls_branches.0.weight' in checkpoint['state_dict']
