"""The commands of the installed package: each runs one of the scripts."""

from importlib import import_module

from configs import get_eval_args, get_infer_args, get_train_args
from utils.errors import exit_on_error


def infer() -> None:
    run("run_infer", get_infer_args)


def train() -> None:
    run("run_train", get_train_args)


def evaluate() -> None:
    run("run_eval", get_eval_args)


def run(script: str, settings) -> None:
    """Runs `main` of a script with its settings, errors in one line, as `python SCRIPT.py` would."""
    with exit_on_error():
        args = settings()
        try:
            main = import_module(f"deepfuse.{script}").main
        except ModuleNotFoundError as error:
            raise ValueError(
                f"{error.name} is not installed, which {script} needs: pip install 'deepfuse[train]'"
            ) from error
        main(args)
