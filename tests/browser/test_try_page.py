"""The page to try detectors, in a browser: drop, see, compare, be refused; and what is left of it."""

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image

pytest.importorskip("gradio", reason="the extra demo is not installed")
pytest.importorskip("selenium", reason="selenium is not installed")
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from saliency_entropy.scores.ensemble import read_detector

ROOT = Path(__file__).parents[2]
# The command, which says on standard error what it would reach by the network.
WATCHED = """
import runpy, sys

def note(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"):
        print(event, arguments, file=sys.stderr)

sys.addaudithook(note)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
pytestmark = pytest.mark.timeout(300)


class Served(NamedTuple):
    """A server of the page: its address, its process, the folder that it writes to, and its two detectors."""

    address: str
    process: subprocess.Popen
    temporary: Path
    checkpoints: list[Path]


@pytest.fixture(scope="module")
def served(train_small, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("try")
    run = train_small(folder / "runs" / "droid" / "seed0", "method=droid")
    # Gradio fills templates in the browser: a name must not be taken for one.
    checkpoints = [folder / "runs" / "droid", folder / "runs" / "{{value}}${1+1}<b>"]
    shutil.copytree(run, checkpoints[0] / "seed1")
    shutil.copytree(run, checkpoints[1] / "seed0")
    for name in ("temporary", "work"):
        (folder / name).mkdir()
    given = f"checkpoint=['{folder}/runs/droid','{folder}/runs/*value*']"
    command = [sys.executable, "-c", WATCHED, ROOT / "experiments" / "try.py", given, "port=0", "device=cpu"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(folder / "temporary")}
    process = subprocess.Popen(
        command, cwd=folder / "work", env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )  # fmt: skip
    try:
        said = process.stdout.readline()
        address = re.search(r"open (http://127\.0\.0\.1:\d+) in a browser; Ctrl-C ends it$", said)
        assert address, said + process.stderr.read()
        yield Served(address[1], process, folder / "temporary", checkpoints)
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def opened(browser, served: Served):
    """The page, with the drawn faces judged."""
    for kind in ("browser", "performance"):
        browser.get_log(kind)  # and forgets it
    browser.get(served.address)
    button = WebDriverWait(browser, 60).until(lambda page: [b for b in every(page, "button") if "drawn" in b.text])[0]
    button.click()
    WebDriverWait(browser, 60).until(lambda page: len(every(page, ".judged figure")) == 8)
    return browser


def every(page, selector: str) -> list:
    return page.find_elements(By.CSS_SELECTOR, selector)


def texts(page, selector: str) -> list[str]:
    """In one step, since Gradio may put new elements in the place of those that were just found."""
    return page.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map(one => one.innerText)", selector
    )


def drop(page, *files: Path) -> None:
    every(page, "input[type=file]")[0].send_keys("\n".join(map(str, files)))


def awaited_names(page, *names: str) -> None:
    WebDriverWait(page, 60).until(lambda page: texts(page, ".judged h3") == [*names])


def test_two_detectors_stand_side_by_side_over_drawn_faces(opened, served: Served) -> None:
    assert all("drawn; its label is" in heading for heading in texts(opened, ".judged h3"))
    headings = texts(opened, ".judged .detector")
    assert headings == [f"DROID, mean of 2: {served.checkpoints[0]}", f"DROID: {served.checkpoints[1]}"] * 4
    left, right = every(opened, ".judged:first-child figure")
    assert left.rect["y"] == right.rect["y"]
    assert left.rect["x"] + left.rect["width"] <= right.rect["x"]
    assert "What a detector must not be used for" in texts(opened, "h3")


def test_dropped_images_are_judged_as_by_the_detector_and_not_kept(opened, served: Served, tmp_path: Path) -> None:
    drawn = sorted(served.temporary.rglob("test/*.jpg"))
    images = [Path(shutil.copy(path, tmp_path / f"face {number}.jpg")) for number, path in enumerate(drawn[4:6])]
    drop(opened, *images)
    awaited_names(opened, "face 0.jpg", "face 1.jpg")
    expected = [
        f"{detection.probability_synthetic:.4f}{'' if detection.spread is None else ' ± 0.0000'}"
        for image in images
        for path in served.checkpoints
        for _, _, detection in read_detector(str(path), "cpu").judge([image])
    ]
    assert texts(opened, ".judged dd:nth-of-type(1)") == expected
    assert [path for path in served.temporary.rglob("*") if path.name.startswith("face ")] == []
    (private,) = served.temporary.glob("saliency_entropy_*")
    assert stat.S_IMODE(private.stat().st_mode) == 0o700


def test_the_slider_sets_the_opacity_of_every_map(opened) -> None:
    def opacities() -> set[str]:
        return {one.value_of_css_property("opacity") for one in every(opened, ".overlay .cam")}

    slider = every(opened, "input[type=range]")[0]
    assert opacities() == {"0.45"}
    for key, opacity in ((Keys.END, "1"), (Keys.HOME, "0")):
        slider.send_keys(key)
        WebDriverWait(opened, 20).until(lambda _, opacity=opacity: opacities() == {opacity})
    sizes = {(one.size["width"], one.size["height"]) for one in every(opened, ".overlay img")}
    assert len(sizes) == 1  # the map covers its image


def test_bad_files_have_a_sentence_each_and_the_server_goes_on(opened, served: Served, tmp_path: Path) -> None:
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    (tmp_path / "letter.jpg").write_text("Dear Sir or Madam,")
    frames = [Image.new("RGB", (48, 48), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "moving.webp", save_all=True, append_images=frames[1:])
    drop(opened, *sorted(tmp_path.iterdir()))
    awaited_names(opened, "bomb.png", "dot.png", "letter.jpg", "moving.webp")
    assert texts(opened, ".judged .refused") == [
        "bomb.png has too many pixels, more than 64 megapixels; scale it down, or leave it out",
        "dot.png has 1 x 1 pixels, and no face fits into fewer than 16 on a side; leave it out",
        "letter.jpg is not an image in a known format (JPEG, PNG, WEBP, BMP); convert it, or leave it out",
        "moving.webp is animated (2 frames); save the frame that you mean as a still image",
    ]
    with (tmp_path / "large.png").open("wb") as file:
        file.truncate(10**9)
    drop(opened, tmp_path / "large.png")
    WebDriverWait(opened, 20).until(
        lambda page: "exceed the maximum allowed size" in " ".join(texts(page, ".toast-body"))
    )
    image = shutil.copy(next(served.temporary.rglob("test/000002.jpg")), tmp_path / "face.jpg")
    drop(opened, image)
    awaited_names(opened, "face.jpg")


# Last: what the page has asked for in all the tests above, and what is left of it.


def test_nothing_was_asked_for_elsewhere(opened, served: Served) -> None:
    messages = [json.loads(entry["message"])["message"] for entry in opened.get_log("performance")]
    asked = [one["params"]["request"]["url"] for one in messages if one["method"] == "Network.requestWillBeSent"]
    asked += [one["params"]["url"] for one in messages if one["method"] == "Network.webSocketCreated"]
    assert any("/upload" in url for url in asked)
    assert [url for url in asked if not url.startswith((f"{served.address}/", "data:", "blob:"))] == []
    # Nor was anything kept from it by the policy that comes with every answer.
    assert [entry for entry in opened.get_log("browser") if "Content Security Policy" in entry["message"]] == []


def test_ctrl_c_ends_it_in_its_only_line_of_errors_and_removes_its_folder(opened, served: Served) -> None:
    served.process.send_signal(signal.SIGINT)
    _, said = served.process.communicate(timeout=60)
    assert (served.process.returncode, said) == (130, "ended by SIGINT: give the same command again to go on\n")
    assert [*served.temporary.iterdir()] == []
    assert [*(served.temporary.parent / "work").iterdir()] == []
