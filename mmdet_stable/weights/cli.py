"""The command lines of this package: ``convert`` and ``weights``."""

import argparse
from pathlib import Path
from typing import Any, Dict, Optional, Sequence, Tuple, Union

from mmdet_stable.utils.arguments import SettingsAction
from mmdet_stable.utils.user_errors import run_command

from .conversion import PUBLISHERS, convert
from .named import download, entry_of, fetch, table
from .parity import DEFAULT_FOLDER, check_files


def add_convert_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``convert``; :func:`run_convert` takes them."""
    parser.usage = (
        '%(prog)s [options] SOURCE [CONFIG] OUT\n       %(prog)s [options] SOURCE OUT --to PUBLISHER\n'
        '       %(prog)s [options] [SOURCE [CONFIG]] --check [NPZ ...]'
    )
    parser.add_argument(
        'source', nargs='?', metavar='SOURCE', help='published weights, a file or a name, or a checkpoint of ours'
    )
    parser.add_argument(
        'config',
        nargs='?',
        metavar='CONFIG',
        help='config to start from; default: the one that fits the weights. Not with --to',
    )
    parser.add_argument(
        'out', nargs='?', type=Path, metavar='OUT', help='checkpoint to write; its config goes beside it'
    )
    parser.add_argument(
        '--to',
        choices=PUBLISHERS,
        metavar='PUBLISHER',
        help=f"write that publisher's names, instead of ours: {', '.join(PUBLISHERS)}",
    )
    parser.add_argument('--ema', action='store_true', help='take the moving average of the weights')
    parser.add_argument(
        '--dc5',
        action='store_true',
        default=None,
        help='the last stage of the backbone is dilated, which weights do not show',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=SettingsAction,
        metavar='KEY=VALUE',
        help='settings of the written config to change',
    )
    parser.add_argument(
        '--check',
        nargs='*',
        type=Path,
        metavar='NPZ',
        help='compare outputs with those that the reference gave for SOURCE, recorded as docs/weights.md explains; '
        'without files, for all golden files of the tests',
    )


def run_convert(args: argparse.Namespace) -> int:
    """Convert, or check; 1 where outputs differ.

    Raises:
        WeightsError, OSError: for weights that cannot be converted.
        argparse.ArgumentError: for arguments that are missing.
    """
    if args.check is not None:
        files = args.check or sorted(DEFAULT_FOLDER.glob('*.npz'))
        source, options = given_weights(args.source) if args.check and args.source else (None, {})
        lines, good = check_files(files, source, args.config, **options)
        print(lines)
        return 0 if good else 1
    if args.out is None:
        source, out = args.source, args.config
        config = None
    else:
        source, config, out = args.source, args.config, args.out
    if source is None or out is None:
        raise argparse.ArgumentError(None, 'give the file to convert and the file to write, or --check')
    source, options = given_weights(source)
    options['dc5'] = args.dc5 or options.get('dc5')
    options['settings'] = {**options.get('settings', {}), **(args.cfg_options or {})}
    print(convert(source, Path(out), config, args.to, args.ema, **options))
    return 0


def given_weights(source: Union[str, Path]) -> Tuple[Path, Dict[str, Any]]:
    """The file that a path or a name of published weights stands for, and what :func:`convert` must know of it.

    Raises:
        WeightsError: see :func:`fetch`.
    """
    entry = entry_of(source)
    if entry is None:
        return Path(source), {}
    print(f'{entry.name}: {entry.published} published by {entry.repository} ({entry.licence}), not measured by us')
    return download(entry), dict(dc5=entry.dc5, settings=dict(entry.settings))


def add_weights_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``weights``; :func:`run_weights` takes them."""
    parser.add_argument('name', nargs='?', metavar='NAME', help='what to get')


def run_weights(args: argparse.Namespace) -> int:
    """List all names, or get one: downloads and converts it, and prints where checkpoint and config are.

    Raises:
        WeightsError, OSError: for an unknown name, or weights that cannot be had.
    """
    if args.name is None:
        print(table())
        return 0
    kept = fetch(args.name)
    print(f'{kept.config} {kept.checkpoint}')
    return 0


def main(argv: Optional[Sequence[str]] = None) -> int:
    """``tools/convert_checkpoint.py``."""
    parser = argparse.ArgumentParser(
        description='Convert published weights to this package, or back', epilog='docs/weights.md lists what is known'
    )
    add_convert_arguments(parser)
    parser.add_argument('--list', action='store_true', help='list published weights by name')
    parser.add_argument('--get', metavar='NAME', help='download and convert weights by name')
    args = parser.parse_intermixed_args(argv)
    if args.list or args.get:
        return run_command(run_weights, argparse.Namespace(name=args.get), parser)
    return run_command(run_convert, args, parser)
