"""Runs the tests with the oldest and with the newest packages that requirements.txt allows, in environments of its own.

python benchmarks/versions.py [oldest] [newest] [-- what pytest is given]
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def requirements(which: str) -> list[str]:
    """Returns the packages of requirements.txt; the "oldest" have the last correction of their lower bound."""
    lines = [line.split("#")[0].strip() for line in (ROOT / "requirements.txt").read_text().splitlines()]
    return [re.sub(r">=(\S+)", r"==\1.*", line) if which == "oldest" else line for line in lines if line]


def main(args: argparse.Namespace) -> None:
    failed = []
    for which in args.which:
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([sys.executable, "-m", "venv", folder], check=True)
            python = f"{folder}/bin/python"
            pip = [python, "-m", "pip", "--disable-pip-version-check"]
            installed = subprocess.run([*pip, "install", "--quiet", *requirements(which)]).returncode
            if not installed:
                subprocess.run([*pip, "freeze", "--exclude", "pip"], check=True)
            if installed or subprocess.run([python, "-m", "pytest", "-q", *args.pytest], cwd=ROOT).returncode:
                failed.append(which)
    print(f"failed: {', '.join(failed)}" if failed else f"all right: {', '.join(args.which)}")
    sys.exit(bool(failed))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", nargs="*", choices=["oldest", "newest", []], default=["oldest", "newest"])
    own, others = sys.argv[1:], []
    if "--" in own:
        own, others = own[: own.index("--")], own[own.index("--") + 1 :]
    main(argparse.Namespace(**vars(parser.parse_args(own)), pytest=others))
