"""Runs the tests with the oldest and with the newest packages that requirements.txt allows, in new environments.

"small" installs the newest that fusing needs (pyproject.toml), and fuses the sample. Prints the environments' sizes.
python benchmarks/versions.py [oldest] [newest] [small] [-- what pytest is given]
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WHICH = ["oldest", "newest", "small"]


def requirements(which: str) -> list[str]:
    """Returns what to install; for "oldest" the last patch release of each lower bound."""
    if which == "small":
        return [str(ROOT)]
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
                size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
                print(f"{which}: {size / 1e9:.2f} GB", flush=True)
            tests = ["-m", "pytest", "-q", *args.pytest]
            fuse = ["run_infer.py", "-o", f"{folder}/fused.png"]
            if installed or subprocess.run([python, *(fuse if which == "small" else tests)], cwd=ROOT).returncode:
                failed.append(which)
    print(f"failed: {', '.join(failed)}" if failed else f"all right: {', '.join(args.which)}")
    sys.exit(bool(failed))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", nargs="*", choices=[*WHICH, []], default=WHICH)
    own, others = sys.argv[1:], []
    if "--" in own:
        own, others = own[: own.index("--")], own[own.index("--") + 1 :]
    main(argparse.Namespace(**vars(parser.parse_args(own)), pytest=others))
