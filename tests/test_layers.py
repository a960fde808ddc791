"""Imports go down the layers of docs/architecture.md and never up."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent

# Highest first. A module belongs to the longest prefix that fits.
LAYERS = [
    ("pipeline.cli",),
    ("pipeline.line", "pipeline.serve"),
    ("pipeline.stages", "pipeline.jobs", "pipeline.pretrain"),
    ("models",),
    ("pipeline.io",),
    ("pipeline.signal", "pipeline.text"),
    ("pipeline.records", "pipeline.config", "pipeline.trust", "pipeline.errors", "pipeline.plain"),
]
BOTTOM = "models.compat"  # standard library only; anything may import it
LEVEL = {prefix: level for level, prefixes in enumerate(LAYERS) for prefix in prefixes}


def level_of(module: str) -> int:
    fits = [prefix for prefix in LEVEL if module == prefix or module.startswith(prefix + ".")]
    assert fits, f"{module} lies in no layer: add it to docs/architecture.md and here"
    return LEVEL[max(fits, key=len)]


def modules() -> dict[str, Path]:
    found = {}
    for package in ("pipeline", "models"):
        for path in (REPOSITORY / package).rglob("*.py"):
            if path.name != "__init__.py":
                found[".".join(path.relative_to(REPOSITORY).with_suffix("").parts)] = path
    return found


def imports_of(path: Path) -> list[str]:
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return [name for name in names if name.split(".")[0] in ("pipeline", "models")]


def test_imports_go_down_the_layers_and_never_up():
    wrong = []
    for module, path in modules().items():
        for imported in imports_of(path):
            if imported.startswith(BOTTOM):
                continue
            if level_of(imported) < level_of(module):
                wrong.append(f"{module} imports {imported}")
            if module.startswith("models.") and not imported.startswith("models"):
                wrong.append(f"{module} imports {imported}: models/ knows no voice and no stage")
    assert not wrong, "\n".join(wrong)


def test_signal_and_text_do_not_know_files_or_networks():
    wrong = []
    for module, path in modules().items():
        if module.startswith(("pipeline.signal", "pipeline.text")):
            wrong += [
                f"{module} imports {name}" for name in imports_of(path) if name.startswith(("pipeline.io", "models."))
            ]
    assert not [line for line in wrong if BOTTOM not in line], "\n".join(wrong)


def test_stages_do_not_import_each_other():
    wrong = []
    for module, path in modules().items():
        if module.startswith("pipeline.stages."):
            own = ".".join(module.split(".")[:3])  # a stage may be a package: its modules are one stage
            names = [name for name in imports_of(path) if name.startswith("pipeline.stages.")]
            wrong += [f"{module} imports {name}" for name in names if not name.startswith(own + ".")]
    assert not wrong, "\n".join(wrong)


def test_package_init_files_are_empty():
    filled = [
        str(path)
        for package in ("pipeline", "models")
        for path in (REPOSITORY / package).rglob("__init__.py")
        if path.read_text().strip()
    ]
    assert not filled


def test_the_architecture_page_shows_the_layers_that_this_test_enforces():
    page = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    diagram = re.search(r"```text\n(.*?)```", page, re.S)
    assert diagram, "docs/architecture.md has no layer diagram in a ```text block"
    order = [diagram.group(1).find(prefixes[0].replace(".", "/")) for prefixes in LAYERS]
    assert -1 not in order, dict(zip(LAYERS, order, strict=True))
    assert order == sorted(order)


HEAVY = ("torch", "numpy", "scipy", "transformers", "peft", "matplotlib", "soundfile", "huggingface_hub", "jinja2")


@pytest.mark.parametrize(
    "arguments", [["--help"], ["plan", "--help"], ["registry", "list"], ["bases", "list"], ["settings"]]
)
def test_light_commands_import_nothing_heavy(arguments: list[str], tmp_path: Path, warm_python):
    code = (
        "import sys\nfrom pipeline.cli.main import run_command\n"
        f"code = run_command({arguments!r})\n"
        f"loaded = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "assert not loaded, loaded\nassert code == 0, code\n"
    )
    done = warm_python.run(code, folder=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]


def test_command_modules_import_only_typer_and_the_standard_library_at_their_top():
    wrong = []
    for module, path in modules().items():
        if not module.startswith("pipeline.cli."):
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [f"{node.module}.{alias.name}" for alias in node.names]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            wrong += [f"{module} imports {name}" for name in names if not _is_light(name)]
    assert not wrong, "\n".join(wrong)


def _is_light(name: str) -> bool:
    top = name.split(".")[0]
    return (
        top in sys.stdlib_module_names
        or top == "typer"
        or name.startswith(("pipeline.cli", "pipeline.errors", "pipeline.trust"))
        or name == "pipeline.line.table"  # the names of the stages, without anything they import
    )


ROOM = re.compile(r"^\| `(\w+)` \|", re.M)


def test_rooms_of_models_import_downwards_in_the_order_of_their_table():
    page = (REPOSITORY / "docs/networks.md").read_text(encoding="utf-8")
    table = page.partition("## The rooms of `models/`")[2].partition("\n## ")[0]
    rooms = ROOM.findall(table)
    folders = {path.name for path in (REPOSITORY / "models").iterdir() if (path / "__init__.py").exists()}
    assert {*rooms, "configs"} == folders, "every room has its row, and nothing else"
    wrong = []
    for module, path in modules().items():
        room = module.split(".")[1] if module.startswith("models.") and module.count(".") > 1 else ""
        for imported in imports_of(path) if module.startswith("models.") else []:
            other = imported.split(".")[1]
            if other in rooms and other != room and (room not in rooms or rooms.index(other) < rooms.index(room)):
                wrong.append(f"{module} imports {imported}")
    assert wrong == []


MOST_PARAMETERS = 6
# Still to be given a record; none is to be added.
ASKING_FOR_MORE = {
    "pipeline.io.registry.channels.move",
    "pipeline.io.registry.events.next_event",
}


def test_no_function_below_the_command_line_takes_more_than_six_things():
    """What decides together is handed over together, as a record with a name."""
    found = set()
    for module, path in modules().items():
        for node in [] if module.startswith("pipeline.cli") else ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                taken = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                count = sum(one.arg not in ("self", "cls") for one in taken)
                found |= {f"{module}.{node.name}"} if count > MOST_PARAMETERS else set()
    assert found <= ASKING_FOR_MORE
