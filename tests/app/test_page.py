"""The page: its script, without a browser, and in headless Chromium."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

import cfmvc_scvi.app

SCRIPT = Path(cfmvc_scvi.app.__file__).with_name("_page.py")
_PATIENCE = 600_000  # milliseconds; a prediction takes a few seconds, on a busy machine minutes
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.extra
@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_choosing_another_cell_type_changes_the_answer(asked, monkeypatch):
    testing = pytest.importorskip("streamlit.testing.v1")
    monkeypatch.setattr(sys, "argv", ["page", *map(str, asked)])
    page = testing.AppTest.from_file(str(SCRIPT), default_timeout=120).run()
    assert not page.exception and not page.error
    assert page.title[0].value == "A in B"
    before = page.metric[0].value
    page.selectbox(key="labels").set_value("T").run()
    assert page.title[0].value == "A in T"
    assert page.metric[0].value != before
    assert "never measured here" in page.caption[0].value
    page.multiselect(key="perturbations").set_value([]).run()
    assert "no perturbation is chosen" in page.error[0].value


@pytest.fixture
def address(asked):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = (
        f"from cfmvc_scvi.app import launch; launch({str(asked[0])!r}, {str(asked[1])!r}, port={port}, browser=False)"
    )
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen([sys.executable, "-c", code], start_new_session=True, **quiet)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
@pytest.mark.filterwarnings("default")
def test_in_a_browser(address, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api")
    for _ in range(_PATIENCE // 1000):
        try:
            urllib.request.urlopen(f"{address}/_stcore/health", timeout=2)
            break
        except OSError:
            time.sleep(1)
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1440, "height": 1250})
        page.set_default_timeout(_PATIENCE)
        errors = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address)
        page.get_by_text("Cell by cell").wait_for()
        page.get_by_role("heading", name="A in B").wait_for()
        page.locator("img").nth(1).wait_for()
        page.get_by_label("these cells").click()
        page.get_by_role("option", name="T", exact=True).click()
        page.get_by_role("heading", name="A in T").wait_for()
        with page.expect_download() as download:
            page.get_by_role("button", name="Download the predicted cells").click()
        assert download.value.suggested_filename == "A.h5ad"
        page.screenshot(path=tmp_path / "page.png", full_page=True)
        browser.close()
    assert not errors
    assert (tmp_path / "page.png").stat().st_size > 10_000
