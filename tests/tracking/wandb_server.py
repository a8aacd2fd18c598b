"""A stand-in for the W&B server: keeps the rows it is sent, and fails when told to.

It answers what wandb 0.31 asks when a run is logged, resumed or synced, and nothing more.
"""

import gzip
import http.server
import json
import threading
from typing import Any


class WandbServer(http.server.ThreadingHTTPServer):
    """Listens on this machine from its making on.

    Attributes:
        rows: of each run's history, by id.
        fault: None; an HTTP status for every answer; "hang" never answers; "close" hangs up.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.rows: dict[str, list[dict[str, Any]]] = {}
        self.summaries: dict[str, dict[str, Any]] = {}
        self.fault: int | str | None = None
        self.release = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop, and let go of who waits for an answer."""
        self.release.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of connections that the client drops."""

    def steps(self, run_id: str) -> list[int]:
        """Return the steps of the rows that came, in their order."""
        return [row["_step"] for row in self.rows.get(run_id, [])]

    def graphql(self, operation: str, variables: dict[str, Any]) -> dict[str, Any] | None:
        """Return the data that answers one query."""
        name = variables.get("name")
        if operation == "Viewer":
            return {"viewer": {"id": "u", "entity": "me", "username": "me", "flags": "{}"}}
        if operation == "RunResumeStatus":
            return {"model": {"id": "p", "name": "fovea", "bucket": self._state(str(name))}}
        if operation == "UpsertBucket":
            rows = self.rows.setdefault(str(name), [])
            project = {"id": "p", "name": "fovea", "entity": {"id": "e", "name": "me"}}
            bucket = {
                "id": f"id-{name}", "name": name, "displayName": name, "config": "{}",
                "project": project, "historyLineCount": len(rows),
            }  # fmt: skip
            return {"upsertBucket": {"bucket": bucket, "inserted": not rows}}
        if operation == "CreateRunFiles":
            files = [{"name": f, "uploadUrl": f"{self.url}/put"} for f in variables["files"]]
            return {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": files}}
        return None

    def _state(self, name: str) -> dict[str, Any] | None:
        if name not in self.rows:
            return None
        last = self.rows[name][-1:]
        return {
            "id": f"id-{name}", "name": name, "displayName": name, "config": "{}", "tags": [],
            "summaryMetrics": json.dumps(last[0] if last else {}), "wandbConfig": '{"t":1}',
            "historyLineCount": len(self.rows[name]), "eventsLineCount": 0, "logLineCount": 0,
            "historyTail": json.dumps([json.dumps(row) for row in last]), "eventsTail": "[]",
        }  # fmt: skip

    def take(self, run_id: str, files: dict[str, Any]) -> None:
        """Keep the rows of one upload at the place it names."""
        if history := files.get("wandb-history.jsonl"):
            rows, at = self.rows.setdefault(run_id, []), history["offset"]
            new = [json.loads(line) for line in history["content"]]
            rows[at : at + len(new)] = new
        if summary := files.get("wandb-summary.json"):
            self.summaries[run_id] = json.loads(summary["content"][-1])


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: WandbServer

    def log_message(self, *args: Any) -> None:
        pass

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.server.fault
        if fault == "hang":
            self.server.release.wait()
        if isinstance(fault, str):
            self.close_connection = True
            return
        answer: dict[str, Any] = {}
        if fault is None and self.path.startswith("/graphql"):
            asked = json.loads(body)
            answer["data"] = self.server.graphql(
                asked.get("operationName") or "", asked.get("variables") or {}
            )
        elif fault is None and self.path.endswith("/file_stream"):
            text = gzip.decompress(body) if self.headers.get("Content-Encoding") else body
            self.server.take(self.path.split("/")[-2], json.loads(text).get("files") or {})
        data = json.dumps(answer).encode()
        self.send_response(fault or 200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PUT = _answer  # noqa: N815
