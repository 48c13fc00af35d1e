"""The shim that lets monailabel be imported."""

from __future__ import annotations

import subprocess
import sys

import pytest


def run(code: str) -> None:
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


def test_monailabel_is_imported_beside_pydicom_3() -> None:
    run("from monailabel_app.lib import compat; compat.install(); import monailabel.app")


def test_a_second_call_and_later_questions_find_the_stand_ins() -> None:
    run(
        "import importlib.util, sys\n"
        "from monailabel_app.lib import compat\n"
        "compat.install(); before = dict(sys.modules); compat.install()\n"
        "assert {n: sys.modules[n] for n in before} == before\n"
        "for name in (*compat.UNUSED, 'distutils.util', compat.STORAGE_CLASSES):\n"
        "    assert importlib.util.find_spec(name) is not None, name"
    )


def test_what_is_installed_is_left_alone() -> None:
    run(
        "import sys, types\n"
        "real = sys.modules['itk'] = types.ModuleType('itk')\n"
        "from monailabel_app.lib import compat\n"
        "compat.install()\n"
        "assert sys.modules['itk'] is real"
    )


@pytest.mark.parametrize(("text", "value"), [("True", 1), ("off", 0), ("1", 1)])
def test_truth_values_are_read_without_distutils(text: str, value: int) -> None:
    run(
        "import importlib.util, sys\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda n: None if n.startswith('distutils') else find(n)\n"
        "for n in [n for n in sys.modules if n.startswith('distutils')]: del sys.modules[n]\n"
        "from monailabel_app.lib import compat\n"
        "compat.install()\n"
        "from distutils.util import strtobool\n"
        f"assert strtobool({text!r}) == {value}"
    )
