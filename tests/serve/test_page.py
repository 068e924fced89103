"""docs/serve.md: each of its commands does what it says, on a server of this machine."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "serve.md"
LINES = [
    line
    for block in re.findall(r"```sh\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    for line in block.splitlines()
    if line.startswith("curl") and "localhost" in line
]


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl on this machine")
def test_every_request_of_the_page_is_answered(process) -> None:
    assert len(LINES) >= 13
    for line in LINES:
        words = shlex.split(line.replace("localhost:8080", f"127.0.0.1:{process.port}"))
        found = subprocess.run([*words, "--fail"], capture_output=True, text=True, check=False)
        assert found.returncode == 0, line
        if "stream" in line:
            assert found.stdout.endswith("data: [DONE]\n\n")
        elif "metrics" in line:
            assert "gatewise_model_steps_total" in found.stdout
        else:
            json.loads(found.stdout)


def test_the_page_names_every_endpoint(client) -> None:
    text = PAGE.read_text(encoding="utf-8")
    for path in client("GET", "/openapi.json").json()["paths"]:
        assert path.split("{")[0].rstrip("/") in text, path
