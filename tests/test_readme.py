"""The README's commands and snippets: they run as printed, or at least their options exist."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import configs

ROOT = Path(configs.ROOT)
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)  # language and text
COURTYARD = "data_test/courtyard"
OWN = {  # what a reader puts in the place of names in capitals
    "UNDER": f"{COURTYARD}/0_ev-4.jpg",
    "OVER": f"{COURTYARD}/2_ev+2.jpg",
    "A": f"{COURTYARD}/0_ev-4.jpg",
    "B": f"{COURTYARD}/1_ev+0.jpg",
    "C": f"{COURTYARD}/2_ev+2.jpg",
    "CARD": "card",
    "VIEWS": "card",
    "FUSED": "fused",
    "FUSED/": "fused/",
    "欠曝.jpg": f"{COURTYARD}/0_ev-4.jpg",
    "过曝.jpg": f"{COURTYARD}/2_ev+2.jpg",
    "1.jpg": f"{COURTYARD}/0_ev-4.jpg",
    "2.jpg": f"{COURTYARD}/1_ev+0.jpg",
    "3.jpg": f"{COURTYARD}/2_ev+2.jpg",
    "照片": "card",
    "结果/": "fused/",
    "runs/train_MM-DD_HH-MM/checkpoints/best.pth": "runs/pretrained/deepfuse_paper.pth",
}
PARSERS = {
    f"run_{name}.py": getattr(configs, f"get_{name}_args") for name in ("infer", "train", "eval", "export", "app")
}


def commands() -> list[list[str]]:
    """Returns the words of every `python run_*.py` command in the README, in its code blocks and in its sentences."""
    text = "\n".join(block for language, block in BLOCKS if not language)
    lines = text.replace("\\\n", " ").splitlines() + re.findall(r"`(python [^`]*)`", README)
    words = [shlex.split(part, comments=True) for line in lines if "python" in line for part in line.split("&&")]
    return [found for found in words if found[:1] == ["python"] and found[1] in PARSERS]


@pytest.fixture
def clone(tmp_path):
    """A folder that looks like a clone, with a place of its own for what the programs write."""
    for path in ROOT.glob("*"):
        if path.name in {"configs.py", "deepfuse", "models", "utils", "data_test", *PARSERS}:
            (tmp_path / path.name).symlink_to(path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "pretrained").symlink_to(ROOT / "runs" / "pretrained")
    (tmp_path / "card").mkdir()
    (tmp_path / "card" / "courtyard").symlink_to(ROOT / COURTYARD)
    return tmp_path


def run(folder: Path, *words: str) -> None:
    done = subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, f"{words}\n{done.stderr[-2000:]}"


def test_every_command_has_options_that_exist(clone, monkeypatch):
    monkeypatch.chdir(clone)
    found = [[OWN.get(word, word) for word in words] for words in commands()]
    assert {words[1] for words in found} >= {"run_infer.py", "run_train.py", "run_eval.py"}
    for _, script, *options in found:
        if options != ["--help"]:
            PARSERS[script](options)


@pytest.mark.long
def test_fusing_and_the_tour_run_as_printed(clone):
    own = [[OWN.get(word, word) for word in words[1:]] for words in commands()]
    here = [words for words in own if words[0] == "run_infer.py" or "data_test" in words]
    assert len(here) > 7
    for words in here:
        run(clone, *words)
    assert (clone / "data_result/pair/fused_image.png").is_file()
    assert (clone / "fused/courtyard.jpg").is_file()
    assert list(clone.glob("runs/train_*/checkpoints/best.pth"))


def test_python_snippets_run_as_printed(clone):
    snippets = [block for language, block in BLOCKS if language == "python"]
    assert snippets
    for snippet in snippets:
        run(clone, "-c", snippet)
