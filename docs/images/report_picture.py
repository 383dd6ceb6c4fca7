"""Draws ``report.png``: the page of a scan of 3,000 images of FashionMNIST, 20 % of them mislabelled on purpose.

python docs/images/report_picture.py --data-dir FOLDER
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from PIL import Image
from playwright.sync_api import sync_playwright
from torchvision.datasets import FashionMNIST

from lossbuf.noise import corrupt, symmetric

CLASSES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
IMAGES = 3000
DECISIONS = ("relabel", "relabel", "relabel", "drop", "relabel")
"""Decisions made before the picture is taken, so that it shows what they look like."""


def write_photos(folder: Path, data_dir: Path) -> None:
    """One subfolder per class, as image folders have it."""
    data = FashionMNIST(data_dir, train=True)
    rows = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:IMAGES]
    labels = corrupt(data.targets[rows].numpy(), symmetric(len(CLASSES), 0.2), 0).labels
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
    for count, (row, label) in enumerate(zip(rows.tolist(), labels.tolist(), strict=True)):
        Image.fromarray(data.data[row].numpy()).save(folder / CLASSES[label] / f"{count:04d}.png")


def take_picture(page_file: Path, picture: Path) -> None:
    """Open the page at its gallery, decide about a few images, and save what is on the screen."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(page_file.as_uri())
        for card, decision in zip(page.locator("article select").all(), DECISIONS, strict=False):
            card.select_option(decision)
        page.evaluate("document.getElementById('suspects').scrollIntoView({behavior: 'instant'})")
        page.wait_for_timeout(500)
        page.screenshot(path=picture)
        browser.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--data-dir", type=Path, required=True)
    with tempfile.TemporaryDirectory() as folder:
        photos, found = Path(folder, "photos"), Path(folder, "found")
        write_photos(photos, parser.parse_args().data_dir)
        subprocess.run([sys.executable, "-m", "lossbuf", "scan", photos, "--out", found], check=True)
        take_picture(found / "report.html", Path(__file__).with_name("report.png"))
