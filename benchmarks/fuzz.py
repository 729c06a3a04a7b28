"""Reads damaged picture files: python benchmarks/fuzz.py [--count 20000].

Small files of every format are damaged at random and read, in a process that may crash, hang or grow without harm; what
can be read is written with its metadata. Each file must give a picture or one clear error; all else is a fault.
"""

import argparse
import atexit
import collections
import io
import multiprocessing
import random
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageCms

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from utils.errors import UserError
from utils.pictures.image import read_photo, write_image  # noqa: E402

HANG = 10  # seconds without an answer: the process hangs
REFUSED, SAME, OTHER, FAULT = "refused", "read as before", "read otherwise", "faults"
EDGES = (0, 1, 2, 7, 8, 16, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1)


def seeds() -> dict[str, bytes]:
    """Returns undamaged files of 400 to 40,000 bytes by name; a name begins with the suffix."""
    rgb = cv2.resize(np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8), (96, 64))
    exif = Image.Exif()
    exif[271], exif[274], exif[315] = "Acme", 6, "Zoë".encode()
    exif.get_ifd(0x8769).update({33434: 1 / 125, 36867: "2024:05:06 07:08:09", 37500: b"maker notes" * 9})
    exif.get_ifd(0x8825)[1] = "N"
    said = {"exif": exif.tobytes(), "icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()}
    files = {}

    def add(name: str, picture: Image.Image, kind: str, **options: object) -> None:
        file = io.BytesIO()
        picture.save(file, kind, **options)
        files[name] = file.getvalue()

    picture = Image.fromarray(rgb)
    add("jpg", picture, "JPEG", **said)
    add("jpg plain", picture, "JPEG")
    add("jpg progressive", picture, "JPEG", progressive=True, **said)
    add("jpg gray", picture.convert("L"), "JPEG", restart_marker_blocks=2)
    add("jpg mpo", picture, "MPO", save_all=True, append_images=[picture])
    add("png", picture, "PNG", **said)
    add("png palette", picture.quantize(16), "PNG", transparency=3)
    add("png alpha", picture.convert("RGBA"), "PNG")
    add("tif", picture, "TIFF", **said)
    add("tif lzw", picture, "TIFF", compression="tiff_lzw")
    add("tif jpeg", picture, "TIFF", compression="jpeg")
    add("tif alpha", picture.convert("RGBA"), "TIFF")
    add("tif bits", picture.convert("1"), "TIFF", compression="group4")
    add("webp", picture, "WEBP", **said)
    add("webp lossless", picture.convert("RGBA"), "WEBP", lossless=True)
    add("webp animated", picture, "WEBP", save_all=True, append_images=[picture.rotate(180)])
    add("bmp", picture, "BMP")
    add("bmp palette", picture.quantize(16), "BMP")
    for suffix in ("png", "tif"):
        files[f"{suffix} 16"] = cv2.imencode(f".{suffix}", rgb.astype(np.uint16) * 257)[1].tobytes()
    return files


def damage(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """Returns the file with one to six random faults, half of them in the header, its first 200 bytes."""
    file = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        place = rng.randrange(min(len(file), 200) if rng.random() < 0.5 else len(file))
        kind = rng.randrange(8)
        if kind <= 1:
            file[place] ^= 1 << rng.randrange(8)
        elif kind == 2:
            file[place] = rng.randrange(256)
        elif kind <= 4:
            number = rng.choice(EDGES).to_bytes(4, rng.choice(("little", "big")))
            file[place : place + 4] = number[: rng.choice((2, 4))] if rng.random() < 0.5 else number[-2:]
        elif kind == 5:
            del file[place : place + rng.choice((1, 4, 50, len(file)))]
        elif kind == 6:
            start = rng.randrange(len(file))
            file[place:place] = file[start : start + rng.choice((1, 12, 400))] * rng.choice((1, 1, 50))
        else:
            start = rng.randrange(len(other))
            length = rng.choice((4, 50, 400))
            file[place : place + length] = other[start : start + length]
        if not file:
            break
    return bytes(file)


def mutant(files: dict[str, bytes], number: int) -> tuple[str, bytes]:
    """Returns the name of a seed and a damaged copy of it; the same number gives the same."""
    rng, names = random.Random(number), list(files)
    name = names[number % len(names)]
    return name, damage(files[name], files[rng.choice(names)], rng)


class Watched:
    """A process that answers questions, and may crash, hang or grow without harm."""

    def __init__(self, make: Callable[[], Callable[[object], str]]):
        """Args: make: returns, in that process, the function that answers; it and the answers must be picklable."""
        self.make, self.process = make, None

    def ask(self, question: object) -> tuple[str, float, int]:
        """Returns the answer (or how the process hung or died), the seconds, and the process's peak memory in bytes."""
        if self.process is None:
            context = multiprocessing.get_context("spawn")
            self.pipe, other = context.Pipe()
            self.process = context.Process(target=serve, args=(other, self.make), daemon=True)
            self.process.start()
            other.close()
            self.pipe.recv()
        start = time.perf_counter()
        try:
            self.pipe.send(question)
            answer, memory = self.pipe.recv() if self.pipe.poll(HANG) else (f"hangs for {HANG} s", 0)
        except (EOFError, OSError):
            self.process.join()
            answer, memory = f"dies with {self.process.exitcode}", 0
        seconds = time.perf_counter() - start
        if not memory:
            self.process.kill()
            self.process = None
        return answer, seconds, memory

    def close(self) -> None:
        if self.process:
            self.pipe.send(None)
            self.process.join()


def serve(pipe: Connection, make: Callable) -> None:
    warnings.simplefilter("ignore")
    answer = make()
    pipe.send("ready")
    while (question := pipe.recv()) is not None:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak starts anew
        try:
            said = answer(question)
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        pipe.send((said, int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024))


def reader() -> Callable[[int], str]:
    """Returns a function: number of a mutant -> result of reading it and, if that succeeds, of writing it."""
    files = seeds()
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    whole = {}
    for name, data in files.items():
        path = folder / f"whole.{name.split()[0]}"
        path.write_bytes(data)
        whole[name] = read_photo(path)[0]

    def read(number: int) -> str:
        name, data = mutant(files, number)
        path = folder / f"mutant.{name.split()[0]}"
        path.write_bytes(data)
        try:
            image, metadata = read_photo(path)
        except (UserError, OSError) as error:
            return REFUSED if path.name in str(error) else f"an error without the file's name: {error}"
        for suffix in (".jpg", ".png", ".tif", ".webp") if image.shape[2:] != (4,) else (".png", ".tif"):
            write_image(folder / f"written{suffix}", image[:64, :96], metadata)
        return SAME if np.array_equal(image, whole[name]) else OTHER

    return read


def main(args: argparse.Namespace) -> None:
    names = list(seeds())
    results = {name: collections.Counter() for name in names}
    slowest, largest = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0)
    watched = Watched(reader)
    for number in range(args.first, args.first + args.count):
        name = names[number % len(names)]
        answer, seconds, memory = watched.ask(number)
        slowest[name], largest[name] = max(slowest[name], seconds), max(largest[name], memory)
        results[name][answer if answer in (REFUSED, SAME, OTHER) else FAULT] += 1
        if answer not in (REFUSED, SAME, OTHER):
            print(f"mutant {number} of {name}: {answer[:300]}", flush=True)
    columns = (REFUSED, SAME, OTHER, FAULT)
    print(f"| file | mutants | {' | '.join(columns)} | slowest, s | peak memory, MB |\n|---|{'---:|' * 7}")
    for name, found in results.items():
        counts = " | ".join(str(found[column]) for column in columns)
        print(f"| {name} | {found.total()} | {counts} | {slowest[name]:.2f} | {largest[name] / 1e6:.0f} |")
    faults = sum(found[FAULT] for found in results.values())
    print(f"{args.count} mutants, {faults} faults, {max(slowest.values()):.2f} s, {max(largest.values()) / 1e6:.0f} MB")
    watched.close()
    sys.exit(bool(faults))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--count", type=int, default=20000, help="mutants")
    parser.add_argument("--first", type=int, default=0, help="number of the first mutant, to repeat a fault")
    main(parser.parse_args())
