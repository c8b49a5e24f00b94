"""The flow as the last layer of a network that learns with it, and the same steps without it."""

from __future__ import annotations

import copy
import time as clock
from dataclasses import dataclass
from typing import Any

import numpy as np

from support.datasets import Loaded
from support.rivals import Labels, Method, Problem, Ready, decided
from support.sections import say
from tiledlaf.pool.opening import cores
from tiledlaf.training import crops, networks
from tiledlaf.training.crops import Block, Draw

STEPS = 600  # after the network was learned alone
RATE, FASTER = 3e-4, 10  # of these, and how many times that is for the weights of the flow
SELF = 3.0  # logit of a pixel itself, with which it begins where the flow begins with little
BORDER = 64  # mirrored pixels around a whole image


@dataclass(frozen=True)
class Way:
    """How the steps are made.

    Attributes
    ----------
    flow : whether the flow is the last layer
    itself : logit of a pixel itself that the weights begin with; 0: with equal weights
    frozen : whether the network is left as it is
    unseen : whether the network was learned from one half of the images, and steps are of the other
    """

    flow: bool
    itself: float = 0.0
    frozen: bool = False
    unseen: bool = False


WAYS = {
    "network, more steps": Way(False),
    "end to end": Way(True),
    "end to end, begun alone": Way(True, SELF),
    "weights alone": Way(True, SELF, frozen=True),
    "half a network": Way(False, frozen=True, unseen=True),
    "weights alone, unseen": Way(True, SELF, frozen=True, unseen=True),
}


def blocks(loaded: Loaded) -> list[Block]:
    """The training images, as parts are drawn of them."""
    around, found = crops.AROUND, []
    for image, labels in zip(loaded.images[: loaded.training], loaded.labels, strict=False):
        wide = [(0, 0), (around, around), (around, around)]
        pixels = np.pad(image, wide, mode="reflect")[:, None]
        found.append(Block(pixels, np.pad(labels, around)[None], labels.shape))
    return found


def layered(network: Any, itself: float) -> Any:
    """The network whose logits are distances of a flow, with weights by a layer of its own."""
    import torch
    from torch import nn

    from tiledlaf.torch import AssignmentFlowLayer

    class Layered(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network
            self.flow = AssignmentFlowLayer("rings:3,7", time=1.0)
            self.weights = nn.Conv2d(network.last.in_channels, self.flow.neighbors, 1)
            nn.init.zeros_(self.weights.weight)
            nn.init.zeros_(self.weights.bias)
            own = [not any(offset) for offset in self.flow.offsets]
            with torch.no_grad():
                self.weights.bias[own] = itself

        def forward(self, x: Any) -> Any:
            found = self.network.features(x)
            logits = self.network.last(found)
            return self.flow(-logits.log_softmax(1), self.weights(found))

    return Layered()


def learned(problem: Problem, given: list[Block], draw: Draw, name: str) -> Any:
    """A network of some blocks, which the folder keeps."""
    import torch

    from tiledlaf.training import unet

    channels, count = len(draw.mean), len(problem.classes)
    learner = unet.Learning(channels, count, (problem.seed, 0), "cpu")
    file = problem.kept / f"{name}-{problem.seed}.pt"
    if file.exists():
        learner.network.load_state_dict(torch.load(file))
        return learner.network
    say(f"  learning {name}, seed {problem.seed}")
    began, step, part = clock.process_time(), 0, 0.0
    while part < 1:
        learner.step(*draw.batch(given, networks.BATCH, (0, step)), networks.rate_at(part))
        step += 1
        part = (clock.process_time() - began) / (60 * problem.effort.minutes)
    partial = file.with_suffix(".partial")
    torch.save(learner.network.state_dict(), partial)
    partial.replace(file)
    return learner.network


def go_on(model: Any, way: Way, given: list[Block], draw: Draw, steps: int) -> None:
    """Make the steps, at a rate that falls to 0."""
    import torch

    own = [] if way.frozen else [*(model.network if way.flow else model).parameters()]
    groups = [{"params": own, "times": 1}] if own else []
    if way.flow:
        groups.append({"params": [*model.weights.parameters()], "times": FASTER})
    if not groups:
        return
    optimizer = torch.optim.AdamW(groups, weight_decay=1e-4)
    model.train()
    if way.frozen:
        model.network.eval()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * group["times"] * networks.decayed(step / steps)
        pixels, targets = draw.batch(given, networks.BATCH, (1, step))
        found = model(torch.from_numpy(pixels))
        loss = torch.nn.functional.cross_entropy(found, torch.from_numpy(targets), ignore_index=-1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def end_to_end(way: Way) -> Method:
    """A network, and some hundred steps more in one of the ways, without biases."""

    def method(problem: Problem) -> Ready:
        import torch

        torch.set_num_threads(cores())
        loaded, found = problem.loaded, blocks(problem.loaded)
        draw = Draw(crops.edge_of(found), *crops.moments(found), span(loaded), problem.seed)
        half = len(found) // 2
        first, second = (found[:half], found[half:]) if way.unseen else (found, found)
        name = "half" if way.unseen else "unet"
        network = copy.deepcopy(learned(problem, first, draw, name))
        model = layered(network, way.itself) if way.flow else network
        go_on(model, way, second, draw, problem.effort.recipe.get("network_steps", STEPS))
        model.eval()
        torch.set_num_threads(1)

        def label(number: int) -> Labels:
            image = loaded.images[number]
            size, step = image.shape[1:], crops.MULTIPLE
            wide = [(0, 0), *((BORDER, BORDER + -n % step) for n in size)]
            scaled = (image - draw.mean[:, None, None]) / draw.spread[:, None, None]
            x = np.pad(scaled, wide, mode="reflect").astype(np.float32)
            with torch.no_grad():
                z = model(torch.from_numpy(x)[None])[0]
            core = (slice(None), *(slice(BORDER, BORDER + n) for n in size))
            return decided(z.log_softmax(0).numpy()[core])

        return Ready(label, {})

    return method


def span(loaded: Loaded) -> tuple[float, float]:
    """The range of intensities of the training images."""
    some = np.concatenate([i.ravel()[::97] for i in loaded.images[: loaded.training]])
    return float(some.min()), float(some.max())
