"""HDR against the truth: python benchmarks/hdr.py [--light FOLDER --brackets FOLDER] [--picture FILE] [--no-cost].

Each scene of `brackets` holds five shots, two stops apart, rendered from the radiance map of its name in `light`. They
are fused with `--hdr` to a JPEG, which libultrahdr decodes, and merged to an OpenEXR. Errors are in stops of luminance
against the radiance map in the same unit (the medians agree), over the pixels with gain (for EXR: all) that the darkest
shot does not clip. Then the cost at 20 megapixels, as whole processes, and what PQ loses.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from configs import shipped_weights  # noqa: E402
from utils.fusing.fusion import Fuser, read_exposures  # noqa: E402
from utils.pictures.hdr import write_pq  # noqa: E402
from utils.pictures.image import read_image, read_radiance, write_image  # noqa: E402
from utils.pictures.metadata import Metadata  # noqa: E402
from utils.pictures.scenes import find_scenes  # noqa: E402

LUMINANCE = np.array([0.0722, 0.7152, 0.2126])
STOPS = 2  # between two shots
POLES = 92  # rows of the radiance map above the shots' first
CLIPPED = 250  # level of the darkest shot from which on nobody knows the light
GAIN = 0.05  # stops: pixels with less have none


def main(args: argparse.Namespace) -> None:
    fuser = Fuser.from_checkpoint(shipped_weights("cpu"))
    print(
        "| scene | with gain | error, median | above 1 stop, of all pixels | each channel, median | all shots clip "
        "| file grows | base equal | libvips | EXR, median error |\n|---|" + "---:|" * 9
    )
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for scene in sorted(Path(args.brackets).iterdir()):
            found.append(compare(fuser, scene, read_radiance(Path(args.light, f"{scene.name}.exr"))[0], Path(folder)))
            print(row(scene.name, found[-1]), flush=True)
        print(row("mean", list(np.mean(found, 0))))
        print(row("worst", [*np.max(found, 0)[:6], *np.min(found, 0)[6:8], np.max(found, 0)[8]]))
        if args.picture:
            write_image(args.picture, pair(Path(folder, "interior.jpg")))
        if args.cost:
            print(cost(Path(folder), args.rounds))


def row(name: str, numbers: list[float]) -> str:
    share, median, far, channels, clipped, growth, equal, vips, exr = numbers
    yes = ["no", "yes"]
    return (
        f"| {name} | {share:.2f} | {median:.3f} | {far:.2%} | {channels:.3f} | {clipped:.2%} | {growth:.1%} "
        f"| {yes[int(equal)]} | {yes[int(vips)]} | {exr:.3f} |"
    )


def compare(fuser: Fuser, scene: Path, light: np.ndarray, folder: Path) -> list[float]:
    """Returns the numbers of a scene's row; writes its Ultra HDR JPEG into the folder, as SCENE.jpg."""
    shots = [read_image(path) for path in sorted(scene.glob("*.png"))]
    light = light[POLES : POLES + shots[0].shape[0]]
    paths = [folder / f"{scene.name}_{k}.png" for k in range(len(shots))]
    for k, (path, shot) in enumerate(zip(paths, shots, strict=True)):
        exif = Image.Exif()  # the exposures noted, as a camera does
        exif.get_ifd(34665).update({33434: 2.0 ** (STOPS * k) / 4096, 33437: 8.0, 34855: 100})
        Image.fromarray(shot[..., ::-1]).save(path, exif=exif.tobytes())
    out, plain, exr = folder / f"{scene.name}.jpg", folder / "plain.jpg", folder / "a.exr"
    fuser.fuse_files(paths, out, hdr=True)
    fuser.fuse_files(paths, plain)
    fuser.fuse_files(paths, exr)
    base, own = read_image(plain), read_image(out)
    shown = imagecodecs.ultrahdr_decode(out.read_bytes())[..., 2::-1].astype(float)
    before = np.where(base < 0.04045 * 255, base / 255 / 12.92, ((base / 255 + 0.055) / 1.055) ** 2.4)
    gain = np.log2((shown @ LUMINANCE + 1 / 64) / (before @ LUMINANCE + 1 / 64)) > GAIN
    known = shots[0].max(2) < CLIPPED
    inside = gain & known
    error = stops_off(shown @ LUMINANCE, light @ LUMINANCE, inside)
    colour = stops_off(shown, light, np.repeat(inside[..., None], 3, 2))
    merged = stops_off(read_radiance(exr)[0] @ LUMINANCE, light @ LUMINANCE, known)
    numbers = [gain.mean(), np.median(error), (error > 1).sum() / gain.size, np.median(colour), 1 - known.mean()]
    return [
        *numbers,
        out.stat().st_size / plain.stat().st_size - 1,
        np.array_equal(base, own),
        vips_reads(out, shown),
        np.median(merged),
    ]


def stops_off(found: np.ndarray, true: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Returns the error of light in stops, up to a common factor, of the pixels inside."""
    error = np.log2(np.maximum(found, 1e-6) / np.maximum(true, 1e-6))[inside]
    return np.abs(error - np.median(error))


def vips_reads(path: Path, shown: np.ndarray) -> bool:
    """Returns whether libvips shows the same as libultrahdr, to 5 % in the median."""
    import pyvips

    theirs = pyvips.Image.uhdrload(str(path)).uhdr2scRGB().numpy()[..., 2::-1]
    return bool(np.median(np.abs(theirs / np.maximum(shown, 1e-3) - 1)) < 0.05)


def pair(path: Path) -> np.ndarray:
    """Returns an Ultra HDR JPEG's picture with its gain map beside it, (H, W, 3) BGR."""
    data = path.read_bytes()
    gain = cv2.imdecode(np.frombuffer(data[data.rindex(b"\xff\xd8\xff\xe1") :], np.uint8), cv2.IMREAD_COLOR)
    picture = read_image(path)
    height, width = picture.shape[:2]
    side = np.full((height, gain.shape[1], 3), 255, np.uint8)
    side[(height - len(gain)) // 2 :][: len(gain)] = gain
    return np.hstack([picture, np.full((height, 12, 3), 255, np.uint8), side])


def cost(folder: Path, rounds: int) -> str:
    """Returns what --hdr costs at 20 megapixels, and PQ's round trip."""
    shots = []
    for k, name in enumerate(("0_ev-4.jpg", "2_ev+2.jpg")):
        shots.append(folder / f"large{k}.jpg")
        write_image(shots[-1], cv2.resize(read_image(ROOT / "data_test/interior" / name), (5472, 3648)), Metadata())
    spent: dict[bool, list[tuple[float, ...]]] = {False: [], True: []}
    for _ in range(rounds):
        for hdr, found in spent.items():
            command = [sys.executable, f"{ROOT}/run_infer.py", *shots, "-o", folder / "large.jpg"]
            start = time.perf_counter()
            process = subprocess.Popen([*map(str, command), *["--hdr"] * hdr], stdout=subprocess.DEVNULL)
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            found.append((time.perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss / 1e6))
    more = [
        [statistics.median(b[k] - a[k] for a, b in zip(spent[False], spent[True], strict=True)) for k in range(2)],
        statistics.median(x[2] for x in spent[True]) / statistics.median(x[2] for x in spent[False]) - 1,
    ]
    lines = [f"\n20 MP: {more[0][0]:.2f} s more ({more[0][1]:.2f} CPU seconds), memory {more[1]:+.1%}"]
    lines += [round_trips(suffix, folder) for suffix in (".heic", ".avif")]
    return "\n".join(lines)


def round_trips(suffix: str, folder: Path) -> str:
    """Returns what the scenes of data_test lose as PQ: medians of the relative error, mean over the scenes (worst)."""
    fuser, lost = Fuser.from_checkpoint(shipped_weights("cpu")), []
    for scene in find_scenes(ROOT / "data_test")[0]:
        images, _, stops = read_exposures(scene.paths)
        light = fuser.fuse(images, stops, hdr=True)
        write_pq(folder / f"a{suffix}", light, Metadata())
        again = read_radiance(folder / f"a{suffix}")[0]
        pairs = (again @ LUMINANCE, light @ LUMINANCE), (again, light)
        lost.append([np.median(np.abs(a / np.maximum(b, 0.01) - 1)[b > 0.01]) for a, b in pairs])
    of_all, each = (f"{np.mean(numbers):.2%} ({max(numbers):.2%})" for numbers in zip(*lost, strict=True))
    return f"PQ, {suffix}: round trip {of_all} of luminance, {each} of each channel"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--light", default=f"{ROOT}/../shared/data/cc0_hdr")
    parser.add_argument("--brackets", default=f"{ROOT}/../shared/data/cc0_brackets")
    parser.add_argument("--picture", help="writes the picture of the README: `interior` and its gain map")
    parser.add_argument("--cost", action=argparse.BooleanOptionalAction, default=True, help="time and memory")
    parser.add_argument("--rounds", type=int, default=5)
    main(parser.parse_args())
