"""On a page of 80 columns names and numbers are whole: less important columns go instead."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from debugger_console import Conversation

from stepggml.debugger.show.layout import LONGEST_NAME
from stepggml.ggml import ggml_log_set

# Command, where its JSON has the rows, and what of a row must be there in full.
LISTINGS = (
    ("info tensors all", "tensors", ("ne",)),
    ("info graph all", "nodes", ("desc",)),
    ("info buffers", "buffers", ("size",)),
    ("info context", "contexts", ("used", "size", "n_objects")),
    ("info objects ctx_w all", "objects", ("offset", "size")),
)


@pytest.fixture(scope="module", params=[80, 120, 200])
def talk(request: pytest.FixtureRequest) -> Iterator[Conversation]:
    ggml_log_set(lambda level, text, user_data: None)
    one = Conversation(width=request.param)
    one.good("start", "si 29")
    yield one
    one.close()
    ggml_log_set(None)


@pytest.mark.parametrize("command, key, fields", LISTINGS, ids=[line for line, _, _ in LISTINGS])
def test_names_and_numbers_are_whole(talk: Conversation, command: str, key: str, fields: tuple[str, ...]) -> None:
    text = talk.good(command)
    assert max(len(line) for line in text.splitlines()) <= talk.console.width
    rows = json.loads(talk.good(f"{command} --json"))[key]
    assert rows
    words = set(re.findall(r"\d{1,3}(?:,\d{3})+|\w+", text))
    for row in rows:
        name = row["name"] if " (" not in row["name"] else row.get("variable") or ""
        if len(name) <= LONGEST_NAME:
            assert name in text, f"{name!r} is cut"
        for field in fields:
            for value in row[field] if isinstance(row[field], list) else [row[field]]:
                shown = f"{value:,}" if isinstance(value, int) else value
                assert shown in words or str(value) in words or value == 1, f"{field} {value} of {name!r} is cut"
