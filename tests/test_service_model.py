"""Every operation of the public model of Lambda, and every member of every request, against the running server.

An operation works, or answers that it is not built. A member of one that works is applied, which is proven, or refused
by its name. The table of both stands in SPECIFICATION.md, and has to be what the server does:
`./test test_service_model.py --write-table` writes it.
"""

import re
from collections import Counter

import pytest
from harness.paths import ROOT
from harness.recipes import RECIPES
from harness.server import Server
from harness.walk import MODEL, OPERATIONS, Row, Waits, Walk, World, dotted, members

SPECIFICATION = ROOT / "SPECIFICATION.md"
TABLE = re.compile(r"(<!-- operations of Lambda: written by tests/test_service_model.py -->\n).*?(<!-- end -->)", re.DOTALL)
ROWS: dict[str, Row] = {}


@pytest.fixture(scope="module")
def world(python, tmp_path_factory):
    shared = tmp_path_factory.mktemp("shared")
    server = Server(config=f'file_systems = ["fsap-0123456789abcdef0={shared}"]\n').start()
    made = World(server, python)
    yield made
    server.close()


def walked(world, operation) -> Row:
    """What the operation comes to; walked once in a run."""
    if operation not in ROWS:
        if not world.is_built(operation):
            ROWS[operation] = Row(operation, False)
        else:
            assert operation in RECIPES, f"{operation} is built: give it a recipe in tests/harness/recipes.py"
            try:
                ROWS[operation] = Walk(world, operation, RECIPES[operation]).run()
            except Waits as needs:
                ROWS[operation] = Row(operation, True, waits=str(needs))
            finally:
                world.forget()
    return ROWS[operation]


def table() -> str:
    found = TABLE.search(SPECIFICATION.read_text())
    assert found, "SPECIFICATION.md has no table of operations"
    return found.group(0)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_member_is_applied_or_refused_by_name(world, operation, request):
    row = walked(world, operation)
    if row.built and not row.waits:
        shape = MODEL.operation_model(operation).input_shape
        paths = {dotted(path) for path, _ in members(shape)} if shape else set()
        assert paths == set(row.applied) | {path for path in row.refused if "=" not in path}
        assert not set(row.applied) & set(row.refused)
    if not request.config.getoption("--write-table"):
        assert f"\n{row}\n" in table(), f"SPECIFICATION.md does not have this row (--write-table):\n{row}"


def summary(rows: list[Row]) -> str:
    count = Counter(row.built for row in rows)
    applied, refused = sum(len(row.applied) for row in rows), sum("=" not in path for row in rows for path in row.refused)
    return (f"Of the {len(rows)} operations {count[True]} work. Of the {applied + refused} members of their requests {applied} are "
            f"applied and {refused} are refused by name, as are values behind a `=`.\n")


def test_the_table_is_what_the_server_does(world, request):
    rows = [walked(world, operation) for operation in OPERATIONS]
    assert len(rows) == 91, "the model has changed"
    lines = "".join(f"{row}\n" for row in rows)
    true = f"{summary(rows)}\n| operation | | members applied | refused |\n|---|---|---|---|\n{lines}"
    if request.config.getoption("--write-table"):
        SPECIFICATION.write_text(TABLE.sub(lambda found: found.group(1) + true + found.group(2), SPECIFICATION.read_text()))
    assert TABLE.search(table()).group(0).split("-->\n", 1)[1].removesuffix("<!-- end -->") == true
