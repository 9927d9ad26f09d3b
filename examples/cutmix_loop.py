"""A training loop with a policy, random erasing and CutMix of torchvision.

python examples/cutmix_loop.py --epochs 20
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms import v2

from policies import CIFAR10, PolicyTransform
from proxy_tasks import ImageSet, get_task

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--epochs", type=int, default=20)
parser.add_argument("--images", type=int, default=1000)
arguments = parser.parse_args()
torch.manual_seed(0)
task = get_task("reduced-fashion", train_images=arguments.images)
classes = len(task.class_names)

# In the order of published recipes, image by image; then the batch is mixed: soft targets.
normalise = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.286], [0.353])])
flip, erase = v2.RandomHorizontalFlip(), v2.RandomErasing(p=0.25)
augment = v2.Compose([flip, PolicyTransform(CIFAR10), normalise, erase])
cutmix = v2.CutMix(alpha=1.0, num_classes=classes)


def collate(samples: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    images, labels = zip(*samples, strict=True)
    return cutmix(torch.stack([augment(image) for image in images]), torch.stack(labels))


def tensors(part: ImageSet) -> TensorDataset:
    return TensorDataset(torch.tensor(part.images), torch.tensor(part.labels))


model = nn.Sequential(
    *(nn.Conv2d(1, 32, 3, stride=2), nn.BatchNorm2d(32), nn.ReLU()),
    *(nn.Conv2d(32, 64, 3, stride=2), nn.BatchNorm2d(64), nn.ReLU()),
    *(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(256, classes)),
)
optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3)
for _ in range(arguments.epochs):
    for images, targets in DataLoader(tensors(task.train), 100, shuffle=True, collate_fn=collate):
        loss = nn.functional.cross_entropy(model(images), targets)  # targets [N, classes]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

model.eval()
images, labels = tensors(task.test).tensors
with torch.no_grad():
    accuracy = (model(normalise(images)).argmax(1) == labels).float().mean()
print(f"test accuracy with the policy, erasing and CutMix: {accuracy:.3f}")
