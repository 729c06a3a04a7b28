"""The page: what its server allows, and what a person does with it in a real browser."""

import base64
import functools
import http.client
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, urlsplit

import cv2
import numpy as np
import pytest
from PIL import Image

import utils.page.desk
from configs import shipped_weights
from utils.errors import UserError
from utils.fusing.adjust import Look, adjust
from utils.fusing.fusion import Fuser
from utils.page.desk import Worker
from utils.page.server import PageServer
from utils.page.task import Options, Shot, Task
from utils.pictures.image import read_image, read_photo, write_image

ROOT = Path(__file__).parents[1]
SAMPLE = [ROOT / f"data_test/courtyard/{name}.jpg" for name in ("0_ev-4", "2_ev+2")]
WEIGHTS = Path(shipped_weights()).name
WAIT = 120  # seconds, on a busy machine


@functools.cache
def fuser():
    return Fuser.from_checkpoint(shipped_weights())


class Site:
    """A page served by this process: `gate` holds the fusing of scenes back, `defects` are those reported."""

    def __init__(self, folder, host="127.0.0.1"):
        self.gate, self.defects = threading.Event(), []
        self.gate.set()
        self.worker = Worker(self.load, self.defects.append)
        self.worker.load = self.load  # asked for each scene: the worker itself would keep what it has loaded
        self.server = PageServer((host, 0), folder, self.worker, [WEIGHTS, "none.onnx"])
        self.port = self.server.server_address[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self.worker.start()
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def load(self, name):
        self.gate.wait(WAIT)
        return fuser() if name == WEIGHTS else Fuser.from_checkpoint(name)

    def end(self):
        self.gate.set()
        self.server.shutdown()
        for desk in self.server.desks.values():
            desk.clear()
        self.worker.stop()
        self.server.server_close()


@pytest.fixture
def site(tmp_path):
    site = Site(tmp_path)
    yield site
    site.end()
    assert not site.defects


class Visitor:
    """A browser without a screen."""

    def __init__(self, address, path="/"):
        self.host = urlsplit(address).netloc
        status, headers, _ = self.send("GET", path)
        self.cookie = headers.get("Set-Cookie", "").split(";")[0]
        self.status = status

    def send(self, method, path, body=None, **headers):
        """Returns status, headers and body of an answer; headers that are None are left out."""
        usual = {"Host": self.host, "Origin": f"http://{self.host}", "Cookie": getattr(self, "cookie", "")}
        sent = {name: value for name, value in (usual | headers).items() if value is not None}
        connection = http.client.HTTPConnection(self.host, timeout=WAIT)
        connection.request(method, path, body, sent)
        answer = connection.getresponse()
        found = answer.status, dict(answer.headers), answer.read()
        connection.close()
        return found

    def get(self, path):
        status, _, body = self.send("GET", path)
        assert status == 200, body
        return body

    def post(self, path, body=b"{}", status=200):
        got, _, answer = self.send("POST", path, body if isinstance(body, bytes) else json.dumps(body))
        assert got == status, answer
        return json.loads(answer)

    def state(self):
        return json.loads(self.get("/state"))

    def bring(self, files, **options):
        """Returns the numbers of the scenes of a drop of files: paths, or name -> bytes."""
        files = files if isinstance(files, dict) else {path.name: path.read_bytes() for path in files}
        drop = self.post("/drops", options)
        for name, data in files.items():
            self.post(f"/drops/{drop}/shots?name={quote(name)}", data)
        return self.post(f"/drops/{drop}/sort")["scenes"]

    def done(self, *numbers):
        """Returns the scenes of these numbers when each is done, failed or cancelled."""
        for _ in range(WAIT * 20):
            scenes = {scene["number"]: scene for scene in self.state()["scenes"]}
            if all(scenes[number]["state"] not in ("waiting", "fusing") for number in numbers):
                return [scenes[number] for number in numbers]
            time.sleep(0.05)
        raise AssertionError(scenes)


def expected(paths, out, **options):
    """Returns the picture that run_infer.py makes."""
    fuser().fuse_files(paths, out, **options)
    return read_photo(out)


def picture(data, path):
    path.write_bytes(data)
    return read_photo(path)


def encoded(image, suffix=".jpg"):
    return cv2.imencode(suffix, image)[1].tobytes()


# Who may ask


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},  # DNS rebinding
        {"Host": "evil.example:80"},
        {"Host": ""},
        {"Host": "127.0.0.1.evil.example"},
        {"Origin": "http://evil.example"},
        {"Origin": "http://127.0.0.1:1"},  # another program of this machine
        {"Origin": "null"},
        {"Origin": None},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Cookie": ""},
        {"Cookie": "deepfuse-1=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"},
    ],
)
def test_foreign_requests_are_refused(site, headers):
    visitor = Visitor(site.address)
    assert visitor.send("POST", "/drops", b"{}", **headers)[0] == 403
    assert not site.server.desks
    if "Origin" not in headers:
        assert visitor.send("GET", "/state", **headers)[0] == 403
    assert visitor.send("POST", "/drops", b"{}")[0] == 200


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "192.168.1.5"])
def test_the_page_may_be_opened_by_numbers_and_through_forwarded_ports(site, host):
    visitor = Visitor(site.address)
    headers = {"Host": f"{host}:8000", "Origin": f"http://{host}:8000"}
    assert visitor.send("POST", "/drops", b"{}", **headers)[0] == 200


def test_a_page_opened_from_a_link_elsewhere_is_shown_but_what_it_holds_is_not(site):
    visitor = Visitor(site.address)
    foreign = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "document"}
    assert visitor.send("GET", "/", **foreign)[0] == 200
    assert visitor.send("GET", "/state", **foreign)[0] == 403
    assert visitor.send("GET", "/", **foreign | {"Sec-Fetch-Dest": "iframe"})[0] == 403


def test_every_answer_forbids_frames_foreign_scripts_and_caches(site):
    visitor = Visitor(site.address)
    for path in ("/", "/page.js", "/page.css", "/state", "/nowhere"):
        _, headers, _ = visitor.send("GET", path)
        assert headers["Content-Security-Policy"].startswith("default-src 'self'")
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin" and headers["Cache-Control"] == "no-store"


def test_two_visitors_do_not_see_each_other(site):
    one, other = Visitor(site.address), Visitor(site.address)
    [number] = one.bring(SAMPLE)
    one.done(number)
    assert other.state() == {"scenes": [], "spare": []}
    for path in (f"/scenes/{number}/picture", f"/scenes/{number}/fused", "/shots/2", "/pictures"):
        assert one.send("GET", path)[0] == 200 and other.send("GET", path)[0] == 404


def test_a_token_admits_one_browser_once(tmp_path):
    site = Site(tmp_path, "0.0.0.0")
    said = []
    site.server.announce = said.append
    try:
        first = site.server.invite()
        assert Visitor(site.address).status == 403
        for wrong in ("", "x", first[:-1], first + "x", "ä"):
            assert Visitor(site.address, f"/?token={quote(wrong)}").status == 403
        phone = Visitor(site.address, f"/?token={first}")
        assert phone.status == 303 and phone.state() == {"scenes": [], "spare": []}
        assert Visitor(site.address, f"/?token={first}").status == 403  # once
        [second] = said
        assert second != first and Visitor(site.address, f"/?token={second}").status == 303
        made_up = Visitor(site.address)
        made_up.cookie = f"deepfuse-{site.port}=" + "a" * 32
        assert made_up.send("GET", "/state")[0] == 403
        assert phone.send("GET", "/")[0] == 200
    finally:
        site.end()


# What is brought


@pytest.mark.parametrize(
    "name, label",
    [
        ("../../evil.jpg", "evil.jpg"),
        ("/etc/evil.jpg", "etc/evil.jpg"),
        ("..\\..\\evil.jpg", "evil.jpg"),
        ("C:\\evil.jpg", "C/evil.jpg"),
        ("a/./b/../evil.jpg", "a/b/evil.jpg"),
        ("a\0b\nc\x1b[31m.jpg", "abc[31m.jpg"),
        ("CON.jpg", "_CON.jpg"),
        ("Grüße 📷/日本.JPG", "Grüße 📷/日本.JPG"),
        ("x" * 300 + ".jpg", "x" * 76 + ".jpg"),
    ],
)
def test_names_stay_inside_the_folder_of_their_drop(site, name, label):
    visitor = Visitor(site.address)
    drop = visitor.post("/drops")
    visitor.post(f"/drops/{drop}/shots?name={quote(name)}", b"12345")
    [desk] = site.server.desks.values()
    [shot] = desk.shots.values()
    assert shot.label == label and shot.path == desk.folder / f"drop{drop}" / label
    assert shot.path.read_bytes() == b"12345"


def test_equal_names_of_one_drop_and_of_two_do_not_overwrite_each_other(site, tmp_path):
    visitor = Visitor(site.address)
    scenes = [sorted((ROOT / "data_test" / name).iterdir()) for name in ("courtyard", "city")]
    numbers = [visitor.bring(paths)[0] for paths in scenes]
    done = visitor.done(*numbers)
    assert [scene["name"] for scene in done] == ["0_ev-4_fused", "0_ev-4_fused_2"]
    for number, paths in zip(numbers, scenes, strict=True):
        fused, _ = picture(visitor.get(f"/scenes/{number}/picture?suffix=.png"), tmp_path / "fused.png")
        np.testing.assert_array_equal(fused, expected(paths, tmp_path / "expected.png")[0])
    drop = visitor.post("/drops")
    for data in (b"one", b"two"):
        visitor.post(f"/drops/{drop}/shots?name=a/b.jpg", data)
    [desk] = site.server.desks.values()
    assert sorted(path.read_bytes() for path in (desk.folder / f"drop{drop}" / "a").iterdir()) == [b"one", b"two"]


def test_what_is_too_large_too_many_or_no_picture_is_refused_by_its_name(site, monkeypatch):
    visitor = Visitor(site.address)
    drop = visitor.post("/drops")
    shots = f"/drops/{drop}/shots?name=a/IMG_1.jpg"
    unread = visitor.post(f"/drops/{drop}/shots?name=notes.txt", b"1" * (16 << 20), 400)  # refused by its name
    assert unread["error"].startswith("notes.txt: is not a pict")
    assert visitor.send("POST", shots, b"", **{"Content-Length": str(1 << 40)})[0] == 413
    assert visitor.send("POST", shots, iter([b"1"]), **{"Transfer-Encoding": "chunked"})[0] == 411
    assert visitor.send("POST", "/drops", b"1" * (2 << 20))[0] == 413
    monkeypatch.setattr(
        utils.page.desk.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1 << 40, 0, 1 << 30)
    )
    assert visitor.post(shots, b"1", 400)["error"].startswith("a/IMG_1.jpg: the disk is full")
    monkeypatch.undo()
    monkeypatch.setattr(utils.page.desk, "MAX_SHOTS", 1)
    visitor.post(shots, b"1")
    assert visitor.post(shots, b"1", 400)["error"].startswith("a/IMG_1.jpg: there are 1 shots already")
    assert visitor.post("/drops/999/shots?name=a.jpg", b"1", 404)
    assert not visitor.state()["scenes"]


def test_an_upload_that_breaks_off_leaves_nothing(site):
    visitor = Visitor(site.address)
    drop = visitor.post("/drops")
    with socket.create_connection(("127.0.0.1", site.port)) as line:
        head = (
            f"POST /drops/{drop}/shots?name=a.jpg HTTP/1.1\r\nHost: {visitor.host}\r\nOrigin: http://{visitor.host}\r\n"
        )
        line.sendall(f"{head}Cookie: {visitor.cookie}\r\nContent-Length: 100\r\n\r\nfew".encode())
    [desk] = site.server.desks.values()
    for _ in range(WAIT * 20):
        if not desk.shots and not list((desk.folder / f"drop{drop}").iterdir()):
            break
        time.sleep(0.05)
    else:
        raise AssertionError("the shot is still there")


def test_more_browsers_than_allowed_are_refused_until_one_is_forgotten(site, monkeypatch):
    monkeypatch.setattr("utils.page.server.MAX_DESKS", 2)
    visitors = [Visitor(site.address) for _ in range(3)]
    for visitor in visitors[:2]:
        visitor.state()
    assert visitors[2].send("GET", "/state")[0] == 503
    next(iter(site.server.desks.values())).seen -= 10**6
    visitors[2].state()
    assert len(site.server.desks) == 2


def test_damage_is_told_by_the_visitors_name_and_only_its_scene_fails(site):
    visitor = Visitor(site.address)
    good, other = (path.read_bytes() for path in SAMPLE)
    files = {
        "trip/a/1.jpg": good,
        "trip/a/IMG 2.jpg": other[: len(other) // 2],
        "trip/b/1.jpg": good,
        "trip/b/2.jpg": other,
    }
    broken, whole = visitor.done(*visitor.bring(files))
    assert whole["state"] == "done" and broken["state"] == "failed"
    assert broken["says"].startswith("trip/a/IMG 2.jpg: damaged") and str(site.server.folder) not in broken["says"]
    different = {
        "x/1.png": encoded(np.zeros((50, 60, 3), np.uint8), ".png"),
        "x/2.png": encoded(np.zeros((50, 70), np.uint8), ".png"),
    }
    assert visitor.bring(different) == []  # they are no bracket; a person may insist
    shots = sorted(visitor.state()["spare"], key=lambda shot: shot["label"])
    [scene] = visitor.done(visitor.post("/scenes", {"shots": [shot["number"] for shot in shots]}))
    assert scene["says"] == "x/2.png: size 70x50 in gray, but x/1.png has 60x50 in colour: exposures must agree"


def test_a_defect_fails_only_its_scene_and_is_reported(site, monkeypatch):
    visitor = Visitor(site.address)
    monkeypatch.setattr(Fuser, "fuse", lambda *_: [][0])
    [scene] = visitor.done(*visitor.bring(SAMPLE))
    assert scene["state"] == "failed" and scene["says"] == "this is a defect of DeepFuse: the console says more"
    monkeypatch.undo()
    [defect] = site.defects
    assert "IndexError: list index out of range" in str(defect) and "please report it" in str(defect)
    site.defects.clear()
    visitor.post(f"/scenes/{scene['number']}/fuse")
    assert visitor.done(scene["number"])[0]["state"] == "done"


# What is made of it


def test_a_folder_of_two_scenes_becomes_two_pictures_and_a_zip(site, tmp_path):
    visitor = Visitor(site.address)
    files = {
        f"Trip/{name}/{path.name}": path
        for name in ("city", "forest")
        for path in (ROOT / "data_test" / name).iterdir()
    }
    numbers = visitor.bring({name: path.read_bytes() for name, path in files.items()})
    scenes = visitor.done(*numbers)
    assert [scene["name"] for scene in scenes] == ["city", "forest"] and all(
        scene["state"] == "done" for scene in scenes
    )
    with zipfile.ZipFile(io.BytesIO(visitor.get("/pictures?suffix=.png"))) as archive:
        assert archive.testzip() is None and archive.namelist() == ["city.png", "forest.png"]
        for name in archive.namelist():
            fused, metadata = picture(archive.read(name), tmp_path / name)
            paths = sorted((ROOT / "data_test" / Path(name).stem).iterdir())
            result, kept = expected(paths, tmp_path / "expected.png")
            np.testing.assert_array_equal(fused, result)
            assert metadata == kept


def shot(image, k, seconds):
    """Returns a JPEG with the EXIF of the k-th shot of a bracket, taken so many seconds after noon."""
    exif = Image.Exif()
    exif.get_ifd(0x8769).update({33434: 1 / 2 ** (7 - 2 * k), 33437: 8.0, 34855: 100})  # time, aperture, ISO
    exif.get_ifd(0x8769)[36867] = f"2024:05:06 12:00:{seconds:02}"
    exif[271], exif[272] = "Maker", "Camera"
    file = io.BytesIO()
    Image.fromarray(image[..., ::-1]).save(file, "JPEG", quality=95, exif=exif)
    return file.getvalue()


def test_a_card_is_sorted_into_its_brackets_and_what_may_be_doubted_is_said(site):
    files = {}
    for scene, name in enumerate(("city", "forest")):
        for k, path in enumerate(sorted((ROOT / "data_test" / name).iterdir())):
            files[f"DCIM/100NIKON/DSC_{10 * scene + k:04}.JPG"] = shot(read_image(path), k, 20 * scene + k)
    files["DCIM/100NIKON/DSC_0050.JPG"] = shot(read_image(ROOT / "data_test/sunset/1_ev+0.jpg"), 1, 55)  # a single
    visitor = Visitor(site.address)
    first, second = visitor.done(*visitor.bring(files))
    assert [one["label"][-12:] for one in first["shots"]] == ["DSC_0000.JPG", "DSC_0001.JPG", "DSC_0002.JPG"]
    assert [one["label"][-12:] for one in second["shots"]] == ["DSC_0010.JPG", "DSC_0011.JPG", "DSC_0012.JPG"]
    assert [scene["state"] for scene in (first, second)] == ["done", "done"]
    assert [one["label"] for one in visitor.state()["spare"]] == ["DCIM/100NIKON/DSC_0050.JPG"]


def test_shots_per_scene_are_counted_where_that_is_asked(site):
    visitor = Visitor(site.address)
    drop = visitor.post("/drops", {"count": 3})
    for name in ("city", "forest"):
        for path in sorted((ROOT / "data_test" / name).iterdir()):
            visitor.post(f"/drops/{drop}/shots?name=all/{name}{path.name}", path.read_bytes())
    sorted_into = visitor.post(f"/drops/{drop}/sort")
    assert len(sorted_into["scenes"]) == 2 and str(site.server.folder) not in str(sorted_into["notes"])
    for wrong in (1, "3", 2.5):
        visitor.post("/drops", {"count": wrong}, 400)


def test_a_zip_that_fails_on_its_way_is_not_whole(site, monkeypatch):
    visitor = Visitor(site.address)
    visitor.done(*visitor.bring(SAMPLE))
    monkeypatch.setattr(Task, "save", lambda *_: (_ for _ in ()).throw(UserError("no")))
    with pytest.raises(http.client.IncompleteRead):
        visitor.get("/pictures")


@pytest.mark.parametrize(
    "suffix, quality", [(".jpg", 60), (".jpg", 95), (".webp", 80), (".tif", 95), (".avif", 70), (".heic", 70)]
)
def test_format_and_quality_apply_to_what_is_there(site, tmp_path, suffix, quality):
    if suffix == ".heic":
        pytest.importorskip("pillow_heif", reason="needs pillow-heif")
    visitor = Visitor(site.address)
    [number] = visitor.bring(SAMPLE)
    [before] = visitor.done(number)
    status, headers, data = visitor.send("GET", f"/scenes/{number}/picture?suffix={suffix}&quality={quality}")
    assert status == 200 and headers["Content-Disposition"].endswith(f"0_ev-4_fused{suffix}")
    image, metadata = expected(SAMPLE, tmp_path / "expected.png")
    write_image(tmp_path / f"own{suffix}", image, metadata, quality)
    assert data == (tmp_path / f"own{suffix}").read_bytes()
    assert visitor.state()["scenes"] == [before]  # nothing was fused again
    for wrong in ("suffix=.exe", "suffix=.jpg&quality=0", "quality=x"):
        assert visitor.send("GET", f"/scenes/{number}/picture?{wrong}")[0] == 400


def test_hdr_is_what_the_script_writes(site, tmp_path):
    visitor = Visitor(site.address)
    [number] = visitor.bring(SAMPLE)
    visitor.done(number)
    fuser().fuse_files(SAMPLE, tmp_path / "own.jpg", hdr=True)
    assert visitor.get(f"/scenes/{number}/picture?suffix=.hdr.jpg") == (tmp_path / "own.jpg").read_bytes()


def test_names_of_any_language_are_kept_in_downloads(site):
    visitor = Visitor(site.address)
    data = [path.read_bytes() for path in SAMPLE]
    [number] = visitor.bring({"Grüße 日本/1.jpg": data[0], "Grüße 日本/2.jpg": data[1]})
    visitor.done(number)
    _, headers, _ = visitor.send("GET", f"/scenes/{number}/picture")
    assert headers["Content-Disposition"] == f"attachment; filename*=UTF-8''{quote('Grüße 日本')}.jpg"
    with zipfile.ZipFile(io.BytesIO(visitor.get("/pictures"))) as archive:
        assert archive.namelist() == ["Grüße 日本.jpg"]


def test_the_look_changes_the_download_and_the_default_does_not(site, tmp_path):
    visitor = Visitor(site.address)
    [number] = visitor.bring(SAMPLE)
    visitor.done(number)
    fused, _ = expected(SAMPLE, tmp_path / "expected.png")
    for look in ({}, {"brightness": 0.4, "contrast": -0.5, "warmth": 1}, {"brightness": 0}):
        visitor.post(f"/scenes/{number}/look", look)
        got, _ = picture(visitor.get(f"/scenes/{number}/picture?suffix=.png"), tmp_path / "got.png")
        np.testing.assert_array_equal(got, adjust(fused, Look(**look)))
    for wrong in ({"brightness": 2}, {"colour": 1}, {"warmth": None}):
        visitor.post(f"/scenes/{number}/look", wrong, 400)


def moving_stack(folder):
    """Writes three exposures in which a square moves; returns their paths."""
    rng = np.random.default_rng(0)
    scene = cv2.resize(rng.random((14, 18, 3), np.float32), (360, 270)) * 0.6 + 0.1
    paths = []
    for k, gain in enumerate((0.4, 1, 2)):
        shot = scene.copy()
        shot[90:170, 40 + 100 * k : 100 + 100 * k] = (0.1, 0.2, 0.5)
        paths.append(folder / f"shot{k}.png")
        write_image(paths[-1], np.rint(np.clip(shot * gain, 0, 1) * 255).astype(np.uint8))
    return paths


def test_the_reference_is_said_and_can_be_chosen(site, tmp_path):
    paths = moving_stack(tmp_path)
    visitor = Visitor(site.address)
    [number] = visitor.bring(paths, deghost=True)
    [scene] = visitor.done(number)
    assert scene["reference"] in [path.name for path in paths]
    pictures = []
    for shot, path in zip(scene["shots"], paths, strict=True):
        visitor.post(f"/scenes/{number}/fuse", {"deghost": True, "reference": shot["number"]})
        [again] = visitor.done(number)
        assert again["reference"] == path.name and again["revision"] > scene["revision"]
        fused, _ = picture(visitor.get(f"/scenes/{number}/picture?suffix=.png"), tmp_path / "fused.png")
        np.testing.assert_array_equal(fused, expected(paths, tmp_path / "own.png", deghost=True, reference=path)[0])
        pictures.append(fused)
    assert (pictures[0] != pictures[2]).any()


def test_aligned_shots_are_compared_as_they_are_fused(site, tmp_path):
    shots = [read_image(path) for path in SAMPLE]
    shifted = [shots[0][:-6, :-10], shots[1][6:, 10:]]
    files = {f"{k}.png": encoded(shot, ".png") for k, shot in enumerate(shifted)}
    visitor = Visitor(site.address)
    [number] = visitor.bring(files, align="mtb")
    [scene] = visitor.done(number)
    width, height = scene["size"]
    assert (width, height) == (shots[0].shape[1] - 20, shots[0].shape[0] - 12)
    box = f"part?left=5&top=4&width={width - 9}&height={height - 7}&shrink=1"
    for k in range(2):
        part, _ = picture(visitor.get(f"/scenes/{number}/exposure{k}/{box}"), tmp_path / "part.png")
        np.testing.assert_array_equal(part, shots[k][6:-6, 10:-10][4 : height - 3, 5 : width - 4])
    for wrong in (
        "left=-1&top=0&width=5&height=5&shrink=1",
        f"left={width - 2}&top=0&width=5&height=5&shrink=1",
        "left=0",
    ):
        assert visitor.send("GET", f"/scenes/{number}/fused/part?{wrong}")[0] in (400, 404)


def test_parts_are_the_pictures_own_pixels_with_their_look_and_profile(site, tmp_path):
    visitor = Visitor(site.address)
    [number] = visitor.bring(SAMPLE)
    visitor.done(number)
    look = {"brightness": 0.2, "contrast": 0.7}
    visitor.post(f"/scenes/{number}/look", look)
    fused = adjust(expected(SAMPLE, tmp_path / "expected.png")[0], Look(**look))
    part, _ = picture(
        visitor.get(f"/scenes/{number}/fused/part?left=31&top=7&width=200&height=150&shrink=1"), tmp_path / "p.png"
    )
    np.testing.assert_array_equal(part, fused[7:157, 31:231])
    part, _ = picture(
        visitor.get(f"/scenes/{number}/fused/part?left=0&top=0&width=400&height=300&shrink=4"), tmp_path / "p.png"
    )
    mean = fused[:300, :400].reshape(75, 4, 100, 4, 3).mean((1, 3))
    np.testing.assert_allclose(part, mean, atol=1)


def test_three_heics_become_one_picture(site):
    heif = pytest.importorskip("pillow_heif", reason="needs pillow-heif")
    files = {}
    for k, path in enumerate(sorted((ROOT / "data_test/sunset").iterdir())):
        image, out = read_image(path), io.BytesIO()
        heif.encode("BGR", (image.shape[1], image.shape[0]), image.tobytes(), out, quality=90)
        files[f"IMG_{k + 1}.HEIC"] = out.getvalue()
    visitor = Visitor(site.address)
    [number] = visitor.bring(files)
    [scene] = visitor.done(number)
    assert scene["state"] == "done" and scene["name"] == "IMG_1_fused"
    for shot in scene["shots"]:  # browsers do not show HEIC
        assert visitor.get(f"/shots/{shot['number']}")[:2] == b"\xff\xd8"


def test_sixteen_bits_and_alpha_stay_in_the_download_and_are_shown(site, tmp_path):
    rng = np.random.default_rng(0)
    scene = cv2.resize(rng.random((9, 12, 4), np.float32), (120, 90))
    paths = [tmp_path / f"{k}.png" for k in range(2)]
    for path, gain in zip(paths, (0.4, 1.6), strict=True):
        write_image(path, np.rint(np.clip(scene * gain, 0, 1) * 65535).astype(np.uint16))
    visitor = Visitor(site.address)
    [number] = visitor.bring(paths)
    visitor.done(number)
    fused, _ = picture(visitor.get(f"/scenes/{number}/picture?suffix=.tif"), tmp_path / "fused.tif")
    assert fused.dtype == np.uint16 and fused.shape == (90, 120, 4)
    part, _ = picture(
        visitor.get(f"/scenes/{number}/fused/part?left=0&top=0&width=120&height=90&shrink=1"), tmp_path / "p.png"
    )
    np.testing.assert_array_equal(part, np.rint(fused[..., :3] / 257).astype(np.uint8))
    error = json.loads(visitor.send("GET", f"/scenes/{number}/picture?suffix=.jpg")[2])["error"]
    assert error == "0_fused: .jpg cannot hold the picture's alpha: write .png, .tif or .webp"


def test_progress_grows_with_each_step_and_says_which_it_is(tmp_path):
    shots = [Shot(k, path, path.name) for k, path in enumerate(moving_stack(tmp_path))]
    heard = []

    class Heard(Task):
        def _note(self, run, **changes):
            super()._note(run, **changes)
            heard.append((self.state, self.fraction, self.says))

    (tmp_path / "task").mkdir()
    task = Heard(1, "scene", shots, Options(), tmp_path / "task")
    task.work(task.restart(Options(align="mtb", deghost=True)), lambda name: fuser())
    fractions = [fraction for _, fraction, _ in heard]
    assert fractions == sorted(fractions) and fractions[0] == 0 and fractions[-1] == 1 and len(set(fractions)) > 8
    assert max(np.diff(fractions)) < 0.25
    says = list(dict.fromkeys(says for *_, says in heard))
    assert says[:3] == ["reading 1 of 3", "reading 2 of 3", "reading 3 of 3"]
    assert says[-4:] == ["looking for what moved", "blending", "writing", ""] and heard[-1][0] == "done"


def test_scenes_are_fused_in_turn_and_each_can_be_cancelled(site):
    visitor = Visitor(site.address)
    site.gate.clear()
    numbers = [visitor.bring(SAMPLE)[0] for _ in range(4)]
    for number in (numbers[0], numbers[2]):  # the one that is being fused, and one that waits
        visitor.post(f"/scenes/{number}/cancel")
    site.gate.set()
    scenes = visitor.done(*numbers)
    assert [scene["state"] for scene in scenes] == ["cancelled", "done", "cancelled", "done"]
    assert visitor.send("GET", f"/scenes/{numbers[0]}/picture")[0] == 404
    visitor.post(f"/scenes/{numbers[0]}/fuse")
    assert visitor.done(numbers[0])[0]["state"] == "done"


def test_fusing_again_while_it_is_fused_gives_what_was_asked_last(site, tmp_path):
    visitor = Visitor(site.address)
    site.gate.clear()
    [number] = visitor.bring(moving_stack(tmp_path), deghost=True)
    visitor.post(f"/scenes/{number}/fuse", {"deghost": False})
    site.gate.set()
    [scene] = visitor.done(number)
    assert scene["state"] == "done" and scene["options"]["deghost"] is False and scene["reference"] == ""


def test_a_scene_is_taken_apart_and_put_together_otherwise(site, tmp_path):
    paths = moving_stack(tmp_path)
    visitor = Visitor(site.address)
    [number] = visitor.bring(paths)
    visitor.done(number)
    visitor.post(f"/scenes/{number}/apart")
    state = visitor.state()
    assert not state["scenes"] and [shot["label"] for shot in state["spare"]] == [path.name for path in paths]
    first, second, third = (shot["number"] for shot in state["spare"])
    again = visitor.post("/scenes", {"shots": [third, first]})
    [scene] = visitor.done(again)
    assert [shot["number"] for shot in scene["shots"]] == [third, first]
    fused, _ = picture(visitor.get(f"/scenes/{again}/picture?suffix=.png"), tmp_path / "fused.png")
    np.testing.assert_array_equal(fused, expected([paths[2], paths[0]], tmp_path / "own.png")[0])
    visitor.post("/scenes", {"shots": [first]}, 400)  # it is not spare
    visitor.post("/scenes", {"shots": []}, 400)
    visitor.post("/forget", {"shots": [second, first]})  # the first belongs to a scene
    state = visitor.state()
    assert state["spare"] == [] and len(state["scenes"][0]["shots"]) == 2
    visitor.post(f"/scenes/{again}/remove")
    [desk] = site.server.desks.values()
    assert not desk.shots and not [path for path in desk.folder.rglob("*") if path.is_file()]


def test_unknown_weights_and_options_are_refused(site):
    visitor = Visitor(site.address)
    for wrong in ({"weights": "../../etc/passwd"}, {"align": "sideways"}, {"colour": 1}, []):
        visitor.post("/drops", wrong, 400)


# The program


@contextmanager
def program(folder, *options):
    """Yields a running run_app.py whose temporary files are in `folder`, its port, and the file of what it prints."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder.mkdir(exist_ok=True)
    said = folder.parent / f"said{port}.txt"
    command = [sys.executable, ROOT / "run_app.py", "--no-browser", "--device", "cpu", "--port", str(port), *options]
    with open(said, "w") as out:
        process = subprocess.Popen(command, env=os.environ | {"TMPDIR": str(folder)}, stdout=out, stderr=out)
    try:
        for _ in range(WAIT * 10):
            if "Ctrl-C ends" in said.read_text():
                break
            assert process.poll() is None, said.read_text()
            time.sleep(0.1)
        yield process, port, said
    finally:
        process.kill()
        process.wait(WAIT)


def test_the_program_says_where_it_is_and_leaves_nothing(tmp_path):
    with program(tmp_path / "temporary") as (process, port, said):
        visitor = Visitor(f"http://127.0.0.1:{port}")
        good, bad = visitor.bring(SAMPLE), visitor.bring({"IMG_1.jpg": b"no picture", "IMG_2.jpg": b"neither"})
        visitor.done(*good, *bad)
        assert list((tmp_path / "temporary").iterdir())
        process.terminate()
        assert process.wait(WAIT) == 128 + signal.SIGTERM
        lines = said.read_text().splitlines()
        assert lines == [f"The page is http://127.0.0.1:{port}, for this machine alone; Ctrl-C ends it", "interrupted"]
    assert not list((tmp_path / "temporary").iterdir())  # not even ONNX Runtime's


def test_what_a_killed_program_left_goes_at_the_next_start_but_not_what_is_in_use(tmp_path):
    temporary = tmp_path / "temporary"
    with program(temporary) as (killed, port, _):
        Visitor(f"http://127.0.0.1:{port}").bring(SAMPLE)
        killed.kill()
        killed.wait(WAIT)
    [left] = temporary.iterdir()
    assert list(left.rglob("*.jpg"))
    with program(temporary), program(temporary):
        assert not left.exists() and len(list(temporary.iterdir())) == 2


def test_a_port_in_use_is_told_in_one_line(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        command = [sys.executable, ROOT / "run_app.py", "--no-browser", "--port", str(port)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: cannot listen at 127.0.0.1, port {port}") and done.stderr.count("\n") == 1


def test_the_network_gets_an_address_with_a_token(tmp_path):
    with program(tmp_path / "temporary", "--host", "0.0.0.0") as (_, port, said):
        for _ in range(100):
            if "token=" in said.read_text():
                break
            time.sleep(0.1)
        [line] = [line for line in said.read_text().splitlines() if "token=" in line]
        address = line.split(": ")[1]
        assert Visitor(f"http://127.0.0.1:{port}").status == 403
        assert Visitor(f"http://127.0.0.1:{port}", "/?" + urlsplit(address).query).status == 303


# In a real browser


@pytest.fixture(scope="module")
def chromium():
    """Returns the system's Chromium, or the one that Playwright installed."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install playwright")
    with playwright.sync_playwright() as driver:
        found = shutil.which("chromium") or shutil.which("google-chrome") or driver.chromium.executable_path
        if not Path(found).exists():
            pytest.skip("needs Chromium: python -m playwright install chromium")
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox", "--no-proxy-server"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium, site):
    """A function that opens the page in a browser of its own; afterwards no script may have failed."""
    opened, failed = [], []

    def opens(width=1280, height=800, path="/", **options):
        context = chromium.new_context(viewport={"width": width, "height": height}, **options)
        opened.append(context)
        tab = context.new_page()
        tab.set_default_timeout(WAIT * 1000)
        tab.on("pageerror", lambda error: failed.append(str(error)))
        tab.goto(site.address + path)
        tab.locator("#options option[value='none.onnx']").wait_for(state="attached")  # the page has started
        return tab

    yield opens
    for context in opened:
        context.close()
    assert not failed


def until(tab, condition):
    """Waits until a condition in JavaScript is true; Playwright's own way needs eval, which the page forbids."""
    for _ in range(WAIT * 20):
        if tab.evaluate(condition):
            return
        tab.wait_for_timeout(50)
    raise AssertionError(f"never true: {condition}")


def drop(tab, paths, selector="#files"):
    """Lets the visitor choose files, or a folder."""
    tab.locator(selector).set_input_files(paths)


def fused(tab, count=1):
    """Waits until so many scenes are done, and the one that is shown is on the screen."""
    tab.locator("#queue li.done").nth(count - 1).wait_for()
    until(tab, "document.querySelector('#after .whole').naturalWidth > 0")


def screen(tab, selector="#viewer"):
    """Returns what is on the screen as BGR."""
    return cv2.imdecode(np.frombuffer(tab.locator(selector).screenshot(), np.uint8), cv2.IMREAD_COLOR)


def sharp(tab):
    """Waits until the pixels themselves are on the screen."""
    until(
        tab, "[...document.querySelectorAll('.comparing .part, #after .part')].every(image => image.naturalWidth > 0)"
    )
    tab.wait_for_timeout(300)


def saved(tab, selector, folder):
    with tab.expect_download() as download:
        tab.locator(selector).click()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def test_photographs_are_chosen_fused_and_downloaded_and_nothing_is_asked_elsewhere(open_page, tmp_path):
    tab = open_page()
    asked = []
    tab.on("request", lambda request: asked.append(urlsplit(request.url)))
    with tab.expect_file_chooser() as chooser:
        tab.get_by_role("button", name="Choose photographs").click()
    chooser.value.set_files(SAMPLE)
    fused(tab)
    tab.get_by_label("Format").select_option("PNG")
    path = saved(tab, "#download", tmp_path)
    assert path.name == "0_ev-4_fused.png"
    image, metadata = read_photo(path)
    own, kept = expected(SAMPLE, tmp_path / "expected.png")
    np.testing.assert_array_equal(image, own)
    assert metadata == kept
    assert {url.hostname for url in asked if url.scheme.startswith("http")} == {"127.0.0.1"}


def test_a_folder_becomes_a_queue_with_thumbnails_and_a_zip(open_page, tmp_path):
    for name in ("city", "forest"):
        shutil.copytree(ROOT / "data_test" / name, tmp_path / "Trip" / name)
    (tmp_path / "Trip" / "notes.txt").write_text("no picture")
    (tmp_path / "Trip" / ".hidden.jpg").write_text("no picture")
    tab = open_page()
    with tab.expect_file_chooser() as chooser:
        tab.get_by_role("button", name="Choose a folder").click()
    chooser.value.set_files(tmp_path / "Trip")
    fused(tab, 2)
    assert tab.get_by_role("alert").inner_text().startswith("Left out, since they are no pictures: Trip/notes.txt\n")
    assert tab.locator("#queue .name").all_inner_texts() == ["city", "forest"]
    assert tab.evaluate("all('#queue .thumb').every(image => image.naturalWidth > 99)")
    assert tab.locator("#count").inner_text() == "2 of 2 done"
    with zipfile.ZipFile(saved(tab, "#zip", tmp_path)) as archive:
        assert archive.namelist() == ["city.jpg", "forest.jpg"] and archive.testzip() is None


def test_files_are_dropped_on_the_page(open_page):
    tab = open_page()
    data = tab.evaluate_handle("new DataTransfer()")
    for path in SAMPLE:
        tab.evaluate(
            """([data, name, bytes]) => {
                data.items.add(new File([Uint8Array.from(atob(bytes), one => one.charCodeAt(0))], name));
            }""",
            [data, path.name, base64.b64encode(path.read_bytes()).decode()],
        )
    tab.dispatch_event("#drop", "drop", {"dataTransfer": data})
    fused(tab)
    assert tab.locator("#queue .says").inner_text() == "2 shots, done"


def test_a_new_upload_leaves_nothing_of_the_old_one_in_view(open_page, site):
    tab = open_page()
    drop(tab, SAMPLE)
    fused(tab)
    tab.keyboard.press("1")
    old = tab.locator("#download").get_attribute("href")
    site.gate.clear()
    tab.locator("#options [name=handheld]").check()  # for the next ones
    drop(tab, sorted((ROOT / "data_test/city").iterdir()))
    tab.locator("#queue li").nth(1).wait_for()
    tab.locator("#note").get_by_text("reading").wait_for()
    assert tab.locator(".layer img[src]").count() == 0 and tab.locator("#views label").count() == 0
    assert tab.locator("#download").get_attribute("href") is None
    assert tab.locator("#download").get_attribute("aria-disabled") == "true"
    assert tab.locator("#queue .name").all_inner_texts() == ["0_ev-4_fused", "0_ev-4_fused_2"]
    site.gate.set()
    fused(tab, 2)
    assert tab.locator("#download").get_attribute("href") not in (None, old)
    tab.locator(".card").first.click()  # the first is still there, under its own name
    assert tab.locator("#download").get_attribute("href") == old
    assert not tab.locator("#options [name=handheld]").is_checked()
    tab.locator("#options [name=handheld]").check()
    tab.get_by_role("button", name="Fuse this scene again").click()
    until(tab, "current().state === 'done' && current().options.align === 'homography' && current().options.deghost")


def test_progress_is_shown_and_cancelled(open_page, site):
    tab = open_page()
    site.gate.clear()
    for name in ("city", "forest", "sunset"):
        drop(tab, sorted((ROOT / "data_test" / name).iterdir()))
        tab.locator("#queue .name").nth(["city", "forest", "sunset"].index(name)).wait_for()
    tab.locator("#queue li.fusing").wait_for()
    assert tab.locator("#queue .says").first.inner_text() == "3 shots, reading 1 of 3"
    assert tab.locator("#queue progress").first.get_attribute("aria-label") == "0_ev-4_fused"
    assert tab.title() == "0 of 3 · DeepFuse"
    tab.locator(".card").nth(1).click()
    tab.get_by_role("button", name="Cancel", exact=True).click()
    tab.locator("#queue li.cancelled").wait_for()
    tab.get_by_role("button", name="Cancel all").click()
    tab.locator("#queue li.cancelled").nth(2).wait_for()
    site.gate.set()
    tab.get_by_role("button", name="Fuse this scene again").click()
    fused(tab)
    assert tab.locator("#queue li.cancelled").count() == 2 and tab.title() == "DeepFuse"


@pytest.mark.parametrize("dots", [1, 2])
def test_at_100_percent_the_screen_shows_the_pictures_pixels(open_page, tmp_path, dots):
    tab = open_page(device_scale_factor=dots)
    drop(tab, SAMPLE)
    fused(tab)
    tab.get_by_role("button", name="100 %").click()
    sharp(tab)
    assert tab.locator("#scale").inner_text() == "100 %"
    own, _ = expected(SAMPLE, tmp_path / "expected.png")
    x, y = (round(float(value) * dots) for value in tab.evaluate("[view.x, view.y]"))
    shown = screen(tab)
    height, width = min(own.shape[0], shown.shape[0]), min(own.shape[1] + min(x, 0), shown.shape[1])
    there = shown[max(y, 0) : max(y, 0) + height, max(x, 0) : max(x, 0) + width]
    np.testing.assert_array_equal(
        there, own[max(-y, 0) :, max(-x, 0) :][:height, :width][: there.shape[0], : there.shape[1]]
    )
    assert there.size > 3 * 400_000 / 2 if dots == 1 else there.size > 3 * 300_000
    tab.keyboard.press("+")  # at 150 %, each is as sharp
    tab.keyboard.press("f")
    assert tab.evaluate("view.scale <= fitting(current().size)")


def test_a_shot_is_compared_by_key_and_by_slider(open_page):
    tab = open_page(1500, 900)
    drop(tab, SAMPLE)
    fused(tab)
    tab.keyboard.press("2")
    assert tab.get_by_role("radio", name="2_ev+2.jpg").is_checked()
    tab.get_by_role("button", name="100 %").click()
    sharp(tab)
    shot, own = read_image(SAMPLE[1]), fuser().fuse([read_image(path) for path in SAMPLE])
    x, y, width = tab.evaluate("[view.x, view.y, viewer.clientWidth]")
    assert x > 0 and y > 100  # the whole picture is seen, and no label lies on it

    def divider():
        tab.wait_for_timeout(300)
        return round(tab.evaluate("parseFloat(viewer.style.getPropertyValue('--split'))"))

    def check(at):
        shown = screen(tab)[round(y) :, round(x) :][: shot.shape[0], : shot.shape[1]]
        left, right = np.s_[:, : at - round(x) - 30], np.s_[:, at - round(x) + 30 :]
        np.testing.assert_array_equal(shown[left], shot[left])
        np.testing.assert_array_equal(shown[right], own[right])

    check(before := divider())
    tab.get_by_role("slider", name="Compare").focus()
    for _ in range(20):
        tab.keyboard.press("ArrowLeft")
    check(after := divider())
    assert after == pytest.approx(before - 0.2 * (width - 36), abs=1)
    tab.keyboard.press("x")
    assert tab.locator("#split").input_value() == "100"
    tab.keyboard.press("0")
    assert not tab.locator("#split").is_visible() and tab.get_by_role("radio", name="nothing").is_checked()


def test_what_moved_is_shown_as_in_a_reference_that_is_said_and_can_be_chosen(open_page, tmp_path):
    tab = open_page()
    tab.locator("#options summary").click()
    tab.get_by_label("Show moving things once").check()
    assert tab.get_by_label("Held in the hand").evaluate("box => box.indeterminate")  # half of it
    drop(tab, moving_stack(tmp_path))
    fused(tab)
    taken = tab.evaluate("current().reference")
    choose = tab.get_by_label("as in")
    assert choose.locator("option").first.inner_text() == f"best exposed: {taken}"
    other = next(name for name in ("shot0.png", "shot1.png", "shot2.png") if name != taken)
    choose.select_option(other)
    tab.get_by_role("button", name="Fuse this scene again").click()
    until(tab, f"current().reference === '{other}'")


def test_the_look_is_seen_and_reset(open_page, tmp_path):
    tab = open_page()
    drop(tab, SAMPLE)
    fused(tab)
    tab.wait_for_timeout(500)
    before = screen(tab)
    tab.get_by_label("Brightness").fill("60")
    until(tab, "current().look.brightness === 0.6")
    tab.wait_for_timeout(800)
    assert screen(tab).mean() > before.mean() + 15
    tab.get_by_role("button", name="As fused").click()
    until(tab, "current().look.brightness === 0")
    tab.wait_for_timeout(800)
    np.testing.assert_array_equal(screen(tab), before)


def test_weights_are_not_asked_for_but_can_be_chosen(open_page):
    tab = open_page()
    weights = tab.get_by_label("Network")
    assert not weights.is_visible()
    tab.get_by_text("More", exact=True).click()
    assert weights.is_visible() and weights.input_value() == WEIGHTS
    weights.select_option("none.onnx")
    drop(tab, SAMPLE)
    tab.locator("#queue li.failed").wait_for()
    assert "none.onnx: no such file" in tab.locator("#note").inner_text()


def test_errors_name_the_visitors_file_and_stay_until_closed(open_page, tmp_path):
    for name, data in (("1.jpg", SAMPLE[0].read_bytes()), ("IMG_2.jpg", SAMPLE[1].read_bytes()[:9999])):
        (tmp_path / name).write_bytes(data)
    tab = open_page()
    drop(tab, [tmp_path / "1.jpg", tmp_path / "IMG_2.jpg"])
    tab.locator("#queue li.failed").wait_for()
    assert tab.locator("#note").inner_text().startswith("IMG_2.jpg: damaged")
    (tmp_path / "notes.txt").write_text("no picture")
    drop(tab, [tmp_path / "notes.txt"])
    tab.get_by_role("alert").get_by_text("No picture among notes.txt.").wait_for()
    tab.get_by_role("alert").get_by_role("button", name="Close").click()
    assert tab.get_by_role("alert").inner_text() == ""


def test_what_is_there_survives_a_reload_but_not_its_removal(open_page):
    tab = open_page()
    drop(tab, SAMPLE)
    fused(tab)
    tab.reload()
    fused(tab)
    tab.get_by_role("button", name="Remove", exact=True).click()
    tab.get_by_role("button", name="Choose photographs").wait_for()


def test_a_scene_is_taken_apart_and_some_shots_put_together(open_page, tmp_path):
    tab = open_page()
    drop(tab, moving_stack(tmp_path))
    fused(tab)
    tab.get_by_role("button", name="Take apart").click()
    tab.locator("#spare li").nth(2).wait_for()
    tab.get_by_role("checkbox", name="shot1.png").uncheck()
    tab.get_by_role("button", name="Fuse the chosen ones together").click()
    fused(tab)
    assert tab.locator("#queue .says").inner_text() == "2 shots, done"
    assert tab.locator("#spare span").all_inner_texts() == ["shot1.png"]


def test_another_web_site_cannot_upload_or_look(open_page, site, tmp_path):
    """A page of another origin, opened in the same browser as ours, tries what pages can."""
    open_page()
    tab = open_page()
    tab.evaluate("act('drops')")  # this browser has a desk
    before = len(site.server.desks)
    (tmp_path / "index.html").write_text("<title>foreign</title>")
    command = [sys.executable, "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", tmp_path]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"}
    ) as foreign:
        try:
            port = foreign.stdout.readline().split("port ")[1].split()[0]
            tab.goto(f"http://127.0.0.1:{port}")
            tried = """async address => {
                const post = { method: "POST", mode: "no-cors", credentials: "include", body: "{}" };
                const send = path => fetch(address + path, post);
                await Promise.allSettled(["/drops", "/clear", "/drops/1/shots?name=a.jpg"].map(send));
                const answer = fetch(address + "/state", { credentials: "include" });
                const seen = await answer.then(found => found.text(), String);
                const image = new Image();
                const loaded = new Promise(done => {
                    image.onload = () => done(true);
                    image.onerror = () => done(false);
                });
                image.src = address + "/shots/1";
                return [seen, await loaded];
            }"""
            seen, loaded = tab.evaluate(tried, site.address)
        finally:
            foreign.kill()
    assert "scenes" not in seen and not loaded
    assert len(site.server.desks) == before and not any(desk.shots for desk in site.server.desks.values())
    assert [len(desk.drops) for desk in site.server.desks.values()].count(1) == 1


def controls(tab):
    """Returns the controls that a person sees, as the ids of their focus; of radio buttons, the chosen one."""
    return tab.evaluate(
        """() => [...document.querySelectorAll("button, a[href], input, select, summary, [tabindex='0']")]
            .filter(element => element.checkVisibility({ visibilityProperty: true }) && !element.disabled)
            .filter(element => element.type !== "radio" || element.checked)
            .map((element, k) => (element.dataset.test = k, element.outerHTML.slice(0, 90)))"""
    )


@pytest.mark.parametrize("width", [1280, 390])
def test_every_control_is_reached_by_keyboard(open_page, width):
    tab = open_page(width)
    for state in ("empty", "done"):
        if state == "done":
            drop(tab, SAMPLE)
            fused(tab)
            tab.keyboard.press("1")
            tab.get_by_text("More", exact=True).click()
        tab.evaluate("document.activeElement.blur()")
        wanted = controls(tab)
        assert len(wanted) >= (4 if state == "empty" else 21)
        reached = set()
        for _ in range(3 * len(wanted)):
            tab.keyboard.press("Tab")
            reached.add(tab.evaluate("document.activeElement.dataset?.test"))
        missing = [text for k, text in enumerate(wanted) if str(k) not in reached]
        assert not missing


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_no_barrier(open_page, scheme, width, tmp_path):
    """Names of controls, contrast, structure: the rules of axe-core, an independent checker."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
    tab = open_page(width, color_scheme=scheme)
    for state in ("empty", "done", "apart"):
        if state == "done":
            drop(tab, moving_stack(tmp_path))
            fused(tab)
            tab.keyboard.press("1")
            tab.get_by_text("More", exact=True).click()
        elif state == "apart":
            tab.get_by_role("button", name="Take apart").click()
            tab.locator("#spare li").nth(2).wait_for()
        found = axe.Axe().run(tab)
        assert not found.response["violations"], found.generate_report()
        dark = tab.evaluate(
            "getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).slice(0, 3).every(c => c < 60)"
        )
        assert dark == (scheme == "dark")


@pytest.mark.parametrize("width, height", [(320, 640), (390, 844), (820, 1180), (1280, 720), (1920, 1080)])
def test_everything_fits_every_width(open_page, tmp_path, width, height):
    tab = open_page(width, height)
    for state in ("empty", "done"):
        if state == "done":
            drop(tab, moving_stack(tmp_path))
            fused(tab)
            tab.keyboard.press("1")
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        for control in tab.locator("button:visible, a.button:visible, select:visible").all():
            box = control.bounding_box()
            assert box["x"] >= 0 and box["x"] + box["width"] <= width, control.evaluate("one => one.outerHTML")
    if width >= 1280:  # the picture has most of the screen, and the download is in sight
        box = tab.locator("#viewer").bounding_box()
        assert box["width"] * box["height"] > 0.45 * width * height
        download = tab.locator("#download").bounding_box()
        assert download["y"] + download["height"] <= height
