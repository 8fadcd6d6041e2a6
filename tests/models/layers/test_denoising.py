"""Denoising queries: the reference's numbers, statistics of the noise, and the rules of the attention mask."""

import pytest
import torch
from mmdet.models.layers import inverse_sigmoid

from mmdet_stable.models.layers import DNQueryGenerator
from mmdet_stable.models.layers.denoising import centre_size_noise, corner_noise, flip_labels
from mmdet_stable.structures import BatchTargets, DenoisingLayout, Matched, QueryPlan, Segment
from tests.utils import golden, samples, tensor

DATA = golden('dn_masks_layout')
CASES = [('dn_detr', i) for i in range(5)] + [('stable_cdn', i) for i in range(5)]
RELEASED = dict(box_noise='corners', box_noise_scale=1.0, label_flip_prob=0.25, negatives='near', indicator=False)


NUM_MATCHING = 8


def generator(num_classes=7, width=6, **settings):
    if 'num_queries_budget' in settings:
        settings['num_queries'] = settings.pop('num_queries_budget')
    elif 'num_groups' not in settings:
        settings['num_groups'] = 3
    return DNQueryGenerator(num_classes, width, **settings)


def mask_of(layout, targets, num_matching=NUM_MATCHING):
    """The attention mask of denoising queries in front of matching queries."""
    segments = Segment('dn_', layout.num_queries, layout), Segment('', num_matching, Matched())
    return QueryPlan(segments, targets).attention_mask()


def reference_targets(prefix):
    """Recorded boxes as targets of images of 100 px, with labels where they were recorded."""
    boxes = [tensor(DATA[key]) for key in sorted(DATA) if key.startswith(f'{prefix}gt_boxes_')]
    labels = [tensor(DATA[key]) for key in sorted(DATA) if key.startswith(f'{prefix}gt_labels_')]
    labels = labels or [torch.zeros(len(image), dtype=torch.long) for image in boxes]
    batch = samples([len(image) for image in boxes], (100, 100))
    targets = BatchTargets.from_samples(batch)
    pad = torch.nn.utils.rnn.pad_sequence
    return targets._replace(boxes_cxcywh=pad(boxes, batch_first=True), labels=pad(labels, batch_first=True))


@pytest.mark.parametrize('kind,case', CASES, ids=lambda value: str(value))
def test_layout_and_mask_of_the_reference(kind, case):
    prefix = f'{kind}.case{case}.'
    read = {key[len(prefix) :]: value for key, value in DATA.items() if key.startswith(prefix)}
    num_matching = int(read['num_queries'])
    if kind == 'dn_detr':
        ours = generator(num_groups=int(read['groups']), ignore_padding=False)
    else:
        budget = dict(num_queries_budget=int(read['dn_number']))
        ours = generator(**budget, **RELEASED, ignore_padding=False)
    targets = reference_targets(prefix)
    layout = ours.layout(targets)
    slot_gt = torch.arange(layout.num_slots).repeat(len(targets.num_gts), layout.num_repeats)
    slot_gt = slot_gt.masked_fill(~layout.shown('cpu'), -1)
    assert slot_gt.tolist() == read['slot_gt'].tolist()
    assert mask_of(layout, targets, num_matching).tolist() == read['attn_mask'].tolist()
    if kind == 'stable_cdn':
        assert (~layout.is_negative('cpu')).tolist() == read['slot_is_positive'].tolist()
    boxes = inverse_sigmoid(layout.spread(targets.boxes_cxcywh), eps=1e-3) * layout.shown('cpu')[..., None]
    torch.testing.assert_close(boxes, tensor(read['box_query_unact_nonoise']), atol=2e-5, rtol=1e-5)


def spread_draws(recorded, num_gts, num_slots):
    """Draws recorded for the boxes of all images in a row, copy after copy, as (B, T, ...) with zeros in padding."""
    recorded = recorded.reshape(-1, sum(num_gts), *recorded.shape[1:])
    images = recorded.split(list(num_gts), 1)
    padded = [torch.cat([im, im.new_zeros(len(im), num_slots - im.shape[1], *im.shape[2:])], 1) for im in images]
    return torch.stack([im.flatten(0, 1) for im in padded])


@pytest.mark.parametrize('kind', ['dn_detr', 'stable_cdn'])
def test_noised_queries_of_the_reference(kind):
    """From the recorded random draws."""
    prefix = f'noise.a.{kind}.'
    targets = reference_targets('noise.a.')
    if kind == 'dn_detr':
        ours, embedding, flip = generator(ignore_padding=False), 'label_encoder', 0.2
        draws, noise, scales = tensor(DATA[f'{prefix}rand_box']) * 2 - 1, centre_size_noise, (0.4, 0.4)
    else:
        ours, embedding, flip = generator(**RELEASED, ignore_padding=False), 'label_enc', 0.25
        signs = tensor(DATA[f'{prefix}rand_sign01']) * 2 - 1
        draws, noise, scales = tensor(DATA[f'{prefix}rand_part']) * signs, corner_noise, (1.0, 1.0)
    ours.label_embedding.weight.data = tensor(DATA[prefix + embedding])
    layout = ours.layout(targets)
    labels, boxes = layout.spread(targets.labels), layout.spread(targets.boxes_cxcywh)
    shown = layout.shown('cpu')[..., None]
    boxes = noise(boxes, spread_draws(draws, targets.num_gts, layout.num_slots), scales)
    torch.testing.assert_close(
        inverse_sigmoid(boxes, eps=1e-3) * shown, tensor(DATA[f'{prefix}box_query_unact']), atol=2e-5, rtol=1e-5
    )
    # New labels were drawn for the flipped ones only, in their order.
    p = tensor(DATA[f'{prefix}rand_label_p'])
    new = torch.zeros(len(p), dtype=torch.long)
    new[p < flip] = tensor(DATA[f'{prefix}randint_label'])[: int((p < flip).sum())]
    p, new = (spread_draws(value, targets.num_gts, layout.num_slots) for value in (p, new))
    content = ours.content(flip_labels(labels, p, new, flip)) * shown
    torch.testing.assert_close(content, tensor(DATA[f'{prefix}label_query']))
    assert mask_of(layout, targets).tolist() == DATA[f'{prefix}attn_mask'].tolist()


def many(num=2000):
    """Equal boxes in the middle of an image, so that nothing is clamped."""
    targets = BatchTargets.from_samples(samples([num], (100, 100)))
    return targets._replace(boxes_cxcywh=torch.tensor([0.5, 0.5, 0.2, 0.1]).repeat(1, num, 1))


def test_statistics_of_centre_size_noise():
    ours = generator(num_groups=1, box_noise_scale=(0.4, 0.6), max_queries=2000)
    targets = many()
    layout = ours.layout(targets)
    labels, boxes = ours.noised(targets.labels, targets.boxes_cxcywh, layout)
    shift = (boxes - targets.boxes_cxcywh)[0] / torch.tensor([0.2 * 0.2, 0.1 * 0.2, 0.2 * 0.6, 0.1 * 0.6])
    assert shift.abs().max() <= 1 + 1e-5
    assert shift.mean(0).abs().max() < 0.05  # standard error 0.013
    torch.testing.assert_close(shift.square().mean(0), torch.full((4,), 1 / 3), atol=0.03, rtol=0)  # uniform
    assert (torch.corrcoef(shift.T) - torch.eye(4)).abs().max() < 0.1  # independent
    # A flipped label is the right one again with probability 1/7.
    assert (labels != targets.labels).float().mean().item() == pytest.approx(0.2 * 6 / 7, abs=0.03)


def test_statistics_of_negatives():
    """Near ones reach as far as positives; far ones lie between once and twice as far."""
    targets = many(500)
    for negatives, nearest, furthest in (('near', 0, 1), ('far', 1, 2)):
        ours = generator(num_groups=2, box_noise='corners', box_noise_scale=1.0, negatives=negatives, max_queries=2000)
        layout = ours.layout(targets)
        labels, boxes = layout.spread(targets.labels), layout.spread(targets.boxes_cxcywh)
        noised = ours.noised(labels, boxes, layout)[1]
        assert noised.shape == (1, 2000, 4)
        centre = (noised - boxes)[0, :, 0].abs() / 0.1  # of the mean of two corners, so up to the reach of one
        negative = layout.is_negative('cpu')
        assert negative.view(2, 2, 500).float().mean(2).tolist() == [[0, 1], [0, 1]]
        assert centre[~negative].max() <= 1 + 1e-5 and centre[negative].max() <= furthest + 1e-5
        left = (noised - boxes)[0] @ torch.tensor([1.0, 0, -0.5, 0]) / 0.1
        assert nearest - 1e-4 <= left[negative].abs().min() < nearest + 0.05


def test_no_noise():
    targets = many(50)
    ours = generator(box_noise_scale=0, label_flip_prob=0)
    labels, boxes = ours.noised(targets.labels, targets.boxes_cxcywh, ours.layout(targets))
    assert labels.equal(targets.labels) and boxes.equal(targets.boxes_cxcywh)


def test_noise_follows_its_factor():
    targets = many(500)
    for negatives in (None, 'far'):
        ours = generator(num_groups=1, negatives=negatives, max_queries=1000)
        layout = ours.layout(targets)
        labels, boxes = layout.spread(targets.labels), layout.spread(targets.boxes_cxcywh)
        positive = ~layout.is_negative('cpu')
        for factor in (0.0, 0.5):
            ours.noise_factor = factor
            new_labels, noised = ours.noised(labels, boxes, layout)
            assert (new_labels != labels).float().mean().item() == pytest.approx(0.2 * factor * 6 / 7, abs=0.03)
            reach = ((noised - boxes).abs() / torch.tensor([0.04, 0.02, 0.08, 0.04]))[0]
            assert reach[positive].max().item() == pytest.approx(factor, abs=0.01)
            if negatives:  # not onto the positives, however small the noise
                assert reach[~positive].min() >= 1 - 1e-4 and reach[~positive].max() <= 1 + factor + 1e-4


def test_queries_of_a_batch():
    """Shapes, indicator, and padding that is zero, hidden and unsupervised."""
    ours = generator()
    targets = BatchTargets.from_samples(samples((3, 1), (64, 96)))
    content, boxes, layout = ours(targets)
    mask = mask_of(layout, targets)
    assert content.shape == (2, 9, 6) and boxes.shape == (2, 9, 4) and mask.shape == (2, 1, 17, 17)
    assert layout.num_queries == 9 and layout.num_groups == 3
    shown = layout.shown('cpu')
    assert shown.tolist() == [[True] * 9, [True, False, False] * 3]
    assert (content[..., -1] == shown).all() and not content[~shown].any() and not boxes[~shown].any()
    # In the second image, nobody sees a padding slot.
    plain = mask_of(layout._replace(ignore_padding=False), targets)
    assert mask[0, 0].equal(plain)
    assert mask[1, 0][:, :9][:, ~shown[1]].all() and mask[1, 0][:, shown[1].nonzero()[:, 0]].equal(plain[:, ::3][:, :3])
    assert not mask.all(-1).any()  # no empty softmax


def test_mask_rules():
    """Matching queries see no denoising query; groups see themselves only; all see matching queries."""
    targets = BatchTargets.from_samples(samples((2,)))

    def rules(**switches):
        return mask_of(DenoisingLayout(2, 2, (2,), **switches), targets, num_matching=3)

    mask = rules()
    assert (~mask).int().tolist() == [
        [1, 1, 0, 0, 1, 1, 1],
        [1, 1, 0, 0, 1, 1, 1],
        [0, 0, 1, 1, 1, 1, 1],
        [0, 0, 1, 1, 1, 1, 1],
        [0, 0, 0, 0, 1, 1, 1],
        [0, 0, 0, 0, 1, 1, 1],
        [0, 0, 0, 0, 1, 1, 1],
    ]
    assert not rules(hide_denoising=False, isolate_groups=False).any()
    assert rules(isolate_groups=False)[:4].sum() == 0
    assert rules(hide_denoising=False)[4:].sum() == 0


@pytest.mark.parametrize('settings', [dict(num_groups=5), dict(num_queries_budget=100, **RELEASED)], ids=['5', '100'])
def test_crowded_images_stay_under_the_cap(settings):
    """Another part of the ground truths at each step, the same in all groups; other images keep all of theirs."""
    ours = generator(**{**settings, 'box_noise_scale': 0.0, 'label_flip_prob': 0.0}, max_queries=400)
    targets = BatchTargets.from_samples(samples((500, 0, 3), (2000, 2000)))
    content, boxes, layout = ours(targets)
    assert content.shape[1] == layout.num_queries <= 400 < layout.num_queries + layout.num_repeats
    assert mask_of(layout, targets).shape == (3, 1, layout.num_queries + 8, layout.num_queries + 8)
    assert layout.num_shown == (layout.num_slots, 0, 3)
    shown = [set(ours.layout(targets).gt_inds[0].tolist()) for _ in range(2)]
    assert shown[0] != shown[1] and len(shown[0]) == layout.num_slots
    assert sorted(layout.gt_inds[2, :3].tolist()) == [0, 1, 2]
    matches = layout.matches(1, 'cpu')
    for image, query, gt in zip(matches.image_inds, matches.query_inds, matches.gt_inds):
        assert layout.gt_inds[image, query % layout.group_size] == gt
    # What a slot shows is what it answers for.
    shown_boxes = boxes[matches.image_inds, matches.query_inds].sigmoid()
    torch.testing.assert_close(shown_boxes, targets.boxes_cxcywh[matches.ground_truth], atol=1e-3, rtol=1e-3)
    gt_labels = targets.labels[matches.ground_truth]
    expected = ours.content(gt_labels)
    torch.testing.assert_close(content[matches.image_inds, matches.query_inds], expected)
    assert matches.num_per_layer == layout.num_groups * (layout.num_slots + 3)


def test_budget_is_shared_by_groups():
    ours = generator(num_queries_budget=100, **RELEASED)
    for most, groups in ((1, 100), (30, 3), (60, 1), (150, 1), (0, 100)):
        layout = ours.layout(BatchTargets.from_samples(samples((most, 0), (800, 800))))
        assert layout.num_groups == groups and layout.num_queries == groups * most * 2


def test_batch_without_ground_truth():
    targets = BatchTargets.from_samples(samples((0, 0), (64, 96)))
    content, boxes, layout = generator()(targets)
    mask = mask_of(layout, targets)
    assert content.shape == (2, 0, 6) and boxes.shape == (2, 0, 4) and mask.shape == (8, 8)
    assert not mask.any() and layout.matches(2, 'cpu').num_per_layer == 0


@pytest.mark.parametrize(
    'settings,message',
    [
        (dict(num_groups=None), 'num_groups=None, num_queries=None: give one of them'),
        (dict(num_groups=0), 'num_groups=0'),
        (dict(num_queries_budget=400, negatives='far'), 'num_queries=400 needs 800 queries for an image with one box'),
        (dict(box_noise='corner'), "box_noise='corner': known are"),
        (dict(negatives='some'), "negatives='some': known are"),
        (dict(box_noise_scale=-1.0), 'box_noise_scale=-1.0'),
        (dict(label_flip_prob=1.5), 'label_flip_prob=1.5'),
    ],
    ids=lambda value: '',
)
def test_wrong_settings(settings, message):
    with pytest.raises(ValueError, match=message.replace('?', '.')):
        generator(**settings)
