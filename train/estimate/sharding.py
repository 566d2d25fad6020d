"""What FSDP2 leaves of a network on each process, and what it gathers for a while: counted on its own groups.

`fully_shard` cuts each weight along its first dimension (PyTorch documentation, `torch.distributed.fsdp`), so a weight
of fewer rows than processes lies whole on some. A group of weights is gathered together: those of each block of
`WRAPPED_BLOCKS`, and as the root's group all that are in none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from authface.train.distributed import WRAPPED_BLOCKS

Sharding = str
"""`none`: each process has a replica (DDP); `fsdp`: a part of the weights, their moments and gradients (FSDP2)."""


@dataclass(frozen=True)
class WeightShards:
    """Of one network over several processes; bytes."""

    sizes: tuple[int, ...]
    """Scalars that the fullest process has of each trained weight."""
    frozen: int
    """Bytes that it has of the weights that are not trained."""
    root: int
    """Bytes of the root's group whole: gathered from its first use in a pass to the pass's end."""
    block: int
    """Bytes of the largest other group whole."""
    root_gradients: int
    """Bytes of the gradients of the root's group whole."""
    block_gradients: int
    """The same of the largest other group."""

    @property
    def trained(self) -> int:
        """Scalars that the fullest process trains."""
        return sum(self.sizes)

    @property
    def gathered(self) -> int:
        """Bytes beside a process's own at the most: the root's group, a block, the one that is fetched ahead of its
        turn, and the buffer that it comes in."""
        return self.root + 3 * self.block

    @property
    def reducing(self) -> int:
        """Bytes of whole gradients at the most while a pass reduces them: the root's, which are done last, a block's,
        and the buffers that it and the block before are sent from."""
        return self.root_gradients + 3 * self.block_gradients


def shards_of(network: torch.nn.Module, processes: int) -> WeightShards:
    """How `network`, what the loop trains, lies on the fullest of `processes`."""
    groups = list(_groups(network))
    weights = [weight for group in groups for weight in group]
    root, blocks = groups[0], groups[1:] or [[]]
    return WeightShards(
        tuple(_part(weight, processes) for weight in weights if weight.requires_grad),
        sum(_part(weight, processes) * weight.element_size() for weight in weights if not weight.requires_grad),
        _bytes(root),
        max(map(_bytes, blocks)),
        _bytes([weight for weight in root if weight.requires_grad]),
        max(_bytes([weight for weight in block if weight.requires_grad]) for block in blocks),
    )


def _groups(network: torch.nn.Module) -> Iterator[list[torch.nn.Parameter]]:
    """The weights of the root's group, then of each block's."""
    taken: set[int] = set()
    blocks: list[list[torch.nn.Parameter]] = []
    for module in network.modules():
        if module is not network and type(module).__name__ in WRAPPED_BLOCKS:
            own = [weight for weight in module.parameters() if id(weight) not in taken]
            taken |= {id(weight) for weight in own}
            blocks.append(own)
    yield [weight for weight in network.parameters() if id(weight) not in taken]
    yield from blocks


def _part(weight: torch.nn.Parameter, processes: int) -> int:
    rows = weight.shape[0] if weight.ndim else 1
    return -(-rows // processes) * (weight.numel() // max(rows, 1))


def _bytes(weights: Sequence[torch.nn.Parameter]) -> int:
    return sum(weight.numel() * weight.element_size() for weight in weights)
