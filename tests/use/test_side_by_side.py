"""What stands behind the page to try detectors; tests/browser opens the page itself."""

import ast
import base64
import io
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from saliency_entropy.data.table import LABELS
from saliency_entropy.detector import Detector
from saliency_entropy.errors import UserError
from saliency_entropy.page.overlay import cam_overlay
from saliency_entropy.run.checkpoint import best_checkpoint
from saliency_entropy.run.model_file import ModelCard
from saliency_entropy.scores.ensemble import Ensemble
from saliency_entropy.use.side_by_side import MOST_IMAGES, judged, named_detectors
from saliency_entropy.use.try_page import DRAWN, application, drawn_faces

PACKAGE = Path(__file__).parents[2] / "saliency_entropy"
OF_THE_EXTRA = {"gradio", "fastapi", "starlette", "uvicorn"}


@pytest.fixture(scope="module")
def study(train_small, tmp_path_factory) -> Path:
    """A method with two seeds, and one with one."""
    study = tmp_path_factory.mktemp("runs") / "study"
    run = train_small(study / "droid" / "seed0", "method=droid")
    shutil.copytree(run, study / "droid" / "seed1")
    shutil.copytree(run, study / "cyborg" / "seed0")
    (study / "README.md").write_text("no detector")
    (study / "report").mkdir()
    return study


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> list[Path]:
    return list(drawn_faces(tmp_path_factory.mktemp("drawn")))


def test_each_of_a_list_or_pattern_is_a_detector_and_a_method_the_mean_of_its_seeds(study: Path) -> None:
    best = best_checkpoint(study / "droid" / "seed1")
    kinds = {name: type(one) for name, one in named_detectors([str(study / "*"), str(best)], "cpu").items()}
    assert kinds == {
        f"DROID: {study}/cyborg": Detector,
        f"DROID, mean of 2: {study}/droid": Ensemble,
        f"DROID: {study}/droid/seed1": Detector,
    }
    with pytest.raises(UserError, match="nowhere"):
        named_detectors("nowhere", "cpu")


def test_each_cell_says_what_its_detector_says(study: Path, images: list[Path]) -> None:
    detectors = named_detectors([str(study / "droid"), str(study / "cyborg")], "cpu")
    mean, alone = detectors.values()
    for member in mean.members:
        member.card = ModelCard(threshold=0.1, temperature=2.0)
    alone.card = ModelCard(run={"data": "decoy"})
    page = judged(detectors, {images[0]: "drawn"})
    uris = re.findall(r'<img (?:class="cam" )?src="data:image/png;base64,([^"]+)"', page)
    pictures = [np.asarray(Image.open(io.BytesIO(base64.b64decode(uri)))) for uri in uris]
    assert len(pictures) == 4
    for place, detector in enumerate(detectors.values()):
        ((_, pixels, detection),) = detector.judge([images[0]])
        np.testing.assert_array_equal(pictures[2 * place], pixels)
        np.testing.assert_array_equal(pictures[2 * place + 1], cam_overlay(pixels, detection.cam, strength=1))
        assert f"<dd>{detection.cam_entropy:.2f} nats</dd>" in page
    # The seeds are copies, and so is the detector that stands alone: one score.
    assert f"<dd>{detection.probability_synthetic:.4f} ± 0.0000</dd>" in page
    assert f"<dd>{detection.probability_synthetic:.4f}</dd>" in page
    difference = detection.logit_synthetic - detection.logit_real
    assert f"<dd>{1 / (1 + np.exp(-difference / 2)):.4f}</dd>" in page
    decision = "synthetic" if difference >= 0.1 else "real"
    assert page.count(f'<p class="verdict {decision}">{decision}</p>') == 1
    # sigmoid(0.1 / 2) = 0.5125
    assert "decision: synthetic where calibrated_probability is 0.5125 or more, the mean of their own" in page
    assert "<dd>–</dd>" in page
    assert f'<p class="verdict">{detection.verdict} by the larger logit; no decision</p>' in page
    problem = "no decision: the checkpoint has no threshold, since it comes without validation scores"
    assert page.count(f"{problem}; the verdict is the larger logit&#39;s; trained on faces drawn by a program") == 1
    assert f"<dd>{np.exp(detection.cam_entropy):.1f} of {detection.cam.size} cells</dd>" in page
    assert page.count("covers exp(H) cells evenly, its focus area") == 1


def test_a_file_that_is_refused_has_its_sentence_once_and_keeps_none_from_being_judged(
    study: Path, images: list[Path], tmp_path: Path
) -> None:
    name = "<img src=x onerror=alert(1)>.png"
    (tmp_path / name).write_text("no image")
    page = judged(named_detectors([str(study / "*")], "cpu"), {tmp_path / name: "", images[0]: ""})
    assert page.count("&lt;img src=x onerror=alert(1)&gt;.png is not an image in a known format") == 1
    assert "<img src=x" not in page
    assert str(tmp_path) not in page
    assert page.count("<figure>") == 2


def test_more_images_than_a_page_holds_are_counted(study: Path, images: list[Path], tmp_path: Path) -> None:
    many = {Path(shutil.copy(images[0], tmp_path / f"{number}.jpg")): "" for number in range(MOST_IMAGES + 3)}
    page = judged(named_detectors(str(study / "cyborg"), "cpu"), many)
    assert page.count("<figure>") == MOST_IMAGES
    assert f"3 more were left out: the page judges {MOST_IMAGES} images at a time" in page


def test_faces_of_both_kinds_are_drawn(tmp_path: Path) -> None:
    faces = drawn_faces(tmp_path)
    assert all(path.is_file() for path in faces)
    assert len(faces) == DRAWN
    assert set(faces.values()) == {f"drawn; its label is {label}" for label in LABELS}


def test_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(UserError, match=r"^try needs gradio, .* pip install 'saliency-entropy\[demo\]'$"):
        application({}, tmp_path)


def test_a_request_names_no_file_that_was_not_sent(
    study: Path, images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gradio", reason="the extra demo is not installed")
    from starlette.testclient import TestClient

    (own := tmp_path / "own").mkdir()
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(own))  # within the folder of the drawn faces, as the command has it
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
    private = Path(shutil.copy(images[0], tmp_path / "private.jpg"))
    with TestClient(application(named_detectors(str(study / "cyborg"), "cpu"), tmp_path)) as client:
        (sent,) = client.post("/gradio_api/upload", files={"files": ("sent.jpg", private.read_bytes())}).json()
        event = client.get("/config").json()["dependencies"][0]["id"]
        answers = []
        for path in (sent, str(private)):
            file = {"path": path, "meta": {"_type": "gradio.FileData"}}
            asked = {"data": [[file]], "fn_index": event, "session_hash": Path(path).stem}
            client.post("/gradio_api/queue/join", json=asked)
            answers.append(client.get(f"/gradio_api/queue/data?session_hash={Path(path).stem}").text)
    assert "<figure>" in answers[0]
    assert "private.jpg to the gradio cache dir because it was not uploaded by a user" in answers[1]
    assert "<figure>" not in answers[1]
    assert private.exists()
    assert list(own.rglob("*.jpg")) == []  # what was sent is deleted


def test_no_other_command_waits_for_the_extra() -> None:
    """What imports it at once is itself imported only by the function that needs it."""
    at_once, of_the_extra = {}, {PACKAGE / "annotate" / "server.py"}
    for path in PACKAGE.rglob("*.py"):
        nodes = ast.parse(path.read_text()).body
        names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        at_once[path] = names | {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    waiting = {path for path, names in at_once.items() if {name.partition(".")[0] for name in names} & OF_THE_EXTRA}
    assert waiting == of_the_extra
    assert "saliency_entropy.annotate.server" not in set().union(*at_once.values())
