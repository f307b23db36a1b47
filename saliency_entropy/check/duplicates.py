"""Images that are in a data set more than once: the same file, the same picture or nearly the same picture.

A test image seen in training measures nothing, and a picture under both labels teaches nothing.

Near-identical pictures are found in two steps. Candidates are the pairs whose 64-bit perceptual hashes differ in at
most 8 bits. They are found without comparing all pairs: of three bands of such hashes, at least one differs in at most
2 bits (multi-index hashing: Norouzi, Punjani, Fleet, "Fast Search in Hamming Space with Multi-Index Hashing", CVPR
2012). Aligned faces look alike, so the hash is not enough: a pair counts only if its 12 x 12 thumbnails correlate, too.

The two thresholds were chosen on 2,568 aligned faces (FFHQ, CelebA and CelebA-HQ, and eleven generators) at 128 and
256 pixels. The recall of altered copies is 1.000 for JPEG of quality 30, for half or twice the size, and for 10 % more
brightness; 0.998 for 1 % cropped from each side, also with more brightness, half the size and quality 30 at once; 0.994
for 20 % more brightness; 0.80 for 2 % cropped from each side; and 0 for mirrored copies. Of the 3.3 million pairs of
different images, 123 have hashes as near, and 7 of these count as near duplicates. All 7 are by StarGANv2, which had
given several faces the hair and background of one reference; among all others the highest correlation is 0.966, among
the photographs 0.825. A set of 700,000 images has 75,000 times as many pairs, so chance likenesses must be expected
there: near means "look at these". Copies of a picture without any detail, such as a gradient, are missed: most bits of
its hash are noise.
"""

import logging
import math
from collections.abc import Iterator
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from saliency_entropy.check.scan import ImageScan
from saliency_entropy.data.human_maps.join import base_name

log = logging.getLogger(__name__)

KINDS = ("same file", "same picture", "near")
BITS = 64
DISTANCE = 8  # bits, the most that two hashes may differ by; above 11, most candidates are pairs of any two faces
CORRELATION = 0.98  # the least between two thumbnails
BRIGHTNESS = 40.0  # levels of 255, the most that the means of two thumbnails may differ by
NOISE = 6.0  # levels that count as no difference, so that two nearly black images correlate
LEADERS = 16  # different pictures of one hash that are told apart; hardly two aligned faces share a hash
# Every third bit, so that no band has the lowest frequencies, which aligned faces share, to itself.
BANDS = [range(start, BITS, 3) for start in range(3)]
RADIUS = DISTANCE // len(BANDS)  # bits; two hashes within the distance differ by no more in at least one band
PAIRS = 2**21  # pairs of hashes compared at a time: some 100 MB
COMPARED = 2**14  # pairs of thumbnails compared at a time


def find_duplicates(table: pd.DataFrame, scan: ImageScan) -> pd.DataFrame:
    """Groups of images of a table that show the same picture, or nearly so; those with a problem are left out.

    Returns:
        One row for each image that has a duplicate, sorted by group and row:

        - ``group``: 0, 1, ... in the order of the first rows. If A is near B and B near C, all three are a group;
        - ``row``: the row of the manifest;
        - ``kind``: what the image has in common with the first of its group: ``same file`` (bytes), ``same picture``
          (pixels, in another file) or ``near``. For the first itself, what it has in common with the closest other;
        - ``distance``: bits in which the perceptual hash differs from that of the first of the group;
        - ``file``, ``picture``: the first row with the same bytes, and the first with the same pixels.
    """
    facts = scan.facts.loc[table.index, ["problem", "content", "pixels", "phash"]]
    facts = facts[facts["problem"] == ""]
    facts = facts.assign(file=_first_index(facts["content"]), picture=_first_index(facts["pixels"]))

    pictures = np.unique(facts["picture"])
    at = scan.facts.index.get_indexer(pictures)
    near = _near_groups(facts["phash"].loc[pictures].to_numpy(), scan.thumbnails, at)
    group = pd.Series(near, pictures).loc[facts["picture"]].to_numpy()
    facts = facts.assign(group=group)[pd.Series(group).duplicated(keep=False).to_numpy()].sort_index()

    facts["group"] = pd.factorize(facts["group"])[0]
    found = facts.rename_axis("row").reset_index().sort_values(["group", "row"], ignore_index=True)
    first = found.groupby("group")[["file", "picture", "phash"]].transform("first")
    closeness = np.where(found["file"] == first["file"], 0, np.where(found["picture"] == first["picture"], 1, 2))
    is_first = ~found["group"].duplicated().to_numpy()
    others = pd.Series(np.where(is_first, len(KINDS), closeness)).groupby(found["group"]).transform("min")
    found["kind"] = np.array(KINDS)[np.where(is_first, others, closeness)]
    found["distance"] = np.bitwise_count(found["phash"] ^ first["phash"]).astype(np.int64)
    return found[["group", "row", "kind", "distance", "file", "picture"]]


def crossing_groups(table: pd.DataFrame, duplicates: pd.DataFrame) -> pd.DataFrame:
    """The groups of :func:`find_duplicates` with images of several splits, or of both labels.

    Returns:
        One row a group:

        - ``group``: its number in ``duplicates``;
        - ``kind``: the closest likeness between images of different splits or labels;
        - ``splits``, ``labels``: in alphabetical order, joined by "+", such as ``test+train``;
        - ``rows``: the list of the group's rows.
    """
    images = duplicates.join(table[["split", "label"]], on="row")
    images["kind"] = len(KINDS)
    # From the loosest kind to the closest, so that the closest remains.
    for closeness, column in reversed(list(enumerate(("file", "picture", "group")))):
        groups = images.groupby(column)
        crosses = (groups["split"].transform("nunique") > 1) | (groups["label"].transform("nunique") > 1)
        images.loc[crosses, "kind"] = closeness
    groups = images.groupby("group")
    found = groups.agg(
        kind=("kind", "min"), splits=("split", _joined), labels=("label", _joined), rows=("row", list)
    ).reset_index()
    found = found[found["kind"] < len(KINDS)].reset_index(drop=True)
    return found.assign(kind=found["kind"].map(dict(enumerate(KINDS))))


def shared_base_names(table: pd.DataFrame, split: str | None = None) -> pd.DataFrame:
    """Base names, without suffix, that several images share, so that no map can be joined to these images by name;
    in all splits, if ``split`` is not given.

    Returns:
        One row a name, in alphabetical order: ``name``; ``rows``, the list of its rows in the manifest.
    """
    paths = table["path"] if split is None else table["path"][table["split"] == split]
    names = paths.map(base_name)
    shared = names[names.duplicated(keep=False)]
    rows = shared.index.to_series().groupby(shared.to_numpy()).agg(list)
    return pd.DataFrame({"name": rows.index, "rows": rows.to_numpy()})


def _first_index(values: pd.Series) -> np.ndarray:
    """For each value, the index of its first occurrence."""
    return values.index.to_series().groupby(values.to_numpy()).transform("first").to_numpy()


def _joined(words: pd.Series) -> str:
    return "+".join(sorted(set(words)))


def _near_groups(hashes: np.ndarray, thumbnails: np.ndarray, at: np.ndarray) -> np.ndarray:
    """A number for each of n pictures, ``(n,)``; pictures that are near each other share it. Their hashes are
    ``(n,)`` uint64; ``at``, ``(n,)``, are their positions among the thumbnails of all images."""
    likeness = _Likeness(thumbnails, at)
    leaders, edges = _leaders(hashes, likeness)
    for first, second in _near_hashes(hashes[leaders]):
        pairs = leaders[first], leaders[second]
        alike = likeness(*pairs)
        edges.append((pairs[0][alike], pairs[1][alike]))
    first, second = (np.concatenate(ends) for ends in zip(*edges, strict=True))
    graph = coo_array((np.ones(len(first), bool), (first, second)), shape=(len(hashes), len(hashes)))
    return connected_components(graph, directed=False)[1]


def _leaders(hashes: np.ndarray, likeness: "_Likeness") -> tuple[np.ndarray, list[tuple[np.ndarray, np.ndarray]]]:
    """Pictures that each stand for those of the same hash that look like them, and the (leader, other) pairs.

    100,000 black images share a hash; comparing all of them would be 5,000,000,000 pairs.
    """
    order = np.argsort(hashes, kind="stable")
    leaders, edges = [], [(order[:0], order[:0])]
    for _ in range(LEADERS):
        opens = np.flatnonzero(np.diff(hashes[order], prepend=~hashes[order[:1]]))
        leaders.append(order[opens])
        leader = np.repeat(order[opens], np.diff(opens, append=len(order)))
        alike = likeness(leader, order)
        edges.append((leader[alike], order[alike]))
        alike[opens] = True  # a leader needs no further leader
        order = order[~alike]
    if len(order):
        log.warning(
            "near duplicates: %d images share a perceptual hash with more than %d different pictures each, and were "
            "compared with only %d of these",
            len(order),
            LEADERS,
            LEADERS,
        )
    return np.sort(np.concatenate(leaders)), edges


def _near_hashes(hashes: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All pairs of hashes that differ in :data:`DISTANCE` bits at most, each once, as arrays of their positions."""
    earlier: list[int] = []  # masks of the bands already searched
    for band in BANDS:
        keys = sum((hashes >> bit & 1) << place for place, bit in enumerate(band)).astype(np.int64)
        order = np.argsort(keys)
        ordered = hashes[order]
        for first, second in _near_keys(keys[order], len(band)):
            differing = ordered[first] ^ ordered[second]
            near = np.bitwise_count(differing) <= DISTANCE
            first, second, differing = first[near], second[near], differing[near]
            new = np.ones(len(first), bool)
            for mask in earlier:
                new &= np.bitwise_count(differing & mask) > RADIUS
            yield order[first[new]], order[second[new]]
        earlier.append(sum(1 << bit for bit in band))


def _near_keys(keys: np.ndarray, bits: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All pairs of sorted keys of so many bits that differ in :data:`RADIUS` bits at most, each once, as positions."""
    begins = np.cumsum(np.bincount(keys + 1, minlength=2**bits + 1))  # the position where each key begins
    for count in range(RADIUS + 1):
        for flipped in combinations(range(bits), count):
            flip = sum(1 << bit for bit in flipped)
            places = np.flatnonzero(keys <= (keys ^ flip))  # so that each pair is found from one side only
            partners = keys[places] ^ flip
            low = np.maximum(begins[partners], places + 1)
            high = begins[partners + 1]
            some = low < high
            yield from _pairs(places[some], low[some], high[some])


def _pairs(places: np.ndarray, low: np.ndarray, high: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Each place with each from its ``low`` to before its ``high``, as arrays of about :data:`PAIRS` elements."""
    counts = high - low
    ends = np.cumsum(counts)
    start = 0
    while start < len(places):
        done = ends[start] - counts[start]
        stop = max(start + 1, int(np.searchsorted(ends, done + PAIRS, side="right")))
        count = counts[start:stop]
        offsets = low[start:stop] - (ends[start:stop] - count - done)
        yield np.repeat(places[start:stop], count), np.arange(count.sum()) + np.repeat(offsets, count)
        start = stop


class _Likeness:
    """Whether pictures look alike on their thumbnails; see :func:`_near_groups` for the arguments."""

    def __init__(self, thumbnails: np.ndarray, at: np.ndarray) -> None:
        self.values = thumbnails.reshape(len(thumbnails), math.prod(thumbnails.shape[1:]))
        self.at = at
        self.mean = np.zeros(len(at), np.float32)
        self.spread = np.zeros(len(at), np.float32)
        for start in range(0, len(at), COMPARED):
            part = slice(start, start + COMPARED)
            values = self.values[at[part]].astype(np.float32)
            self.mean[part] = values.mean(axis=1)
            self.spread[part] = np.sqrt(values.var(axis=1) + NOISE**2)

    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """``(m,)`` bool, for the pictures ``first`` and ``second``, ``(m,)`` each."""
        alike = np.abs(self.mean[first] - self.mean[second]) <= BRIGHTNESS
        possible = np.flatnonzero(alike)
        for start in range(0, len(possible), COMPARED):
            part = possible[start : start + COMPARED]
            a, b = first[part], second[part]
            values = [self.values[self.at[one]].astype(np.float32) - self.mean[one, None] for one in (a, b)]
            covariance = np.einsum("ij,ij->i", *values) / self.values.shape[1] + NOISE**2
            alike[part] = covariance >= CORRELATION * self.spread[a] * self.spread[b]
        return alike
