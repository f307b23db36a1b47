"""A page on which images are tried with trained detectors, made with Gradio (the extra ``demo``)."""

import functools
import os
import tempfile
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from saliency_entropy.data.builtin import builtin_faces
from saliency_entropy.data.images import LARGEST_BYTES
from saliency_entropy.detector import Detector
from saliency_entropy.errors import extra
from saliency_entropy.page.overlay import STRENGTH
from saliency_entropy.run.command import ended_with_a_sentence
from saliency_entropy.run.server import listening, serve
from saliency_entropy.use.hub_card import MISUSE
from saliency_entropy.use.side_by_side import judged, named_detectors

TITLE = "Trying detectors of synthetic faces"
DRAWN = 4  # faces as examples
# Gradio reads these when it is imported: it asks nobody for its newest version, and tells nobody that it is used.
QUIET = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}
FADE = "value => { document.documentElement.style.setProperty('--cam-opacity', value) }"


def try_page(cfg: DictConfig) -> None:
    """Serve the page for ``cfg.checkpoint`` on ``cfg.host`` and ``cfg.port``, until Ctrl-C.

    Images that are dropped lie, until they are judged, in a folder that only this user can read; it is removed at the
    end. Raises UserError if Gradio, a checkpoint, the host or the port cannot be used.
    """
    with ended_with_a_sentence(), tempfile.TemporaryDirectory(prefix="saliency_entropy_") as folder:
        # Not where the drawn faces lie: what is there may be named by a request, which judges and deletes it.
        os.environ |= QUIET | {"GRADIO_TEMP_DIR": f"{folder}/sent"}
        with listening(str(cfg.host), cfg.port) as listener:
            detectors = named_detectors(OmegaConf.to_object(cfg).get("checkpoint"), cfg.device)
            serve(application(detectors, Path(folder)), listener, str(cfg.host))


def application(detectors: Mapping[str, Detector], folder: Path) -> Any:
    """The page as an ASGI application, its drawn faces in ``folder``. Raises UserError without Gradio."""
    with extra("demo", "try"):
        import fastapi
        import gradio

    def judge_dropped(dropped: list[str]) -> tuple[None, str]:
        paths = list(map(Path, dropped))
        try:
            return None, judged(detectors, dict.fromkeys(paths, ""))
        finally:
            for path in paths:
                path.unlink(missing_ok=True)

    drawn = functools.cache(lambda: drawn_faces(folder))
    # What was sent but never judged, since the browser was closed meanwhile, is deleted after ten minutes.
    with gradio.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(60, 600)) as page:
        gradio.Markdown(f"# {TITLE}")
        dropped = gradio.File(label="Images, which are not kept", file_count="multiple", height=150)
        with gradio.Row(equal_height=True):
            button = gradio.Button(f"Judge {DRAWN} drawn faces")
            opacity = gradio.Slider(0, 1, STRENGTH, label="Opacity of the CAM")
        shown = gradio.HTML(judged(detectors, {}))
        gradio.Markdown(f"### What a detector must not be used for\n\n{MISUSE}")
        dropped.upload(judge_dropped, dropped, [dropped, shown], api_visibility="private")
        button.click(lambda: judged(detectors, drawn()), None, shown, api_visibility="private")
        opacity.input(None, opacity, None, js=FADE)
    # Without this, which Gradio sets in its own launch() alone, a request may name any file of this machine as dropped.
    page.has_launched = True
    return gradio.mount_gradio_app(
        fastapi.FastAPI(openapi_url=None), page, "", max_file_size=LARGEST_BYTES, footer_links=[], run_history=False,
        enable_monitoring=False, ssr_mode=False, mcp_server=False, show_error=True,
        theme=gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
        css=files(__package__).joinpath("try_page.css").read_text(),
    )  # fmt: skip


def drawn_faces(folder: Path) -> dict[Path, str]:
    """The files of :data:`DRAWN` faces of the built-in data set, drawn into ``folder``, and what they are."""
    manifest = builtin_faces(folder, seed=0, image_size=128, train=4, val=4, test=12)
    rows = manifest.table[manifest.table["split"] == "test"].head(DRAWN).itertuples()
    return {manifest.file(row.path): f"drawn; its label is {row.label}" for row in rows}
