"""Two processes train a model with a mixer by DistributedDataParallel, as one would on all rows."""

import sys

import torch
from torch.nn.parallel import DistributedDataParallel

import mixc


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.project, self.mix = torch.nn.Linear(8, 32), mixc.load("causal")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.mix(*(self.project(x)[:, None] for _ in range(3)))


def train(rank: int, meet: str) -> None:
    torch.distributed.init_process_group("gloo", f"file://{meet}", rank=rank, world_size=2)
    model = Model()
    x = torch.randn(2, 9, 8)
    model(x).square().mean().backward()
    wanted = [parameter.grad for parameter in model.parameters()]
    model.zero_grad()
    both = DistributedDataParallel(model)
    both(x[rank : rank + 1]).square().mean().backward()
    for parameter, gradient in zip(model.parameters(), wanted, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
    del both  # it holds buckets of the group
    torch.distributed.barrier()  # the other process may still be reading from this one
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    torch.multiprocessing.spawn(train, args=(sys.argv[1],), nprocs=2)
