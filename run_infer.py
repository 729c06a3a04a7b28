"""Fuses exposures of one scene into one picture: python run_infer.py UNDER OVER [MORE ...] [-o OUT]."""

import argparse
import time

from configs import get_infer_args
from utils.util_fusion import Fuser
from utils.utils import exit_on_error


def main(args: argparse.Namespace) -> None:
    fuser = Fuser.from_checkpoint(args.weights, args.device, args.model)
    start = time.perf_counter()
    fuser.fuse_files(args.images, args.output)
    print(f"Fused {len(args.images)} exposures in {time.perf_counter() - start:.1f} s: {args.output}")


if __name__ == "__main__":
    with exit_on_error():
        main(get_infer_args())
