"""What damaged picture files do to the reader: python benchmarks/fuzz.py [--count 20000].

Small files of every format are damaged at random, read, and where that succeeds written with their metadata, in a
process that can crash, hang or grow without harm. Nothing but a picture or one clear error may come of it.
"""

import argparse
import collections
import io
import multiprocessing
import multiprocessing.connection
import random
import sys
import tempfile
import time
import warnings
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageCms

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from utils.util_image import read_photo, write_image  # noqa: E402

HANG = 10  # seconds
EDGES = (0, 1, 2, 7, 8, 16, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1)


def seeds() -> dict[str, bytes]:
    """Returns whole files by a name that begins with their suffix, 400 to 40,000 bytes each."""
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
    """Returns the file with one to six random faults; the first 200 bytes, its header, get half of them."""
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
    """Returns the name of a seed and what is made of it; always the same for a number."""
    rng, names = random.Random(number), list(files)
    name = names[number % len(names)]
    return name, damage(files[name], files[rng.choice(names)], rng)


def work(connection: multiprocessing.connection.Connection) -> None:
    """Answers each number with what its mutant did and the peak of memory in bytes."""
    warnings.simplefilter("ignore")
    files = seeds()
    with tempfile.TemporaryDirectory() as folder:
        whole = {}
        for name, data in files.items():
            path = Path(folder) / f"whole.{name.split()[0]}"
            path.write_bytes(data)
            whole[name] = read_photo(path)[0]
        connection.send("ready")
        while True:
            name, data = mutant(files, connection.recv())
            path = Path(folder) / f"mutant.{name.split()[0]}"
            path.write_bytes(data)
            Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak starts anew
            try:
                image, metadata = read_photo(path)
                result = "alike" if np.array_equal(image, whole[name]) else "other pixels"
                for suffix in (".jpg", ".png", ".tif", ".webp") if image.ndim == 2 or image.shape[2] == 3 else ():
                    write_image(Path(folder) / f"written{suffix}", image[:64, :96], metadata)
            except (ValueError, OSError) as error:
                result = "refused" if path.name in str(error) else f"no name: {error}"
            except BaseException as error:
                result = f"{type(error).__name__}: {error}"
            status = Path("/proc/self/status").read_text()
            connection.send((result, int(status.split("VmHWM:")[1].split()[0]) * 1024))


def main(args: argparse.Namespace) -> None:
    names = list(seeds())
    results = {name: collections.Counter() for name in names}
    worst = {name: [0.0, 0] for name in names}
    faults, process, context = [], None, multiprocessing.get_context("spawn")
    for number in range(args.first, args.first + args.count):
        name = names[number % len(names)]
        if process is None:
            ours, theirs = context.Pipe()
            process = context.Process(target=work, args=(theirs,), daemon=True)
            process.start()
            theirs.close()
            ours.recv()
        start = time.perf_counter()
        ours.send(number)
        try:
            result, memory = ours.recv() if ours.poll(HANG) else (f"hangs for {HANG} s", 0)
        except EOFError:
            process.join()
            result, memory = f"dies with {process.exitcode}", 0
        seconds = time.perf_counter() - start
        worst[name] = [max(worst[name][0], seconds), max(worst[name][1], memory)]
        kind = result if result in ("alike", "other pixels", "refused") else "FAULT"
        results[name][kind] += 1
        if kind == "FAULT":
            faults.append(f"{number} ({name}): {result[:300]}")
            print(faults[-1], flush=True)
        if result.startswith(("hangs", "dies")):
            process.kill()
            process = None
    print("| file | mutants | refused | read as before | read otherwise | faults | slowest, s | peak memory, MB |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for name in names:
        found, (seconds, memory) = results[name], worst[name]
        counts = [found.total(), found["refused"], found["alike"], found["other pixels"], found["FAULT"]]
        print(f"| {name} | {' | '.join(map(str, counts))} | {seconds:.2f} | {memory / 1e6:.0f} |")
    print(f"{args.count} mutants, {len(faults)} faults")
    sys.exit(bool(faults))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--count", type=int, default=20000, help="mutants")
    parser.add_argument("--first", type=int, default=0, help="number of the first one, to see a fault again")
    main(parser.parse_args())
