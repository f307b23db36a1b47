"""Strokes in SVG: pixels that are known beforehand, and files that must never reach the renderer."""

import gzip
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from saliency_entropy.data.human_maps import svg_strokes
from saliency_entropy.data.human_maps.svg_strokes import SIDE, draw_svg
from saliency_entropy.errors import UserError

SVG = 'xmlns="http://www.w3.org/2000/svg"'


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    return tmp_path / "layer.svg"


def written(path: Path, body: str, root: str = f'{SVG} viewBox="0 0 8 8"') -> Path:
    path.write_text(f"<svg {root}>\n{body}\n</svg>", encoding="utf-8")
    return path


def drawn(path: Path) -> np.ndarray:
    image = draw_svg(path)
    assert image.mode == "L"
    return np.asarray(image)


def cells(path: Path) -> np.ndarray:
    """The mean of each square unit of an 8 x 8 drawing, in [0, 1]: its sides are multiples of a pixel."""
    unit = SIDE // 8
    return drawn(path).reshape(8, unit, 8, unit).mean(axis=(1, 3)) / 255


ROW = np.zeros((8, 8))
ROW[2] = 1


@pytest.mark.parametrize(
    "stroke",
    [
        '<line x1="0" y1="2.5" x2="8" y2="2.5" stroke="red" stroke-width="1"/>',
        '<path d="M0 2.5 L4,2.5 h4" fill="none" stroke="#000" stroke-width="1"/>',
        '<polyline points="0,2.5 4,2.5 8,2.5" style="fill:none;stroke:white;stroke-width:1;stroke-dasharray: none"/>',
        '<polygon points="0,2 8,2 8,3 0,3"/>',
        '<rect y="2" width="8" height="1" fill="blue"/>',
        '<g transform="translate(0 1)"><g transform="scale(2)"><rect y="0.5" width="4" height="0.5"/></g></g>',
        '<defs/><title>a &lt; b</title><style>.brush { stroke: red; stroke-width: 1 }</style>'
        '<line class="brush" x1="0" y1="2.5" x2="8" y2="2.5"/>',
        '<path d="m0,2h8v1.H0z M0 2.0.0 2l0-0 Z"/>',
        '<polygon points="0 2,8,2 8 3.,0+3,"/><path d=""/><polyline/>',
        '<metadata><e:note xmlns:e="editor"><e:rect/></e:note></metadata><g><rect y="2" width="8" height="1"/></g>',
        '<e:window xmlns:e="editor" e:width="9"/><e:rect xmlns:e="editor" width="8" height="8"/>'
        '<rect y="2" width="8" height="1"/>',
    ],
)  # fmt: skip
def test_a_stroke_covers_the_pixels_that_it_says(layer: Path, stroke: str) -> None:
    np.testing.assert_array_equal(cells(written(layer, stroke)), ROW)


def test_a_dot_has_the_area_of_its_circle(layer: Path) -> None:
    area = drawn(written(layer, '<circle cx="4" cy="4" r="2"/>')).mean() / 255 * 64
    assert area == pytest.approx(4 * np.pi, rel=1e-3)


def test_the_flags_of_an_arc_need_nothing_between_them(layer: Path) -> None:
    area = drawn(written(layer, '<path d="M2 4a2 2 0 014 0 2-2 0 1 1-4,0z"/>')).mean() / 255 * 64
    assert area == pytest.approx(4 * np.pi, rel=1e-3)


def test_translucent_strokes_add_up(layer: Path) -> None:
    once = '<line x1="0" y1="2.5" x2="4" y2="2.5" stroke="red" stroke-width="1" stroke-opacity="0.5"/>'
    twice = '<line x1="2" y1="2.5" x2="8" y2="2.5" stroke="lime" stroke-width="1" stroke-opacity="0.5"/>'
    # Half, and of the other half again half.
    expected = [0.5, 0.5, 0.75, 0.75, 0.5, 0.5, 0.5, 0.5]
    np.testing.assert_allclose(cells(written(layer, once + twice))[2], expected, atol=0.006)


def test_an_empty_layer_is_zero_everywhere(layer: Path) -> None:
    assert not drawn(written(layer, "")).any()


def test_coordinates_are_those_of_the_view_box(layer: Path) -> None:
    stroke = '<rect x="100" y="202" width="8" height="1"/>'
    np.testing.assert_array_equal(cells(written(layer, stroke, f'{SVG} viewBox="100 200 8 8"')), ROW)
    root = f'{SVG} viewBox="100,200,8,8" width="904" height="904"'
    np.testing.assert_array_equal(cells(written(layer, stroke, root)), ROW)
    # The same in fractions of the image.
    root = f'{SVG} viewBox="0 0 1 1" width="100%" height="100%"'
    np.testing.assert_array_equal(cells(written(layer, '<rect y="0.25" width="1" height="0.125"/>', root)), ROW)


@pytest.mark.parametrize(
    "size",
    ['width="8" height="4"', 'width="8mm" height="4mm"', 'width="2in" height="6pc"', 'width="1" height="0.5"',
     'width="1e6" height="500000px"', 'viewBox="0 0 0.4 0.2"', 'viewBox="0 0 8 4" width="9"',
     'viewBox="1e3 1e3 3 1.5" height="70%"'],
)  # fmt: skip
def test_the_longer_side_is_drawn_at_one_length(layer: Path, size: str) -> None:
    x = 'x="1e3" y="1e3"' if "1e3" in size else ""
    pixels = drawn(written(layer, f'<rect {x} width="50%" height="100%"/>', f"{SVG} {size}"))
    assert pixels.shape == (SIDE // 2, SIDE)
    assert pixels[:, : SIDE // 2].min() == 255
    assert pixels[:, SIDE // 2 :].max() == 0


def test_a_byte_order_mark_and_a_declaration(layer: Path) -> None:
    text = (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<svg {SVG} viewBox="0 0 8 8"><rect y="2" width="8" height="1"/></svg>'
    )
    layer.write_text(text, encoding="utf-8-sig")
    np.testing.assert_array_equal(cells(layer), ROW)


def test_threads_draw_the_same(layer: Path) -> None:
    written(layer, '<path d="M1 1 C 9 1 1 8 7 7" fill="none" stroke="red" stroke-linecap="round"/>')
    with ThreadPoolExecutor(4) as pool:
        maps = [image.tobytes() for image in pool.map(draw_svg, [layer] * 8)]
    assert set(maps) == {draw_svg(layer).tobytes()}


@pytest.mark.parametrize(
    ("root", "what"),
    [
        (SVG, r"line 1: <svg> has no size .*; add viewBox=\"0 0 W H\""),
        (f'{SVG} width="8"', "<svg> has no size"),
        (f'{SVG} width="100%" height="100%"', "<svg> has no size"),
        (f'{SVG} width="wide" height="8"', "<svg> has no size"),
        (f'{SVG} viewBox="0 0 8"', "viewBox is '0 0 8'; give viewBox="),
        (f'{SVG} viewBox="0 0 0 8"', "viewBox is '0 0 0 8'"),
        (f'{SVG} viewBox="0 0 8 tall"', "viewBox is '0 0 8 tall'"),
        (f'{SVG} viewBox="0 0 nan nan"', "viewBox is '0 0 nan nan'"),
        (f'{SVG} viewBox="0 0 8e9 8"', "viewBox is '0 0 8e9 8'"),
        (f'{SVG} width="0" height="8"', "<svg> has a size of 0 x 8; give viewBox="),
        (f'{SVG} width="-8" height="8"', "<svg> has a size of -8 x 8"),
        (f'{SVG} width="1e300" height="1e300"', r"<svg> has a size of 1e\+300 x 1e\+300"),
    ],
)
def test_a_layer_without_a_usable_size(layer: Path, root: str, what: str) -> None:
    with pytest.raises(UserError, match=rf"layer\.svg.*{what}"):
        draw_svg(written(layer, '<rect width="4" height="4"/>', root))


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ('<image href="SECRET" width="8" height="8"/>', "line 2: <image> is no stroke; keep only strokes"),
        ('<image href="secret.png" width="8" height="8"/>', "<image> is no stroke"),
        ('<g>\n<image href="https://example.org/a.png"/></g>', "line 3: <image> is no stroke"),
        ('<s:image xmlns:s="http://www.w3.org/2000/svg" href="SECRET"/>', "<image> is no stroke"),
        ('<use href="other.svg#a"/>', "<use> is no stroke"),
        ('<g id="a"/><use href="#a"/>', "<use> is no stroke"),
        ("<script>alert(1)</script>", "<script> is no stroke"),
        ('<foreignObject><iframe src="http://example.org"/></foreignObject>', "<foreignObject> is no stroke"),
        ("<text>word</text>", "<text> is no stroke"),
        ('<filter id="f"><feImage href="SECRET"/></filter>', "<filter> is no stroke"),
        ('<g href="secret.png"/>', r"a reference to another file or address \('secret\.png'\); delete the element"),
        ('<g xmlns:x="http://www.w3.org/1999/xlink" x:href="//a.org"/>', "a reference to another file or address"),
        ('<rect width="8" height="4" fill="url(SECRET)"/>', "fill refers to 'url"),
        ('<rect width="8" height="4" style="mask: URL(#m)"/>', r"style refers to 'mask: URL\(#m\)'; export plain"),
        ("<style>@import 'a.css';</style>", "<style> holds @"),
        ("<style>rect { fill: url(SECRET) }</style>", "<style> holds @"),
        (r"<style>rect { fill: \75rl(SECRET) }</style>", "<style> holds @"),
        ("<style><![CDATA[rect { fill: u]]><![CDATA[rl(SECRET) }]]></style>", "<style> holds @"),
        ("<?xml-stylesheet href='a.css'?>", r"a processing instruction \(<\?xml-stylesheet\?>\)"),
        ('<path d="M0 0 8 8" stroke="red" stroke-dasharray="1e-6"/>', "line 2: a dashed stroke; export solid strokes"),
        ('<path d="M0 0 8 8" style="stroke:red;stroke-dasharray/**/:1e-6"/>', "a dashed stroke"),
        ("<style>path { stroke-dasharray: 0.001 }</style>", "<style> dashes strokes; export solid strokes"),
        ("<rect>", "is not well-formed XML"),
        ("<x:rect/>", r"is not well-formed XML \(unbound prefix"),
        ("&secret;", "is not well-formed XML"),
        ('<path d="M 1 1 L NaN NaN"/>', "line 2: d holds 'NaN' instead of a number; export it again"),
        ('<polyline points="1,1 undefined,3"/>', "points holds 'undefined' instead of a number"),
        ('<circle cx="null" cy="1" r="1"/>', "cx holds 'null'"),
        ('<x:y xmlns:x="editor"><path/></x:y>', "line 2: <path> lies in <y>, where nothing is drawn; move it"),
        ('<x:y xmlns:x="editor"><g>\n<rect width="8" height="1"/></g></x:y>', "line 3: <rect> lies in <y>"),
        ('<x:g xmlns:x="editor"><g/><x:g/><line x2="8"/></x:g>', "<line> lies in <g>, where nothing is drawn"),
        ('<metadata><path d="M0 2h8"/></metadata>', "<path> lies in <metadata>, where nothing is drawn"),
        ('<rect width="8" height="1"><circle r="4"/></rect>', "<circle> lies in <rect>, where nothing is drawn"),
        ('<path xmlns="" d="M0 2h8"/>', r"<path> has another namespace \(xmlns\) than <svg>, so it is not drawn; give"),
        ('<g xmlns=""><s:path xmlns:s="http://www.w3.org/2000/svg" d="M0 2h8"/></g>', "<path> lies in <g>"),
        ('<path d="M1 1 L4 4 X 7 1 L7 7"/>', r"line 2: d is in error from 'X 7 1 L7 7' on; export it again"),
        ('<path d="M1 1 L4 4 5 L7 7"/>', "d is in error from '5 L7 7' on"),
        ('<path d="M1 1 L4 4 7"/>', "d is in error from '7' on"),
        ('<path d="M1 1 L4 4 L7"/>', "d is in error from 'L7' on"),
        ('<path d="M1 1 L4 4 z 7 1"/>', "d is in error from '7 1' on"),
        ('<path d="M1 1 C4 4 5 5 6"/>', "d is in error from 'C4 4 5 5 6' on"),
        ('<path d="M1 1 S4 4 5 q1 1 2 2"/>', "d is in error from 'S4 4 5 q1 1 2 2' on"),
        ('<path d="M1 1 a2 2 0 2 1 7 1"/>', "d is in error from 'a2 2 0 2 1 7 1' on"),
        ('<path d="M1 1 L4 4 ,, 7 1"/>', "d is in error from ', 7 1' on"),
        ('<path d="M1 1 L4 4 z, L7 1"/>', "d is in error from ', L7 1' on"),
        ('<path d="M1 1 L4px 4"/>', "d is in error from 'L4px 4' on"),
        ('<path d="M1 1 L4 \u0664"/>', "d is in error from 'L4 \u0664' on"),
        ('<path d="L1 1 L4 4"/>', "d begins with 'L1 1 L4 4' instead of a move"),
        ('<polyline points="1,1 4,4 7"/>', "line 2: points is in error from '7' on; export it again"),
        ('<polygon points="1,1 4,4 x 7,1"/>', "points is in error from 'x 7,1' on"),
        ('<rect width="8" height="8" fill="white"/>', r"covers every pixel alike \(a background\?\)"),
        ("<g>" * 40 + "</g>" * 40, "elements nested more than 32 deep"),
        ('<e:g xmlns:e="editor">' * 40 + "</e:g>" * 40, "elements nested more than 32 deep"),
        ("<g/>" * 10_000, "more than 10,000 elements; save it as a grey PNG"),
    ],
)  # fmt: skip
def test_anything_but_strokes_is_refused(layer: Path, body: str, what: str) -> None:
    secret = layer.with_name("secret.png")
    with pytest.raises(UserError, match=rf"layer\.svg.*{what}"):
        draw_svg(written(layer, body.replace("SECRET", secret.as_uri())))


@pytest.mark.parametrize(
    "doctype",
    [
        "<!DOCTYPE svg [<!ENTITY a \"<rect width='8' height='4'/>\">]>",
        '<!DOCTYPE svg [<!ENTITY a SYSTEM "file:///etc/hostname">]>',
        '<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "http://www.w3.org/Graphics/SVG/1.1/DTD/svg11.dtd">',
    ],
)
def test_a_document_type_is_refused(layer: Path, doctype: str) -> None:
    layer.write_text(f'{doctype}\n<svg {SVG} viewBox="0 0 8 8">&a;</svg>')
    with pytest.raises(UserError, match=r"layer\.svg line 1: a document type \(<!DOCTYPE>\).*; delete that line"):
        draw_svg(layer)


def test_nothing_refused_reaches_the_renderer(layer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(svg_strokes.resvg_py, "svg_to_bytes", lambda **arguments: calls.append(arguments))
    with pytest.raises(UserError, match="<image> is no stroke"):
        draw_svg(written(layer, '<rect width="8" height="4"/><image href="a.png"/>'))
    assert calls == []


def test_of_another_vocabulary_nothing_is_read_or_drawn(layer: Path) -> None:
    # A pipe that nobody writes into: reading it would never end.
    os.mkfifo(layer.with_name("pipe.png"))
    body = (
        '<e:image xmlns:e="editor" href="#" e:src="pipe.png" width="8" height="8"/><rect y="2" width="8" height="1"/>'
    )
    np.testing.assert_array_equal(cells(written(layer, body)), ROW)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", r"is empty \(0 bytes\)"),
        (b"\x89PNG\r\n\x1a\n", r"is not UTF-8 text \(byte 0\)"),
        (gzip.compress(b"<svg/>", mtime=0), r"is not UTF-8 text \(byte 1\).*not compressed"),
        ("<svg/>".encode("utf-16"), "is not UTF-8 text"),
        (b"<html/>", "the first element is <html>, not <svg>"),
        (b'<svg xmlns="other" viewBox="0 0 8 8"/>', "the first element is <svg>, not <svg>"),
        (b"strokes", "is not well-formed XML"),
        (b'<svg viewBox="0 0 8 8">\0</svg>', "is not well-formed XML"),
        (b'<?xml version="1.0" encoding="UTF-16"?><svg viewBox="0 0 8 8"><image/></svg>', "<image> is no stroke"),
        (b"<svg>" + b" " * svg_strokes.LARGEST_BYTES, "is an SVG of more than 4 MB; save it as a grey PNG"),
    ],
)
def test_a_file_that_is_no_svg(layer: Path, content: bytes, what: str) -> None:
    layer.write_bytes(content)
    with pytest.raises(UserError, match=rf"layer\.svg.*{what}"):
        draw_svg(layer)


def test_a_file_that_cannot_be_read(layer: Path) -> None:
    with pytest.raises(UserError, match=r"layer\.svg cannot be read \(No such file or directory\)"):
        draw_svg(layer)


def test_numbers_that_break_the_renderer(layer: Path) -> None:
    body = '<path d="M-1 0 L1 9 C 1e3 1e3 -1e3 1e3 0 0" stroke="red" stroke-width="1e30"/>'
    with pytest.raises(UserError, match=r"layer\.svg cannot be drawn \(its numbers are too large\)"):
        draw_svg(written(layer, body))
