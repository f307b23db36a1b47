"""The command that serves the page on which people paint human maps."""

import logging
import socket
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pandas as pd
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from saliency_entropy.annotate.annotations import Annotations, image_name
from saliency_entropy.data.table import SPLITS, Manifest, check_files
from saliency_entropy.errors import UserError, whole_number, writing
from saliency_entropy.run.console import typed
from saliency_entropy.run.lock import HeldElsewhere, held, read_owner

log = logging.getLogger(__name__)


def annotate(cfg: DictConfig) -> None:
    """Serve the page until Ctrl-C.

    Raises:
        UserError: an option is out of range, an image file is missing, the output cannot be written to or is used by
            another server, or the address cannot be served on.
    """
    try:
        import uvicorn

        from saliency_entropy.annotate.server import application
    except ModuleNotFoundError as error:
        raise UserError(f"annotate needs {error.name}: pip install 'saliency-entropy[demo]'") from None
    whole_number("port", cfg.port, 0, most=65535)
    whole_number("seed", cfg.seed, 0, most=2**32 - 1)
    manifest: Manifest = instantiate(cfg.data.source, _convert_="all")()
    if manifest.archive:
        raise UserError(
            "shards cannot be annotated: annotate the files that they were written from, and write them anew"
        )
    output = Path(str(cfg.output))
    if not manifest.from_file and output.resolve().is_relative_to(manifest.root.resolve()):
        raise UserError(
            f"output={output} lies in data.root, where its maps would be read as images; give another folder"
        )
    images = shown_images(manifest, OmegaConf.to_object(cfg.splits), cfg.share, cfg.seed)
    check_files(replace(manifest, table=images))
    with writing(f"output={output}", "give another folder with output="):
        output.mkdir(parents=True, exist_ok=True)
    annotations = Annotations(manifest, {image_name(path): path for path in manifest.table["path"]}, output)
    shown = [image_name(path) for path in images["path"]]
    app = application(annotations, shown, cfg.seed if cfg.shuffle else None, str(cfg.host))
    try:
        with held(output), _listening(str(cfg.host), cfg.port) as listener:
            annotations.read()
            address = f"http://{f'[{cfg.host}]' if ':' in str(cfg.host) else cfg.host}:{listener.getsockname()[1]}/"
            log.info("%d images to annotate; open %s in a browser; Ctrl-C ends it", len(shown), address)
            if not _is_local(str(cfg.host)):
                log.warning(
                    "host=%s: whoever reaches this machine can see the images and annotate them, and nothing is "
                    "encrypted", cfg.host,
                )  # fmt: skip
            log.info(
                "then train on it: %s method=cyborg data=faces data.root=%s data.source.path=%s",
                typed("train"), annotations.root, output.resolve() / "manifest.csv",
            )  # fmt: skip
            server = uvicorn.Server(
                uvicorn.Config(app, log_level="warning", lifespan="off", ws="none", timeout_graceful_shutdown=2)
            )
            server.run(sockets=[listener])
    except HeldElsewhere:
        raise UserError(
            f"output={output} is annotated by {read_owner(output)}: open its page, or give another folder with output="
        ) from None


def shown_images(manifest: Manifest, splits: list[str], share: float, seed: int) -> pd.DataFrame:
    """The rows that are to be annotated, in the manifest's order; raises UserError if there are none."""
    if not isinstance(splits, list) or not splits or not {*splits} <= {*SPLITS}:
        raise UserError(f"splits is {splits!r}; give one or more of {', '.join(SPLITS)}: splits=[train,val]")
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
        raise UserError(f"share is {share!r}; give a number above 0, at most 1")
    rows = manifest.table[manifest.table["split"].isin(splits)]
    rows = rows.groupby(["split", "label"]).sample(frac=share, random_state=seed).sort_index()
    if rows.empty:
        raise UserError(f"{manifest.origin}: splits={splits} and share={share} leave no image to annotate")
    return rows


def _listening(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        why = error.strerror or error
        raise UserError(f"host={host} port={port} cannot be served on ({why}); give another port=, or port=0") from None


def _is_local(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
