"""The server of the page: who may ask, and what is answered. It is Python's own; nothing is sent anywhere else."""

import contextlib
import http.cookies
import io
import ipaddress
import json
import re
import secrets
import shutil
import socket
import threading
import time
import zipfile
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qs, quote, urlsplit

from utils.errors import Defect, UserError, user_errors
from utils.errors import clear as clear_error
from utils.fusing.adjust import Look
from utils.page.desk import MAX_BYTES, MAX_SHOTS, SUFFIXES, Desk, Worker
from utils.page.task import DEFECT, HDR_SUFFIX, Options
from utils.pictures import QUALITY
from utils.pictures.image import check_suffix

TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css", ".js": "text/javascript"}
TYPES |= {".jpg": "image/jpeg", ".png": "image/png"}
FORMATS = {".jpg": "JPEG", HDR_SUFFIX: "HDR JPEG", ".png": "PNG", ".tif": "TIFF", ".webp": "WebP"}
FORMATS |= {".avif": "AVIF", ".heic": "HEIC"}
LOSSLESS = (".png", ".tif")
MAX_DESKS = 20  # of visitors at a time
FORGOTTEN = 24 * 3600  # seconds after which the desk of a closed page is given away
MAX_JSON = 1 << 20  # bytes
SECURITY = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


Made = TypeVar("Made")


class Refused(Exception):
    """A request that is not answered: its HTTP status, and why."""


class PageServer(ThreadingHTTPServer):
    """Serves the page to this machine, or to those that were invited."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], folder: Path, worker: Worker, weights: list[str]):
        """Listens, or raises OSError; keeps all files in `folder`.

        `weights` are names that `worker` can load, the default first.
        """
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, Handler)
        self.folder, self.worker, self.weights = folder, worker, weights
        self.desks: dict[str, Desk] = {}
        self.opening = threading.Lock()
        self.alone = ipaddress.ip_address(str(self.server_address[0])).is_loopback
        self.admitted: set[str] = set()  # visitors that came with a token, where one is needed
        self.token = ""
        self.announce: Callable[[str], None] = lambda token: None

    def invite(self) -> str:
        """Returns a new token, which admits one visitor, once; the one before is worth nothing any more."""
        self.token = secrets.token_urlsafe(6)
        return self.token

    def desk(self, visitor: str) -> Desk:
        """Returns the desk of a visitor, a new one at the first time."""
        with self.opening:
            if visitor not in self.desks:
                for other, desk in list(self.desks.items()):
                    if time.monotonic() - desk.seen > FORGOTTEN:
                        self.desks.pop(other).clear()
                if len(self.desks) >= MAX_DESKS:
                    raise Refused(
                        503, f"{MAX_DESKS} browsers use this page already: start another one, on another --port"
                    )
                self.desks[visitor] = Desk(self.folder / f"desk{secrets.token_hex(4)}", self.worker.wait)
            desk = self.desks[visitor]
            desk.seen = time.monotonic()
            return desk

    def handle_error(self, request: object, client_address: object) -> None:
        """A browser that hangs up is no error; `Handler.answer` has reported all others."""


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    server: PageServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "DeepFuse", ""
    timeout = 60  # seconds without a byte

    def log_message(self, *_: object) -> None:
        """Nothing: the console is for the person who started the program."""

    def answer(self) -> None:
        """Answers a request by ROUTES; errors as JSON {"error": one line}."""
        url = urlsplit(self.path)
        self.query = {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        self.begun = False  # whether the answer's head is sent
        self.close_connection = True  # a body that nobody has read would be taken for the next request
        try:
            self.check_sender()
            if url.path in ("/", "/page.css", "/page.js"):
                self.send_page(url.path)
                return
            visitor = self.visitor()
            if not visitor:
                raise Refused(403, "open the page by the address that the program has printed")
            for method, pattern, respond in ROUTES:
                found = re.fullmatch(pattern, url.path)
                if found and method == self.command:
                    varying = [int(one) if one.isdecimal() else one for one in found.groups()]
                    answer = respond(self, self.server.desk(visitor), *varying)
                    if not self.begun:
                        self.send(200, "application/json", json.dumps(answer).encode())
                    return
            raise Refused(404, f"{url.path}: no such page")
        except (ConnectionError, TimeoutError):
            return  # the browser has hung up
        except Refused as refused:
            self.fail(*refused.args)
        except (KeyError, FileNotFoundError):
            self.fail(404, "this is not there any more")
        except Exception as error:
            cause = clear_error(error)
            if isinstance(cause, Defect):
                self.server.worker.report(cause)
            self.fail(500 if isinstance(cause, Defect) else 400, DEFECT if isinstance(cause, Defect) else str(cause))

    do_GET = do_POST = answer

    def finish(self) -> None:
        """Reads until the browser hangs up: closing before it has sent all would take the answer away from it."""
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            while self.rfile.read1(1 << 20):
                pass
        super().finish()

    def fail(self, status: int, line: str) -> None:
        """Sends an error; where the answer has begun, ends it early, which the browser notices."""
        if not self.begun:
            self.send(status, "application/json", json.dumps({"error": line}).encode())

    # Who asks

    def check_sender(self) -> None:
        """Refuses what comes from another web site's page, which may be open beside this one.

        A host that is a name is refused too: another site's owner could let it point to this machine (DNS rebinding).
        """
        host = self.headers.get("Host", "")
        name = urlsplit(f"//{host}").hostname or ""
        try:
            ipaddress.ip_address(name)
        except ValueError:
            if name != "localhost":
                raise Refused(403, "open the page by its number, as in http://127.0.0.1:7860") from None
        site = self.headers.get("Sec-Fetch-Site", "none")
        opened = urlsplit(self.path).path == "/" and self.headers.get("Sec-Fetch-Dest") == "document"
        if site not in ("same-origin", "none") and not opened:
            raise Refused(403, "another web site may not ask this page")
        if self.command != "GET" and self.headers.get("Origin") != f"http://{host}":
            raise Refused(403, "only this page may send to it")

    def cookie(self) -> str:
        return f"deepfuse-{self.server.server_address[1]}"  # cookies of one host are shared by its ports

    def visitor(self) -> str:
        """Returns the name of the visitor in the request's cookie; "" where it is not admitted."""
        try:
            morsel = http.cookies.SimpleCookie(self.headers.get("Cookie", "")).get(self.cookie())
        except http.cookies.CookieError:
            morsel = None
        name = morsel.value if morsel else ""
        admitted = name in self.server.admitted or self.server.alone
        return name if admitted and re.fullmatch(r"[\w-]{20,60}", name) else ""

    def send_page(self, path: str) -> None:
        """Sends one of the page's three files; with the page a cookie, where the visitor has none."""
        headers = {}
        server = self.server
        if path == "/" and not self.visitor():
            name = secrets.token_urlsafe(24)
            if not server.alone:
                token = self.query.get("token", "")
                with server.opening:
                    if not server.token or not secrets.compare_digest(token.encode(), server.token.encode()):
                        raise Refused(
                            403, "open the page by the address that the program has printed: each is good once"
                        )
                    server.admitted.add(name)
                    server.announce(server.invite())
                headers["Location"] = "/"  # no token remains in the browser's history
            headers["Set-Cookie"] = f"{self.cookie()}={name}; HttpOnly; SameSite=Lax; Path=/"
        file = Path(__file__).with_name("page.html" if path == "/" else path[1:])
        self.send(303 if "Location" in headers else 200, TYPES[file.suffix], file.read_bytes(), headers)

    # What is answered

    def body(self, limit: int) -> int:
        """Returns the length of the request's body, which the caller reads."""
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            raise Refused(411, "the length of the body is not said")
        if int(length) > limit:
            raise Refused(413, f"{int(length):,} bytes are too many: at most {limit:,}")
        return int(length)

    def json(self) -> dict[str, Any]:
        """Returns the JSON in the request's body."""
        with user_errors(ValueError):
            found = json.loads(self.rfile.read(self.body(MAX_JSON)) or b"{}")
        if not isinstance(found, dict):
            raise UserError("expected an object in JSON")
        return found

    def options(self, settings: dict[str, Any]) -> Options:
        """Returns the options of a scene that JSON holds."""
        names = self.server.weights
        options = made(Options, settings | {"weights": settings.get("weights") or names[0]})
        if options.weights not in names:
            raise UserError(f"weights are {options.weights!r}: expected one of {', '.join(names)}")
        return options

    def shots(self, settings: dict[str, Any]) -> list[int]:
        """Returns the numbers of shots that JSON holds, and takes them out of it."""
        with user_errors(KeyError, TypeError, ValueError):
            return [int(number) for number in settings.pop("shots")]

    def form(self) -> tuple[str, int]:
        """Returns suffix and quality of the pictures that are asked for."""
        with user_errors(ValueError):
            suffix, quality = self.query.get("suffix", ".jpg"), int(self.query.get("quality", QUALITY))
        if suffix not in FORMATS or not 1 <= quality <= 100:
            raise UserError(f"{suffix} of quality {quality}: expected one of {', '.join(FORMATS)}, and 1 to 100")
        return suffix, quality

    def send(self, status: int, kind: str, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.begin(status, {"Content-Type": kind, "Content-Length": str(len(content))} | (headers or {}))
        self.wfile.write(content)

    def begin(self, status: int, headers: dict[str, str]) -> None:
        """Sends the head of an answer."""
        self.begun = True
        self.send_response(status)
        for name, value in (SECURITY | headers | {"Connection": "close"}).items():
            self.send_header(name, value)
        self.end_headers()

    def send_file(self, path: Path, name: str = "") -> None:
        """Sends a file, to be saved under a name where one is given."""
        headers = {"Content-Type": TYPES.get(path.suffix, "application/octet-stream")}
        if name:
            headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{quote(name)}"
        with open(path, "rb") as file:
            self.begin(200, headers | {"Content-Length": str(path.stat().st_size)})
            shutil.copyfileobj(file, self.wfile, 1 << 20)


def made(kind: type[Made], settings: dict[str, Any]) -> Made:
    """Returns a dataclass with these settings."""
    with user_errors(TypeError):
        return kind(**settings)


class Chunks(io.RawIOBase):
    """A file to write to that sends what is written in chunks, so that nobody needs to know its length before."""

    def __init__(self, file: io.BufferedIOBase):
        self.file = file

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.file.write(b"%x\r\n%b\r\n" % (len(data), data))
        return len(data)


# Routes: functions of a request, its visitor's desk, and what varies in the path (digits as a number). They return what
# is sent as JSON, unless they have answered themselves.


def about(request: Handler, desk: Desk) -> dict[str, Any]:
    """Returns what the page offers, which does not change while the program runs."""
    formats = []
    for suffix, label in FORMATS.items():
        with contextlib.suppress(ValueError):  # HEIC needs a package
            check_suffix(f"fused{suffix}")
            formats.append({"suffix": suffix, "label": label, "lossless": suffix in LOSSLESS})
    limits = {"bytes": MAX_BYTES, "shots": MAX_SHOTS, "suffixes": SUFFIXES}
    return limits | {"formats": formats, "quality": QUALITY, "weights": request.server.weights}


def preview(request: Handler, desk: Desk, scene: int, which: str) -> None:
    request.send_file(desk.tasks[scene].preview(which, "small" in request.query))


def part(request: Handler, desk: Desk, scene: int, which: str) -> None:
    with user_errors(KeyError, ValueError):
        box = [int(request.query[name]) for name in ("left", "top", "width", "height", "shrink")]
    request.send_file(desk.tasks[scene].part(which, *box))


def picture(request: Handler, desk: Desk, scene: int) -> None:
    with desk.picture(scene, *request.form()) as (path, name):
        request.send_file(path, name)


def pictures(request: Handler, desk: Desk) -> None:
    """Sends a ZIP of all pictures that are done; each is written when its turn comes."""
    form, done = request.form(), [number for number, task in desk.tasks.items() if task.state == "done"]
    if not done:
        raise Refused(404, "no picture is done yet")
    headers = {"Content-Type": "application/zip", "Transfer-Encoding": "chunked"}
    request.begin(200, headers | {"Content-Disposition": 'attachment; filename="deepfuse.zip"'})
    with io.BufferedWriter(Chunks(request.wfile), 1 << 20) as file, zipfile.ZipFile(file, "w") as archive:
        for number in done:
            with desk.picture(number, *form) as (path, name):
                archive.write(path, name)
    request.wfile.write(b"0\r\n\r\n")


def begin(request: Handler, desk: Desk) -> int:
    asked = request.json()
    count = asked.pop("count", None)
    if count is not None and not (isinstance(count, int) and count > 1):
        raise UserError(f"shots per scene are {count!r}: expected 2 or more")
    return desk.begin(request.options(asked), count)


def receive(request: Handler, desk: Desk, drop: int) -> int:
    return desk.receive(drop, request.query.get("name", ""), request.rfile, request.body(MAX_BYTES)).number


def sort(request: Handler, desk: Desk, drop: int) -> dict[str, Any]:
    scenes, notes = desk.sort(drop)
    return {"scenes": scenes, "notes": notes}


def together(request: Handler, desk: Desk) -> int:
    asked = request.json()
    return desk.together(request.shots(asked), request.options(asked))


ROUTES: list[tuple[str, str, Callable[..., object]]] = [
    ("GET", "/about", about),
    ("GET", "/state", lambda request, desk: desk.state()),
    ("GET", r"/shots/(\d+)", lambda request, desk, shot: request.send_file(desk.thumb(shot))),
    ("GET", r"/scenes/(\d+)/(fused|exposure\d+)", preview),
    ("GET", r"/scenes/(\d+)/(fused|exposure\d+)/part", part),
    ("GET", r"/scenes/(\d+)/picture", picture),
    ("GET", "/pictures", pictures),
    ("POST", "/drops", begin),
    ("POST", r"/drops/(\d+)/shots", receive),
    ("POST", r"/drops/(\d+)/sort", sort),
    ("POST", "/scenes", together),
    ("POST", "/forget", lambda request, desk: desk.forget(request.shots(request.json()))),
    ("POST", "/clear", lambda request, desk: desk.clear()),
    ("POST", r"/scenes/(\d+)/fuse", lambda request, desk, scene: desk.fuse(scene, request.options(request.json()))),
    ("POST", r"/scenes/(\d+)/look", lambda request, desk, scene: desk.change(scene, made(Look, request.json()))),
    ("POST", r"/scenes/(\d+)/cancel", lambda request, desk, scene: desk.tasks[scene].cancel()),
    ("POST", r"/scenes/(\d+)/remove", lambda request, desk, scene: desk.remove(scene)),
    ("POST", r"/scenes/(\d+)/apart", lambda request, desk, scene: desk.remove(scene, apart=True)),
]
