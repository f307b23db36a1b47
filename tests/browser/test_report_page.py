"""What a reader does with a report in a browser: sort, choose, filter, with a mouse or without."""

import json
import time

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("selenium", reason="selenium is not installed")
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

from saliency_entropy.study.focus import read_study_maps
from saliency_entropy.study.gallery import read_gallery
from saliency_entropy.study.runs import read_study

pytestmark = pytest.mark.timeout(600)


def one(page, selector):
    return page.find_element(By.CSS_SELECTOR, selector)


def column(page, table, number):
    """The cells of a column, as shown from top to bottom."""
    cells = page.find_elements(By.CSS_SELECTOR, f"{table} tbody tr > :nth-child({number})")
    return [cell.get_attribute("textContent") for cell in cells]


def header(page, table, name):
    """The button of a header."""
    buttons = page.find_elements(By.CSS_SELECTOR, f"{table} thead th button")
    return next(button for button in buttons if button.text == name)


def sorting(page, table):
    """Column -> direction, as a screen reader is told."""
    names = page.find_elements(By.CSS_SELECTOR, f"{table} thead th[aria-sort]")
    return {cell.text: cell.get_attribute("aria-sort") for cell in names}


def shown_images(page):
    cards = page.find_elements(By.CSS_SELECTOR, ".card:not([hidden])")
    return [card.find_element(By.CSS_SELECTOR, ".path").get_attribute("textContent") for card in cards]


@pytest.fixture(scope="module")
def gallery(study):
    return read_gallery(read_study_maps(read_study(study)), 30)


def test_nothing_but_the_page_is_asked_for(page, study):
    messages = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    asked = {
        message["params"]["request"]["url"] for message in messages if message["method"] == "Network.requestWillBeSent"
    }
    assert (study / "report" / "index.html").as_uri() in asked
    assert {url for url in asked if not url.startswith("data:")} == {(study / "report" / "index.html").as_uri()}


def test_numbers_are_sorted_as_numbers_and_the_third_click_restores(page, study):
    table = pd.read_csv(study / "report" / "methods.csv")
    button = header(page, "#methods", "CAM entropy / nats")
    original = column(page, "#methods", 1)
    assert original == list(table["title"])
    assert sorting(page, "#methods") == {}
    for direction, rising in (("ascending", True), ("descending", False)):
        button.click()
        assert sorting(page, "#methods") == {"CAM entropy / nats": direction}
        assert column(page, "#methods", 1) == list(table.sort_values("cam_entropy_mean", ascending=rising)["title"])
    button.click()
    assert sorting(page, "#methods") == {}
    assert column(page, "#methods", 1) == original


def test_signs_and_empty_cells(page, study):
    """Cross-entropy has no difference from itself, by either score: last in either direction."""
    table = pd.read_csv(study / "report" / "methods.csv").dropna(subset="difference").sort_values("difference")
    button = header(page, "#methods", "Difference")
    button.click()
    assert column(page, "#methods", 1) == [*table["title"], *["Cross-entropy"] * 2]
    button.click()
    assert column(page, "#methods", 1) == [*table["title"][::-1], *["Cross-entropy"] * 2]


@pytest.mark.parametrize(
    ("cells", "words", "rising", "falling"),
    [
        (["0.010", "< 0.001", "–", "0.001"], False, [1, 3, 0, 2], [0, 3, 1, 2]),
        (["−0.2", "+0.1", "−0.3", "0.0"], False, [2, 0, 3, 1], [1, 3, 0, 2]),
        (["1,200 + 80", "60 + 80", "9 + 80"], False, [2, 1, 0], [0, 1, 2]),
        # Equal ones stay in their order in either direction.
        (["0.5 ± 0.1", "0.4", "0.5 ± 0.2"], False, [1, 0, 2], [0, 2, 1]),
        (["b", "a10", "a9"], True, [2, 1, 0], [0, 1, 2]),
    ],
)
def test_the_order_of_cells(page, cells, words, rising, falling):
    script = """
        const [cells, words] = arguments;
        const compare = (descending) => (a, b) => compareCells(cells[a], cells[b], words, descending);
        return [false, true].map((descending) => cells.map((_, i) => i).sort(compare(descending)));
    """
    assert page.execute_script(script, cells, words) == [rising, falling]


def test_a_table_is_sorted_with_the_keyboard(page):
    button = header(page, "#methods", "Method")
    original = column(page, "#methods", 1)
    one(page, "#methods .wide").send_keys(Keys.TAB)
    assert page.switch_to.active_element == button
    page.switch_to.active_element.send_keys(Keys.ENTER)
    assert sorting(page, "#methods") == {"Method": "ascending"}
    assert column(page, "#methods", 1) == sorted(original) != original


@pytest.mark.parametrize(
    ("choice", "measure"),
    [("all generators, by logit 1", "auroc"), ("unseen generators, by margin", "auroc_unseen_margin")],
)
def test_runs_by_choice_of_generators(page, study, choice, measure):
    runs = pd.read_csv(study / "report" / "runs.csv")
    Select(one(page, "#generator")).select_by_visible_text(choice)
    for number, method in enumerate(("cross_entropy", "hseb", "droid")):
        values = runs.loc[runs["method"] == method, measure].round(4)
        wanted = [values.mean(), values.std(), values.median(), values.min(), values.max()]
        shown = [column(page, "#chosen", i)[number] for i in range(2, 8)]
        assert shown[0] == str(len(values))
        known = [(cell, figure) for cell, figure in zip(shown[1:], wanted, strict=True) if not np.isnan(figure)]
        assert [float(cell) for cell, _ in known] == pytest.approx([figure for _, figure in known], abs=6e-4)
        assert shown[1:].count("–") == 5 - len(known)
    assert len(page.find_elements(By.CSS_SELECTOR, "#boxes .run")) == 12
    assert len(page.find_elements(By.CSS_SELECTOR, "#boxes .box")) == 2


def test_boxes_are_drawn_to_scale(page, study):
    """From the lower to the upper quartile, on the scale of the circles."""
    runs = pd.read_csv(study / "report" / "runs.csv")
    values = runs.loc[runs["method"] == "cross_entropy", "auroc"].round(4).to_numpy()
    first = one(page, "#boxes .method")
    circles = [float(run.get_attribute("cx")) for run in first.find_elements(By.CSS_SELECTOR, ".run")]
    slope, offset = np.polyfit(values, circles, 1)
    assert slope * values + offset == pytest.approx(circles, abs=0.1)
    box = first.find_element(By.CSS_SELECTOR, ".box")
    left, width = float(box.get_attribute("x")), float(box.get_attribute("width"))
    low, high = np.quantile(values, [0.25, 0.75])
    assert [left, left + width] == pytest.approx([slope * low + offset, slope * high + offset], abs=0.1)


def test_a_generator_of_few_images(page):
    Select(one(page, "#generator")).select_by_visible_text("few, unseen, by margin")
    assert one(page, "#choice-note").text == (
        "12 synthetic and 80 real test images. No AUROC with fewer than 30 of either."
    )
    assert not one(page, "#boxes").is_displayed()
    assert set(column(page, "#chosen", 3)) == {"–"}


def test_generators_are_chosen_with_the_keyboard_and_the_order_is_kept(page, study):
    button = header(page, "#chosen", "Mean")
    button.send_keys(Keys.ENTER)
    one(page, "#generator").send_keys(Keys.ARROW_DOWN)
    assert Select(one(page, "#generator")).first_selected_option.text == "unseen generators, by logit 1"
    runs = pd.read_csv(study / "report" / "runs.csv")
    assert column(page, "#chosen", 1) == list(runs.groupby("title")["auroc_unseen"].mean().sort_values().index)


@pytest.mark.parametrize("verdict", ["right", "wrong"])
def test_images_that_a_method_judges(page, gallery, verdict):
    for number, (method, title) in enumerate(gallery.methods.items()):
        Select(one(page, "select[name=method]")).select_by_visible_text(title)
        Select(one(page, "select[name=verdict]")).select_by_value(verdict)
        wanted = [image.path for image in gallery.images if image.views[number].right == (verdict == "right")]
        assert shown_images(page) == wanted, method
        assert one(page, "#shown").text == f"{len(wanted)} of 30 images"


def test_images_of_a_generator_in_the_order_of_scores(page, gallery):
    Select(one(page, "select[name=method]")).select_by_visible_text("DROID")
    for order, sign in (("lowest score first", 1), ("highest score first", -1)):
        Select(one(page, "select[name=order]")).select_by_visible_text(order)
        ranked = sorted(gallery.images, key=lambda image: sign * round(image.views[2].score, 4))
        for text, kept in (
            ("all", lambda image: True),
            ("stylegan3", lambda image: image.group == "stylegan3"),
            ("real, ffhq", lambda image: image.group == "real, ffhq"),
            ("synthetic, unseen generators", lambda image: image.group in ("progan", "stylegan3", "few")),
            ("synthetic, generators in training", lambda image: image.group == "stylegan2"),
            ("real", lambda image: image.group.startswith("real")),
        ):
            Select(one(page, "select[name=group]")).select_by_visible_text(text)
            assert shown_images(page) == [image.path for image in ranked if kept(image)]
    Select(one(page, "select[name=group]")).select_by_visible_text("all")
    Select(one(page, "select[name=order]")).select_by_visible_text("by group")
    assert shown_images(page) == [image.path for image in gallery.images]


def test_cams_lie_over_the_photograph(page):
    cell = one(page, ".card [data-method] .photo")
    photo, cam = cell.find_elements(By.TAG_NAME, "img")
    assert photo.get_attribute("src") == one(page, ".card .original").get_attribute("src")
    assert photo.rect == cam.rect
    assert cam.value_of_css_property("opacity") == "0.5"
    one(page, "input[name=strength]").send_keys(Keys.HOME)
    assert cam.value_of_css_property("opacity") == "0"


def test_without_scripts_the_page_is_complete(browser, study, gallery):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get((study / "report" / "index.html").as_uri())
        assert len(column(browser, "#methods", 1)) == 6
        assert one(browser, "#methods thead th").text == "Method"
        assert len(browser.find_elements(By.CSS_SELECTOR, "thead button")) == 0
        assert len(shown_images(browser)) == 30
        assert one(browser, ".card .original").is_displayed()
        assert one(browser, ".card [data-method] .map").is_displayed()
        # What does nothing is not there.
        for control in ("#by-generator", "#filters"):
            assert not one(browser, control).is_displayed()
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_a_phone_scrolls_down_only(page):
    metrics = {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        assert page.execute_script("return document.documentElement.scrollWidth") <= 400
        # What is wider says so, until its end is seen.
        region = one(page, "#methods .wide")
        assert "goes-on" in region.get_attribute("class").split()
        page.execute_script("arguments[0].scrollLeft = 10000", region)
        WebDriverWait(page, 10).until(lambda _: "goes-on" not in region.get_attribute("class").split())
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert "goes-on" not in one(page, "#calibration .wide").get_attribute("class").split()


def test_fingers_meet_what_they_aim_at(page):
    """WCAG 2.2, success criterion 2.5.8: 24 CSS pixels."""
    targets = page.find_elements(By.CSS_SELECTOR, "main :is(a, button, select, input)")
    heights = [target.rect["height"] for target in targets if target.is_displayed()]
    assert len(heights) > 100
    assert min(heights) >= 24


def test_light_and_dark(page):
    colours = {}
    for scheme in ("light", "dark"):
        feature = {"name": "prefers-color-scheme", "value": scheme}
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        colours[scheme] = one(page, "body").value_of_css_property("background-color")
    assert colours == {"light": "rgba(255, 255, 255, 1)", "dark": "rgba(22, 24, 27, 1)"}


def test_the_policy_stops_what_is_not_the_pages_own(page):
    page.execute_script(
        "document.body.insertAdjacentHTML('beforeend', '<img src=\"data:,\" onerror=\"window.hit = 1\">');"
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.hit = 1'}));"
    )
    assert page.execute_async_script("setTimeout(() => arguments[0](window.hit ?? null), 300)") is None
    refused: list[str] = []
    end = time.monotonic() + 60
    while len(refused) < 2 and time.monotonic() < end:
        refused += [entry["message"] for entry in page.get_log("browser")]
    assert len(refused) == 2
    assert all("Content Security Policy" in message for message in refused)
