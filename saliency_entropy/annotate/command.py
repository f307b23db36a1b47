"""The command that serves the page on which people paint human maps."""

import logging
import socket
from dataclasses import replace
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
        UserError: an option is out of range, an image is missing, the output cannot be written to or is in use by
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
    output, host = Path(str(cfg.output)), str(cfg.host)
    if manifest.archive:
        raise UserError("shards cannot be annotated; annotate the files they were written from, and write them anew")
    if not manifest.from_file and output.resolve().is_relative_to(manifest.root.resolve()):
        raise UserError(f"output={output} lies in data.root, whose files are read as images; give a folder elsewhere")
    rows = shown_rows(manifest, OmegaConf.to_object(cfg.splits), cfg.share, cfg.seed)
    check_files(replace(manifest, table=rows))
    with writing(f"output={output}", "give another folder with output="):
        output.mkdir(parents=True, exist_ok=True)
    annotations = Annotations(manifest, output)
    images = [image_name(path) for path in rows["path"]]
    app = application(annotations, images, cfg.seed if cfg.shuffle else None, host)
    try:
        with held(output), _listening(host, cfg.port) as listener:
            annotations.read()
            address = f"[{host}]" if ":" in host else host
            log.info("%d images; open http://%s:%d/ in a browser", len(images), address, listener.getsockname()[1])
            if host not in ("localhost", "::1") and not host.startswith("127."):
                log.warning("host=%s: whoever reaches this machine can see the images, and nothing is encrypted", host)
            log.info(
                "then train on them: %s method=cyborg data=faces data.root=%s data.source.path=%s",
                typed("train"), annotations.root, output.resolve() / "manifest.csv",
            )  # fmt: skip
            config = uvicorn.Config(app, log_level="warning", lifespan="off", ws="none", timeout_graceful_shutdown=2)
            uvicorn.Server(config).run(sockets=[listener])
    except HeldElsewhere:
        raise UserError(
            f"output={output} is annotated by {read_owner(output)}: open its page, or give another folder with output="
        ) from None


def shown_rows(manifest: Manifest, splits: list[str], share: float, seed: int) -> pd.DataFrame:
    """The rows to be annotated, in the manifest's order; raises UserError if there are none."""
    if not isinstance(splits, list) or not splits or not {*splits} <= {*SPLITS}:
        raise UserError(f"splits is {splits!r}; give some of {', '.join(SPLITS)}, such as splits=[train,val]")
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
        raise UserError(f"host={host} port={port} cannot be served on ({why}); give another, or port=0") from None
