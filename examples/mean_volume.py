#!/usr/bin/env python3
"""The analysis of the demo: mean volume, slice picture and statistics of a NIfTI scan.

Usage: mean_volume.py --image=scan.nii.gz --out=FOLDER [--axis=axial|coronal|sagittal] [--foreground]
It writes mean.nii.gz, slice.png and stats.json into the folder. Needs nibabel and numpy.
"""

import argparse
import json
import struct
import sys
import zlib
from pathlib import Path

import nibabel
import numpy
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

AXES = {"sagittal": 0, "coronal": 1, "axial": 2}
MOST_VOXELS = 2**28  # of one volume: a header may promise more than there is memory


class Refused(Exception):
    """The image is not one that can be analysed; the text says why."""


def load(path):
    """Open a NIfTI file without reading its voxels; raises Refused."""
    try:
        image = nibabel.load(path, keep_file_open=True)
    except (ImageFileError, HeaderDataError, OSError, EOFError, zlib.error) as error:
        raise Refused("cannot be read as an image") from error
    if not isinstance(image, nibabel.Nifti1Image | nibabel.Nifti2Image):
        raise Refused("is not a NIfTI file")
    if len(image.shape) not in (3, 4) or min(image.shape) < 1:
        raise Refused(f"has the shape {image.shape}; three or four dimensions are needed")
    if numpy.prod(image.shape[:3], dtype=float) > MOST_VOXELS:
        raise Refused(f"has volumes of more than {MOST_VOXELS} voxels")
    return image


def volumes(image):
    """The volumes one after the other, as floating point, so that only one of them is in memory."""
    for time in range(image.shape[3] if image.ndim == 4 else 1):
        try:
            volume = numpy.asarray(image.dataobj[..., time] if image.ndim == 4 else image.dataobj, dtype=numpy.float64)
        except (OSError, EOFError, ValueError, zlib.error) as error:
            raise Refused("ends too early or is damaged") from error
        yield numpy.nan_to_num(volume, posinf=0.0, neginf=0.0)


def analyse(image, foreground):
    """Mean volume and statistics; with `foreground` of the voxels above a tenth of the brightest mean only."""
    total, means, low, high, count = numpy.zeros(image.shape[:3]), [], numpy.inf, -numpy.inf, 0
    for volume in volumes(image):
        total += volume
        means.append(float(volume.mean()))
        low, high, count = min(low, float(volume.min())), max(high, float(volume.max())), count + 1
    mean = total / count
    chosen = mean[mean > 0.1 * mean.max()] if foreground and mean.max() > 0 else mean
    return mean, {
        "shape": [int(length) for length in image.shape],
        "zooms": [round(float(zoom), 6) for zoom in image.header.get_zooms()],
        "min": low,
        "max": high,
        "mean": float(chosen.mean()),
        "std": float(chosen.std()),
        "voxels": int(chosen.size),
        "volume_means": means,
    }


def picture(image, axis):
    """The middle slice as grey values with square pixels, front or top up, between the 1st and 99th percentile."""
    image = nibabel.as_closest_canonical(image)
    plane = numpy.rot90(numpy.take(image.get_fdata(), image.shape[axis] // 2, axis=axis))
    across, up = (zoom for index, zoom in enumerate(image.header.get_zooms()) if index != axis)
    finest = min(across, up)
    rows = numpy.linspace(0, plane.shape[0] - 1, max(1, round(plane.shape[0] * up / finest))).round().astype(int)
    columns = numpy.linspace(0, plane.shape[1] - 1, max(1, round(plane.shape[1] * across / finest))).round().astype(int)
    dark, bright = numpy.percentile(plane, (1, 99))
    grey = (plane - dark) / ((bright - dark) or 1.0) * 255
    return grey.clip(0, 255).astype(numpy.uint8)[numpy.ix_(rows, columns)]


def png(grey):
    """The bytes of an 8 bit greyscale PNG file (RFC 2083) of a two-dimensional array."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = grey.shape
    lines = b"".join(b"\0" + row.tobytes() for row in grey)
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines, 9)) + chunk(b"IEND", b"")


def main():
    """Read the arguments, write the three results; status 1 and a sentence for an image that cannot be analysed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--axis", choices=AXES, default="axial")
    parser.add_argument("--foreground", action="store_true")
    given = parser.parse_args()
    try:
        image = load(given.image)
        mean, statistics = analyse(image, given.foreground)
    except Refused as reason:
        print(f"{given.image.name} {reason}", file=sys.stderr)
        return 1
    given.out.mkdir(parents=True, exist_ok=True)
    mean_image = nibabel.Nifti1Image(mean.astype(numpy.float32), image.affine)
    mean_image.to_filename(given.out / "mean.nii.gz")
    (given.out / "slice.png").write_bytes(png(picture(mean_image, AXES[given.axis])))
    (given.out / "stats.json").write_text(json.dumps(statistics, indent=1, allow_nan=False) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
