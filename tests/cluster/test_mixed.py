"""Mixed traffic over two processes, the short form of ``python -m tests.cluster.mixed``."""

from __future__ import annotations

import pytest

from tests.cluster.mixed import mixed


async def test_every_answer_of_mixed_traffic_over_two_processes_is_right(
    database_url: str, table_name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    load = await mixed(database_url, table_name, 1500, seed=1, people=12)
    with capsys.disabled():
        print("\n" + "\n".join(load.report.lines(load.model)))  # noqa: T201 -- figures
    assert load.model.faults == [], load.log
    assert load.report.unavailable == 0
    assert load.report.requests["revoke"]
    assert load.report.requests["logout"]
