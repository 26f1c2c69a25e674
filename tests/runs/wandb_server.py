"""A server of Weights & Biases in a thread: it takes what the real client and `wandb sync` send, and keeps it.

It also chooses the trials of a grid for `wandb agent`.

It has the queries of version 0.31 of the client; the interface is not public.
"""

import gzip
import itertools
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml

ENTITY = {"id": "E", "name": "me"}


@dataclass
class ServedRun:
    """What the server keeps of a run."""

    settings: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    artifacts: list[dict[str, Any]] = field(default_factory=list)
    used: list[str] = field(default_factory=list)
    alerts: list[tuple[str, str]] = field(default_factory=list)


class WandbServer:
    """A context in which the server is running.

    Attributes:
        runs: Runs by their ids.
        uploads: Sizes of uploaded files by their names.
        sweep: The sweep file that was uploaded last.
        trials: Options of the trials of its grid, by the ids of their runs, that an agent has started.
    """

    def __init__(self) -> None:
        self.runs: dict[str, ServedRun] = {}
        self.uploads: dict[str, int] = {}
        self.sweep: dict[str, Any] = {}
        self.trials: dict[str, dict[str, Any]] = {}
        self._waiting: list[dict[str, Any]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "WandbServer":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def run(self, name: str) -> ServedRun:
        return self.runs.setdefault(name, ServedRun())

    # filestream

    def stream(self, name: str, files: dict[str, Any]) -> None:
        run = self.run(name)
        if history := files.get("wandb-history.jsonl"):
            rows = [json.loads(line) for line in history["content"]]
            run.rows[history["offset"] : history["offset"] + len(rows)] = rows
        if summary := files.get("wandb-summary.json"):
            run.summary = json.loads(summary["content"][-1])

    # queries, by their names

    def Viewer(self, v: dict[str, Any]) -> Any:
        return {"viewer": {"id": "u", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}}

    def ServerFeaturesQuery(self, v: dict[str, Any]) -> Any:
        return {"serverInfo": {"features": []}}

    def UpsertBucket(self, v: dict[str, Any]) -> Any:
        is_new, run = v["name"] not in self.runs, self.run(v["name"])
        run.settings |= {name: value for name, value in v.items() if value is not None}
        run.config |= {name: item["value"] for name, item in json.loads(v.get("config") or "{}").items()}
        project = {"id": "P", "name": v.get("project") or "p", "entity": ENTITY}
        bucket = {"id": f"B{v['name']}", "name": v["name"], "displayName": "r", "description": "", "config": "{}"}
        bucket |= {"sweepName": "", "projectId": "P", "historyLineCount": len(run.rows), "project": project}
        return {"upsertBucket": {"bucket": bucket, "inserted": is_new}}

    def RunResumeStatus(self, v: dict[str, Any]) -> Any:
        bucket = None
        if v["name"] in self.runs:
            run = self.runs[v["name"]]
            bucket = {"id": f"B{v['name']}", "name": v["name"], "displayName": "r", "config": "{}", "tags": []}
            bucket |= {"historyLineCount": len(run.rows), "logLineCount": 0, "eventsLineCount": 0, "wandbConfig": "{}"}
            bucket |= {"historyTail": json.dumps([json.dumps(row) for row in run.rows[-1:]]), "eventsTail": "[]"}
            bucket |= {"summaryMetrics": json.dumps(run.summary)}
        return {"model": {"id": "P", "name": v["project"], "entity": ENTITY, "bucket": bucket}}

    def CreateRunFiles(self, v: dict[str, Any]) -> Any:
        files = [{"name": name, "uploadUrl": self._upload(name)} for name in v["files"]]
        return {"createRunFiles": {"runID": "B", "uploadHeaders": [], "files": files}}

    def NotifyScriptableRunAlert(self, v: dict[str, Any]) -> Any:
        self.run(v["runName"]).alerts.append((v["title"], v["text"]))
        return {"notifyScriptableRunAlert": {"success": True}}

    def ArtifactType(self, v: dict[str, Any]) -> Any:
        return {"project": {"artifact": None}}

    def ArtifactMembershipByName(self, v: dict[str, Any]) -> Any:
        project = {"id": "P", "internalId": "1", "name": v["project"], "entity": {"name": v["entity"]}}
        collection = {"__typename": "ArtifactSequence", "name": v["name"].partition(":")[0], "project": project}
        artifact = {"__typename": "Artifact", "id": f"{v['entity']}/{v['project']}/{v['name']}", "versionIndex": 3}
        artifact |= {"artifactSequence": collection, "artifactType": {"name": "checkpoint"}, "description": None}
        artifact |= {"metadata": "{}", "ttlDurationSeconds": -1, "ttlIsInherited": False, "tags": [], "aliases": []}
        artifact |= {"historyStep": None, "state": "COMMITTED", "size": "5", "digest": "d", "commitHash": "c"}
        artifact |= {"fileCount": "1", "createdAt": "2026-01-01T00:00:00Z", "updatedAt": None}
        membership = {"__typename": "ArtifactCollectionMembership", "id": "M", "versionIndex": 3, "aliases": []}
        membership |= {"createdAt": "2026-01-01T00:00:00Z", "artifactCollection": collection, "artifact": artifact}
        return {"project": {"artifactCollectionMembership": membership}}

    def UseArtifact(self, v: dict[str, Any]) -> Any:
        self.run(v["runName"]).used.append(v["artifactID"])
        return {"useArtifact": {"artifact": {"id": v["artifactID"]}}}

    def CreateArtifact(self, v: dict[str, Any]) -> Any:
        self.run(v["input"]["runName"]).artifacts.append(v["input"])
        artifact = {"id": v["input"]["digest"], "state": "PENDING", "artifactSequence": {"id": "S"}}
        artifact["artifactSequence"] |= {"latestArtifact": {"id": v["input"]["digest"], "versionIndex": 0}}
        return {"createArtifact": {"artifact": artifact}}

    def CreateArtifactManifest(self, v: dict[str, Any]) -> Any:
        file = {"id": "F", "name": v["name"], "displayName": v["name"], "uploadHeaders": []}
        file["uploadUrl"] = self._upload(v["name"])
        return {"createArtifactManifest": {"artifactManifest": {"id": "M", "file": file}}}

    def CreateArtifactFiles(self, v: dict[str, Any]) -> Any:
        edges = []
        for name in (file["name"] for file in v["input"]["artifactFiles"]):
            node = {"id": "F", "name": name, "displayName": name, "uploadHeaders": [], "storagePath": name}
            node |= {"uploadUrl": self._upload(name), "uploadMultipartUrls": None, "artifact": {"id": "A"}}
            edges.append({"node": node})
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def CommitArtifact(self, v: dict[str, Any]) -> Any:
        return {"commitArtifact": {"artifact": {"id": v["artifactID"], "digest": "d"}}}

    def UpsertSweep(self, v: dict[str, Any]) -> Any:
        self.sweep = yaml.safe_load(v["config"])
        listed = {name: each["values"] for name, each in self.sweep["parameters"].items()}
        self._waiting = [dict(zip(listed, values, strict=True)) for values in itertools.product(*listed.values())]
        project = {"id": "P", "name": v.get("projectName") or "p", "entity": ENTITY}
        return {"upsertSweep": {"sweep": {"name": "sweep1", "project": project}, "configValidationWarnings": []}}

    def SweepWithRuns(self, v: dict[str, Any]) -> Any:
        sweep = {"id": "W", "name": v["sweep"], "config": yaml.safe_dump(self.sweep), "runs": {"edges": []}}
        return {"project": {"sweep": sweep}}

    def CreateAgent(self, v: dict[str, Any]) -> Any:
        return {"createAgent": {"agent": {"id": "G"}}}

    def Heartbeat(self, v: dict[str, Any]) -> Any:
        """The next trial once the agent has none that runs; the end after the last one."""
        commands: list[dict[str, Any]] = []
        if not json.loads(v["runState"]) and self._waiting:
            point, name = self._waiting.pop(0), f"trial{len(self.trials)}"
            self.trials[name] = point
            options = {option: {"value": value} for option, value in point.items()}
            commands = [{"type": "run", "run_id": name, "program": self.sweep.get("program", ""), "args": options}]
        elif not json.loads(v["runState"]):
            commands = [{"type": "exit"}]
        return {"agentHeartbeat": {"agent": {"id": "G"}, "commands": json.dumps(commands)}}

    def _upload(self, name: str) -> str:
        return f"{self.address}/upload/{name}"


def _handler(server: WandbServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            self._answer({})

        def do_PUT(self) -> None:
            server.uploads[self.path.removeprefix("/upload/")] = len(self._body())
            self._answer({})

        def do_POST(self) -> None:
            body = self._body()
            if match := re.fullmatch(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", self.path):
                server.stream(match[1], json.loads(body).get("files") or {})
                self._answer({"exitcode": None, "limits": {}})
            elif self.path == "/graphql":
                query = json.loads(body)
                match = re.search(r"(?:query|mutation)\s+(\w+)", query["query"])
                answer = getattr(server, match[1], None) if match else None
                self._answer({"data": answer(query.get("variables") or {}) if answer else {}})
            else:  # measurements of the client itself
                self._answer({})

        def _body(self) -> bytes:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

        def _answer(self, content: Any) -> None:
            text = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

    return Handler
