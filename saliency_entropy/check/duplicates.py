"""Images that are in a data set more than once, as the same file, the same picture or nearly the same picture.

A picture that was trained on tells nothing when it is tested on, and one under both labels teaches nothing.

Near-identical pictures are found in two steps. Candidates are the pairs whose 64-bit perceptual hashes differ in at
most 8 bits, found without comparing all pairs: cut into three bands, two such hashes differ in at most 2 bits of one
of them (multi-index hashing: Norouzi, Punjani, Fleet, "Fast Search in Hamming Space with Multi-Index Hashing", CVPR
2012). Aligned faces look alike, so the hash is not enough: a pair counts if the 12 x 12 thumbnails correlate, too.

The two thresholds were chosen on 2,568 aligned faces (FFHQ, CelebA and CelebA-HQ, and eleven generators) at 128 and
256 pixels. Recall of a copy of each: JPEG of quality 30, half or twice the size, and 10 % brighter, 1.000 each; 1 %
cropped from each side, 0.998; cropped so, brighter, halved and of quality 30 at once, 0.998. Beyond that: 20 % brighter
0.994; 2 % cropped from each side, 0.80; mirrored, 0. Of the 3.3 million pairs of different images, 123 have hashes as
near; 7 of these count as near, all of them by StarGANv2, which had given several faces the hair and background of one
reference; among all others the highest correlation is 0.966, among the photographs 0.825. A set of 700,000 images has
75,000 times as many pairs, so that chance likenesses must be expected there: near means "look at these". Copies of a
picture without any detail, such as a gradient, are missed: most bits of its hash are noise.
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
from saliency_entropy.data.maps.join import base_name

log = logging.getLogger(__name__)

KINDS = ("same file", "same picture", "near")
BITS = 64
DISTANCE = 8  # of the hashes, in bits; above 11, most candidates are pairs of any two faces
CORRELATION = 0.98  # of the thumbnails
BRIGHTNESS = 40.0  # levels of 255 that the means of the thumbnails may differ by
NOISE = 6.0  # levels that count as no difference, so that two nearly black images correlate
LEADERS = 16  # different pictures of one hash that are told apart; of aligned faces hardly two share one
# Every third bit, so that no band has the lowest frequencies, which aligned faces share, to itself: 21, 21 and 22 bits.
BANDS = tuple(np.arange(start, BITS, 3) for start in (2, 1, 0))
RADIUS = DISTANCE // len(BANDS)  # in bits: of some band; two hashes that differ in more of each differ in more in all
PAIRS = 2**21  # looked at at a time: some 100 MB
COMPARED = 2**14  # pairs of thumbnails at a time


def find_duplicates(table: pd.DataFrame, scan: ImageScan) -> pd.DataFrame:
    """Groups of images that show the same picture, or nearly so.

    Args:
        table: the manifest's.
        scan: of all its images; those with a problem are left out.

    Returns:
        One row an image that has a duplicate, sorted by group and row:

        - ``group``: 0, 1, ... in the order of their first rows. If A is near B and B near C, all three are a group;
        - ``row``: of the manifest;
        - ``kind``: what it has in common with the first of its group: ``same file`` (bytes), ``same picture`` (pixels,
          in another file) or ``near``. For the first itself, what it has in common with the closest other;
        - ``distance``: of the perceptual hash to that of the first of the group, in bits;
        - ``file``, ``picture``: the first row with the same bytes, and that with the same pixels.
    """
    facts = scan.facts.loc[table.index, ["problem", "content", "pixels", "phash"]]
    facts = facts[facts["problem"] == ""]
    facts = facts.assign(file=_first(facts["content"]), picture=_first(facts["pixels"]))

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


def across(table: pd.DataFrame, duplicates: pd.DataFrame) -> pd.DataFrame:
    """The groups of duplicates with images of several splits, or of both labels.

    Args:
        table: the manifest's.
        duplicates: of :func:`find_duplicates`.

    Returns:
        One row a group:

        - ``group``: of ``duplicates``;
        - ``kind``: the closest that images of different splits or labels have in common;
        - ``splits``, ``labels``: in alphabetical order, joined by "+", such as ``test+train``;
        - ``rows``: the list of the group's rows.
    """
    of = duplicates.join(table[["split", "label"]], on="row")
    kind = pd.Series(len(KINDS), of.index)
    # From the loosest kind to the closest, which is what remains.
    for closeness, column in reversed(list(enumerate(("file", "picture", "group")))):
        groups = of.groupby(column)
        crosses = (groups["split"].transform("nunique") > 1) | (groups["label"].transform("nunique") > 1)
        kind = kind.mask(crosses, closeness)
    of = of.assign(kind=kind)[kind.groupby(of["group"]).transform("min") < len(KINDS)]
    groups = of.groupby("group")
    found = pd.DataFrame(
        {
            "kind": groups["kind"].min().map(dict(enumerate(KINDS))),
            "splits": groups["split"].agg(_joined),
            "labels": groups["label"].agg(_joined),
            "rows": groups["row"].agg(list),
        }
    )
    return found.reset_index()


def shared_base_names(table: pd.DataFrame, split: str | None = None) -> pd.DataFrame:
    """Base names, without suffix, that several images share: no map can be joined to them by it.

    Args:
        table: the manifest's.
        split: that maps are joined to; all, if not given.

    Returns:
        One row a name, in alphabetical order: ``name``; ``rows``, the list of rows of the manifest.
    """
    paths = table["path"] if split is None else table["path"][table["split"] == split]
    names = paths.map(base_name)
    shared = names[names.duplicated(keep=False)]
    rows = shared.index.to_series().groupby(shared.to_numpy()).agg(list)
    return pd.DataFrame({"name": rows.index, "rows": rows.to_numpy()})


def _first(values: pd.Series) -> np.ndarray:
    """For each value, the first index that has it."""
    codes, _ = pd.factorize(values)
    index = values.index.to_numpy()
    firsts = ~pd.Series(codes).duplicated().to_numpy()
    return index[firsts][codes]


def _joined(words: pd.Series) -> str:
    return "+".join(sorted(set(words)))


def _near_groups(hashes: np.ndarray, thumbnails: np.ndarray, at: np.ndarray) -> np.ndarray:
    """A number for every picture, the same for all that are near.

    Args:
        hashes: ``(n,)`` uint64.
        thumbnails: of all images.
        at: ``(n,)``, where in ``thumbnails`` a picture's is.
    """
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
    """The pictures that stand for all of the same hash that look like them, and the (leader, other) pairs.

    100,000 black images share a hash, which would be 5,000,000,000 pairs.
    """
    order = np.argsort(hashes, kind="stable")
    leaders, edges = [], [(order[:0], order[:0])]
    for _ in range(LEADERS):
        opens = np.flatnonzero(np.diff(hashes[order], prepend=~hashes[order[:1]]))
        leaders.append(order[opens])
        leader = np.repeat(order[opens], np.diff(opens, append=len(order)))
        alike = likeness(leader, order)
        edges.append((leader[alike], order[alike]))
        alike[opens] = True  # a leader is done with, whatever it is like
        order = order[~alike]
    if len(order):
        log.warning(
            "near duplicates: %d images share a perceptual hash with more than %d different pictures each, and were "
            "compared with %d of these only",
            len(order),
            LEADERS,
            LEADERS,
        )
    return np.sort(np.concatenate(leaders)), edges


def _near_hashes(hashes: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All pairs of hashes, as positions, that differ in :data:`DISTANCE` bits at most, each once, some at a time."""
    before: list[np.uint64] = []
    for band in BANDS:
        for first, second in _alike_in_band(hashes, band):
            differing = hashes[first] ^ hashes[second]
            near = np.bitwise_count(differing) <= DISTANCE
            first, second, differing = first[near], second[near], differing[near]
            new = np.ones(len(first), bool)
            for mask in before:
                new &= np.bitwise_count(differing & mask) > RADIUS
            yield first[new], second[new]
        before.append(np.bitwise_or.reduce(np.uint64(1) << band.astype(np.uint64)))


def _alike_in_band(hashes: np.ndarray, band: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All pairs of hashes that differ in at most :data:`RADIUS` bits of a band, each once, some at a time."""
    keys = np.zeros(len(hashes), np.int32)
    for to, bit in enumerate(band):
        keys |= ((hashes >> np.uint64(bit)) & np.uint64(1)).astype(np.int32) << to
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    # Where in the order the hashes of every key begin.
    begins = np.concatenate([[0], np.cumsum(np.bincount(keys, minlength=2 ** len(band)))]).astype(np.int32)
    places = np.arange(len(hashes), dtype=np.int32)
    for flips in range(RADIUS + 1):
        for bits in combinations(range(len(band)), flips):
            if flips:
                places = np.flatnonzero(keys & (1 << bits[-1]) == 0)  # of each pair the one with the smaller key
                partners = keys[places] ^ sum(1 << bit for bit in bits)
                low, high = begins[partners], begins[partners + 1]
            else:
                low, high = places + 1, begins[keys + 1]
            some = high > low
            for first, second in _spread(places[some], low[some], high[some]):
                yield order[first], order[second]


def _spread(places: np.ndarray, low: np.ndarray, high: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Every place with each of its partners ``low`` to ``high``, about :data:`PAIRS` at a time."""
    counts = (high - low).astype(np.int64)
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
    """Whether pictures look alike on their thumbnails.

    Args:
        thumbnails: of all images.
        at: ``(n,)``, where in ``thumbnails`` a picture's is.
    """

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
            values = [self.values[self.at[of]].astype(np.float32) - self.mean[of, None] for of in (a, b)]
            covariance = np.einsum("ij,ij->i", *values) / self.values.shape[1] + NOISE**2
            alike[part] = covariance >= CORRELATION * self.spread[a] * self.spread[b]
        return alike
