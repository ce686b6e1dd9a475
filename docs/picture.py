"""docs/report.png, the picture in README.md: the report's first screen.

    python docs/picture.py

takes data/report/index.html as it lies there (after `make repro`) and needs Chromium. The picture carries the digest
of data/evaluate/metrics.json, by which a test knows whether it is of the committed run.
"""

import argparse
import hashlib
import io
import shutil
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "report.png"
DIGEST = "metrics-sha256"
"""key of the picture's text chunk"""
WIDTH, HEIGHT = 1280, 960
"""CSS pixels"""


def digest_of_metrics() -> str:
    return hashlib.sha256((ROOT / "data" / "evaluate" / "metrics.json").read_bytes()).hexdigest()


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None).parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("docs/picture.py needs Chromium: install it (Debian: chromium), then run this again")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        page.goto((ROOT / "data" / "report" / "index.html").as_uri())
        whole = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
        browser.close()
    text = PngInfo()
    text.add_text(DIGEST, digest_of_metrics())
    whole.quantize(128).save(PICTURE, optimize=True, pnginfo=text)
    print(f"{PICTURE}: {PICTURE.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
