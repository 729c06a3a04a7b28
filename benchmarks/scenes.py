"""How well brackets are found on cards whose truth is known: python benchmarks/scenes.py [-v].

The cards of tests/cards.py have real pixels and EXIF: several brackets, singles, bursts, series, damaged files. A
bracket is right if all its shots are one scene, and no other; missed if its shots are in no scene that would be fused;
wrong is every scene that would be fused and is none of the brackets.
"""

import argparse
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from tests.cards import CASES, Card, make  # noqa: E402
from utils.pictures.scenes import Found, find_scenes, metadata_of  # noqa: E402


def count(card: Card, found: Found) -> tuple[int, int, int]:
    """Returns the numbers of right, missed and wrong brackets."""
    fused = [{path.name for path in scene.paths} for scene in found.scenes if all(map(metadata_of, scene.paths))]
    pairs = [
        next((group for group in fused if group <= bracket and _whole(group, bracket)), None)
        for bracket in card.brackets
    ]
    right = sum(pair is not None for pair in pairs)
    return right, len(card.brackets) - right, len(fused) - right


def _whole(group: set[str], bracket: set[str]) -> bool:
    """Returns whether a group has every shot of a bracket, in one of its formats."""
    return {Path(name).stem for name in group} == {Path(name).stem for name in bracket}


def main(verbose: bool, part: str) -> None:
    total = [0, 0, 0]
    for name in (name for name in CASES if part in name):
        with tempfile.TemporaryDirectory() as folder:
            card = make(name, Path(folder))
            found = find_scenes(folder, card.shots_per_scene)
            counts = count(card, found)
        total = [sum(pair) for pair in zip(total, counts, strict=True)]
        if verbose or counts[1:] != (0, 0):
            print(f"{name}: {counts[0]} right, {counts[1]} missed, {counts[2]} wrong")
            print(*(f"    {note}" for note in found.notes), sep="\n")
    print(f"{len(CASES)} cards: {total[0]} brackets right, {total[1]} missed, {total[2]} wrong")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-v", "--verbose", action="store_true", help="show every card, and the notes")
    parser.add_argument("--part", default="", metavar="TEXT", help="only cards whose name has this in it")
    args = parser.parse_args()
    main(args.verbose, args.part)
