"""File names. Bad input: names made to break shells, paths, zips and terminals."""

import unicodedata

import pytest

from ippd.domain.submission import LONGEST_NAME, safe_name, unique_name


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("scan 1.nii.gz", "scan_1.nii.gz"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\Ada\\scan.nii", "scan.nii"),
        ("3;id", "3_id"),
        ("$(id).txt", "__id_.txt"),
        ("-rf", "rf"),
        ("--.hidden", "hidden"),
        ("a\nb\tc\x00d", "abcd"),
        ("a,b", "a_b"),
        ("`id`'\"|&<>*?", "_id_________"),
        ("", "file"),
        ("...", "file"),
        ("/", "file"),
        ("Aufnahme_Größe.nii", "Aufnahme_Größe.nii"),
        ("脳スキャン.nii.gz", "脳スキャン.nii.gz"),
        ("\u202egz.iin", "_gz.iin"),
        ("\ud800.nii", "_.nii"),
    ],
)
def test_a_name_is_made_safe(sent, kept):
    assert safe_name(sent) == kept


def test_two_spellings_of_one_letter_are_one_name():
    assert safe_name("gr\u0061\u0308tz") == safe_name("gr\u00e4tz") == unicodedata.normalize("NFC", "gr\u0061\u0308tz")
    assert safe_name("gra\x01\u0308tz") == safe_name("gr\u00e4tz"), "nor does what was between them keep them apart"


def test_a_long_name_keeps_its_ending():
    name = safe_name("ä" * 500 + ".nii.gz")
    assert name.endswith("ä.nii.gz") and len(name.encode()) <= LONGEST_NAME
    assert len(safe_name("a." + "b" * 500).encode()) <= LONGEST_NAME


def test_equal_names_get_a_number_before_their_ending():
    taken = set()
    sent = ["scan.nii.gz", "scan.nii.gz", "scan.nii.gz", "scan-2.nii.gz", "x", "x", "v1.2.txt", "v1.2.txt"]
    names = [unique_name(name, taken) for name in sent]
    assert names == ["scan.nii.gz", "scan-2.nii.gz", "scan-3.nii.gz", "scan-2-2.nii.gz", "x", "x-2", "v1.2.txt", "v1.2-2.txt"]
