"""`pip install .`: makes the clone's files one package, `deepfuse`, and renames their imports. See pyproject.toml."""

import re
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

CLONE = Path(__file__).resolve().parent
CONTENTS = (
    *("configs.py", "run_*.py", "models/*.py", "utils/**/*.py"),
    *("runs/pretrained/deepfuse.*", "data_test/courtyard/*.jpg"),  # the default weights and the sample pair
)
OWN_IMPORT = re.compile(r"^(\s*from )(configs|models|utils)\b", re.MULTILINE)


class BuildPackage(build_py):
    """Copies the files into `deepfuse`; `from utils.x import y` becomes `from deepfuse.utils.x import y`.

    So they do not clash with another project's `models` and `utils`.
    """

    def run(self) -> None:
        if self.editable_mode:
            raise SystemExit(
                "error: the clone is used as it is, run_infer.py and the others: only `pip install .` works"
            )
        package = Path(self.build_lib, "deepfuse")
        shutil.rmtree(package, ignore_errors=True)  # files of an earlier version
        for root, patterns in ((CLONE, CONTENTS), (CLONE / "deepfuse", ["*.py"])):
            for source in (path for pattern in patterns for path in root.glob(pattern)):
                target = package / source.relative_to(root)
                target.parent.mkdir(parents=True, exist_ok=True)
                if source.suffix == ".py":
                    text = OWN_IMPORT.sub(r"\1deepfuse.\2", source.read_text(encoding="utf-8"))
                    target.write_text(text, encoding="utf-8")
                else:
                    shutil.copyfile(source, target)


setup(cmdclass={"build_py": BuildPackage})
