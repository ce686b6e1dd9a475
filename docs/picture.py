"""docs/report.png, the picture in README.md: the report's first screen, and its confusion matrix beside it.

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
from playwright.sync_api import FloatRect, Page, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "report.png"
DIGEST = "metrics-sha256"
"""key of the picture's text chunk"""
WIDTH, HEIGHT = 760, 1000
"""of each half, CSS pixels"""


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
        halves = [_screen(page, "#summary"), _screen(page, "#matrix")]
        browser.close()
    whole = Image.new("RGB", (2 * WIDTH, HEIGHT))
    for number, half in enumerate(halves):
        whole.paste(half, (number * WIDTH, 0))
    text = PngInfo()
    text.add_text(DIGEST, digest_of_metrics())
    whole.quantize(128).save(PICTURE, optimize=True, pnginfo=text)
    print(f"{PICTURE}: {PICTURE.stat().st_size // 1000} kB")


def _screen(page: Page, element: str) -> Image.Image:
    """The part of the page that begins with `element`, a screen high."""
    top = page.evaluate("element => document.querySelector(element).getBoundingClientRect().top + scrollY", element)
    clip: FloatRect = {"x": 0, "y": top, "width": WIDTH, "height": HEIGHT}
    return Image.open(io.BytesIO(page.screenshot(full_page=True, clip=clip))).convert("RGB")


if __name__ == "__main__":
    main()
