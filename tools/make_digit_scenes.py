"""Write the digit scenes, the small data set that comes with the package. Example:

python tools/make_digit_scenes.py data/digit_scenes
"""

import argparse

from mmdet_stable.datasets import write_digit_scenes
from mmdet_stable.utils.user_errors import without_traceback


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', nargs='?', default='data/digit_scenes')
    parser.add_argument('--num-train', type=int, default=1000, help='training scenes')
    parser.add_argument('--num-val', type=int, default=200, help='held-out scenes, of other digits')
    parser.add_argument('--seed', type=int, default=0, help='the same seed gives the same bytes')
    args = parser.parse_args()
    with without_traceback():
        print(write_digit_scenes(args.folder, args.num_train, args.num_val, args.seed))


if __name__ == '__main__':
    main()
