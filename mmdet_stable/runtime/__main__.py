"""The command line: ``python -m mmdet_stable_runtime model.onnx street.jpg``."""

import argparse
import json
import sys
from typing import Optional, Sequence

from . import Detector, PictureError
from .masks import sizes_of


def main(argv: Optional[Sequence[str]] = None) -> int:
    """The command line; prints one JSON object per picture, and returns 1 if any cannot be read."""
    parser = argparse.ArgumentParser(description='Detect on pictures with an exported model.')
    parser.add_argument('model', metavar='MODEL', help='file that `python -m mmdet_stable export` wrote')
    parser.add_argument('pictures', nargs='+', metavar='PICTURE', help='files')
    parser.add_argument(
        '--threshold', type=float, default=0.3, metavar='SCORE', help='lowest score that is kept; default: 0.3'
    )
    parser.add_argument('--threads', type=int, metavar='N', help='of ONNX Runtime; default: all cores')
    parser.add_argument(
        '--provider', action='append', metavar='NAME', help='of ONNX Runtime, best first; may be repeated'
    )
    args = parser.parse_args(argv)
    try:
        detector = Detector(args.model, args.threads, args.provider)
    except (FileNotFoundError, ModuleNotFoundError, ValueError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    status = 0
    for picture in args.pictures:
        try:
            found = detector(picture, args.threshold)
        except PictureError as error:
            print(f'error: {error}', file=sys.stderr)
            status = 1
        else:
            line = dict(picture=picture, detections=found.records())
            for name in ('panoptic', 'semantic'):
                codes = getattr(found, name)
                if codes is not None:
                    line[name] = sizes_of(codes, detector.classes)
            print(json.dumps(line, ensure_ascii=False))
    return status


if __name__ == '__main__':
    sys.exit(main())
