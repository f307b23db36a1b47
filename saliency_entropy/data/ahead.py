"""Image files of any number, decoded by threads while the network works on those before."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from saliency_entropy.data.images import load_image
from saliency_entropy.errors import UserError
from saliency_entropy.parallel import thread_count

MOST_THREADS = 8  # each may hold a decoded image of 64 megapixels


def loaded_batches(
    paths: Iterable[Path], size: int, interpolation: str, batch_size: int, smallest: int
) -> Iterator[list[tuple[Path, np.ndarray | str]]]:
    """Batches of ``(path, pixels)``, in the order of the paths, with what :func:`~saliency_entropy.data.images.
    load_image` gives, or the reason why it gives nothing. At most three batches are held at a time.

    Args:
        paths: the files.
        size, interpolation: as for ``load_image``.
        batch_size: files in a batch.
        smallest: a file with fewer pixels than this on a side is refused.
    """

    def load(path: Path) -> np.ndarray | str:
        try:
            return load_image(path, size, interpolation, smallest)
        except UserError as error:
            return str(error)

    waiting: deque = deque()
    pool = ThreadPoolExecutor(min(thread_count(), MOST_THREADS))
    try:
        for path in paths:
            waiting.append((path, pool.submit(load, path)))
            if len(waiting) == 2 * batch_size:
                yield [(first, loaded.result()) for first, loaded in (waiting.popleft() for _ in range(batch_size))]
        while waiting:
            count = min(batch_size, len(waiting))
            yield [(first, loaded.result()) for first, loaded in (waiting.popleft() for _ in range(count))]
    finally:
        pool.shutdown(cancel_futures=True)
