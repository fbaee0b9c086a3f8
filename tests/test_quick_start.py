"""skops knows the same names when it finds them sooner."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# What is found depends on what is loaded, and in which order.
SCRIPT = """
import sys
import sqlalchemy, typer, scipy.stats, sklearn.linear_model
from channels.quick_start import hasten_skops
waiting = lambda: sum(type(each).__module__ == "channels.quick_start" for each in sys.meta_path)
if sys.argv[1] == "hastened":
    hasten_skops()
    hasten_skops()
    assert waiting() == 1
from skops.io import _trusted_types, _utils
print(_utils.whichmodule.__module__)
print({name: value for name, value in sorted(vars(_trusted_types).items()) if name.endswith("_NAMES")})
hasten_skops()
assert waiting() == (sys.argv[1] == "hastened"), "it is too late for another"
"""


def what_is_trusted(how: str) -> tuple[str, str]:
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, how]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found_by, names = done.stdout.splitlines()
    return found_by, names


def test_the_same_types_are_trusted() -> None:
    found_by, names = what_is_trusted("hastened")
    assert found_by == "channels.quick_start"
    assert "numpy.core._multiarray_umath.absolute" in names
    assert "scipy.special._ufuncs" in names
    assert what_is_trusted("as it is") == ("skops.io._utils", names)


def test_what_knows_its_module_or_is_nowhere_is_answered_as_by_skops() -> None:
    script = """
import sys
from channels.quick_start import hasten_skops
hasten_skops()
import numpy
from skops.io._utils import whichmodule
class Odd: pass
odd = numpy.frompyfunc(len, 1, 1)
print(whichmodule(Odd, "Odd"), whichmodule(odd, "nowhere"), whichmodule(odd, "no.where"), whichmodule(numpy.add, "add"))
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout.split() == ["__main__", "__main__", "__main__", "numpy.core._multiarray_umath"], (
        done.stderr
    )
