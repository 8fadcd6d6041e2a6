"""The command line, as a user types it, on a few digit scenes: processes, checkpoints, resuming, errors."""

import os
import subprocess
import sys

import cv2
import mmengine
import pytest
import torch

from tests.tools.command_line import CONFIG, ENVIRONMENT, free_port, options, run
from tests.utils import ROOT


@pytest.fixture(scope='module')
def trained(folder):
    """One epoch on two processes by dist_train.sh."""
    work_dir = folder / 'two_processes'
    output = run('tools/dist_train.sh', CONFIG, 2, '--work-dir', work_dir, *options(folder), PORT=free_port())
    return work_dir, output


def test_dist_train_on_two_processes(trained):
    work_dir, output = trained
    assert (work_dir / 'epoch_1.pth').exists() and 'coco/bbox_mAP' in output
    assert '[1][2/2]' in output  # 8 images, 2 processes of 2: two iterations each
    assert 'GPU number: 2' in output and 'dist' in output


def test_resume_continues(trained, folder):
    work_dir, _ = trained
    two_epochs = options(folder, **{'train_cfg.max_epochs': 2})
    output = run(sys.executable, 'tools/train.py', CONFIG, '--work-dir', work_dir, '--resume', *two_epochs)
    assert 'resumed epoch: 1' in output and '[2][4/4]' in output and (work_dir / 'epoch_2.pth').exists()


def test_evaluation_of_a_checkpoint(trained, folder):
    """One process and two find the same boxes; drawn images are saved."""
    work_dir, _ = trained
    arguments = [CONFIG, work_dir / 'epoch_1.pth']
    extra = ['--work-dir', folder / 'test', *options(folder)]
    alone = ['--out', folder / 'alone.pkl', '--show-dir', 'drawn']
    output = run(sys.executable, 'tools/test.py', *arguments, *alone, *extra)
    run('tools/dist_test.sh', *arguments, 2, '--out', folder / 'two.pkl', *extra, PORT=free_port())
    assert 'coco/bbox_mAP: ' in output and len(list((folder / 'test').glob('*/drawn/*.png'))) == 4
    dumped = [mmengine.load(folder / f'{name}.pkl') for name in ('alone', 'two')]
    assert len(dumped[0]) == len(dumped[1]) == 4
    for a, b in zip(*dumped):
        assert a['img_id'] == b['img_id'] and len(a['pred_instances']['scores'])
        # Batches of 4 on one process, of 2 on two: equal but for rounding.
        torch.testing.assert_close(a['pred_instances']['scores'], b['pred_instances']['scores'], atol=1e-4, rtol=1e-4)


def test_demo_from_data_to_picture(folder):
    """make demo, shortened; a second call finds everything done."""
    arguments = ['--work-dir', folder / 'demo', '--data-root', folder / 'demo_scenes', '--num-train', 4, '--num-val', 6]
    small = [option for option in options(folder) if 'dataset.data_root' not in option and 'ann_file' not in option]
    for _ in range(2):
        output = run(sys.executable, 'tools/demo.py', *arguments, *small)
        assert 'COCO AP on 6 held-out scenes: ' in output
    assert 'Epoch(train)' not in output
    picture = cv2.imread(str(folder / 'demo' / 'detections.png'))
    assert picture.shape == (2 * 384, 3 * 480, 3)
    assert 'Training report' in (folder / 'demo' / 'report.html').read_text()


def test_learning_rate_scales_with_the_batch(folder):
    """Two images instead of the sixteen the config is made for: an eighth."""
    arguments = ['--work-dir', folder / 'scaled', '--auto-scale-lr', *options(folder)]
    output = run(sys.executable, 'tools/train.py', CONFIG, *arguments)
    assert 'the current batch size is 2. Scaling the original LR by 0.125' in output


def test_two_nodes_on_loopback(folder):
    command = ['tools/dist_train.sh', CONFIG, '1', '--work-dir', folder / 'two_nodes', *options(folder)]
    port = free_port()
    nodes = [
        subprocess.Popen(
            list(map(str, command)),
            cwd=ROOT,
            env={**ENVIRONMENT, 'NNODES': '2', 'NODE_RANK': str(rank), 'MASTER_ADDR': '127.0.0.1', 'PORT': port},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [node.communicate(timeout=300)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], outputs[0][-3000:]
    assert (folder / 'two_nodes' / 'epoch_1.pth').exists()


def test_inferencer_from_another_folder(trained, folder):
    """With the config that training saved beside its checkpoints."""
    work_dir, _ = trained
    code = (
        'from mmdet.apis import DetInferencer\n'
        f'config, weights = {str(work_dir / CONFIG.name)!r}, {str(work_dir / "epoch_1.pth")!r}\n'
        'inferencer = DetInferencer(config, weights=weights, device="cpu", show_progress=False)\n'
        f'result = inferencer({str(folder / "scenes" / "val" / "000001.png")!r}, out_dir="out")\n'
        'print("boxes:", len(result["predictions"][0]["bboxes"]), inferencer.model.dataset_meta["classes"])'
    )
    elsewhere = folder / 'elsewhere'
    elsewhere.mkdir()
    output = run(sys.executable, '-c', code, cwd=elsewhere)
    assert 'boxes: ' in output and "'9'" in output and (elsewhere / 'out' / 'vis' / '000001.png').exists()


@pytest.mark.parametrize(
    'setting,message',
    [
        (
            {'model.bbox_head.num_classes': 3},
            'model.bbox_head.num_classes=3, but train_dataloader.dataset has 10',
        ),
        ({'val_evaluator.ann_file': 'none.json'}, 'val_evaluator.ann_file: none.json'),
        ({'train_dataloader.dataset.ann_file': 'none.json'}, 'train_dataloader.dataset.ann_file: '),
        ({'model.bbox_head.loss_cls.f1': 's^9'}, "unknown f1='s^9'; known are '1'"),
        ({'load_from': 'none.pth'}, 'FileNotFoundError: none.pth'),
    ],
    ids=['classes', 'evaluator', 'annotations', 'f1', 'checkpoint'],
)
def test_mistakes_are_explained_before_the_first_step(folder, setting, message):
    arguments = ['--work-dir', folder / 'mistakes', *options(folder, **setting)]
    output = run(sys.executable, 'tools/train.py', CONFIG, *arguments, check=False)
    assert message in output and 'Epoch(train)' not in output


def test_empty_annotation_files_are_named(folder):
    empty = folder / 'empty.json'
    empty.write_text('')
    files = {'train_dataloader.dataset.ann_file': empty, 'val_evaluator.ann_file': empty}
    arguments = ['--work-dir', folder / 'mistakes', *options(folder, **files)]
    output = run(sys.executable, 'tools/train.py', CONFIG, *arguments, check=False)
    assert output.splitlines()[-1].startswith(f'  {empty}: the file is empty (0 bytes); write the annotation file')


def test_checkpoint_of_another_model_is_refused(trained, folder):
    work_dir, _ = trained
    before = (work_dir / 'epoch_1.pth').read_bytes()
    arguments = ['--work-dir', folder / 'mistakes', *options(folder, **{'model.num_queries': 17})]
    output = run(sys.executable, 'tools/test.py', CONFIG, work_dir / 'epoch_1.pth', *arguments, check=False)
    assert 'query_embedding.weight: (40, 128) in the checkpoint, (17, 128) in the model' in output
    assert (work_dir / 'epoch_1.pth').read_bytes() == before


def test_slurm_train_passes_everything_on(tmp_path):
    """With a stand-in for srun that prints its arguments."""
    srun = tmp_path / 'srun'
    srun.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    srun.chmod(0o755)
    output = run(
        'tools/slurm_train.sh',
        'part',
        'job',
        'configs/x.py',
        'work dir',
        '--amp',
        PATH=f'{tmp_path}{os.pathsep}{ENVIRONMENT["PATH"]}',
        GPUS='16',
        GPUS_PER_NODE='4',
        SRUN_ARGS='--quiet --mem=1G',
    ).splitlines()
    assert output[:4] == ['--partition', 'part', '--job-name', 'job']
    assert '--mem=1G' in output and output[output.index('--ntasks') + 1] == '16'
    assert output[-6:] == ['configs/x.py', '--work-dir', 'work dir', '--launcher', 'slurm', '--amp']


@pytest.mark.parametrize('script', ['dist_train.sh', 'dist_test.sh', 'slurm_train.sh'])
def test_scripts_explain_their_usage(script):
    assert f'usage: tools/{script} ' in run(f'tools/{script}', check=False)
