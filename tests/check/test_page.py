"""The page and the JSON of a data check: what they say, and that nothing in the data becomes part of them."""

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from saliency_entropy.check.contact_sheets import ContactSheet, Picture
from saliency_entropy.check.findings import Finding, Place, table_findings
from saliency_entropy.check.page import DataReport, Facts, as_html, as_json, place_files, places_left_out, shown_tables
from saliency_entropy.check.shortcuts import SHORTCUTS

EVIL = '<img src=x onerror="alert(1)">'


class Tags(HTMLParser):
    """Every tag of a page with its attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def facts(generator: str = "gan") -> Facts:
    counts = pd.DataFrame(
        [("train", "real", "", 1200, 3), ("train", "synthetic", generator, 2, 1), ("test", "synthetic", "", 1, 0)],
        columns=["split", "label", "origin", "images", "with_map"],
    )
    maps = pd.DataFrame(
        [("", 4, 3.0, 0.25, 20.09, 0.5, 2), ("synthetic", 1, 2.0, np.nan, 7.39, 0.25, 0)],
        columns=["label", "maps", "entropy_mean", "entropy_std", "focus_area", "covered", "several_annotators"],
    )
    sizes = [("size", f"{side} x 8", 100 - side, 1) for side in range(12)]
    files = pd.DataFrame([("format", "JPEG", 1200, 3), *sizes], columns=["property", "value", "real", "synthetic"])
    audit = pd.DataFrame(
        [("train", "", shortcut, 0.5 + at / 10, 1202, at > 1, "") for at, shortcut in enumerate(SHORTCUTS)]
        + [("test", generator, shortcut, np.nan, 0, False, "no real image") for shortcut in SHORTCUTS],
        columns=["split", "generator", "shortcut", "auroc", "images", "warn", "note"],
    )
    return Facts(counts, maps, {"": np.full((7, 7), 0.5, np.float32)}, (7, 7), files, audit)


def finding(severity: str = "error", places: int = 1, name: str = "a.png", reason: str = "is empty") -> Finding:
    of = [Place((at,), (f"row {at + 2}",), (name,), reason) for at in range(places)]
    return Finding(f"kind_{severity}", severity, "Some images", "mend them", places, tuple(of))


def report(*findings: Finding, generator: str = "gan", **further: object) -> DataReport:
    return DataReport("faces", list(findings), facts(generator), {"Data": "faces"}, **further)


@pytest.mark.parametrize(
    ("severities", "headline", "verdict"),
    [
        ((), "No error and no warning.", "clean"),
        (("warning",), "No error. 1 kind of warning: see that they are intended.", "warnings"),
        (("error",), "1 kind of error, to be mended before anything is trained.", "errors"),
        (("error", "error", "warning"),
         "2 kinds of error, to be mended before anything is trained; also 1 kind of warning.", "errors"),
    ],
)  # fmt: skip
def test_the_verdict(severities: tuple[str, ...], headline: str, verdict: str) -> None:
    checked = report(*map(finding, severities))
    assert checked.headline == headline
    assert json.loads(as_json(checked))["verdict"] == verdict
    assert headline in Tags(as_html(checked)).text


def test_twenty_places_are_shown_the_rest_counted_and_all_are_in_the_json() -> None:
    checked = report(finding(places=1033))
    text = Tags(as_html(checked)).text
    assert "Some images: 1,033" in text
    assert "row 21" in text
    assert "row 22" not in text
    assert "and 1,013 more, all of which are in data_report.json" in text
    (told,) = json.loads(as_json(checked))["findings"]
    assert told["count"] == len(told["places"]) == 1033
    assert told["places"][0] == {"rows": [0], "where": ["row 2"], "files": ["a.png"], "reason": "is empty", "more": 0}


def test_a_place_of_many_files_names_four() -> None:
    place = Place(tuple(range(9)), tuple(f"row {at}" for at in range(9)), tuple("abcdefghi"), "the same file")
    checked = report(Finding("same", "error", "T", "do", 1, (place,)))
    assert "row 0, row 1, row 2, row 3 and 5 more: a, b, c, d and 5 more – the same file" in Tags(as_html(checked)).text
    assert json.loads(as_json(checked))["findings"][0]["places"][0]["files"] == list("abcdefghi")


def test_what_is_not_listed_is_counted() -> None:
    of = finding(places=30)
    assert places_left_out(finding(places=20)) == ""
    assert places_left_out(of) == "and 10 more, all of which are in data_report.json"
    assert places_left_out(replace(of, count=500)) == "and 480 more; the first 30 of all are in data_report.json"
    assert json.loads(as_json(report(replace(of, count=500))))["findings"][0]["count"] == 500
    many = Place(tuple(range(9)), tuple(f"row {at}" for at in range(9)), tuple("abcdefghi"), "the same file", 1991)
    assert place_files(many) == "a, b, c, d and 1,996 more"


def test_the_json_is_strict_and_complete() -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    content = json.loads(as_json(report()), parse_constant=refuse)
    assert list(content) == ["data", "made", "verdict", "findings", "counts", "human_maps", "files", "shortcuts"]
    assert content["counts"][1] == {"split": "train", "label": "synthetic", "origin": "gan", "images": 2, "with_map": 1}
    assert content["human_maps"]["grid"] == [7, 7]
    assert content["human_maps"]["average"] == {"": [[0.5] * 7] * 7}
    assert content["human_maps"]["statistics"][1]["entropy_std"] is None
    assert len(content["files"]) == 13
    assert content["files"][0] == {"property": "format", "value": "JPEG", "real": 1200, "synthetic": 3}
    assert content["shortcuts"][2]["warn"] is True
    assert content["shortcuts"][-1]["auroc"] is None


def test_a_table_that_cannot_be_used_is_all_that_is_told() -> None:
    checked = DataReport("faces", table_findings("m.csv lists no image; add a row for each"), None, {"Data": "faces"})
    content = json.loads(as_json(checked))
    assert content["verdict"] == "errors"
    assert content["counts"] is content["human_maps"] is content["files"] is content["shortcuts"] is None
    text = Tags(as_html(checked)).text
    assert "Error: The table cannot be used" in " ".join(text.split())
    assert "m.csv lists no image; add a row for each" in text


def test_the_tables() -> None:
    counts, maps, files, shortcuts = shown_tables(facts())
    assert counts.cells.to_numpy().tolist() == [
        ["train", "real", "(not named)", "1,200", "3"],
        ["train", "synthetic", "gan", "2", "1"],
        ["test", "synthetic", "(not named)", "1", "0"],
    ]
    assert counts.notes == ["1,203 images: 1,200 real, 3 synthetic."]
    assert maps.cells.to_numpy().tolist()[1] == ["train", "synthetic", "2", "1", "50%"]
    assert maps.notes == [
        "All: 4 maps, mean entropy 3.00 ± 0.25 nats on a 7 × 7 grid, a focus of 20.1 of 49 cells; "
        "50% of a map is marked.",
        "Synthetic: 1 map, mean entropy 2.00 nats on a 7 × 7 grid, a focus of 7.4 of 49 cells; 25% of a map is marked.",
        "The paper’s human maps: about 3.0 nats, a focus of 20.1 cells.",
        "On 2 images, the maps of several annotators are averaged.",
    ]
    assert files.cells.to_numpy().tolist()[1] == ["size / pixels", "0 × 8", "100", "1"]
    assert files.cells.to_numpy().tolist()[-1] == ["size / pixels", "(2 others)", "179", "2"]  # 90 + 89
    assert shortcuts.cells.to_numpy().tolist() == [
        ["train", "(all)", "1,202", "0.500", "0.600", "0.700 ▲", "0.800 ▲", "0.900 ▲", "1.000 ▲"],
        ["test", "gan", "0", *["–"] * 6],
    ]
    assert shortcuts.notes[1] == "test gan: no real image."


def evil_report() -> DataReport:
    picture = Picture("data:image/png;base64,AA==", 112, 112, f"Image of {EVIL}", EVIL)
    return DataReport(
        EVIL,
        [finding(name=EVIL, reason=EVIL)],
        facts(EVIL),
        {"Data": EVIL},
        (picture,),
        (ContactSheet("train", "real", EVIL, 9, (picture,)),),
        {"kind_error": [[picture]]},
    )


def test_names_from_data_are_text() -> None:
    page = as_html(evil_report())
    tags = Tags(page)
    assert EVIL not in page
    assert tags.text.count(EVIL) >= 8  # title, heading, finding (twice), tables (twice), sheet, captions
    assert not any("onerror" in attributes for _, attributes in tags.tags)
    assert {attributes["src"] for tag, attributes in tags.tags if tag == "img"} == {"data:image/png;base64,AA=="}


def test_control_characters_and_reversed_text_do_not_reach_the_page() -> None:
    page = as_html(report(finding(name="rtl\u202egpj\x1b[2J.jpg"), generator="gan\u202e"))
    assert "\u202e" not in page
    assert "\x1b" not in page
    assert "rtl?gpj?[2J.jpg" in page


def test_the_page_refers_to_nothing_elsewhere() -> None:
    page = as_html(evil_report())
    tags = Tags(page).tags
    (policy,) = [attributes["content"] for tag, attributes in tags if attributes.get("http-equiv")]
    (style,) = re.findall(r"<style>(.*?)</style>", page, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    own = f"style-src 'sha256-{digest}'"
    assert policy == f"default-src 'none'; img-src data:; {own}; base-uri 'none'; form-action 'none'"
    assert not re.search(r"<[^>]* style=", page)
    assert {tag for tag, _ in tags}.isdisjoint({"script", "link", "iframe", "object", "embed", "base", "form", "a"})
    assert not re.search(r"https?:|url\(|@import", page)


def test_every_picture_has_a_text_and_a_size() -> None:
    pictures = [attributes for tag, attributes in Tags(as_html(evil_report())).tags if tag == "img"]
    assert len(pictures) == 3
    assert all(picture["alt"] and picture["width"] == picture["height"] == "112" for picture in pictures)


def test_a_long_list_of_warnings_is_folded_and_errors_are_not() -> None:
    tags = [tag for tag, _ in Tags(as_html(report(finding("error", 9), finding("warning", 9)))).tags]
    assert tags.count("details") == 1
    assert tags.count("li") == 18
