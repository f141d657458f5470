"""Ranks: several processes that do one training together, and how weights and gradients go between them.

    Alone        one process: nothing goes anywhere
    Replicated   every rank has all weights; gradients are summed while they are computed (DDP)
    Sharded      every rank has a part of weights, gradients and moments (FSDP2), for what fits on none

Whoever starts the processes has also made torch's process group. Rank 0 decides, reports and writes; what
is written is the same whatever the layout, so that a checkpoint of two ranks is resumed by one, or by shards.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.tensor import DTensor, distribute_tensor

from xstilts.frozen import Json
from xstilts.train import tensors
from xstilts.train.batches import Deal
from xstilts.train.optimisation import Named, load_moments

Done = TypeVar("Done")
Act = Callable[[nn.Module], Done]
"""Something to be done with the model while its weights are at hand."""


@dataclass(frozen=True, slots=True)
class Team:
    """The ranks of one training, seen from one of them; the default is one process alone."""

    rank: int = 0
    size: int = 1
    shard: bool = False
    """Whether ranks share out weights and optimiser instead of each having all."""

    @classmethod
    def alone(cls) -> Team:
        """One process."""
        return cls()

    @classmethod
    def of_group(cls, shard: bool = False) -> Team:
        """This process's place in torch's process group, which is there already."""
        return cls(dist.get_rank(), dist.get_world_size(), shard)

    @property
    def first(self) -> bool:
        """Whether this is the rank that decides, reports and writes."""
        return self.rank == 0

    @property
    def deal(self) -> Deal:
        """Which part of every optimiser step's examples is this rank's."""
        return Deal(self.rank, self.size)

    @property
    def dropout(self) -> str:
        """Name of the stream that this rank's dropout is drawn from; rank 0 has that of one process."""
        return "dropout" if self.first else f"dropout/{self.rank}"

    def hear(self, words: Json, device: torch.device) -> Json:
        """What rank 0 says, on every rank; `words` of the others do not matter. A collective."""
        if self.size == 1:
            return words
        said = json.dumps(words).encode() if self.first else b""
        length = torch.tensor([len(said)], device=device)
        dist.broadcast(length, 0)
        letters = torch.zeros(int(length), dtype=torch.uint8, device=device)
        if self.first:
            letters.copy_(torch.frombuffer(bytearray(said), dtype=torch.uint8))
        dist.broadcast(letters, 0)
        heard: Json = json.loads(letters.cpu().numpy().tobytes())
        return heard

    def body(self, model: nn.Module, device: torch.device) -> Alone:
        """The model on its device, as this team trains it."""
        if self.size == 1:
            return Alone(self, model, device)
        return Sharded(self, model, device) if self.shard else Replicated(self, model, device)


class Alone:
    """A model that one process trains; what it says of itself holds for the other layouts too.

    What is called a collective is called by every rank, at the same place.
    """

    scale = 1.0
    """What gradients are to be multiplied with, once settled, to be sums over all ranks."""

    def __init__(self, team: Team, model: nn.Module, device: torch.device) -> None:
        self.team, self.model, self.device = team, model, device
        # Of tied weights only one name: as files hold them, and before anything is taken apart.
        self.names = list(tensors.weights_of(model))
        self._wrap()
        self.named: Named = [(name, each) for name, each in model.named_parameters() if each.requires_grad]
        self.parameters = [each for _, each in self.named]

    def _wrap(self) -> None:
        self.model.to(self.device)

    def run(self, act: Act[Done]) -> Done:
        """Does `act` while the weights are whole; its gradients find their way. A collective."""
        return act(self.model)

    def pending(self) -> AbstractContextManager[Any]:
        """Around a micro-batch that is not a step's last."""
        return nullcontext()

    def total(self, sums: Tensor) -> Tensor:
        """`sums` over all ranks, in place. A collective."""
        return sums

    def settle(self) -> None:
        """After the last micro-batch: gradients are means over all ranks. A collective."""

    def gradients(self) -> list[Tensor]:
        """This rank's part of every gradient that there is."""
        return [each.grad for each in self.parameters if each.grad is not None]

    def clip(self, largest: float) -> Tensor:
        """Scales gradients so that their norm is at most `largest`; the norm they had. A collective."""
        return nn.utils.clip_grad_norm_(self.parameters, largest, foreach=True)

    def weights(self) -> dict[str, Tensor]:
        """A copy of all weights on the CPU, on rank 0; nothing elsewhere. A collective."""
        return self.copied(tensors.weights_of(self.model))

    def copied(self, those: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Whole copies on the CPU of weights or moments, on rank 0; nothing elsewhere. A collective."""
        if not self.team.first:
            return {}
        return {name: each.detach().to("cpu", copy=True) for name, each in those.items()}

    def generators(self) -> dict[str, Tensor]:
        """State of every rank's random generators, on rank 0: those of rank 1 end with "/1". A collective."""
        return tensors.generators(self.device)

    def load(self, saved: Mapping[str, Mapping[str, Tensor]] | None, optimizer: torch.optim.AdamW) -> None:
        """Puts back the weights, moments and generators of a checkpoint, which rank 0 has. A collective."""
        assert saved is not None
        tensors.load_weights(self.model, saved["model"])
        load_moments(self.named, optimizer, saved["optimizer"])
        tensors.load_generators(self.device, saved["rng"])

    def leave(self, kept: Mapping[str, Tensor] | None) -> None:
        """Ends: rank 0's model is an ordinary one, with the weights `kept` instead of its newest where there
        are any. What other ranks have then is not to be used. A collective."""
        if kept is not None and self.team.first:
            tensors.load_weights(self.model, kept)


class Replicated(Alone):
    """Torch's DDP. It sums gradients in buckets while the others are still computed."""

    def __init__(self, team: Team, model: nn.Module, device: torch.device) -> None:
        super().__init__(team, model, device)
        # DDP and FSDP2 give means over ranks.
        self.scale = float(team.size)

    def _wrap(self) -> None:
        super()._wrap()
        # What a step does not use (another task's head) must have no gradient at all, or AdamW would move
        # it. Buffers never change: they hold positions.
        self._ddp = nn.parallel.DistributedDataParallel(
            _Root(self.model),
            find_unused_parameters=True,
            forward_sync_buffers=False,
            gradient_as_bucket_view=True,
        )

    def run(self, act: Act[Done]) -> Done:
        """See `Alone`. What asks for no gradients needs no DDP."""
        done: Done = self._ddp(act) if torch.is_grad_enabled() else act(self.model)
        return done

    def pending(self) -> AbstractContextManager[Any]:
        """Gradients of all micro-batches are sent together, with the last."""
        return self._ddp.no_sync()

    def total(self, sums: Tensor) -> Tensor:
        """See `Alone`."""
        dist.all_reduce(sums)
        return sums

    def generators(self) -> dict[str, Tensor]:
        """See `Alone`."""
        own = super().generators()
        found = dict(own)
        for name, state in own.items():
            every = [torch.empty_like(state, device=self.device) for _ in range(self.team.size)]
            dist.all_gather(every, state.to(self.device))
            found |= {f"{name}/{rank}": each.cpu() for rank, each in enumerate(every) if rank}
        return found if self.team.first else {}

    def load(self, saved: Mapping[str, Mapping[str, Tensor]] | None, optimizer: torch.optim.AdamW) -> None:
        """See `Alone`. A rank whose generators are not in the checkpoint begins its stream anew."""
        files = saved or {}
        state, parameters = self.model.state_dict(), dict(self.named)
        with torch.no_grad():
            for name, whole in self._sent(files.get("model")):
                _local(state[name]).copy_(_local(self._part(state[name], whole)))
        for key, whole in self._sent(files.get("optimizer")):
            name, kind = key.rsplit("/", 1)
            optimizer.state[parameters[name]][kind] = self._part(parameters[name], whole)
        every = {name: whole.cpu() for name, whole in self._sent(files.get("rng"))}
        own = "" if self.team.first else f"/{self.team.rank}"
        now = tensors.generators(self.device)
        tensors.load_generators(self.device, {name: every.get(name + own, now[name]) for name in now})

    def leave(self, kept: Mapping[str, Tensor] | None) -> None:
        """See `Alone`."""
        super().leave(kept)
        del self._ddp

    def _part(self, like: Tensor, whole: Tensor) -> Tensor:
        """What this rank keeps of a weight or its moment, as the weight `like` lies."""
        return whole

    def _sent(self, saved: Mapping[str, Tensor] | None) -> Iterator[tuple[str, Tensor]]:
        """Name and tensor, one after another, of what rank 0 has, on every rank's device."""
        words: Json = [[name, list(each.shape), str(each.dtype)] for name, each in (saved or {}).items()]
        heard: Any = self.team.hear(words, self.device)
        for name, shape, kind in heard:
            whole = torch.empty(shape, dtype=getattr(torch, kind.removeprefix("torch.")), device=self.device)
            if saved is not None:
                whole.copy_(saved[name])
            dist.broadcast(whole, 0)
            yield name, whole


class Sharded(Replicated):
    """Torch's FSDP2: each layer is a group of weights that is put together when its turn comes.

    Micro-batches are summed into shards one by one: what is too big for one device has no room for whole
    gradients either. Under bf16 autocast keeps the bf16 copy of every weight until the backward pass, 2
    bytes a weight beside the 16 bytes a weight that are shared out.
    """

    def _wrap(self) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        variables = self.model.state_dict(keep_vars=True)
        self._before = {name: variables[name] for name in self.names}
        self._plain = [(each, type(each), _shallow(each)) for each in self.model.modules()]
        # FSDP2 takes no scalars (the scale of a dual encoder); every rank keeps them.
        self._scalars = {each for each in self.model.parameters() if each.ndim == 0}
        for each in self._scalars:
            each.data = each.data.to(self.device)
        mesh = init_device_mesh(self.device.type, (self.team.size,))
        own = [each for each in self.model.parameters() if each not in self._scalars]
        for layer in _layers(self.model):
            fully_shard(layer, mesh=mesh, ignored_params=self._scalars)
        root = _Root(self.model)
        self._root: Any = fully_shard(
            root, mesh=mesh, reshard_after_forward=False, ignored_params=self._scalars
        )
        for each in own:
            # Whoever else holds it (an LM head that is tied) must not keep the whole of it alive.
            each.data = torch.empty(0)

    def run(self, act: Act[Done]) -> Done:
        """See `Alone`. No rank has all weights, so every rank does the same, without gradients too."""
        done: Done = self._root(act)
        if not torch.is_grad_enabled():
            self._root.reshard()
        return done

    def pending(self) -> AbstractContextManager[Any]:
        """See the class."""
        return nullcontext()

    def settle(self) -> None:
        """See `Alone`."""
        for each in self._scalars:
            if each.grad is not None:
                self.total(each.grad).div_(self.team.size)

    def gradients(self) -> list[Tensor]:
        """See `Alone`."""
        return [_local(each) for each in super().gradients()]

    def clip(self, largest: float) -> Tensor:
        """See `Alone`; as `clip_grad_norm_`, of which every rank sees a part."""
        gradients = self.gradients()
        mine = [each for each in gradients if each.ndim or self.team.first]
        squares = torch.stack(torch._foreach_norm(mine)).square().sum()
        norm = self.total(squares).sqrt()
        torch._foreach_mul_(gradients, (largest / (norm + 1e-6)).clamp(max=1.0))
        return norm

    def weights(self) -> dict[str, Tensor]:
        """See `Alone`."""
        state = self.model.state_dict()
        return self.copied({name: state[name] for name in self.names})

    def copied(self, those: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Alone`; one tensor at a time is whole on the device."""
        found = {}
        for name, each in those.items():
            whole = each.full_tensor() if isinstance(each, DTensor) else each
            if self.team.first:
                found[name] = whole.detach().to("cpu", copy=True)
        return found

    def leave(self, kept: Mapping[str, Tensor] | None) -> None:
        """See `Alone`; the model is then on the CPU."""
        own = self.weights()
        for module, kind, state in self._plain:
            module.__class__ = kind
            module.__dict__.clear()
            module.__dict__.update(state)
        for name, whole in (own if kept is None else kept).items():
            self._before[name].data = whole
        self.model.to("cpu")

    def _part(self, like: Tensor, whole: Tensor) -> Tensor:
        if not isinstance(like, DTensor) or whole.shape != like.shape:
            return whole
        return distribute_tensor(whole, like.device_mesh, like.placements, src_data_rank=None)


class _Root(nn.Module):
    """What is wrapped: its forward is whatever is to be done with the model.

    Families reach into a model (its encoder, its head, the table of embeddings for an LM head); inside of
    this forward all of that is in place.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, act: Act[Any]) -> Any:
        """Does it."""
        return act(self.model)


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    """An encoder's layers: the members of every outermost list of modules."""
    if isinstance(module, nn.ModuleList) and len(module) > 1:
        yield from (each for each in module if any(True for _ in each.parameters()))
        return
    for child in module.children():
        yield from _layers(child)


def _shallow(module: nn.Module) -> dict[str, Any]:
    """All attributes of a module, its tables of weights, parts and hooks as they are now."""
    return {
        name: value.copy() if isinstance(value, dict | set) else value for name, value in vars(module).items()
    }


def _local(tensor: Tensor) -> Tensor:
    """A rank's own part of a tensor that is shared out; any other tensor as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
