"""The rules of tests/cases/rules.py in orders chosen by Hypothesis, on NumPy under the rules of a GPU."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from tests.cases.rules import KINDS, LIMITS, MODELS, RULES, World
from tests.sharing.devices import backends, budget, check, empty, manager_on

STEPS = 100


class Sharing(RuleBasedStateMachine):
    @initialize(limit=st.sampled_from(LIMITS))
    def start(self, limit):
        self.loop = asyncio.new_event_loop()
        self.manager = manager_on(*KINDS, limit=limit)

        async def lose():
            backends(self.manager)[1].lose()

        self.world = World(self.manager, lambda usable: budget(usable, *KINDS), lose, check)

    def teardown(self):
        if hasattr(self, "manager"):
            empty(self.manager, MODELS)
            self.loop.close()


def _rule(name):
    def step(self, **arguments):
        self.loop.run_until_complete(self.world.step(name, **arguments))

    step.__name__ = name
    chosen: dict[str, Any] = {argument: st.sampled_from(choices) for argument, choices in RULES[name].items()}
    return rule(**chosen)(step)


for name in RULES:
    setattr(Sharing, name, _rule(name))


@pytest.mark.slow
def test_any_order_of_everything():
    examples = int(os.environ.get("TENSORCOMMONS_EXAMPLES", "60"))
    run_state_machine_as_test(
        Sharing,
        settings=settings(
            max_examples=examples,
            stateful_step_count=STEPS,
            derandomize="TENSORCOMMONS_EXAMPLES" not in os.environ,
            suppress_health_check=list(HealthCheck),
            database=None,
            phases=(Phase.generate,),  # shrinking a failure takes minutes; remove this line to enable it
        ),
    )
