"""run_app.py in a real browser: two files dropped, fused, compared, downloaded."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from configs import shipped_weights
from utils.fusing.fusion import Fuser
from utils.pictures.image import read_photo

pytest.importorskip("gradio", reason="needs Gradio: pip install -e '.[app]'")
playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install playwright")
ROOT = Path(__file__).parents[1]
SAMPLE = [ROOT / f"data_test/courtyard/{name}.jpg" for name in ("0_ev-4", "2_ev+2")]
WAIT = 300_000  # ms, on a busy machine


@pytest.fixture
def address(tmp_path):
    """Returns the address of a running page, whose temporary files are in tmp_path."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, ROOT / "run_app.py", "--no-browser", "--device", "cpu", "--port", str(port)]
    (tmp_path / "temporary").mkdir()
    page = subprocess.Popen(command, env=os.environ | {"TMPDIR": str(tmp_path / "temporary")})
    address = f"http://127.0.0.1:{port}"
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(WAIT // 1000):
        try:
            direct.open(address, timeout=5)
            break
        except OSError:
            assert page.poll() is None, "run_app.py has ended"
            time.sleep(1)
    yield address
    page.terminate()
    page.wait(60)
    assert not list((tmp_path / "temporary").glob("deepfuse-*"))  # uploads and results are gone


@pytest.fixture
def tab():
    """Returns a page of the system's Chromium, or of the one that Playwright installed."""
    with playwright.sync_playwright() as driver:
        found = shutil.which("chromium") or shutil.which("google-chrome") or driver.chromium.executable_path
        if not Path(found).exists():
            pytest.skip("needs Chromium: python -m playwright install chromium")
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox", "--no-proxy-server"])
        tab = browser.new_page(viewport={"width": 1280, "height": 900})
        tab.set_default_timeout(WAIT)
        yield tab
        browser.close()


def test_two_files_are_fused_and_downloaded(address, tab, tmp_path):
    asked = []
    tab.on("request", lambda request: asked.append(urlsplit(request.url)))
    tab.goto(address)
    tab.get_by_role("button", name="Fuse").wait_for()  # an earlier upload would get lost
    tab.locator("input[type=file]").first.set_input_files(SAMPLE)
    tab.get_by_text(SAMPLE[1].name).first.wait_for()
    tab.get_by_role("radio", name=".png").check()
    tab.get_by_role("button", name="Fuse").click()
    tab.get_by_role("radio", name=SAMPLE[1].name).check()
    with tab.expect_download() as download:
        tab.get_by_text("Download", exact=True).click()
    download.value.save_as(tmp_path / download.value.suggested_filename)
    if os.environ.get("DEEPFUSE_SCREENSHOT"):
        tab.screenshot(path=os.environ["DEEPFUSE_SCREENSHOT"])

    fused, metadata = read_photo(tmp_path / "fused.png")
    Fuser.from_checkpoint(shipped_weights()).fuse_files(SAMPLE, tmp_path / "expected.png")
    expected, kept = read_photo(tmp_path / "expected.png")
    np.testing.assert_array_equal(fused, expected)
    assert metadata == kept
    assert {url.hostname for url in asked if url.scheme.startswith("http")} == {"127.0.0.1"}  # nothing from the web


def test_a_folder_is_chosen_and_its_pictures_are_fused(address, tab, tmp_path):
    for path in SAMPLE:
        shutil.copy(path, tmp_path)
    (tmp_path / "notes.txt").write_text("no picture")
    tab.goto(address)
    with tab.expect_file_chooser() as chooser:
        tab.get_by_role("button", name="Choose a folder").click()
    chooser.value.set_files(tmp_path)
    tab.get_by_label("Remove this file").nth(1).wait_for()
    tab.get_by_role("button", name="Fuse").click()
    tab.get_by_role("radio", name=SAMPLE[1].name).wait_for()
    assert not tab.get_by_text("notes").count()


def test_an_error_is_shown_in_one_line(address, tab):
    tab.goto(address)
    tab.get_by_role("button", name="Fuse").click()
    tab.get_by_text("two or more exposures, got 0").first.wait_for()
