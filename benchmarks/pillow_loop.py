"""The peer of ingest: walk a folder, read, hash and decode every picture with Pillow, in one process."""

import hashlib
import io
import os
import sys

from PIL import Image


def main(root: str) -> None:
    num_pixels = 0
    digests = []
    for folder, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(names):
            with open(os.path.join(folder, name), "rb") as file:  # noqa: PTH123, PTH118 - the plain loop
                data = file.read()
            digests.append(hashlib.sha256(data).hexdigest())
            with Image.open(io.BytesIO(data)) as image:
                image.convert("RGB").load()
                num_pixels += image.width * image.height
    print(f"{len(digests)} pictures, {num_pixels} pixels")


if __name__ == "__main__":
    main(sys.argv[1])
