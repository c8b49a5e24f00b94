"""A small U-Net in PyTorch, on the processor, as one would write it."""

from __future__ import annotations

import time as clock
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

CROP, BATCH = 192, 8
WIDTHS = (16, 32, 64, 128)  # channels by level; each level halves the image
RATE = 2e-3
NOISE, BRIGHTNESS, CONTRAST = 0.1, 0.2, 0.2  # in standard deviations of pixels, or relative
Predict = Callable[[np.ndarray], np.ndarray]


def network(channels: int, classes: int) -> Any:
    """Two convolutions a level, skipped connections, scores of classes at the end."""
    import torch
    from torch import nn

    def block(given: int, width: int) -> Any:
        layers: list[Any] = []
        for n in (given, width):
            layers += [nn.Conv2d(n, width, 3, padding=1), nn.GroupNorm(8, width), nn.ReLU()]
        return nn.Sequential(*layers)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            pairs = list(zip((channels, *WIDTHS), WIDTHS, strict=False))
            self.down = nn.ModuleList(block(*pair) for pair in pairs)
            upward = list(zip(WIDTHS[::-1], WIDTHS[-2::-1], strict=False))
            self.wider = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, 2) for a, b in upward)
            self.up = nn.ModuleList(block(2 * b, b) for _, b in upward)
            self.last = nn.Conv2d(WIDTHS[0], classes, 1)

        def forward(self, x: Any) -> Any:
            skipped = []
            for level, part in enumerate(self.down):
                x = part(nn.functional.max_pool2d(x, 2) if level else x)
                skipped.append(x)
            for wider, part, old in zip(self.wider, self.up, skipped[-2::-1], strict=True):
                x = part(torch.cat([wider(x), old], 1))
            return self.last(x)

    return Net()


def learn(
    images: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    classes: int,
    minutes: float,
    seed: int,
) -> tuple[Predict, int]:
    """Learn for so many minutes of the processor; probabilities of an image, and steps.

    Nothing is chosen: all images are learned from, and the last state is taken.

    Parameters
    ----------
    images : (C, y, x) each
    labels : 1..J, 0 where there is none
    """
    import torch

    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    pixels = np.concatenate([i.reshape(len(i), -1)[:, ::97] for i in images], axis=1)
    mean, spread = pixels.mean(axis=1), pixels.std(axis=1) + 1e-6

    def scaled(image: np.ndarray) -> np.ndarray:
        found: np.ndarray = ((image - mean[:, None, None]) / spread[:, None, None]).astype("f4")
        return found

    given = [scaled(image) for image in images]
    net = network(len(images[0]), classes)
    optimizer = torch.optim.AdamW(net.parameters(), RATE, weight_decay=1e-4)
    started, step, part = clock.process_time(), 0, 0.0
    while part < 1:
        for group in optimizer.param_groups:
            group["lr"] = RATE * (0.51 + 0.49 * np.cos(np.pi * part))
        batch = [crop(given, labels, rng) for _ in range(BATCH)]
        x = torch.from_numpy(np.stack([one for one, _ in batch]))
        y = torch.from_numpy(np.stack([one for _, one in batch]).astype(np.int64) - 1)
        loss = torch.nn.functional.cross_entropy(net(x), y, ignore_index=-1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        part = (clock.process_time() - started) / (60 * minutes)
    net.eval()

    def predict(image: np.ndarray) -> np.ndarray:
        size, fold = image.shape[1:], 2 ** (len(WIDTHS) - 1)
        pads = [(0, 0), *((0, -n % fold) for n in size)]
        x = torch.from_numpy(np.pad(scaled(image), pads, "reflect"))
        with torch.no_grad():
            p = torch.softmax(net(x[None])[0], 0).numpy()
        found: np.ndarray = p[:, : size[0], : size[1]]
        return found

    return predict, step


def crop(
    images: Sequence[np.ndarray], labels: Sequence[np.ndarray], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A part of an image with labels in it, turned or mirrored, with other light and noise."""
    edge = min(CROP, *(n // 8 * 8 for image in images for n in image.shape[1:]))
    while True:
        number = int(rng.integers(len(images)))
        y, x = (int(rng.integers(n - edge + 1)) for n in labels[number].shape)
        truth = labels[number][y : y + edge, x : x + edge]
        if truth.any():
            break
    image = images[number][:, y : y + edge, x : x + edge]
    turns, mirror = int(rng.integers(4)), rng.random() < 0.5
    image, truth = np.rot90(image, turns, (1, 2)), np.rot90(truth, turns)
    if mirror:
        image, truth = image[:, :, ::-1], truth[:, ::-1]
    light = rng.normal(0, BRIGHTNESS) + image * rng.normal(1, CONTRAST)
    noise = rng.normal(0, NOISE, image.shape)
    return (light + noise).astype(np.float32), np.ascontiguousarray(truth)
