"""The weights that every runner begins with: torchvision's resnet18 as it comes, for 10 classes, from one seed.

python benchmarks/peers_train/initial.py WEIGHTS.safetensors [--classes 10] [--seed 0]
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file
from torchvision.models import resnet18

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    save_file(resnet18(num_classes=options.classes).state_dict(), options.weights)
