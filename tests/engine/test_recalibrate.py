"""BatchNorm statistics after recalibration, against a plain float64 average."""

import threading

import pytest
import torch
from torch import nn

from resnets.engine.distributed import Distributed
from resnets.engine.recalibrate import recalibrate_batch_norm
from resnets.specs.errors import DataError

CPU = torch.device("cpu")
ALONE = Distributed(device=CPU)


def small_net():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1), nn.BatchNorm2d(2))
    return model.train()


def assert_average_of_the_first_layer(model, batches):
    outputs = [model[0](batch).double() for batch in batches]
    means = torch.stack([output.mean((0, 2, 3)) for output in outputs]).mean(0)
    variances = torch.stack([output.transpose(0, 1).flatten(1).var(1) for output in outputs]).mean(0)
    torch.testing.assert_close(model[1].running_mean.double(), means, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(model[1].running_var.double(), variances, rtol=1e-5, atol=1e-6)


def test_statistics_are_the_average_over_the_batches():
    model = small_net()
    batches = [torch.randn(8, 3, 6, 6) * scale for scale in (1, 2, 3)]
    assert recalibrate_batch_norm(model, batches, "fp32", ALONE) == 3
    assert_average_of_the_first_layer(model, batches)
    assert model[1].momentum == 0.1
    assert model.training


def test_a_net_without_batch_norm_is_left_alone():
    assert recalibrate_batch_norm(nn.Linear(2, 2), [torch.zeros(1, 2)], "fp32", ALONE) == 0


def fails():
    yield torch.randn(8, 3, 6, 6)
    raise OSError("the disk is gone")


@pytest.mark.parametrize(
    ("batches", "error"),
    [((), DataError), ([torch.empty(0, 3, 6, 6), torch.randn(1, 3, 6, 6)], DataError), (fails(), OSError)],
    ids=["none", "none with two images", "a reader that fails"],
)
def test_without_a_batch_nothing_is_changed(batches, error):
    model = small_net()
    model(torch.randn(8, 3, 6, 6))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(error):
        recalibrate_batch_norm(model, batches, "fp32", ALONE)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model[1].momentum == 0.1
    assert model.training


def test_a_batch_without_images_is_left_out():
    model = small_net()
    batches = [torch.randn(8, 3, 6, 6), torch.randn(8, 3, 6, 6) * 2]
    given = [batches[0], torch.empty(0, 3, 6, 6), batches[1], torch.randn(1, 3, 6, 6) * 100]
    assert recalibrate_batch_norm(model, given, "fp32", ALONE) == 2
    assert_average_of_the_first_layer(model, batches)


class Threads:
    """Ranks that are threads of this process, which meet at every sum and every gathering."""

    def __init__(self, count):
        self.barrier = threading.Barrier(count, timeout=120)
        self.given = [None] * count

    def exchange(self, rank, value):
        self.given[rank] = value
        self.barrier.wait()
        everything = list(self.given)
        self.barrier.wait()
        return everything

    def rank(self, number):
        meeting = self

        class Rank(Distributed):
            def sum(self, values):
                parts = meeting.exchange(self.rank, values.clone())
                return values.copy_(torch.stack(parts).sum(0))

            def gather(self, items):
                return [item for part in meeting.exchange(self.rank, items) for item in part]

        return Rank(rank=number, world_size=len(self.given), device=CPU)


@pytest.mark.parametrize("shares", [(2, 2), (3, 1), (3, 0), (0, 1, 4)])
def test_every_batch_weighs_the_same_however_the_ranks_share_them(shares):
    batches = [torch.randn(8, 3, 6, 6) * scale for scale in range(1, sum(shares) + 1)]
    start = small_net().state_dict()
    models = [small_net() for _ in shares]
    threads, used, meeting = [], [0] * len(shares), Threads(len(shares))
    for rank, count in enumerate(shares):
        models[rank].load_state_dict(start)
        own = batches[sum(shares[:rank]) :][:count]

        def work(rank=rank, own=own):
            used[rank] = recalibrate_batch_norm(models[rank], own, "fp32", meeting.rank(rank))

        threads.append(threading.Thread(target=work))
        threads[-1].start()
    for thread in threads:
        thread.join()
    assert used == [sum(shares)] * len(shares)
    for model in models:
        assert_average_of_the_first_layer(model, batches)
