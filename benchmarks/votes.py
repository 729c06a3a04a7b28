"""Blind votes: shows several methods' pictures of each scene without their names, and counts the votes.

    python benchmarks/votes.py --pictures data_result/eval/pictures -o votes     # pictures of run_eval.py
    python benchmarks/votes.py -o votes --count votes.txt

The first writes votes/blind: a sheet per scene (SCENE.png: full size, side by side, with letters), and page.html, which
shows the same pictures in one place, switched by key, and collects one vote per scene as text. Each scene has its own
random letters; only votes/key.json says which method a letter is, so the judge should not see that file. The second
counts lines "SCENE: LETTER"; "SCENE: none" is a vote for no method.
"""

import argparse
import itertools
import json
import random
import string
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from utils.errors import UserError, exit_on_error  # noqa: E402
from utils.files import write_json  # noqa: E402
from utils.pictures.image import list_images, read_image, write_image  # noqa: E402

LABEL = 48  # pixels, height of the bar with the letter
SQUARE = 600  # pixels, side of a crop

PAGE = """<!doctype html>
<meta charset="utf-8">
<title>Which picture would you rather have?</title>
<style>
  body { margin: 0; background: #333; color: #eee; font: 16px sans-serif; }
  header { position: sticky; top: 0; padding: 8px; background: #222; }
  button { font-size: 16px; } .on { background: #fc6; }
  img { display: block; }
  textarea { width: 40em; height: 12em; }
</style>
<header>
  <button id="back">&larr;</button> <button id="next">&rarr;</button> <b id="scene"></b> show: <span id="show"></span>
  vote: <span id="vote"></span>
  <small>keys: A, B, ... show, Shift + letter votes, arrows change the scene</small>
</header>
<img id="picture">
<p>Your votes, to copy into a file:<br><textarea id="votes" readonly></textarea></p>
<script>
  const scenes = SCENES;  // [[scene, {letter: file}], ...]
  const votes = {};
  let number = 0, letter = "A";
  const at = id => document.getElementById(id);
  function buttons(id, names, chosen, act) {
    at(id).replaceChildren(...names.map(name => {
      const button = document.createElement("button");
      button.textContent = name;
      button.className = name === chosen ? "on" : "";
      button.onclick = () => act(name);
      return button;
    }));
  }
  function draw() {
    const [scene, files] = scenes[number];
    const letters = Object.keys(files);
    at("scene").textContent = `${number + 1} of ${scenes.length}: ${scene}`;
    at("picture").src = files[letter];
    buttons("show", letters, letter, name => { letter = name; draw(); });
    buttons("vote", [...letters, "none"], votes[scene], name => { votes[scene] = name; draw(); });
    at("votes").value = Object.entries(votes).map(vote => vote.join(": ")).join("\\n");
  }
  function turn(step) { number = (number + step + scenes.length) % scenes.length; letter = "A"; draw(); }
  at("back").onclick = () => turn(-1);
  at("next").onclick = () => turn(1);
  document.onkeydown = event => {
    const key = event.key.toUpperCase(), [scene, files] = scenes[number];
    if (event.ctrlKey || event.metaKey) return;
    if (key === "ARROWLEFT") turn(-1);
    else if (key === "ARROWRIGHT") turn(1);
    else if (key in files) { if (event.shiftKey) votes[scene] = key; else letter = key; draw(); }
  };
  draw();
</script>
"""


def find_pictures(folder: Path, methods: list[str] | None = None) -> dict[str, dict[str, Path]]:
    """Returns {scene: {method: file}} of folder/<method>/<scene>.png, for the scenes that all methods have.

    Raises:
        FileNotFoundError: No such folder or method.
        ValueError: Fewer than two methods or more than 26, or no scene that all of them have.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    methods = methods or sorted(path.name for path in folder.iterdir() if path.is_dir())
    if not 2 <= len(methods) <= 26:
        raise UserError(f"{folder}: expected the folders of 2 to 26 methods, got {', '.join(methods) or 'none'}")
    found = {method: {path.stem: path for path in list_images(folder / method)} for method in methods}
    scenes = sorted(set.intersection(*map(set, found.values())))
    if not scenes:
        raise UserError(f"{folder}: no scene has a picture of each of {', '.join(methods)}")
    return {scene: {method: found[method][scene] for method in methods} for scene in scenes}


def draw_letters(methods: Iterable[str], rng: random.Random) -> dict[str, str]:
    """Returns {letter: method}, the methods in a random order."""
    drawn = sorted(methods)
    rng.shuffle(drawn)
    return dict(zip(string.ascii_uppercase, drawn, strict=False))


def sheet(pictures: dict[str, np.ndarray]) -> np.ndarray:
    """Returns the lettered pictures (H, W, 3) BGR uint8 side by side, at full size."""
    columns = []
    for letter, picture in pictures.items():
        column = cv2.copyMakeBorder(picture, LABEL, 4, 4, 4, cv2.BORDER_CONSTANT, value=(64, 64, 64))
        cv2.putText(column, letter, (12, LABEL - 12), cv2.FONT_HERSHEY_SIMPLEX, 1.2, (255, 255, 255), 2, cv2.LINE_AA)
        columns.append(column)
    return np.hstack(columns)


def squares(pictures: Sequence[np.ndarray], count: int) -> list[tuple[slice, slice]]:
    """Returns up to `count` squares of SQUARE pixels, none over another: those where the pictures' detail differs most.

    Args:
        pictures: (H, W, 3) BGR uint8 of one scene by several methods. Their brightness does not count.
    """
    grays = [cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY).astype(np.float32) for picture in pictures]
    spread = np.std([gray - cv2.blur(gray, (31, 31)) for gray in grays], axis=0)
    height, width = spread.shape
    places = itertools.product(range(0, height - SQUARE + 1, SQUARE), range(0, width - SQUARE + 1, SQUARE))
    boxes = [(slice(top, top + SQUARE), slice(left, left + SQUARE)) for top, left in places]
    return sorted(boxes, key=lambda box: -spread[box].mean())[:count]


def write_blind(pictures: dict[str, dict[str, Path]], out: Path, seed: int, crops: int = 0) -> None:
    """Writes out/key.json, and into out/blind the sheets, the page, and the page's pictures, named by letter.

    Args:
        crops: Squares to show of each scene instead of the whole, see `squares`; each has its own letters.

    Raises:
        ValueError: Pictures of a scene differ in size, or out/blind exists already.
    """
    blind = out / "blind"
    if blind.exists():
        raise UserError(f"{blind} is there already: remove it or choose another --output")
    rng, key, shown = random.Random(seed), {}, []
    for scene, files in pictures.items():
        images = {method: read_image(path) for method, path in files.items()}
        if len({image.shape[:2] for image in images.values()}) > 1:
            raise UserError(f"{scene}: the methods' pictures differ in size")
        boxes: dict[str, Any] = {scene: ...}
        if crops:
            boxes = {f"{scene}_{number}": box for number, box in enumerate(squares([*images.values()], crops))}
        for name, box in boxes.items():
            key[name] = draw_letters(images, rng)
            parts = {letter: np.ascontiguousarray(images[method][box]) for letter, method in key[name].items()}
            write_image(blind / f"{name}.png", sheet(parts))
            for letter, part in parts.items():  # written anew, so that no file's format or date tells its method
                write_image(blind / "pictures" / f"{name}_{letter}.png", part)
            shown.append([name, {letter: f"pictures/{quote(name)}_{letter}.png" for letter in parts}])
    (blind / "page.html").write_text(PAGE.replace("SCENES", json.dumps(shown), 1), encoding="utf-8")
    write_json(out / "key.json", key)


def count_votes(text: str, key: dict[str, dict[str, str]]) -> Counter:
    """Returns the number of votes per method; "none" counts the votes for no method.

    Args:
        text: Lines "SCENE: LETTER"; empty lines are ignored.
        key: From `draw_letters`.

    Raises:
        ValueError: A line has another form, or an unknown scene or letter, or a scene has two votes.
    """
    votes = Counter({method: 0 for letters in key.values() for method in letters.values()})
    voted = set()
    for line in filter(None, map(str.strip, text.splitlines())):
        scene, colon, vote = (part.strip() for part in line.rpartition(":"))
        if not colon or scene not in key:
            raise UserError(f"expected lines SCENE: LETTER with a scene of key.json, got {line!r}")
        if scene in voted:
            raise UserError(f"{scene} was voted on twice")
        voted.add(scene)
        chosen = (key[scene] | {"NONE": "none"}).get(vote.upper())
        if chosen is None:
            raise UserError(f"expected one of {', '.join(key[scene])} or none, got {line!r}")
        votes[chosen] += 1
    return votes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, help="folder with one folder of pictures per method: METHOD/SCENE.png")
    parser.add_argument("--methods", nargs="*", help="the folders to show; all of them if none is named")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to write, and to find the key in")
    parser.add_argument("--seed", type=int, default=0, help="of the letters' order")
    parser.add_argument("--crops", type=int, default=0, help="show so many squares at 100 %% instead of each picture")
    parser.add_argument("--count", type=Path, metavar="FILE", help="count the votes of this file")
    args = parser.parse_args()
    if (args.pictures is None) == (args.count is None):
        parser.error("give either --pictures, to show them, or --count, to count the votes")
    if args.count:
        key = json.loads((args.output / "key.json").read_text(encoding="utf-8"))
        for method, number in count_votes(args.count.read_text(encoding="utf-8"), key).most_common():
            print(f"{number:4} {method}")
    else:
        write_blind(find_pictures(args.pictures, args.methods), args.output, args.seed, args.crops)
        print(f"The judge gets {args.output / 'blind'}; {args.output / 'key.json'} says which letter is which method.")


if __name__ == "__main__":
    with exit_on_error():
        main()
