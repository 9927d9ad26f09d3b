"""Train a network of your own under a policy, in a plain PyTorch loop.

python examples/train_with_policy.py --policy runs/ppo/policy.json --epochs 20
"""

from __future__ import annotations

import argparse

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from policies import PUBLISHED, PolicyTransform, load_policy_file
from proxy_tasks import ImageSet, get_task

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--policy", default="cifar10", help="a policy file, or cifar10, imagenet, svhn")
parser.add_argument("--epochs", type=int, default=20)
arguments = parser.parse_args()

# A transform draws from its own generator: the same seed, the same training.
torch.manual_seed(0)
generator = torch.Generator().manual_seed(0)
if arguments.policy in PUBLISHED:
    augment = PolicyTransform(PUBLISHED[arguments.policy], generator=generator)
else:
    augment = load_policy_file(arguments.policy).transform.with_generator(generator)

task = get_task("reduced-fashion", train_images=1000)


def loader(part: ImageSet, shuffle: bool) -> DataLoader:
    images, labels = torch.from_numpy(part.images.copy()), torch.from_numpy(part.labels.copy())
    return DataLoader(TensorDataset(images, labels), batch_size=100, shuffle=shuffle)


model = nn.Sequential(
    *(nn.Conv2d(1, 32, 3, stride=2), nn.BatchNorm2d(32), nn.ReLU()),
    *(nn.Conv2d(32, 64, 3, stride=2), nn.BatchNorm2d(64), nn.ReLU()),
    *(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(256, len(task.class_names))),
)
optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3)

for _ in range(arguments.epochs):
    for images, labels in loader(task.train, shuffle=True):
        # Every image of the batch draws for itself; uint8 in, uint8 out.
        logits = model(augment(images).float() / 255)
        loss = nn.functional.cross_entropy(logits, labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

model.eval()
with torch.no_grad():
    hits = sum(
        (model(x.float() / 255).argmax(1) == y).sum().item() for x, y in loader(task.test, False)
    )
print(f"test accuracy under {arguments.policy}: {hits / len(task.test):.3f}")
