"""What libraries written in C say about a file: lines on stderr, their only way to report that a picture is damaged."""

import contextlib
import os
import re
import tempfile
import threading
from collections.abc import Callable
from typing import TypeVar

import cv2

Result = TypeVar("Result")
# Lines that the libraries behind OpenCV and Pillow write to stderr about a file; and those of them that mean no damage
# to the pixels: warnings, and a few extra bytes before a marker, which some cameras write.
LIBRARIES = re.compile(
    rb"(?:Corrupt JPEG data|Premature end of JPEG file|JPEGLib|libpng (?:error|warning)|tempfile\.tif"
    rb"|\w*(?:TIFF|[Cc]ode)\w*|Warning: unknown JFIF|unknown file|<Python Stream>|More samples"
    rb"|Inconsistent progression|Invalid SOS|MissingRequired|Fax3\w+)[: ][^\n]*\n|[^\n]*: Unexpected end of file\n"
)
HARMLESS = re.compile(
    rb"(?:libpng warning|Inconsistent progression|Invalid SOS|Warning: |TIFF\w*: Warning)[^\n]*\n"
    rb"|[^\n]*: (?:\d extraneous bytes before marker 0xd9|\d+ extraneous bytes before marker 0x(?:[ce].|d[b-f]))\n"
)
MOST_HEARD = 2**16  # bytes: the first lines tell whether a picture is damaged


class Overhear:
    """Calls libraries written in C and captures their lines on stderr, their only way to report a damaged picture.

    OpenCV prints no lines of its own meanwhile.
    """

    def __init__(self):
        self.free, self.callers, self.said = threading.Condition(), 0, b""
        try:
            os.fstat(2)
        except OSError:  # stderr is closed, as by `2>&-`: no file to be read may get its number
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)

    def __call__(self, call: Callable[..., Result], *args: object) -> tuple[Result, bytes]:
        """Returns (call(*args), the lines that it wrote).

        Several threads may call at the same time. If any line appears meanwhile, each of them calls again, alone, to
        learn whose line it was.
        """
        with self.free:
            start = self._begin()
        try:
            result = call(*args)
        finally:
            with self.free:
                said = self._end()[start:]
        if said:
            with self.free:
                self.free.wait_for(lambda: not self.callers)
                self._begin()
                try:
                    call(*args)
                finally:
                    said = self._end()
        return result, said

    def _begin(self) -> int:
        """Replaces stderr by a file, unless it is one already; returns the length of the lines captured so far."""
        if not self.callers:
            self.level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
            self.stderr, self.said, self.heard = os.dup(2), b"", 0
            self.file = tempfile.TemporaryFile("ab+")  # a pipe would fill up, and the decoder wait for ever
            os.dup2(self.file.fileno(), 2)
        self.callers += 1
        return len(self.said)

    def _end(self) -> bytes:
        """Returns the decoders' captured lines, passes other lines on, and restores stderr after the last caller."""
        heard = os.pread(self.file.fileno(), MOST_HEARD, self.heard)
        self.heard += len(heard)
        with contextlib.suppress(OSError):  # whoever read stderr has ended
            os.write(self.stderr, LIBRARIES.sub(b"", heard))
        self.said += b"".join(match[0] for match in LIBRARIES.finditer(heard))
        self.callers -= 1
        if not self.callers:
            os.dup2(self.stderr, 2)
            os.close(self.stderr)
            cv2.utils.logging.setLogLevel(self.level)
            self.file.close()
            self.free.notify_all()
        return self.said


overhear = Overhear()
