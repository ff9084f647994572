"""The table in docs/ops.md."""

from scripts.ops_table import FILE, table


def test_the_table_of_ops_is_up_to_date() -> None:
    made = table()
    assert FILE.read_text("utf-8") == made, "update it with .cache/venv/bin/python -m scripts.ops_table"
