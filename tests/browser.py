"""A real Chromium without a window, for pages."""

import shutil
from contextlib import contextmanager

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

QUIET = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--ignore-certificate-errors",
)  # fmt: skip


@contextmanager
def chromium(folder, scripts=True):
    """A browser with a new profile in `folder`; with `scripts=False` no page can run any."""
    binary, driver = shutil.which("chromium") or shutil.which("chromium-browser"), shutil.which("chromedriver")
    if not binary or not driver:
        pytest.fail("this needs Chromium: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for word in (*QUIET, f"--user-data-dir={folder}"):
        options.add_argument(word)
    if not scripts:
        options.add_argument("--blink-settings=scriptEnabled=false")
    browser = webdriver.Chrome(options=options, service=Service(driver))
    try:
        browser.set_window_size(1280, 1000)
        yield browser
    finally:
        browser.quit()
