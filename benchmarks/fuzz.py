"""Reads damaged picture files: python benchmarks/fuzz.py [--count 6667] [--seeds 0 1 2].

Small files of every format are damaged and read, in a process that may crash, hang or grow without harm: bytes at
random; fields of their structure (chunks, segments, boxes, directories, pointers that go round); cut at each 5 %; and
bombs, which unpack to much. What can be read is written with its metadata, and read again. Each file must give a
picture or one clear line with its name, in 10 s and 1 GB; all else is a fault.
"""

import argparse
import atexit
import collections
import io
import multiprocessing
import os
import random
import re
import shutil
import struct
import sys
import tempfile
import time
import warnings
import zlib
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageCms

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.test_camera import dng  # noqa: E402
from tests.test_hostile import big_tiff, plain_tiff, png  # noqa: E402
from utils.errors import UserError  # noqa: E402
from utils.fusing.fusion import read_exposures  # noqa: E402
from utils.pictures.image import read_photo, write_image  # noqa: E402
from utils.pictures.metadata import read_metadata  # noqa: E402

HANG = 10  # seconds of computing
DEAD = 120  # seconds without an answer, on a busy machine: the process waits for ever
MOST_MEMORY = 1e9  # bytes at the peak, of a process that reads a file below 1 MB
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
    add("png animated", picture, "PNG", save_all=True, append_images=[picture.rotate(180)])
    add("tif fax", picture.convert("1"), "TIFF", compression="group3")
    add("avif", picture, "AVIF", **said)
    files["tif float"] = plain_tiff(rgb.astype(np.float32))
    files["tif double"] = plain_tiff(rgb.astype(np.float64))
    files["tif big"] = big_tiff(rgb[..., 0], "<")
    files["dng"] = dng(rgb / 255.0)
    files["hdr"] = cv2.imencode(".hdr", rgb.astype(np.float32) / 99)[1].tobytes()
    with tempfile.TemporaryDirectory() as folder:
        import OpenEXR
        import pillow_heif

        planes = {name: rgb[..., k].astype(np.float16) for k, name in enumerate("BGR")}
        for name, compression in (("", OpenEXR.ZIP_COMPRESSION), (" dwab", OpenEXR.DWAB_COMPRESSION)):
            header = {"compression": compression, "type": OpenEXR.scanlineimage}
            OpenEXR.File(header, planes).write(f"{folder}/a.exr")
            files[f"exr{name}"] = Path(folder, "a.exr").read_bytes()
        pillow_heif.from_pillow(picture).save(f"{folder}/a.heic", quality=90)
        files["heic"] = Path(folder, "a.heic").read_bytes()
        header = {"compression": OpenEXR.ZIPS_COMPRESSION, "type": OpenEXR.scanlineimage}
        OpenEXR.File(header, {name: np.zeros((6000, 5000), np.float16) for name in "RGB"}).write(f"{folder}/b.exr")
        files["exr bomb"] = Path(folder, "b.exr").read_bytes()
    add("jpg bomb", Image.new("L", (12000, 9000)), "JPEG", quality=1)
    add("jpg bomb progressive", Image.new("RGB", (3000, 3000)), "JPEG", progressive=True)
    add("tif bomb", Image.new("RGB", (9000, 6000)), "TIFF", compression="tiff_adobe_deflate")
    add("tif bomb fax", Image.new("1", (20000, 20000)), "TIFF", compression="group4")
    add("webp bomb", Image.new("RGB", (8000, 8000)), "WEBP", lossless=True, method=0)
    add("avif bomb", Image.new("RGB", (4000, 4000)), "AVIF", speed=10)
    files["png bomb"] = png(8000, 4000)
    files["png bomb 16"] = png(5000, 3000, 16, 6)
    files["png bomb profile"] = png(32, 24, before=_chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(10**8))))
    files["png bomb text"] = png(32, 24, before=_chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(10**8))) * 9)
    return files


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def fields(data: bytes) -> list[tuple[int, str]]:
    """Returns the fields of a file's structure: their places, and their forms as `struct` has them."""
    found: list[tuple[int, str]] = []
    for head in [match.start() for match in re.finditer(rb"II\*\0|MM\0\*", data)][:3]:  # TIFF, and EXIF in others
        order, pending, seen = "<" if data[head] == 73 else ">", [head + 4], set()
        while pending and len(seen) < 9:
            place = pending.pop()
            found.append((place, order + "I"))
            start = head + struct.unpack_from(order + "I", data.ljust(place + 4, b"\0"), place)[0]
            if start in seen or start + 2 > len(data):
                continue
            seen.add(start)
            count = min(struct.unpack_from(order + "H", data, start)[0], 60)
            found.append((start, order + "H"))
            for entry in range(start + 2, min(start + 2 + 12 * count, len(data) - 12), 12):
                found += [
                    (entry, order + "H"),
                    (entry + 2, order + "H"),
                    (entry + 4, order + "I"),
                    (entry + 8, order + "I"),
                ]
                if struct.unpack_from(order + "H", data, entry)[0] in (0x8769, 0x8825, 330):
                    pending.append(entry + 8)
            pending.append(start + 2 + 12 * count)
    if data.startswith(b"\x89PNG"):
        place = 8
        while place + 8 <= len(data) and len(found) < 400:
            found += [(place, ">I"), (place + 4, ">I"), *((place + 8 + k, ">I") for k in (0, 4, 8))]
            place += 12 + struct.unpack_from(">I", data, place)[0]
    elif data.startswith(b"RIFF"):
        place = 4
        while place + 8 <= len(data) and len(found) < 400:
            found += [(place, "<I"), (place + 8, "<I"), (place + 8, "<H"), (place + 12, "<I")]
            place += 8 if place == 4 else 8 + struct.unpack_from("<I", data, place + 4)[0]
    elif data.startswith(b"\xff\xd8"):
        for match in list(re.finditer(rb"\xff[\xc0-\xfe]", data))[:60]:
            found += [
                (match.start() + k, form) for k, form in ((1, "B"), (2, ">H"), (4, "B"), (5, ">H"), (7, ">H"), (9, "B"))
            ]
    elif data[4:8] == b"ftyp":
        found += [
            (match.start() - 4 + k, ">I") for match in re.finditer(rb"[a-z]{4}", data[:2000]) for k in (0, 4, 8, 12)
        ]
    elif data.startswith(b"v/1\x01"):
        found += [
            (match.end() + k, "<I") for match in re.finditer(rb"\w+\0\w+\0", data[:2000]) for k in (0, 4, 8, 12, 16)
        ]
    else:
        found += [(place, "<I") for place in range(2, 60, 4)]
    return [(place, form) for place, form in found if place + struct.calcsize(form) <= len(data)]


def restructure(data: bytes, rng: random.Random) -> bytes:
    """Returns the file with one to four fields of its structure changed, swapped, or pointing at each other; or cut."""
    if rng.random() < 0.15:
        return data[: len(data) * rng.randrange(1, 20) // 20]
    file, known = bytearray(data), fields(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        (place, form), (other, _) = rng.choice(known), rng.choice(known)
        size, kind = struct.calcsize(form), rng.randrange(6)
        if kind <= 2:
            value = rng.choice(EDGES)
        elif kind == 3:
            value = other  # as a pointer, it goes round
        elif kind == 4:
            value = struct.unpack_from(form, file, place)[0] * rng.choice((2, 3, 256)) + rng.choice((-1, 0, 1))
        else:
            value = struct.unpack_from(form, file, min(other, len(file) - size))[0]
        struct.pack_into(form, file, place, value % 256**size)
    if file.startswith(b"\x89PNG"):  # checksums that fit, so that the decoder believes the fields
        place = 8
        while place + 12 <= len(file):
            length = struct.unpack_from(">I", file, place)[0]
            if place + 12 + length <= len(file):
                struct.pack_into(">I", file, place + 8 + length, zlib.crc32(file[place + 4 : place + 8 + length]))
            place += 12 + length
    return bytes(file)


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


def mutant(files: dict[str, bytes], seed: int, number: int) -> tuple[str, bytes]:
    """Returns the name of a file and a damaged copy of it; the same numbers give the same."""
    rng, name = random.Random(f"{seed} {number}"), name_of(files, number)
    if rng.random() < 0.6:
        return name, restructure(files[name], rng)
    return name, damage(files[name], files[rng.choice(list(files))], rng)


def name_of(files: Iterable[str], number: int) -> str:
    """Returns the name of a mutant's file; one of 16 is a bomb, since bombs take a second each."""
    names = [name for name in files if ("bomb" in name) == (number % 16 == 0)]
    return names[number // 16 % len(names) if number % 16 == 0 else number % len(names)]


class Watched:
    """A process that answers questions, and may crash, hang or grow without harm."""

    def __init__(self, make: Callable[[], Callable[[object], str]]):
        """Args: make: returns, in that process, the function that answers; it and the answers must be picklable."""
        self.make, self.process = make, None

    def ask(self, question: object) -> tuple[str, float, int]:
        """Returns the answer (or how the process hung or died), its seconds of computing, its peak memory in bytes."""
        if self.process is None:
            context = multiprocessing.get_context("spawn")
            self.pipe, other = context.Pipe()
            self.process = context.Process(target=serve, args=(other, self.make), daemon=True)
            self.process.start()
            other.close()
            self.pipe.recv()
        try:
            self.pipe.send(question)
            found = self.pipe.recv() if self.pipe.poll(DEAD) else (f"hangs for {DEAD} s", DEAD, 0)
        except (EOFError, OSError):
            self.process.join()
            found = f"dies with {self.process.exitcode}", 0, 0
        answer, seconds, memory = found
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
    answer, heard = make(), tempfile.TemporaryFile("ab+")
    os.dup2(heard.fileno(), 2)
    pipe.send("ready")
    while (question := pipe.recv()) is not None:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak starts anew
        start = time.process_time()
        try:
            said = answer(question)
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        seconds = time.process_time() - start
        if os.fstat(2).st_size:
            said = f"more lines than one: {said}, {os.pread(2, 500, 0)!r}"
            os.ftruncate(2, 0)
            os.lseek(2, 0, os.SEEK_SET)
        pipe.send((said, seconds, int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024))


def reader() -> Callable[[tuple[int, int]], str]:
    """Returns a function: seed and number of a mutant -> result of reading it and, if that succeeds, of writing it."""
    files = seeds()
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    whole = {}

    def look(path: Path) -> tuple[np.ndarray, object]:
        if read_metadata(path).radiance:
            images, metadata, _ = read_exposures([path])
            return images[0], metadata
        return read_photo(path)

    def read(question: tuple[int, int]) -> str:
        name, data = mutant(files, *question)
        path = folder / f"mutant.{name.split()[0]}"
        if name not in whole and "bomb" not in name:
            path.write_bytes(files[name])
            whole[name] = look(path)[0]
        path.write_bytes(data)
        try:
            image, metadata = look(path)
            _ = metadata.stops, metadata.exposure_time, metadata.captured
        except (UserError, OSError) as error:
            said = str(error)
            return REFUSED if path.name in said and "\n" not in said else f"no line with the file's name: {error}"
        suffix = (".tif", ".png", ".jpg", ".webp")[question[1] % (4 if image.shape[2:] != (4,) else 2)]
        write_image(folder / f"written{suffix}", image[:64, :96], metadata)
        read_photo(folder / f"written{suffix}")
        return SAME if np.array_equal(image, whole.get(name)) else OTHER

    return read


def main(args: argparse.Namespace) -> None:
    names = list(seeds())
    results = {name: collections.Counter() for name in names}
    slowest, largest = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0)
    watched = Watched(reader)
    for seed in args.seeds:
        for number in range(args.first, args.first + args.count):
            name = name_of(names, number)
            answer, seconds, memory = watched.ask((seed, number))
            if memory > MOST_MEMORY or seconds > HANG:
                answer = f"{memory / 1e9:.1f} GB, {seconds:.1f} s, after: {answer}"
            slowest[name], largest[name] = max(slowest[name], seconds), max(largest[name], memory)
            results[name][answer if answer in (REFUSED, SAME, OTHER) else FAULT] += 1
            if answer not in (REFUSED, SAME, OTHER):
                print(f"seed {seed}, mutant {number} of {name}: {answer[:300]}", flush=True)
    columns = (REFUSED, SAME, OTHER, FAULT)
    print(f"| file | mutants | {' | '.join(columns)} | slowest, s | peak memory, MB |\n|---|{'---:|' * 7}")
    for name, found in results.items():
        counts = " | ".join(str(found[column]) for column in columns)
        print(f"| {name} | {found.total()} | {counts} | {slowest[name]:.2f} | {largest[name] / 1e6:.0f} |")
    faults, mutants = (sum(counts) for counts in zip(*((x[FAULT], x.total()) for x in results.values()), strict=True))
    print(f"{mutants} mutants, {faults} faults, {max(slowest.values()):.2f} s, {max(largest.values()) / 1e6:.0f} MB")
    watched.close()
    sys.exit(bool(faults))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--count", type=int, default=6667, help="mutants per seed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of everything random")
    parser.add_argument("--first", type=int, default=0, help="number of the first mutant, to repeat a fault")
    main(parser.parse_args())
