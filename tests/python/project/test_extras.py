"""Optional packages: imported in one module, and named if they are missing."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest

import fastoptim as fo
from fastoptim import _extras
from processes import run

PACKAGE = Path(fo.__file__).parent
PYPROJECT = Path(__file__).parents[3] / "pyproject.toml"

# Hides the optional modules, as if they were not installed.
HIDDEN = f"""
import importlib.abc, sys
import numpy as np

class Hide(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {set(_extras.EXTRAS)}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Hide())
import fastoptim as fo

def refused(call):
    try:
        call()
    except ModuleNotFoundError as error:
        print(error)
    else:
        raise AssertionError("not refused")
"""


def imported(source: Path) -> set[str]:
    """Return all packages that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(str(node.module))
    return {name.partition(".")[0] for name in found}


def test_optional_packages_are_imported_in_one_place() -> None:
    for source in PACKAGE.rglob("*.py"):
        # The package over tensors, whose `__init__` says what is missing.
        allowed = {"torch"} if PACKAGE / "torch" in source.parents else set()
        assert not imported(source) & set(_extras.EXTRAS) - allowed, source


def test_every_extra_is_one_of_the_project_and_has_the_package() -> None:
    project = tomllib.loads(PYPROJECT.read_text())["project"]
    for extra, package in _extras.EXTRAS.values():
        wanted = project["optional-dependencies"][extra]
        assert any(requirement.startswith(f"{package}>=") for requirement in wanted), extra


def test_moments_in_bfloat16_need_no_package_until_their_view_is_asked_for() -> None:
    done = run(
        HIDDEN
        + """
w = np.ones(600, "f4")
opt = fo.Adam([w], state_dtype="bfloat16")
for _ in range(3):
    opt.step([np.full_like(w, 0.5)], max_norm=1.0)
opt.add_param_group({"params": [np.ones(3, "f4")]})
opt.step([np.ones_like(w), np.ones(3, "f4")])
print(opt.param_groups[0]["lr"], w[0] < 1)
before = w.tobytes()
for call in (lambda: opt.state["0"], opt.state_dict, lambda: fo.save("file", opt=opt)):
    refused(call)
assert w.tobytes() == before
"""
    )
    assert done.returncode == 0, done.stderr
    first, *messages = done.stdout.splitlines()
    assert first == "0.001 True"
    expected = _extras.missing("an array of bfloat16", "ml_dtypes")
    assert messages == [expected] * 3


def test_a_load_without_a_required_package_changes_nothing(tmp_path: Path) -> None:
    pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
    made = """
w, path = np.full(3, {start}, "f4"), {path!r}
model = fo.FlatBuffer.from_arrays({{"w": w}})
opt = fo.Adam(model, state_dtype="bfloat16")
"""
    made = made.replace("{path!r}", repr(str(tmp_path / "file")))
    script = "import numpy as np\nimport fastoptim as fo\n" + made.format(start=1.0)
    done = run(script + "fo.save(path, model=model, opt=opt)")
    assert done.returncode == 0, done.stderr
    script = HIDDEN + made.format(start=2.0)
    done = run(
        script + "refused(lambda: fo.load(path, model=model, opt=opt))\nprint(model['w'].tolist())"
    )
    assert done.returncode == 0, done.stderr
    message, values = done.stdout.splitlines()
    assert "pip install 'fastoptim[bfloat16]'" in message
    assert values == "[2.0, 2.0, 2.0]"


@pytest.mark.parametrize(
    ("call", "what", "module"),
    [
        ("fo.FlatBuffer({'w': 3}, 'bfloat16')", "an array of bfloat16", "ml_dtypes"),
        ("fo.plot.schedule(fo.schedules.linear(1.0, total_iters=9), 9)", "a picture", "matplotlib"),
        ("fo.plot.losses()", "a picture", "matplotlib"),
        ("fo.plot.history({'a': [1.0, 0.5]})", "a picture", "matplotlib"),
        ("stepped().state_dict(tensors=True)", "a state of tensors", "torch"),
    ],
)
def test_a_missing_package_is_named_with_the_command(call: str, what: str, module: str) -> None:
    done = run(
        HIDDEN
        + f"""
def stepped():
    opt = fo.Adam([np.ones(3, "f4")])
    opt.step([np.ones(3, "f4")])
    return opt

refused(lambda: {call})
"""
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == _extras.missing(what, module)


def test_what_to_install_is_said() -> None:
    assert _extras.missing("a picture", "matplotlib") == (
        "a picture needs matplotlib: pip install 'fastoptim[plot]', or pip install matplotlib"
    )
    assert _extras.missing("it", "sklearn", "matplotlib") == (
        "it needs scikit-learn and matplotlib: pip install 'fastoptim[demo,plot]', "
        "or pip install scikit-learn matplotlib"
    )


def test_a_broken_package_is_not_a_missing_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "half_installed.py").write_text("import what_it_lacks\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="what_it_lacks"):
        _extras.find("half_installed")
    assert _extras.find("not_there_at_all") is None
