"""The unstable score, computed by hand; the metric in an evaluation; the hook in a training."""

import json
import math
from pathlib import Path

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.evaluator import Evaluator
from mmengine.runner import Runner

from mmdet_stable.datasets import write_digit_scenes
from mmdet_stable.engine.hooks import MatchingStabilityHook
from mmdet_stable.evaluation import LayerMatches, MatchingStability, match_layers, predict_layers, unstable_scores
from tests.evaluation.test_layer_predictions import batch_of, model_of
from tests.utils import ROOT, tiny_model_cfg


def matches(*rows, first=0):
    """Of one image: a row of queries, one for each ground truth, for every layer."""
    return LayerMatches(tuple(range(first, first + len(rows))), torch.tensor(rows, dtype=torch.int64))


def test_by_hand():
    """Two images of 4 and 1 boxes: boxes count alike, not images."""
    first = matches([7, 3, 5, 0], [7, 4, 5, 1], [7, 4, 5, 1])
    second = matches([2], [2], [9])
    assert unstable_scores([first, second]) == pytest.approx({1: 40.0, 2: 20.0})
    assert unstable_scores([first]) == pytest.approx({1: 50.0, 2: 0.0})


def test_two_ground_truths_that_change_places_both_count():
    assert unstable_scores([matches([0, 1], [1, 0])]) == {1: 100.0}


def test_without_proposals_the_second_layer_is_the_first_to_be_compared():
    assert unstable_scores([matches([0, 1], [0, 2], [0, 2], first=1)]) == {2: 50.0, 3: 0.0}


def test_images_without_ground_truth():
    empty = matches([], [])
    assert unstable_scores([empty, matches([1], [2])]) == {1: 100.0}
    assert math.isnan(unstable_scores([empty])[1])


def test_a_ground_truth_without_a_query_has_not_changed():
    assert unstable_scores([matches([0, -1], [0, -1])]) == {1: 0.0}


def test_matches_of_different_layers_do_not_mix():
    for wrong in ([], [matches([0], [0]), matches([0], [0], first=1)]):
        with pytest.raises(ValueError, match='of one model on at least one image'):
            unstable_scores(wrong)


def test_equal_layers_are_stable():
    """A model whose layers all predict the same from the same queries has nothing to change."""
    model = model_of('StableDINO')
    predictions = predict_layers(model, batch_of())
    same = predictions.decoder._replace(
        **{name: getattr(predictions.encoder, name).expand(2, -1, -1, -1) for name in ('logits', 'boxes_cxcywh')}
    )
    assert unstable_scores(match_layers(model, predictions._replace(decoder=same))) == {1: 0.0, 2: 0.0}
    query_order = torch.arange(model.num_queries).roll(1)
    rolled = same._replace(logits=same.logits[:, :, query_order], boxes_cxcywh=same.boxes_cxcywh[:, :, query_order])
    assert unstable_scores(match_layers(model, predictions._replace(decoder=rolled))) == {1: 100.0, 2: 0.0}


def evaluated(num_images, num_batches=3):
    metric = MatchingStability(num_images)
    metric.model = model_of('StableDINO')
    evaluator = Evaluator(metric)
    for num in range(num_batches):
        evaluator.process([], batch_of((num + 1, 2)))
    return evaluator.evaluate(2 * num_batches), metric.model


def test_metric_looks_at_the_first_images():
    for num_images, num_gts in ((3, ((1, 2), (2,))), (None, ((1, 2), (2, 2), (3, 2)))):
        results, model = evaluated(num_images)
        found = []
        for batch in num_gts:
            found += match_layers(model, predict_layers(model, batch_of((*batch, 2)[:2])))[: len(batch)]
        scores = unstable_scores(found)
        assert results == pytest.approx(
            {
                'matching/unstable_1': scores[1],
                'matching/unstable_2': scores[2],
                'matching/unstable_mean': (scores[1] + scores[2]) / 2,
            }
        )


def test_mistakes_are_explained():
    with pytest.raises(ValueError, match='num_images=0'):
        MatchingStability(0)
    with pytest.raises(ValueError, match=r'add dict.type="MatchingStabilityHook". to custom_hooks'):
        MatchingStability().process(batch_of(), [])
    with pytest.raises(ValueError, match='interval=-1'):
        MatchingStabilityHook(interval=-1)


@pytest.fixture(scope='module')
def runner(tmp_path_factory):
    """A training of four iterations and one validation, by config alone."""
    folder = tmp_path_factory.mktemp('stability')
    write_digit_scenes(folder / 'scenes', num_train=4, num_val=4)
    cfg = Config.fromfile(ROOT / 'configs' / 'demo_digits.py')
    cfg.model = ConfigDict(tiny_model_cfg(num_layers=2, num_classes=10))
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.update(batch_size=1, num_workers=0, persistent_workers=False)
        loader.dataset.data_root = f'{folder}/scenes'
    annotations = f'{folder}/scenes/annotations/instances_val.json'
    cfg.val_evaluator = [dict(cfg.val_evaluator, ann_file=annotations), dict(type='MatchingStability', num_images=3)]
    cfg.test_evaluator = cfg.val_evaluator
    cfg.custom_hooks = [dict(type='MatchingStabilityHook', interval=2, num_images=3)]
    cfg.train_cfg.update(max_epochs=1, val_interval=1)
    cfg.work_dir = str(folder / 'work')
    cfg.visualizer.pop('name')  # else it would log into the folder of an earlier one of this process
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


def test_scores_of_a_training_reach_the_visualisers(runner):
    log_dir = Path(runner.log_dir)
    lines = [json.loads(line) for line in (log_dir / 'vis_data' / 'scalars.json').read_text().splitlines()]
    during = {line['step']: line for line in lines if 'train_matching/unstable_1' in line}
    assert set(during) == {2, 4}
    assert all(0 <= line[f'train_matching/unstable_{layer}'] <= 100 for line in during.values() for layer in (1, 2))
    (validated,) = [line for line in lines if 'matching/unstable_mean' in line]
    assert 'coco/bbox_mAP' in validated and 'train_matching/unstable_1' not in validated
    # Both look at the same weights after the last iteration, and at the same three images.
    assert during[4]['train_matching/unstable_1'] == pytest.approx(validated['matching/unstable_1'])
    assert runner.test()['matching/unstable_1'] == validated['matching/unstable_1']
    text = next(log_dir.glob('*.log')).read_text()
    assert 'Unstable scores in percent after iteration 2: layer 1: ' in text
