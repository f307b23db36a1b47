"""The command that serves the page on which people paint human maps."""

import logging
import tempfile
from dataclasses import replace
from pathlib import Path

import pandas as pd
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from saliency_entropy.annotate.annotations import Annotations
from saliency_entropy.data.listed_files import check_files
from saliency_entropy.data.table import SPLITS, Manifest
from saliency_entropy.errors import UserError, extra, whole_number, writing
from saliency_entropy.run.command import ended_with_a_sentence
from saliency_entropy.run.console import typed
from saliency_entropy.run.lock import HeldElsewhere, held, read_owner
from saliency_entropy.run.server import listening, serve

log = logging.getLogger(__name__)


def annotate(cfg: DictConfig) -> None:
    """Serve the page until Ctrl-C.

    Raises:
        UserError: an option is out of range, an image is missing, the output cannot be written to or is in use by
            another server, or the address cannot be served on.
    """
    with extra("demo", "annotate"):
        from saliency_entropy.annotate.server import application
    whole_number("seed", cfg.seed, 0, most=2**32 - 1)
    manifest: Manifest = instantiate(cfg.data.source, _convert_="all")()
    output = Path(str(cfg.output))
    if manifest.archive:
        raise UserError("shards cannot be annotated; annotate the files they were written from, and write them anew")
    if not manifest.from_file and output.resolve().is_relative_to(manifest.root.resolve()):
        raise UserError(f"output={output} lies in data.root, whose files are read as images; give a folder elsewhere")
    rows = shown_rows(manifest, OmegaConf.to_container(cfg)["splits"], cfg.share, cfg.seed)
    check_files(replace(manifest, table=rows))
    with writing(f"output={output}", "give another folder with output="):
        output.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=output).close()
    annotations = Annotations(manifest, output)
    images = [annotations.images[path] for path in rows["path"]]
    app = application(annotations, images, cfg.seed if cfg.shuffle else None)
    try:
        with ended_with_a_sentence(), held(output), listening(str(cfg.host), cfg.port) as listener:
            annotations.read()
            log.info(
                "%d images; train on what is done: %s method=cyborg data=faces data.root=%s data.source.path=%s",
                len(images), typed("train"), annotations.root, output.resolve() / "manifest.csv",
            )  # fmt: skip
            serve(app, listener, str(cfg.host))
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
