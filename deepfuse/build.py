"""What `pip install .` and `python -m build` pack: the clone's files as one package, `deepfuse`."""

import re
import shutil
from pathlib import Path

from setuptools.command.build_py import build_py

CLONE = Path(__file__).resolve().parents[1]
OWN_IMPORT = re.compile(r"^(\s*from )(configs|models|utils)\b", re.MULTILINE)
WHEEL = (
    *("configs.py", "run_*.py", "models/*.py", "utils/**/*", "deepfuse/__*.py", "deepfuse/py.typed"),
    *("runs/pretrained/deepfuse.*", "data_test/courtyard/*.jpg"),  # the default weights and the sample pair
)
SOURCES = (
    *WHEEL,
    "deepfuse/build.py",
    "*.*",
    "runs/pretrained/*",
    "data_test/**/*",
    "tests/**/*",
    "docs/*",
    "benchmarks/*.*",
    "contrib/*",
)


class BuildPackage(build_py):
    """Copies the files into `deepfuse`; there `from utils.x import y` becomes `from deepfuse.utils.x import y`.

    So the installed package does not clash with another project's `models` and `utils`. `pip install -e .` copies
    nothing: Python then finds the clone itself, with its own names.
    """

    def run(self) -> None:
        if self.editable_mode:
            return
        package = Path(self.build_lib, "deepfuse")
        shutil.rmtree(package, ignore_errors=True)  # files of an earlier version
        for name in files(WHEEL):
            target = package / name.removeprefix("deepfuse/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(CLONE / name, target)
            if target.suffix == ".py":
                text = OWN_IMPORT.sub(r"\1deepfuse.\2", target.read_text(encoding="utf-8"))
                target.write_text(text, encoding="utf-8")

    def get_source_files(self) -> list[str]:
        """Returns what goes into the sdist."""
        return files(SOURCES)


def files(patterns: tuple[str, ...]) -> list[str]:
    """Returns the clone's files of these patterns, as POSIX paths in it."""
    found = {path for pattern in patterns for path in CLONE.glob(pattern) if path.is_file() and path.suffix != ".pyc"}
    return sorted(path.relative_to(CLONE).as_posix() for path in found)
