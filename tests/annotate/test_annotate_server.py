"""What the server of the annotators' page keeps, what it tells, and what it refuses."""

import hashlib
import json
import logging
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from sklearn.metrics import cohen_kappa_score

pytest.importorskip("starlette", reason="pip install 'saliency-entropy[demo]'")
pytest.importorskip("httpx2", reason="starlette's test client needs it")
from starlette.testclient import TestClient

from saliency_entropy.annotate import server
from saliency_entropy.annotate.annotations import Annotations
from saliency_entropy.annotate.command import annotate, shown_rows
from saliency_entropy.data.folder_tree import folder_tree
from saliency_entropy.data.listed_files import file_problems
from saliency_entropy.data.manifest import read_manifest
from saliency_entropy.errors import UserError
from saliency_entropy.run.lock import held
from saliency_entropy.run.whole_files import write_atomically

ROOT = Path(__file__).parents[2]


def image_name(folder: Path, path: str) -> str:
    return hashlib.sha256(f"{folder}\n{path}".encode()).hexdigest()[:16]


def sign_in(client: TestClient, name: str, token: str = ""):
    return client.post("/sign-in", params={"name": name}, headers={"Authorization": f"Bearer {token}"})


class Browser:
    """A page that somebody has signed in to."""

    def __init__(self, client: TestClient, name: str) -> None:
        self.client = client
        answer = sign_in(client, name)
        assert answer.status_code == 200, answer.text
        self.token, self.images = answer.json()["token"], [image["id"] for image in answer.json()["images"]]

    def ask(self, method: str, path: str, **options):
        return self.client.request(method, path, headers={"Authorization": f"Bearer {self.token}"}, **options)

    def put(self, image: str, revision=1, **drawing):
        content = {"page": "p", "base": 0, "revision": revision, "answer": "real", "seconds": 1.5, "status": "done"}
        return self.ask("PUT", f"/drawings/{image}", json=content | drawing)


def stroke(*points, width=0.2, erase=False) -> dict:
    return {"erase": erase, "width": width, "at": 1, "points": [[x, y, 0] for x, y in points]}


@pytest.fixture
def output(own_faces: Path) -> Path:
    return own_faces / "annotations"


@pytest.fixture
def serve(own_faces: Path, output: Path) -> Callable[..., TestClient]:
    """A server, begun anew, on all training and validation images."""

    def begin(seed: int | None = 0) -> TestClient:
        annotations = Annotations(read_manifest(own_faces / "manifest.csv"), output)
        annotations.read()
        rows = shown_rows(annotations.manifest, ["train", "val"], 1.0, 0)
        app = server.application(annotations, [annotations.images[path] for path in rows["path"]], seed)
        return TestClient(app, base_url="http://127.0.0.1:8765")

    return begin


def test_a_drawing_is_kept_with_its_map_and_the_manifest_is_one_for_training(serve, output, own_faces) -> None:
    before = (own_faces / "manifest.csv").read_bytes()
    image = image_name(output, "train/2.png")  # without a map of its own
    strokes = [stroke((0.25, 0.5), (0.75, 0.5))]
    for name in ("anna", "ben"):
        assert Browser(serve(), name).put(image, strokes=strokes).status_code == 200
    stored = json.loads((output / "strokes/anna/train/2.png.json").read_text())
    assert stored["strokes"] == strokes
    assert (stored["answer"], stored["seconds"], stored["status"]) == ("real", 1.5, "done")
    with Image.open(output / "maps/anna/train/2.png.png") as drawn:
        assert (drawn.mode, drawn.size) == ("L", (48, 48))
        assert np.asarray(drawn)[24, 12:36].min() == 255
        assert np.asarray(drawn)[:18].max() == np.asarray(drawn)[30:].max() == 0
    manifest = read_manifest(output / "manifest.csv", own_faces)
    old = read_manifest(own_faces / "manifest.csv").table.set_index("path")
    new = manifest.table.set_index("path")
    maps = "annotations/maps/anna/train/2.png.png;annotations/maps/ben/train/2.png.png"
    assert new.loc["train/2.png", "human_map"] == maps
    pd.testing.assert_frame_equal(new.drop(index="train/2.png"), old.drop(index="train/2.png"))
    assert (own_faces / "manifest.csv").read_bytes() == before


def test_maps_of_the_data_set_stay_beside_new_ones(serve, output, own_faces) -> None:
    Browser(serve(), "anna").put(image_name(output, "train/0.jpg"), strokes=[stroke((0.5, 0.5))])
    table = read_manifest(output / "manifest.csv", own_faces).table.set_index("path")
    assert table.loc["train/0.jpg", "human_map"] == "maps/train_0.png;annotations/maps/anna/train/0.jpg.png"


@pytest.mark.parametrize("place", ["own_faces", ".own_faces"])
def test_annotations_elsewhere_have_the_folder_of_both_as_their_root(own_faces, tmp_path, place) -> None:
    faces = own_faces.rename(tmp_path / place)
    annotations = Annotations(read_manifest(faces / "manifest.csv"), tmp_path / "elsewhere")
    annotations.read()
    assert annotations.root == tmp_path
    manifest = read_manifest(tmp_path / "elsewhere" / "manifest.csv", tmp_path)
    assert manifest.table["path"][0] == f"{place}/train/0.jpg"
    assert manifest.table["human_map"][0] == f"{place}/maps/train_0.png"
    assert file_problems(manifest) == []


def test_an_image_on_which_nothing_stands_out_is_done_without_a_map(serve, output, own_faces) -> None:
    anna, image = Browser(serve(), "anna"), image_name(output, "val/2.png")
    strokes = [stroke((0.5, 0.5)), stroke((0.5, 0.5), width=0.5, erase=True)]
    for revision, painted in enumerate(([], strokes[:1], strokes), start=1):
        assert anna.put(image, revision, strokes=painted).status_code == 200
        assert (output / "maps/anna/val/2.png.png").exists() == (len(painted) == 1)
    assert "done" in (output / "answers.csv").read_text()
    assert "val/2.png.png" not in (output / "manifest.csv").read_text()


TINY = [stroke((2 / 7, 2 / 7), width=0.005)]  # where four cells of the CAM meet
EVERYTHING = [stroke((0, 0), (1, 1), (1, 0), (0, 1), width=1)]


@pytest.mark.parametrize("last", range(5))
def test_a_server_that_is_killed_in_between_leaves_no_map_of_an_image_done_without(
    serve, output, monkeypatch, last
) -> None:
    """After each number of files that it has written or removed."""
    anna, image = Browser(serve(), "anna"), image_name(output, "val/2.png")
    anna.put(image, 1, strokes=[stroke((0.5, 0.5))])
    steps, unlink = iter(range(last)), Path.unlink

    def step() -> None:
        if next(steps, None) is None:
            raise ZeroDivisionError

    def write_or_die(path: Path, content: str | bytes) -> None:
        step()
        write_atomically(path, content)

    def unlink_or_die(path: Path, missing_ok: bool = False) -> None:
        if path.name == "2.png.png":
            step()
        unlink(path, missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr("saliency_entropy.annotate.annotations.write_atomically", write_or_die)
        patch.setattr(Path, "unlink", unlink_or_die)
        with pytest.raises(ZeroDivisionError):
            anna.put(image, 2, strokes=[])
    serve()
    kept = Browser(serve(), "anna").ask("GET", f"/drawings/{image}").json()
    named = "val/2.png.png" in (output / "manifest.csv").read_text()
    assert named == (kept["status"] == "done" and bool(kept["strokes"]))


@pytest.mark.parametrize("strokes", [TINY, EVERYTHING])
def test_a_map_that_could_not_be_trained_on_is_refused_and_its_strokes_are_kept(serve, output, strokes) -> None:
    anna, image = Browser(serve(), "anna"), image_name(output, "val/2.png")
    refused = anna.put(image, strokes=strokes)
    assert (refused.status_code, refused.text[:22]) == (409, "no region stands out: ")
    kept = anna.ask("GET", f"/drawings/{image}").json()
    assert (kept["strokes"], kept["status"]) == (strokes, "open")
    assert not (output / "maps").exists()


def test_a_new_server_knows_everything(serve, output) -> None:
    anna = Browser(serve(), "anna")
    first, second, third = anna.images[:3]
    anna.put(first, strokes=[stroke((0.5, 0.5))])
    anna.put(second, status="skipped", answer=None)
    anna.put(third, status="open", strokes=[stroke((0.2, 0.2))])
    tables = [(output / name).read_bytes() for name in ("manifest.csv", "answers.csv", "agreement.csv")]
    again = serve()
    answer = sign_in(again, "Anna ").json()
    assert [image["status"] for image in answer["images"][:4]] == ["done", "skipped", "open", "open"]
    assert [(output / name).read_bytes() for name in ("manifest.csv", "answers.csv", "agreement.csv")] == tables
    assert answer["images"][0]["id"] == first


def test_each_annotator_has_an_order_of_their_own_and_the_same_each_time(serve, output) -> None:
    orders = [Browser(serve(), name).images for name in ("anna", "anna", "ben")]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2])
    assert len(orders[0]) == 31
    assert Browser(serve(seed=None), "anna").images[:2] == [
        image_name(output, "train/0.jpg"),
        image_name(output, "train/1.png"),
    ]


def test_nothing_that_is_sent_tells_the_label(serve, own_faces, output) -> None:
    """Neither a path, a label, a file's format and metadata, nor the place in the manifest."""
    client = serve()
    page = client.get("/").text
    anna = Browser(client, "anna")
    told = PngInfo()
    told.add_text("Software", "stylegan")
    with Image.open(own_faces / "train/1.png") as image:
        image.save(own_faces / "train/1.png", icc_profile=b"stylegan", pnginfo=told)
    for path, image in (
        ("train/0.jpg", image_name(output, "train/0.jpg")),
        ("train/1.png", image_name(output, "train/1.png")),
    ):
        answer = anna.ask("GET", f"/images/{image}")
        assert answer.content[:8] == b"\x89PNG\r\n\x1a\n"
        assert b"stylegan" not in answer.content
        with Image.open(own_faces / path) as original:
            assert Image.open(BytesIO(answer.content)).tobytes() == original.convert("RGB").tobytes()
    told = page + json.dumps(anna.images) + anna.ask("GET", "/summary").text + str(answer.headers)
    for word in ("train/", ".jpg", "stylegan", '"gan"', "own_faces"):
        assert word not in told


def test_a_broken_image_is_said_without_its_name(serve, own_faces, caplog, output) -> None:
    anna, image = Browser(serve(), "anna"), image_name(output, "train/1.png")
    (own_faces / "train/1.png").write_text("no image")
    answer = anna.ask("GET", f"/images/{image}")
    assert answer.status_code == 409
    assert answer.text == "this image cannot be read, and the server's log says why: skip it."
    assert "train/1.png is not an image" in caplog.text
    assert anna.put(image, strokes=[stroke((0.5, 0.5))]).text == answer.text
    assert anna.put(image, 2, status="skipped", answer=None).status_code == 200


# --- who paints


def test_a_name_is_one_persons_at_a_time(serve, monkeypatch) -> None:
    client = serve()
    anna = Browser(client, "anna")
    refused = sign_in(client, "Anna", "of another browser")
    assert refused.status_code == 409
    assert "anna is signed in elsewhere" in refused.text
    Browser(client, "ben")
    # The same browser after a crash, which the token tells; its former page is out.
    again = sign_in(client, "anna", anna.token)
    assert again.status_code == 200
    assert anna.ask("GET", "/summary").status_code == 401
    anna.token = again.json()["token"]
    assert anna.ask("POST", "/sign-out").status_code == 200
    Browser(client, "anna")
    # Another browser, long after the last sign of life.
    later = server.time.monotonic() + server.PRESENT + 1
    monkeypatch.setattr(server.time, "monotonic", lambda: later)
    Browser(client, "anna")


@pytest.mark.parametrize("name", ["", "../x", "a/b", "a b", ".", "-a", "a;b", "a\n", "x" * 41, "a\0"])
def test_a_name_is_safe_for_a_folder(serve, output, name) -> None:
    answer = sign_in(client := serve(), name)
    assert answer.status_code == (200 if name == "a\n" else 422)
    # Whoever only looked is no annotator with whom others agree or not.
    assert Browser(client, "anna").ask("GET", "/summary").json()["annotators"] == []
    assert not (output / "strokes").exists()


def test_a_page_that_was_overtaken_changes_nothing(serve, output) -> None:
    anna = Browser(serve(), "anna")
    image = anna.images[0]
    one, other = [stroke((0.2, 0.2))], [stroke((0.8, 0.8))]
    assert anna.put(image, 1, page="first", strokes=one).status_code == 200
    assert anna.put(image, 1, page="first", strokes=one).status_code == 200  # its answer was lost
    assert anna.put(image, 2, page="second", base=1, strokes=other).status_code == 200
    late = anna.put(image, 9, page="first", strokes=one)
    assert (late.status_code, "in another window" in late.text) == (409, True)
    assert anna.ask("GET", f"/drawings/{image}").json()["strokes"] == other


# --- how far they agree


def test_agreement_is_that_of_the_definitions(serve, output) -> None:
    client = serve()
    anna, ben = Browser(client, "anna"), Browser(client, "ben")
    images = sorted(anna.images)[:10]
    answers = {"anna": "rrrrrsssss", "ben": "rrrsssssrr"}
    for browser, name in ((anna, "anna"), (ben, "ben")):
        for number, (image, letter) in enumerate(zip(images, answers[name], strict=True)):
            strokes = [] if number > 1 else [stroke((0.2, 0.5), (0.5 if name == "anna" or number else 0.8, 0.5))]
            browser.put(image, answer={"r": "real", "s": "synthetic"}[letter], strokes=strokes)
    # By hand: 6 of 10 agree; real 0.5 and 0.5, so chance agrees on 0.5, and kappa is (0.6 - 0.5) / 0.5.
    table = pd.read_csv(output / "agreement.csv")
    assert list(table.loc[0, ["first", "second", "images", "maps"]]) == ["anna", "ben", 10, 2]
    assert table.loc[0, "same_answer"] == pytest.approx(0.6)
    assert table.loc[0, "kappa"] == pytest.approx(0.2)
    # One map is the same; the other is 48 x (0.3 and 0.6) long and 9.6 wide, with a half circle at each end.
    areas = [48 * length * 9.6 + np.pi * 4.8**2 for length in (0.3, 0.6)]
    assert table.loc[0, "iou"] == pytest.approx((1 + areas[0] / areas[1]) / 2, abs=0.02)
    shown = anna.ask("GET", "/summary").json()
    assert shown["pairs"] == [["anna, ben", 10, "0.600", "0.200", 2, f"{table.loc[0, 'iou']:.3f}"]]
    assert shown["annotators"] == [["anna", 10, 0, 21], ["ben", 10, 0, 21]]
    written = pd.read_csv(output / "answers.csv").pivot(index="path", columns="annotator", values="answer")
    assert cohen_kappa_score(written["anna"], written["ben"]) == pytest.approx(0.2)


# --- what is refused


def test_nothing_is_given_or_taken_without_a_token(serve) -> None:
    client = serve()
    image = Browser(client, "anna").images[0]
    asked = [("GET", "summary"), ("POST", "sign-out"), ("PUT", f"drawings/{image}"), ("GET", f"images/{image}")]
    for method, path in asked:
        assert client.request(method, f"/{path}").status_code == 401


@pytest.mark.parametrize("path", ["..%2f..%2fmanifest.csv", "../../manifest.csv", "train%2f0.jpg", "0" * 16])
@pytest.mark.parametrize("kind", ["images", "drawings"])
def test_only_images_of_the_data_set_are_given(serve, kind, path) -> None:
    answer = Browser(serve(), "anna").ask("GET", f"/{kind}/{path}")
    assert answer.status_code == 404


def test_bodies_that_are_too_large_or_malformed_are_refused(serve, output) -> None:
    anna = Browser(serve(), "anna")
    path = f"/drawings/{anna.images[0]}"
    assert anna.ask("PUT", path, content=b"x" * (server.LARGEST_BODY + 1)).status_code == 413
    for content in (b"", b"\xff", b"{}", b"[" * 100_000, b'{"page": 1}'):
        answer = anna.ask("PUT", path, content=content)
        assert answer.status_code == 422
        assert answer.text.startswith("the browser sent no drawing (")
    assert anna.put(anna.images[0], answer=None, strokes=[stroke((0.5, 0.5))]).status_code == 409
    assert not (output / "maps").exists()


def test_a_full_disk_is_said_and_nothing_is_lost(serve, output, monkeypatch) -> None:
    anna = Browser(serve(), "anna")
    image = anna.images[0]
    anna.put(image, 1, status="open", strokes=[stroke((0.2, 0.2))])

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("saliency_entropy.annotate.annotations.write_atomically", full)
        answer = anna.put(image, 2, strokes=[stroke((0.3, 0.3))])
        assert answer.status_code == 503  # the page sends it again
        assert "its log says why" in answer.text
    assert anna.ask("GET", f"/drawings/{image}").json()["revision"] == 1
    assert anna.put(image, 2, strokes=[stroke((0.3, 0.3))]).status_code == 200


# --- the command


def reader(target: str, **options: str) -> dict:
    return {"_target_": f"saliency_entropy.data.{target}", "_partial_": True, **options}


@pytest.fixture
def configuration(own_faces: Path, output: Path) -> Callable[..., object]:
    def configured(**values):
        read = reader("manifest.read_manifest", path=str(own_faces / "manifest.csv"))
        # As a group of data has it, of a backbone that annotate does not have.
        data = {"source": read, "image_size": "${backbone.image_size}"}
        plain = {"data": data, "output": str(output), "splits": ["train", "val"], "share": 1.0}
        return OmegaConf.create(plain | {"shuffle": True, "seed": 0, "host": "127.0.0.1", "port": 0} | values)

    return configured


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"seed": -1}, "seed is -1"),
        ({"splits": ["training"]}, r"splits is \['training'\]; give some of train, val, test"),
        ({"splits": "train"}, "splits is 'train'; give some of train, val, test, such as"),
        ({"share": 0}, "share is 0; give a number above 0"),
        ({"share": 0.001}, "leave no image to annotate"),
        ({"output": "/proc/annotations"}, "output=/proc/annotations cannot be written to"),
        ({"output": "/dev/null"}, "output=/dev/null cannot be written to"),
    ],
)
def test_options_that_cannot_be_are_said_in_a_sentence(configuration, values, sentence) -> None:
    with pytest.raises(UserError, match=sentence):
        annotate(configuration(**values))


def test_a_share_is_of_each_split_and_label_and_the_same_each_time(own_faces) -> None:
    manifest = read_manifest(own_faces / "manifest.csv")
    half, again, other = (shown_rows(manifest, ["train", "val"], 0.5, seed) for seed in (0, 0, 1))
    assert half.groupby(["split", "label"]).size().to_dict() == {
        ("train", "real"): 6, ("train", "synthetic"): 5, ("val", "real"): 2, ("val", "synthetic"): 2,
    }  # fmt: skip
    assert list(half["path"]) == list(again["path"]) != list(other["path"])
    assert half.index.is_monotonic_increasing


def test_a_fault_of_the_package_is_in_the_log_with_its_traceback(serve, monkeypatch, caplog) -> None:
    client = serve()
    anna = Browser(client, "anna")
    monkeypatch.setattr(Annotations, "shown", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):  # the test's client raises what the server has logged
        anna.ask("GET", f"/images/{anna.images[0]}")
    assert "in show_image" in caplog.text


def test_a_port_in_use_a_missing_image_and_a_name_with_a_semicolon_are_said(configuration, own_faces) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(UserError, match="cannot be used"):
        annotate(configuration(port=taken.getsockname()[1]))
    with pytest.raises(UserError, match="free of ';'"):
        annotate(configuration(output=str(own_faces / "a;b")))
    (own_faces / "train/2.png").unlink()
    with pytest.raises(UserError, match=r"'train/2\.png', does not exist"):
        annotate(configuration())


def test_a_second_server_on_the_same_folder_is_refused(configuration, output) -> None:
    other = "import sys; from pathlib import Path; from saliency_entropy.run.lock import held\n"
    other += "with held(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    output.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", other, str(output)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as first:
        first.stdout.readline()
        with pytest.raises(UserError, match=rf"is annotated by process {first.pid} on .*give another folder"):
            annotate(configuration())
        first.stdin.close()
    with held(output):
        pass


def test_a_damaged_drawing_is_named_at_the_start(serve, output) -> None:
    (output / "strokes/anna/train").mkdir(parents=True)
    (output / "strokes/anna/train/2.png.json").write_text('{"page": ')
    with pytest.raises(UserError, match=r"2\.png\.json is no drawing .*restore it, or move it away"):
        serve()


def test_a_folder_tree_is_annotated_into_another_folder(tmp_path, configuration) -> None:
    for split in ("train", "val", "test"):
        for label in ("real", "synthetic"):
            (tmp_path / "tree" / split / label).mkdir(parents=True)
            Image.new("RGB", (16, 16)).save(tmp_path / "tree" / split / label / "0.png")
    source = reader("folder_tree.folder_tree", root=str(tmp_path / "tree"))
    with pytest.raises(UserError, match=r"lies in data\.root, whose files are read as images"):
        annotate(configuration(data={"source": source}, output=str(tmp_path / "tree" / "annotations")))
    annotations = Annotations(folder_tree(tmp_path / "tree"), tmp_path / "annotations")
    annotations.read()
    assert len(read_manifest(tmp_path / "annotations/manifest.csv", tmp_path).table) == 6


def test_shards_are_refused(configuration, own_faces, monkeypatch) -> None:
    shards = replace(read_manifest(own_faces / "manifest.csv"), archive=object())
    monkeypatch.setattr("saliency_entropy.annotate.command.instantiate", lambda *_, **__: lambda: shards)
    with pytest.raises(UserError, match="shards cannot be annotated; annotate the files they were written from"):
        annotate(configuration())


def test_the_command_says_where_the_page_is_and_how_to_train(configuration, monkeypatch, caplog, own_faces) -> None:
    served = []
    monkeypatch.setattr("uvicorn.Server.run", lambda self, sockets: served.append(self.config))
    with caplog.at_level(logging.INFO):
        annotate(configuration())
    (config,) = served
    assert dict(config.headers)["Cache-Control"] == "no-store"
    headers = {"Host": "evil.example:8765"}
    assert TestClient(config.app, base_url="http://127.0.0.1:8765").get("/", headers=headers).status_code == 421
    assert "open http://127.0.0.1:" in caplog.text
    manifest = f"data.root={own_faces} data.source.path={own_faces}/annotations/manifest.csv"
    assert (
        f"31 images; train on what is done: python experiments/train.py method=cyborg data=faces {manifest}"
        in caplog.text
    )


def test_without_the_extra_the_command_says_what_to_install(configuration) -> None:
    program = "import sys; sys.modules['starlette.applications'] = None\n"
    program += "from saliency_entropy.annotate.command import annotate\nannotate(None)"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert (
        "annotate needs starlette.applications, which is not installed: pip install 'saliency-entropy[demo]'"
        in ended.stderr
    )
