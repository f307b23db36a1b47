"""Image files of any number, decoded by threads while the network works on those before."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np

from saliency_entropy.cpu.cores import thread_count
from saliency_entropy.data.images import load_image
from saliency_entropy.errors import UserError

MOST_THREADS = 8  # each may hold a decoded image of 64 megapixels


def loaded_batches(
    paths: Iterable[Path], batch_size: int, *how: int | str
) -> Iterator[list[tuple[Path, np.ndarray | str]]]:
    """Batches of ``(path, pixels)`` in the order of the paths, by :func:`~saliency_entropy.data.images.load_image`,
    whose further arguments are ``how``; with the reason instead of the pixels where it refuses a file. At most two
    batches are held beside the one that was given."""

    def load(path: Path) -> np.ndarray | str:
        try:
            return load_image(path, *how)
        except UserError as error:
            return str(error)

    paths, ahead = iter(paths), []
    with ThreadPoolExecutor(min(thread_count(), MOST_THREADS)) as pool:
        while (batch := list(islice(paths, batch_size))) or ahead:
            loading = [(batch, pool.map(load, batch))] if batch else []  # begins at once
            for first, loaded in ahead:
                yield list(zip(first, loaded, strict=True))
            ahead = loading
