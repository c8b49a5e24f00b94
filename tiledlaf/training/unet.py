"""A small U-Net in PyTorch: how it looks, one step of its learning, and its state as arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ..errors import InputError
from .unet_onnx import WIDTHS

DECAY = 1e-4  # of weights, by AdamW
MOMENTS = ("exp_avg", "exp_avg_sq")


def _block(given: int, width: int) -> Any:
    """Two convolutions; what they add is normalized over the batch, so that none is needed."""
    layers: list[Any] = []
    for n in (given, width):
        convolution = nn.Conv2d(n, width, 3, padding=1, bias=False)
        layers += [convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """Two convolutions a level, each level of half the size; logits of the classes at the end."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        pairs = zip((channels, *WIDTHS), WIDTHS, strict=False)
        self.down = nn.ModuleList(_block(*pair) for pair in pairs)
        upward = list(zip(WIDTHS[::-1], WIDTHS[-2::-1], strict=False))
        self.wider = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, 2) for a, b in upward)
        self.up = nn.ModuleList(_block(2 * b, b) for _, b in upward)
        self.last = nn.Conv2d(WIDTHS[0], classes, 1)

    def features(self, x: Any) -> Any:
        """What the logits are made of, (N, F, y, x), of images (N, C, y, x)."""
        around = []
        for level, part in enumerate(self.down):
            x = part(functional.max_pool2d(x, 2) if level else x)
            around.append(x)
        for wider, part, old in zip(self.wider, self.up, around[-2::-1], strict=True):
            x = part(torch.cat([wider(x), old], 1))
        return x

    def forward(self, x: Any) -> Any:
        """Logits (N, J, y, x) of images (N, C, y, x)."""
        return self.last(self.features(x))


class Learning:
    """A network that is being learned.

    Parameters
    ----------
    channels, classes : of images and labels
    seed : of its first weights
    device : of PyTorch
    """

    def __init__(self, channels: int, classes: int, seed: Sequence[int], device: str) -> None:
        self.device = device
        # steps take less than half the time where the processor multiplies matrices of bfloat16
        self.short = device == "cpu" and torch.cpu.get_capabilities().get("amx_bf16", False)
        if device != "cpu" and not torch.cuda.is_available():
            raise InputError(f"`device` {device}: PyTorch finds no GPU to learn a network on")
        with torch.random.fork_rng(devices=[]):  # others' random numbers stay theirs
            torch.manual_seed(int(np.random.default_rng(list(seed)).integers(2**31)))
            made = UNet(channels, classes)
        # nearly twice as fast as channels first on processors
        self.network = made.to(device, memory_format=torch.channels_last)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), weight_decay=DECAY)

    def _moved(self, pixels: np.ndarray, targets: np.ndarray) -> tuple[Any, Any]:
        x = torch.from_numpy(pixels).to(self.device, memory_format=torch.channels_last)
        return x, torch.from_numpy(targets).to(self.device)

    def step(self, pixels: np.ndarray, targets: np.ndarray, rate: float) -> None:
        """One step, from images (N, C, y, x) float32 and classes (N, y, x) int64, -1: no label."""
        x, y = self._moved(pixels, targets)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.network.train()
        with torch.autocast(self.device, torch.bfloat16, enabled=self.short):
            z = self.network(x)
        total = functional.cross_entropy(z.float(), y, ignore_index=-1, reduction="sum")
        loss = total / max(int((targets >= 0).sum()), 1)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def judged(self, pixels: np.ndarray, targets: np.ndarray) -> tuple[float, int]:
        """Sum of the cross entropy over the labeled pixels, and how many of these are wrong."""
        x, y = self._moved(pixels, targets)
        self.network.eval()
        with torch.no_grad():
            z = self.network(x)
            total = functional.cross_entropy(z, y, ignore_index=-1, reduction="sum")
            wrong = (z.argmax(1) != y) & (y >= 0)
        return float(total), int(wrong.sum())

    def weights(self) -> dict[str, np.ndarray]:
        """Copies of all that the network is made of."""
        found = self.network.state_dict()
        return {key: value.cpu().numpy().copy() for key, value in found.items()}

    def state(self) -> dict[str, np.ndarray]:
        """The weights, and the moments of the optimizer."""
        found = {f"weights/{key}": value for key, value in self.weights().items()}
        for number, one in self.optimizer.state_dict()["state"].items():
            for key in (*MOMENTS, "step"):
                found[f"optimizer/{number}/{key}"] = one[key].cpu().numpy().copy()
        return found

    def go_on(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from a state."""
        held = {k.removeprefix("weights/"): v for k, v in state.items() if k.startswith("weights/")}
        self.network.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in held.items()})
        moments: dict[int, dict[str, Any]] = {}
        for key, value in state.items():
            if key.startswith("optimizer/"):
                _, number, name = key.split("/")
                moments.setdefault(int(number), {})[name] = torch.from_numpy(value.copy())
        about = self.optimizer.state_dict()
        self.optimizer.load_state_dict({**about, "state": moments})
