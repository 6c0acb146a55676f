"""A real yaml-language-server, spoken to over stdio as an editor does."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SERVER = Path(os.environ.get("YAML_LANGUAGE_SERVER", ROOT / ".venv-editor/node_modules/.bin/yaml-language-server"))
TIME_LIMIT = 120.0
"""Seconds after which a server that does not answer is ended, and the test with it."""
SETTINGS = {"yaml": {"validate": True, "hover": True, "completion": True, "schemaStore": {"enable": False}}}


class Editor:
    """One session of an editor: the server's process, and what it published."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [str(SERVER), "--stdio"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self._limit = threading.Timer(TIME_LIMIT, self._process.kill)
        self._limit.start()
        self._requests = self._documents = 0
        self._published: dict[str, list[dict[str, Any]]] = {}
        markdown = ["markdown", "plaintext"]
        self._ask(
            "initialize",
            {
                "processId": None, "rootUri": folder.as_uri(),
                "capabilities": {
                    "workspace": {"configuration": True},
                    "textDocument": {
                        "completion": {"completionItem": {"snippetSupport": True, "documentationFormat": markdown}},
                        "hover": {"contentFormat": markdown},
                    },
                },
            },
        )  # fmt: skip
        self._tell("initialized", {})

    def close(self) -> None:
        self._limit.cancel()
        self._process.kill()
        self._process.communicate()

    def problems(self, file: Path, text: str) -> list[tuple[int, str, str]]:
        """(line from 1, text under the squiggle, message) of a file with this text."""
        uri = self._open(file, text)
        while uri not in self._published:
            self._receive()
        lines = text.splitlines()
        found = []
        for problem in self._published[uri]:
            start, end = problem["range"]["start"], problem["range"]["end"]
            last = end["character"] if end["line"] == start["line"] else None
            found.append((start["line"] + 1, lines[start["line"]][start["character"] : last], problem["message"]))
        return sorted(found)

    def completion(self, file: Path, text: str) -> dict[str, str]:
        """Label -> inserted text, of what is offered at the `|` of the text."""
        result = self._at_cursor("textDocument/completion", file, text)
        items = result["items"] if isinstance(result, dict) else result or []
        return {
            item["label"]: (item.get("textEdit") or {}).get("newText", item.get("insertText", "")) for item in items
        }

    def hover(self, file: Path, text: str) -> str:
        """What is shown over the `|` of the text."""
        result = self._at_cursor("textDocument/hover", file, text)
        return "" if result is None else str(result["contents"]["value"])

    def _at_cursor(self, method: str, file: Path, text: str) -> Any:
        before, after = text.split("|", 1)
        uri = self._open(file, before + after)
        line = before.count("\n")
        position = {"line": line, "character": len(before) - (before.rfind("\n") + 1)}
        return self._ask(method, {"textDocument": {"uri": uri}, "position": position})

    def _open(self, file: Path, text: str) -> str:
        """Open a document beside the file, a new one each time, so that nothing said of an earlier text is taken for it."""
        self._documents += 1
        uri = file.with_stem(f"{file.stem}_{self._documents}").as_uri()
        document = {"uri": uri, "languageId": "yaml", "version": 1, "text": text}
        self._tell("textDocument/didOpen", {"textDocument": document})
        return uri

    def _ask(self, method: str, params: Any) -> Any:
        self._requests += 1
        self._send({"id": self._requests, "method": method, "params": params})
        while (message := self._receive()).get("id") != self._requests or "method" in message:
            pass
        assert "error" not in message, message
        return message["result"]

    def _tell(self, method: str, params: Any) -> None:
        self._send({"method": method, "params": params})

    def _send(self, message: dict[str, Any]) -> None:
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        assert self._process.stdin is not None
        self._process.stdin.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        self._process.stdin.flush()

    def _receive(self) -> dict[str, Any]:
        """The next message; questions of the server are answered on the way."""
        assert self._process.stdout is not None
        length = 0
        while header := self._process.stdout.readline().strip():
            name, _, value = header.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        assert length, "the language server has ended, or did not answer in time"
        message: dict[str, Any] = json.loads(self._process.stdout.read(length))
        if message.get("method") == "textDocument/publishDiagnostics":
            self._published[message["params"]["uri"]] = message["params"]["diagnostics"]
        elif "method" in message and "id" in message:
            asked = message["params"].get("items", []) if message["method"] == "workspace/configuration" else []
            self._send({"id": message["id"], "result": [SETTINGS.get(item.get("section")) for item in asked]})
        return message


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `epc init` has just been typed."""
    from epc.runtime.cli import main

    folder = tmp_path_factory.mktemp("project")
    assert main(["init", str(folder / "specs/experiment.yaml")]) == 0
    return folder


@pytest.fixture(scope="module")
def editor(project: Path) -> Iterator[Editor]:
    assert SERVER.exists(), f"{SERVER} is not there: make test-editor installs it"
    session = Editor(project)
    yield session
    session.close()
