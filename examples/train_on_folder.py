"""Train a ResNet-18 of torchvision on a folder of images under a searched policy.

python examples/train_on_folder.py my-images runs/mine/policy.json
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.models import resnet18
from torchvision.transforms import v2

from policies import load_policy_file

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("folder", type=Path, help="with train/<class>/ and test/<class>/ (or val/)")
parser.add_argument("policy", help="a policy file")
parser.add_argument("--epochs", type=int, default=5)
parser.add_argument("--side", type=int, default=32, help="of the images, in pixels")
arguments = parser.parse_args()
held_out = next((part for part in ("test", "val") if (arguments.folder / part).is_dir()), None)
if held_out is None or not (arguments.folder / "train").is_dir():
    raise SystemExit(f"{arguments.folder}: needs train/ and test/, or val/, with a folder a class")
torch.manual_seed(0)

# This is all that an existing script needs: read the policy, put it before the normalisation.
policy = load_policy_file(arguments.policy).transform

size = v2.Resize((arguments.side, arguments.side))
bytes_to_network = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)]
bytes_to_network.append(v2.Normalize([0.5] * 3, [0.25] * 3))
train = ImageFolder(arguments.folder / "train", v2.Compose([size, policy, *bytes_to_network]))
# Never on images that judge the network.
test = ImageFolder(arguments.folder / held_out, v2.Compose([size, *bytes_to_network]))

if test.classes != train.classes:
    raise SystemExit(f"{arguments.folder}: train/ and {held_out}/ need the same folders of classes")

model = resnet18(num_classes=len(train.classes))
optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
for epoch in range(arguments.epochs):
    for images, labels in DataLoader(train, 50, shuffle=True):
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    print(f"epoch {epoch + 1}: training loss {loss.item():.2f}")

model.eval()
with torch.no_grad():
    hits = sum(
        (model(images).argmax(1) == labels).sum().item() for images, labels in DataLoader(test, 200)
    )
print(f"test accuracy: {hits / len(test):.3f}")
