"""build.sh: when dist/ippd is taken for older than what it is made of."""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = [ROOT / "packaging/binary.sh", ROOT / "centos/units.sh", *sorted((ROOT / "centos/python").glob("*.sh"))]
# What the scripts of the build name, and what they do not name: sources and settings.
NAMED = {f"centos/{name}" for script in SCRIPTS for name in re.findall(r"\$CENTOS/([\w/]+\.\w+)", script.read_text())}
MADE_OF = sorted(NAMED | {"centos/units.sh", "centos/python/gcc", "ippd/core.py", "packaging/ippd.spec", "setup.cfg"})


@pytest.mark.parametrize("changed", MADE_OF)
def test_a_binary_was_taken_for_the_newest_after_a_change_of_what_it_is_made_of(tmp_path, changed):
    assert (ROOT / changed).is_file()
    for name in ("dist/ippd", *MADE_OF):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (1000, 1000))
    (tmp_path / "packaging/binary.sh").write_text("echo made\n")
    os.utime(tmp_path / "packaging/binary.sh", (1000, 1000))
    function = re.search(r"^current_binary\(\) \{.*?^\}", (ROOT / "build.sh").read_text(), re.MULTILINE | re.DOTALL)[0]

    def run():
        words = ["sh", "-euc", f"{function}\ncurrent_binary"]
        return subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    assert run() == ""
    os.utime(tmp_path / changed, (2000, 2000))
    assert run() == "made\n"
