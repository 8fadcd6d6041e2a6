"""The manifest says the truth about every config, and every config is in it and in the docs."""

import ast
import inspect
import subprocess
import sys

import mmengine
import pytest
from mmengine.config import Config
from mmengine.runner import Runner

from mmdet_stable.evaluation import flatten, load_manifest
from tests.utils import ROOT

CONFIGS = ROOT / 'configs'
MANIFEST = CONFIGS / 'manifest.yml'
SWITCHES = mmengine.load(MANIFEST)['configs']
# Other top-level names are variables of a config file.
SETTINGS = {*inspect.signature(Runner.__init__).parameters, 'auto_scale_lr', 'custom_imports'}


def settings(cfg):
    leaves = flatten({key: value for key, value in cfg.to_dict().items() if key in SETTINGS})
    return {key: value for key, value in leaves if not key.endswith('_scope_')}


def parent_of(path, tmp_path):
    """What the config would be if it only inherited."""
    (bases,) = [
        ast.literal_eval(node.value)
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == '_base_'
    ]
    bases = [bases] if isinstance(bases, str) else bases
    alone = tmp_path / 'parent.py'
    alone.write_text(f'_base_ = {[base if "::" in base else str(path.parent / base) for base in bases]}')
    return Config.fromfile(alone)


@pytest.mark.parametrize('config', SWITCHES)
def test_a_config_differs_from_its_base_in_the_declared_settings_only(config, tmp_path):
    cfg = Config.fromfile(CONFIGS / config)
    before, now = settings(parent_of(CONFIGS / config, tmp_path)), settings(cfg)
    changed = {key for key in before.keys() | now.keys() if before.get(key, '-') != now.get(key, '-')}
    own_hooks = {key for key in changed if key.startswith('default_hooks.')}  # the same in all configs
    declared = SWITCHES[config]
    undeclared = {key for key in changed - own_hooks if not any(f'{key}.'.startswith(f'{name}.') for name in declared)}
    assert not undeclared
    for name, value in declared.items():
        assert any(f'{key}.'.startswith(f'{name}.') for key in changed), f'{name} is declared, but did not change'
        for key, leaf in flatten({name: value}):
            assert leaf == {} or now[key] == leaf, key


def test_every_config_is_in_the_manifest():
    in_tree = {path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob('*.py') if '_base_' not in path.parts}
    in_tables = {row.config for row in load_manifest(MANIFEST)}
    assert {config for config in in_tree if not config.startswith('demo_')} == set(SWITCHES) == in_tables


def test_generated_files_are_up_to_date():
    result = subprocess.run(
        [sys.executable, 'tools/sync_manifest.py', '--check'], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_published_values_are_possible():
    for row in load_manifest(MANIFEST):
        assert all(20 < value < 85 for value in row.published.values())
        if 'AP50' in row.published:
            assert row.published['AP'] < row.published['AP75'] < row.published['AP50']


@pytest.mark.parametrize(
    'text,message',
    [
        ('{row: 1, name: a, config: a.py, ap: 3}', "unexpected keyword argument 'ap'"),
        ('{row: 1, name: a, config: a.py, baseline: "1.9"}', "row 1.1 has baseline '1.9', which is no row"),
        ('{row: 1, name: a, config: a.py}, {row: 1, name: b, config: b.py}', 'two rows are called 1.1'),
        ('{row: 1, name: a, config: a.py}, {row: 2, name: b, config: b/a.py}', 'configs of one name'),
    ],
    ids=['key', 'baseline', 'double', 'name'],
)
def test_mistakes_in_the_manifest_are_named(tmp_path, text, message):
    path = tmp_path / 'manifest.yml'
    path.write_text(f'tables: [{{table: 1, title: t, rows: [{text}]}}]')
    with pytest.raises(ValueError, match=message):
        load_manifest(path)
