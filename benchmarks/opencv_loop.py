"""A peer of ingest: walk a folder, read, hash and decode every picture with opencv, in one process."""

import hashlib
import os
import sys

import cv2
import numpy as np


def main(root: str) -> None:
    cv2.setNumThreads(1)
    num_pixels = 0
    digests = []
    for folder, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(names):
            with open(os.path.join(folder, name), "rb") as file:  # noqa: PTH123, PTH118 - the plain loop
                data = file.read()
            digests.append(hashlib.sha256(data).hexdigest())
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
            if pixels is not None:
                num_pixels += pixels.shape[0] * pixels.shape[1]
    print(f"{len(digests)} pictures, {num_pixels} pixels")


if __name__ == "__main__":
    main(sys.argv[1])
