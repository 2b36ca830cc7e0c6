"""Mixed precision over several processes: compute in bfloat16, store weights in float32."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

GRADIENT_CLIP = 1.0


class MasterWeights:
    """Float32 masters of a model that computes in its own dtype, and their moving average.

    After a step, `average = decay * average + (1 - decay) * master`. All processes start with equal
    weights and get the same averaged gradient, so their masters stay equal without communication.
    """

    def __init__(self, model: nn.Module, ema_decay: float) -> None:
        self.names = [name for name, _ in model.named_parameters()]
        self.working = list(model.parameters())
        self.masters = [nn.Parameter(weight.detach().float().clone()) for weight in self.working]
        self.averages = [master.detach().clone() for master in self.masters]
        self.ema_decay = ema_decay

    def named_masters(self) -> Iterable[tuple[str, nn.Parameter]]:
        """Return the trainable float32 weights with the model's names."""
        return zip(self.names, self.masters, strict=True)

    def collect_gradients(self) -> Tensor:
        """Average the model's gradients over the processes and clip them to norm 1.

        Weights that do not contribute to the loss get a zero gradient.

        Returns:
            The norm before clipping.
        """
        flat = torch.cat([_flat_gradient(weight) for weight in self.working])
        if dist.is_initialized():
            dist.all_reduce(flat)
            flat /= dist.get_world_size()
        pieces = flat.split([weight.numel() for weight in self.working])
        for master, weight, piece in zip(self.masters, self.working, pieces, strict=True):
            master.grad = piece.view_as(master)
            weight.grad = None
        return clip_grad_norm_(self.masters, GRADIENT_CLIP)

    @torch.no_grad()
    def publish(self) -> None:
        """Update the average, and round the masters into the model."""
        torch._foreach_lerp_(self.averages, self.masters, 1 - self.ema_decay)
        torch._foreach_copy_(self.working, self.masters)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averaged float32 weights."""
        return dict(zip(self.names, self.averages, strict=True))


def _flat_gradient(weight: nn.Parameter) -> Tensor:
    gradient = torch.zeros_like(weight) if weight.grad is None else weight.grad
    return gradient.float().flatten()


def mean_over_processes(value: Tensor) -> float:
    """Return the mean of a scalar over the processes."""
    total = value.detach().clone()
    if dist.is_initialized():
        dist.all_reduce(total)
        total /= dist.get_world_size()
    return total.item()


def split_weights(
    named: Iterable[tuple[str, nn.Parameter]],
) -> tuple[list[nn.Parameter], list[nn.Parameter], list[nn.Parameter]]:
    """Split weights into the blocks' matrices, the timestep embedding and the rest."""
    matrices, timestep, rest = [], [], []
    for name, weight in named:
        if "blocks." in name and name.endswith("weight"):
            matrices.append(weight)
        elif name.startswith("adaln_single."):
            timestep.append(weight)
        else:
            rest.append(weight)
    return matrices, timestep, rest


def set_learning_rates(optimizers: Iterable[torch.optim.Optimizer], factor: float) -> None:
    """Set every group's rate to `factor` times its peak rate."""
    for group in chain.from_iterable(optimizer.param_groups for optimizer in optimizers):
        group["lr"] = factor * group["peak_lr"]
