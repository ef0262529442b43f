"""The analysis of the demo, on scans that nibabel ships and on files that are not what they should be."""

import gzip
import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import nibabel
import numpy
import pytest
from nibabel.testing import data_path

PROGRAM = Path(__file__).resolve().parents[1] / "examples" / "mean_volume.py"
SCAN = Path(data_path) / "example4d.nii.gz"


def run(image, out, *words):
    return subprocess.run([sys.executable, PROGRAM, f"--image={image}", f"--out={out}", *words], capture_output=True, text=True, timeout=60)


def pixels(path):
    """The grey values of a PNG file, after a check of its checksums."""
    content, data = path.read_bytes(), b""
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    at = 8
    while at < len(content):
        size, kind = struct.unpack(">I4s", content[at : at + 8])
        body = content[at + 8 : at + 8 + size]
        assert struct.unpack(">I", content[at + 8 + size : at + 12 + size])[0] == zlib.crc32(kind + body)
        if kind == b"IHDR":
            width, height = struct.unpack(">II", body[:8])
            assert body[8:] == bytes([8, 0, 0, 0, 0])
        data += body if kind == b"IDAT" else b""
        at += 12 + size
    lines = numpy.frombuffer(zlib.decompress(data), dtype=numpy.uint8).reshape(height, width + 1)
    assert not lines[:, 0].any()
    return lines[:, 1:]


def test_mean_picture_and_statistics_of_a_real_scan(tmp_path):
    assert run(SCAN, tmp_path).returncode == 0
    scan = nibabel.load(SCAN)
    mean = nibabel.load(tmp_path / "mean.nii.gz")
    numpy.testing.assert_allclose(mean.get_fdata(), scan.get_fdata().mean(axis=3), rtol=1e-6)
    numpy.testing.assert_array_equal(mean.affine, scan.affine)
    statistics = json.loads((tmp_path / "stats.json").read_text())
    assert statistics["shape"] == [128, 96, 24, 2]
    assert (statistics["min"], statistics["max"]) == (scan.get_fdata().min(), scan.get_fdata().max())
    assert statistics["mean"] == pytest.approx(scan.get_fdata().mean())
    assert statistics["volume_means"] == pytest.approx(scan.get_fdata().mean(axis=(0, 1, 2)))
    picture = pixels(tmp_path / "slice.png")
    assert picture.shape == (96, 128)
    assert picture.min() == 0 and picture.max() == 255


@pytest.mark.parametrize(("axis", "shape"), [("axial", (96, 128)), ("coronal", (26, 128)), ("sagittal", (26, 96))])
def test_pixels_are_square_in_each_direction(tmp_path, axis, shape):
    assert run(SCAN, tmp_path, f"--axis={axis}").returncode == 0
    assert pixels(tmp_path / "slice.png").shape == shape


def test_the_picture_does_not_depend_on_how_the_voxels_are_stored(tmp_path):
    volume = numpy.zeros((5, 6, 7), dtype=numpy.int16)
    volume[4, 5, :] = 100  # at the right and in front
    nibabel.Nifti1Image(volume, numpy.eye(4)).to_filename(tmp_path / "a.nii")
    nibabel.Nifti1Image(volume[::-1], numpy.diag([-1, 1, 1, 1])).to_filename(tmp_path / "b.nii")
    for name in "ab":
        assert run(tmp_path / f"{name}.nii", tmp_path / name).returncode == 0
    first = pixels(tmp_path / "a" / "slice.png")
    assert first.shape == (6, 5) and first[0, 4] == 255 and first.sum() == 255
    numpy.testing.assert_array_equal(first, pixels(tmp_path / "b" / "slice.png"))


def test_foreground_leaves_the_dark_out(tmp_path):
    volume = numpy.zeros((4, 4, 4), dtype=numpy.float32)
    volume[:2] = 50
    nibabel.Nifti1Image(volume, numpy.eye(4)).to_filename(tmp_path / "a.nii")
    assert run(tmp_path / "a.nii", tmp_path, "--foreground").returncode == 0
    statistics = json.loads((tmp_path / "stats.json").read_text())
    assert (statistics["voxels"], statistics["mean"], statistics["std"]) == (32, 50.0, 0.0)


def test_voxels_without_a_value_do_not_spoil_the_statistics(tmp_path):
    volume = numpy.full((4, 4, 4, 2), 3, dtype=numpy.float32)
    volume[0, 0, 0] = numpy.nan, numpy.inf
    nibabel.Nifti1Image(volume, numpy.eye(4)).to_filename(tmp_path / "a.nii")
    assert run(tmp_path / "a.nii", tmp_path).returncode == 0
    assert json.loads((tmp_path / "stats.json").read_text())["max"] == 3


def header(shape):
    """A NIfTI file that promises this shape and has no voxels."""
    image = nibabel.Nifti1Header()
    image.set_data_shape(shape)
    image["magic"], image["vox_offset"] = b"n+1", 352
    return image.binaryblock + bytes(4)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("x.nii.gz", b"no gzip", "cannot be read as an image"),
        ("x.nii", b"", "cannot be read as an image"),
        ("x.txt", b"text", "cannot be read as an image"),
        ("x.nii.gz", SCAN.read_bytes()[:100_000], "ends too early or is damaged"),
        ("x.nii", gzip.decompress(SCAN.read_bytes())[:100_000], "ends too early or is damaged"),
        ("x.nii", header((10, 10)), "has the shape (10, 10); three or four dimensions are needed"),
        ("x.nii", header((30000, 30000, 30000)), "has volumes of more than 268435456 voxels"),
    ],
)
def test_a_file_that_is_no_scan_is_refused_with_a_sentence(tmp_path, name, content, reason):
    (tmp_path / name).write_bytes(content)
    done = run(tmp_path / name, tmp_path / "out")
    assert (done.returncode, done.stderr) == (1, f"{name} {reason}\n")
    assert not (tmp_path / "out").exists()
