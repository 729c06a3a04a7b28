"""The settings of every script: one function a script, the standard library only, so that --help is instant."""

import argparse
from pathlib import Path

ROOT = Path(__file__).resolve().parent


def get_infer_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Returns the settings of run_infer.py from a command line (sys.argv where None)."""
    parser = argparse.ArgumentParser(
        prog="run_infer.py",
        description="Fuses exposures of one scene into one picture.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "images",
        nargs="*",
        default=[f"{ROOT}/data_test/interior/0_ev-4.jpg", f"{ROOT}/data_test/interior/2_ev+2.jpg"],
        help="two or more exposures of one scene, in any order",
    )
    parser.add_argument("-o", "--output", default="data_result/pair/fused_image.png", help="picture to write")
    group = parser.add_argument_group("network")
    group.add_argument(
        "--weights",
        default=f"{ROOT}/runs/pretrained/deepfuse.pth",
        help="checkpoint of this project, the authors' .npz or the predecessor's .pth",
    )
    group.add_argument("--model", help="name of the network, where the weights do not say it")
    group.add_argument("--device", default="cpu", help="cpu, cuda (gpu is the same), cuda:1, ...")
    return parser.parse_args(argv)
