"""The command `deepfuse`, also `python -m deepfuse`: fuses exposures, or runs the script that its first word names."""

import sys
from importlib import import_module

from configs import get_app_args, get_eval_args, get_export_args, get_infer_args, get_train_args
from utils.errors import exit_on_error

COMMANDS = {"app": get_app_args, "eval": get_eval_args, "export": get_export_args, "train": get_train_args}


def main() -> None:
    name = sys.argv.pop(1) if sys.argv[1:2] and sys.argv[1] in COMMANDS else "infer"
    settings = COMMANDS.get(name, get_infer_args)
    sys.argv[0] = f"deepfuse {name}".removesuffix(" infer")  # as --help shows it
    with exit_on_error():
        args = settings()
        import_module(settings.__module__.replace("configs", f"run_{name}")).main(args)  # slow: after the settings


if __name__ == "__main__":
    main()
