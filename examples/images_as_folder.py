"""Write embedded images as a folder of classes, to try what is meant for a folder of your own.

python examples/images_as_folder.py my-images
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

from proxy_tasks import get_task

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("folder", type=Path, help="a new folder")
parser.add_argument("--images", type=int, default=1000, help="of the training part")
arguments = parser.parse_args()

task = get_task("reduced-fashion", train_images=arguments.images)
for name, part in (("train", task.train), ("val", task.validation), ("test", task.test)):
    for number, (image, label) in enumerate(zip(part.images, part.labels, strict=True)):
        folder = arguments.folder / name / task.class_names[label].replace("/", "-")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0]).save(folder / f"{number:05}.png")
print(f"{arguments.folder}: {number + 1} images in {name}/, more in train/ and val/")
