"""Train on whole uint8 batches that are augmented and normalised on the device they lie on.

python examples/batch_on_device.py --device cuda
"""

from __future__ import annotations

import argparse

import torch
from torch import nn

from policies import PolicyCollate, RandAugment
from proxy_tasks import get_task

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
parser.add_argument("--epochs", type=int, default=20)
parser.add_argument("--images", type=int, default=1000)
arguments = parser.parse_args()
torch.manual_seed(0)
device = torch.device(arguments.device)
task = get_task("reduced-fashion", train_images=arguments.images)

# All images go to the device once, as bytes: a quarter of what they are as floats.
images, labels = (torch.tensor(a, device=device) for a in (task.train.images, task.train.labels))
test_images, test_labels = (
    torch.tensor(array, device=device) for array in (task.test.images, task.test.labels)
)

# Policy, flip and normalisation of a batch in one call; every image draws for itself. The numbers
# are drawn on the CPU, so the same seed gives the same batches on every device.
numbers = {"mean": (0.286,), "std": (0.353,), "generator": torch.Generator().manual_seed(0)}
augment = PolicyCollate(RandAugment(2, 9), **numbers)
normalise = PolicyCollate(None, flip=0, **numbers)

model = nn.Sequential(
    *(nn.Conv2d(1, 32, 3, stride=2), nn.BatchNorm2d(32), nn.ReLU()),
    *(nn.Conv2d(32, 64, 3, stride=2), nn.BatchNorm2d(64), nn.ReLU()),
    *(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(256, len(task.class_names))),
).to(device)
optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3)

for _ in range(arguments.epochs):
    for rows in torch.randperm(len(images)).to(device).split(100):
        loss = nn.functional.cross_entropy(model(augment(images[rows])), labels[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

model.eval()
with torch.no_grad():
    accuracy = (model(normalise(test_images)).argmax(1) == test_labels).float().mean()
print(f"test accuracy on {device.type}: {accuracy:.3f}")
