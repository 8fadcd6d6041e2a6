"""`python -m mmdet_stable COMMAND`: the order of arguments, errors in one form; users who stop it, or stop reading."""

import argparse
import errno
import subprocess
import sys

import pytest

import mmdet_stable.training
from mmdet_stable.__main__ import main
from mmdet_stable.commands import COMMANDS, evaluate, export, predict
from mmdet_stable.utils.user_errors import in_words, run_command, without_traceback
from tests.utils import ROOT


def stop(*args, **kwargs):
    raise KeyboardInterrupt


@pytest.mark.parametrize('work_dir', [None, 'mine'])
def test_a_stopped_training_says_how_to_go_on(work_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(mmdet_stable.training, 'train', stop)
    monkeypatch.chdir(tmp_path)
    arguments = ['train', 'data', *(['--work-dir', work_dir] if work_dir else [])]
    assert main(arguments) == 130
    assert capsys.readouterr().err.split('\n')[1:] == [
        'There is no checkpoint yet: the same command begins anew.',
        'stopped',
        '',
    ]
    folder = tmp_path / (work_dir or f'work_dirs/{tmp_path.name}')  # of data that are no folder, the name of theirs
    folder.mkdir(parents=True)
    (folder / 'epoch_1.pth').touch()
    assert main(arguments) == 130
    assert capsys.readouterr().err.split('\n')[1:] == [
        'The same command with --resume goes on from the last checkpoint.',
        'stopped',
        '',
    ]


def test_whoever_reads_may_have_enough():
    """As `head`, which closes the pipe before all is written."""
    command = [sys.executable, '-m', 'mmdet_stable', 'weights']
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        errors = process.stderr.read()
    assert process.returncode == 1 and errors == ''


def kept(monkeypatch, command):
    """The arguments that a command gets, which then does nothing."""
    seen = []
    monkeypatch.setattr(command, 'run', lambda args: seen.append(args) or 0)
    return seen


@pytest.mark.parametrize(
    'words',
    [
        ['MODEL', 'a.json', 'images', '--trust', '--out', 'x'],
        ['MODEL', '--trust', 'a.json', 'images', '--out', 'x'],
        ['--trust', 'MODEL', 'a.json', '--out', 'x', 'images'],
        ['--out', 'x', '--trust', 'MODEL', 'a.json', 'images'],
    ],
)
def test_options_may_stand_anywhere(words, monkeypatch):
    seen = kept(monkeypatch, evaluate)
    assert main(['evaluate', *words]) == 0
    assert (seen[0].model, seen[0].data, seen[0].trust, str(seen[0].out)) == ('MODEL', ['a.json', 'images'], True, 'x')


def test_arguments_that_may_be_left_out(monkeypatch):
    seen = kept(monkeypatch, evaluate)
    assert main(['evaluate', '--trust', 'MODEL']) == 0 and seen[0].data == []
    seen = kept(monkeypatch, predict)
    assert main(['predict', 'MODEL', '--trust', 'a.jpg', '--out', 'x', 'b.jpg']) == 0
    assert seen[0].pictures == ['a.jpg', 'b.jpg']


def test_every_command_takes_a_model_in_the_same_way(monkeypatch):
    for command, words in ((predict, ['a.jpg']), (evaluate, []), (export, ['-o', 'x.onnx'])):
        seen = kept(monkeypatch, command)
        name = command.__name__.rpartition('.')[2]
        options = ['--checkpoint', 'c.pth', '--cfg-options', 'model.num_queries=7', '--trust', '-o', 'out']
        assert main([name, 'MODEL', *words, *options]) == 0
        assert (seen[0].model, seen[0].checkpoint, seen[0].trust) == ('MODEL', 'c.pth', True)
        assert seen[0].cfg_options == {'model.num_queries': 7} and str(seen[0].out) == 'out'


@pytest.mark.parametrize('command', COMMANDS)
def test_help(command, capsys):
    """Every option says what it is, and the usage names it."""
    with pytest.raises(SystemExit) as ended:
        main([command, '--help'])
    shown = capsys.readouterr().out
    assert ended.value.code == 0 and shown.startswith(f'usage: python -m mmdet_stable {command}')
    parser = argparse.ArgumentParser()
    COMMANDS[command].add_arguments(parser)
    for action in parser._actions:
        assert action.help, action.dest
        assert not action.option_strings or action.option_strings[-1] in shown


@pytest.mark.parametrize(
    'words,message',
    [
        ([], 'the following arguments are required: COMMAND'),
        (['detect'], "invalid choice: 'detect'"),
        (['--trust', 'predict', 'MODEL', 'a.jpg'], 'unrecognized arguments: --trust'),
        (['--', 'configs'], 'COMMAND'),
        (['evaluate'], 'the following arguments are required: MODEL'),
        (['predict', 'MODEL'], 'the following arguments are required: PICTURE'),
        (['predict', 'MODEL', 'a.jpg', '--batch-size', '0'], '--batch-size: 0 is no whole number from 1 on'),
        (['predict', 'MODEL', 'a.jpg', '--score-threshold', '30'], 'threshold: 30 is no number from 0 to 1'),
        (['predict', 'MODEL', 'a.jpg', '--overlap', 'half'], '--overlap: half is no number from 0 on'),
        (['evaluate', 'MODEL', '--batch-size', '1.5'], '--batch-size: 1.5 is no whole number from 1 on'),
        (['train', 'DATA', '--epochs', '0'], '--epochs: 0 is no whole number from 1 on'),
        (['train', 'DATA', '--image-size', '32'], '--image-size: 32 is no whole number from 64 on'),
        (['train', 'DATA', '--lr', '-1'], '--lr: -1 is no number above 0'),
        (['export', 'MODEL', '-o', 'x', '--opset', '17'], '--opset: 17 is no whole number from 18 on'),
        (['export', 'MODEL', '-o', 'x', '--nms', '3'], '--nms: 3 is no number from 0 to 1'),
        (['export', 'MODEL', 'a.pth', '-o', 'x', '--checkpoint', 'b.pth'], 'give the checkpoint once'),
        (['predict', 'MODEL', 'a.jpg', '--overlap', '1'], '--overlap: 1 is no number from 0 on and below 1'),
        (
            ['evaluate', '--cfg-options', 'model.x=1', 'MODEL'],
            '--cfg-options: MODEL is no KEY=VALUE; other',
        ),
        (['train', 'DATA', '--cfg-options', 'a=[1,(2]'], '--cfg-options: Imbalanced brackets'),
        (['convert'], 'give the file to convert and the file to write, or --check'),
    ],
)
def test_wrong_usage_ends_with_2(words, message, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words)
    shown = capsys.readouterr().err
    assert ended.value.code == 2 and message in shown and shown.startswith('usage: python -m mmdet_stable')


@pytest.mark.parametrize(
    'words,message',
    [
        (['configs', 'no_such_config'], "no config matches 'no_such_config'"),
        (['convert', 'none.pth', 'out.pth'], 'error: none.pth'),
        (['weights', 'no-such-weights'], 'error: no-such-weights: there is no such file'),
        (['predict', 'none', 'a.jpg'], 'error: none: there is no such file or folder'),
        (['evaluate', 'none'], 'error: none: there is no such file or folder'),
        (['export', 'none', '-o', '{folder}/x.onnx'], 'error: none: there is no such file or folder'),
        (['train', 'none', '--work-dir', '{folder}/w'], 'error: '),
    ],
)
def test_mistakes_end_with_1(words, message, tmp_path, capsys):
    if words[0] == 'export':
        pytest.importorskip('onnxscript')
    assert main([word.format(folder=tmp_path) for word in words]) == 1
    shown = capsys.readouterr()
    assert shown.err.startswith(message) and 'Traceback' not in shown.err and not shown.out


def test_tracebacks_for_those_who_want_them(monkeypatch):
    monkeypatch.setenv('MMDET_STABLE_TRACEBACK', '1')
    with pytest.raises(ValueError, match=r'^none: there is no such file or folder'):
        main(['evaluate', 'none'])
    with pytest.raises(ValueError, match=r'^wrong$'), without_traceback():
        raise ValueError('wrong')


def test_errors_in_words():
    assert in_words(ValueError('key=3: take 4')) == 'error: key=3: take 4'
    assert in_words(OSError(errno.EAGAIN, 'another training writes there')) == 'error: another training writes there'
    assert 'error: [Errno 2] No such file' in in_words(FileNotFoundError(errno.ENOENT, 'No such file', 'a.jpg'))
    assert in_words(ValueError()) == 'error: ValueError'
    with pytest.raises(SystemExit, match=r'^error: wrong$'), without_traceback():
        raise ValueError('wrong')
    with pytest.raises(KeyError), without_traceback():  # no mistake of the user
        raise KeyError('a')
    with pytest.raises(KeyError):
        run_command(lambda args: {}['a'], argparse.Namespace(), argparse.ArgumentParser())
