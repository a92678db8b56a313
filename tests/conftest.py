"""How the tests share a machine of two cores: see CALCULATING."""

import os
from typing import Any, Final

import pytest
from hypothesis import settings

# tests assert what is right, not how soon: machines are shared
settings.register_profile("lhm-live", deadline=None)
settings.load_profile("lhm-live")

CALCULATING: Final = (
    "tests/lhm_runtime/",
    "tests/streaming/bench/test_avatar",
    "tests/streaming/bench/test_lhm.py",
    "tests/streaming/bench/test_synthetic_people.py",
    "tests/streaming/test_cli.py",
    "tests/streaming/test_film.py",
    "tests/streaming/test_inspection.py",
    "tests/streaming/test_lhm_commands.py",
    "tests/streaming/test_models_command.py",
    "tests/streaming/test_reconstruct_command.py",
    "tests/streaming/test_take.py",
    "tests/streaming/test_track_command.py",
    "tests/tools/",
)
"""Tests that keep a core busy and do not mind waiting for it.

The first of xdist's workers does these, one after the other and at a low priority, while the others serve peers, who
count milliseconds but mostly wait. So three workers fill two cores, and no two calculations disturb a stream.
"""
CALCULATOR: Final = "gw0"


def pytest_configure() -> None:
    if os.environ.get("PYTEST_XDIST_WORKER") == CALCULATOR:
        os.nice(10)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """File by file: a file's tests share a server, an avatar, a browser."""
    from xdist.scheduler import LoadFileScheduling  # noqa: PLC0415 - nobody needs it who runs one file

    class Scheduling(LoadFileScheduling):
        """Prefers what a worker is for."""

        def _assign_work_unit(self, node: Any) -> None:
            calculates = node.gateway.id == CALCULATOR
            for file in self.workqueue:
                if file.startswith(CALCULATING) == calculates:
                    self.workqueue.move_to_end(file, last=False)
                    break
            super()._assign_work_unit(node)

        def _reschedule(self, node: Any) -> None:
            """Whoever calculates stops when that is done, unless alone: streams are not for a low priority."""
            is_done = node.gateway.id == CALCULATOR and not any(file.startswith(CALCULATING) for file in self.workqueue)
            if is_done and len(self.nodes) > 1:
                node.shutdown()
            super()._reschedule(node)

    return Scheduling(config, log)
