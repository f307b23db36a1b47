"""Several processes have what one has: every image once, in the same batches."""

import itertools

import pytest
from torch.utils.data import BatchSampler
from torch.utils.data.distributed import DistributedSampler

from saliency_entropy.data.shared_batches import DealtBatches, SplitBatches
from saliency_entropy.errors import UserError


@pytest.mark.parametrize("processes", [1, 2, 3, 4])
def test_training_batches_are_split(processes: int) -> None:
    order = list(range(100, 123))
    shares = [list(SplitBatches(order, 10, False, rank, processes)) for rank in range(processes)]
    batches = list(BatchSampler(order, 10, drop_last=False))
    if processes == 4:  # three images are left for the last batch
        batches = batches[:2]
    assert [sorted(itertools.chain(*parts)) for parts in zip(*shares, strict=True)] == batches
    assert all(abs(len(a) - len(b)) <= 1 for parts in zip(*shares, strict=True) for a, b in itertools.pairwise(parts))
    for rank, share in enumerate(shares):
        assert len(SplitBatches(order, 10, False, rank, processes)) == len(share)
        assert len(SplitBatches(order, 10, True, rank, processes)) == 2
        assert SplitBatches(order, 10, False, rank, processes).left_out == (3 if processes == 4 else 0)
        assert SplitBatches(order, 10, True, rank, processes).left_out == 0
        assert list(SplitBatches(order, 10, True, rank, processes)) == share[:2]


def test_one_process_has_the_batches_of_a_plain_loader() -> None:
    assert list(SplitBatches(range(7), 3, False, 0, 1)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(DealtBatches(7, 3, 0, 1)) == [[0, 1, 2], [3, 4, 5], [6]]


def test_the_epoch_reaches_the_order() -> None:
    order = DistributedSampler(range(12), num_replicas=1, rank=0, shuffle=True)
    batches = SplitBatches(order, 4, False, 0, 2)
    first = list(batches)
    batches.sampler.set_epoch(1)
    assert list(batches) != first


@pytest.mark.parametrize(("images", "processes"), [(25, 1), (25, 2), (25, 3), (31, 3)])
def test_whole_batches_are_dealt(images: int, processes: int) -> None:
    dealt = [list(DealtBatches(images, 10, rank, processes)) for rank in range(processes)]
    batches = list(BatchSampler(range(images), 10, drop_last=False))
    assert sorted(itertools.chain(*dealt)) == batches
    assert [len(DealtBatches(images, 10, rank, processes)) for rank in range(processes)] == [len(own) for own in dealt]
    assert all(dealt)


def test_too_few_images_for_so_many_processes() -> None:
    with pytest.raises(UserError, match="a batch of 3 images cannot be shared by 4 devices"):
        SplitBatches(range(100), 3, False, 0, 4)
    with pytest.raises(UserError, match="20 validation or test images are too few for 3 devices with batches of 10"):
        DealtBatches(20, 10, 0, 3)
