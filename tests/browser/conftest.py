"""A report in a headless Chromium."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from benchmarks.made_up_study import scored_images, write_maps, write_study
from omegaconf import OmegaConf

from saliency_entropy.study.report import report

if TYPE_CHECKING:
    from selenium import webdriver

OPTIONS = (
    "--headless=new",
    "--window-size=1400,1000",
    "--no-first-run",
    "--no-sandbox",  # in a container, and of pages that these tests wrote
    "--disable-dev-shm-usage",  # which is small in a container
    "--disable-background-networking",
    "--disable-component-update",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # whatever asks for a network finds none
)


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three methods: of six runs, of five, which have boxes, and of one. A generator of 12 images has no AUROC."""
    few = pd.DataFrame(
        [{"path": f"few/{i}.png", "label": "synthetic", "generator": "few", "source": ""} for i in range(12)]
    )
    images = pd.concat([scored_images(), few.assign(split="test", human_map="")], ignore_index=True)
    study = tmp_path_factory.mktemp("runs") / "demo"
    write_study(study, {"cross_entropy": 6, "hseb": 1, "droid": 5}, images=images)
    write_maps(study, rows=range(0, len(images), 4), images=images)
    report(OmegaConf.create({"study": str(study), "output": None, "gallery_images": 30}))
    return study


def start_chromium(*further: str) -> webdriver.Chrome:
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    # Named, so that selenium looks for none and fetches none.
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("no chromium and chromedriver on this machine (Debian: apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for option in (*OPTIONS, *further):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    started.set_page_load_timeout(200)
    started.set_script_timeout(200)
    return started


@pytest.fixture(scope="session")
def browser() -> Iterator[webdriver.Chrome]:
    started = start_chromium()
    try:
        yield started
    finally:
        started.quit()


@pytest.fixture
def page(browser: webdriver.Chrome, study: Path) -> Iterator[webdriver.Chrome]:
    """The report, opened anew. A test in which the page reports an error fails."""
    for kind in ("browser", "performance"):
        browser.get_log(kind)  # and forgets it
    browser.get((study / "report" / "index.html").as_uri())
    yield browser
    assert [entry["message"] for entry in browser.get_log("browser")] == []
