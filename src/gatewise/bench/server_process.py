"""A server in a process of its own, as those see it who attack or measure it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from gatewise.errors import FailedError

SERVE = ("gatewise", "serve")


class ServerProcess:
    """A server that is running: it has said `serving NAMES at URL` on standard error.

    Args:
        module: a module that is run, and its arguments; it takes `--port 0`.
        environment: more variables of it.

    Attributes:
        port, pid: of it.
        popen: the process.
        lines: what it has said, the line with the URL last.

    Raises:
        FailedError: it ended before; with the last that it said.
    """

    def __init__(self, *module: object, **environment: str) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-m", *map(str, module), "--port", "0"],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | environment,
        )
        self.pid, self.lines = self.popen.pid, list[str]()
        assert self.popen.stderr is not None
        for line in self.popen.stderr:
            self.lines.append(line)
            if line.startswith("serving "):
                self.port = int(line.rsplit(":", 1)[1])
                return
        self.end()
        raise FailedError(f"the server did not start: {(self.lines or ['nothing'])[-1].strip()}")

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    def end(self) -> None:
        """Kill it."""
        self.popen.kill()
        self.popen.wait()
        if self.popen.stderr is not None:
            self.popen.stderr.close()

    def connect(self) -> http.client.HTTPConnection:
        """A connection, not yet made."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)

    def get(self, path: str) -> str:
        """The text of an answer."""
        with contextlib.closing(self.connect()) as connection:
            connection.request("GET", path)
            return connection.getresponse().read().decode()

    def post(self, path: str, body: Any) -> tuple[int, Any]:
        """Status and document of an answer."""
        with contextlib.closing(self.connect()) as connection:
            head = {"content-type": "application/json"}
            connection.request("POST", path, json.dumps(body), head)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        lines = [one for one in self.get("/metrics").splitlines() if one.startswith(name)]
        return sum(float(one.rsplit(" ", 1)[1]) for one in lines)

    @property
    def memory(self) -> int:
        """Resident bytes (Linux)."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8")
        return 1024 * int(status.split("VmRSS:")[1].split()[0])

    @property
    def files(self) -> int:
        """Files and connections that are open (Linux)."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))
