"""A stand-in for the model hub: serves folders as repositories over the few routes that huggingface_hub asks,
takes uploads, and fails where a test wants it to."""

import base64
import hashlib
import json
import socket
import struct
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789" * 4
STALL = "stall"


def cut(size):
    """A connection that ends after so many bytes of the body that was announced."""
    return ("cut", size)


def reset(size):
    """A connection that is torn down after so many bytes, without the end that TCP has for it."""
    return ("reset", size)


def instead(body):
    """Other bytes than the file's."""
    return ("instead", body)


@contextmanager
def serve(repositories: dict[str, Path], faults: dict[str, list] | None = None, uploads: Path | None = None):
    """Yields (endpoint, paths asked for) of a hub that has the given folders as `owner/name`.

    uploads: the folder for new repositories, which are then in `repositories`, too; None refuses them.

    A path asked for is followed by the range, where one was asked for. faults: end of a path -> what happens
    to its requests (of a file, to those for its content), one after the other: None (nothing), the status of
    an error, STALL, `cut`, `reset` or `instead`; after the last, all is well.
    """
    asked, over, large = [], threading.Event(), {}
    faults = {path: list(kinds) for path, kinds in (faults or {}).items()}

    class Hub(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            path = self.path.split("?")[0].strip("/")
            asked.append(f"{path} {self.headers['Range']}" if self.headers["Range"] else path)
            kinds = next((kinds for end, kinds in faults.items() if path.endswith(end)), [])
            self.fault = kinds.pop(0) if kinds and self.command == "GET" else None
            if self.fault == STALL:
                over.wait()
                return
            if isinstance(self.fault, int):
                return self.answer(self.fault, b"{}")
            parts = path.removeprefix("api/models/").split("/")
            root = repositories.get("/".join(parts[:2]))
            if root is None:
                return self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            files = sorted(file for file in root.rglob("*") if file.is_file())
            if not path.startswith("api/"):  # owner/name/resolve/revision/file
                file = root.joinpath(*parts[4:])
                lacking = {"X-Error-Code": "EntryNotFound"}
                return self.content(file.read_bytes()) if file.is_file() else self.answer(404, b"", lacking)
            facts = {
                "id": "/".join(parts[:2]),
                "sha": COMMIT,
                "siblings": [self.facts(file, root) for file in files],
            }
            return self.answer(200, json.dumps(facts).encode())

        do_HEAD = do_GET

        def do_POST(self):
            """What an upload asks, in this order: a repository, how each file is sent, where to, a commit."""
            path = self.path.split("?")[0].strip("/")
            asked.append(path)
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if uploads is None or not self.headers["Authorization"]:
                return self.answer(401, b"{}")
            if path == "api/repos/create":
                wanted = json.loads(body)
                name = f"{wanted['organization'] or 'me'}/{wanted['name']}"
                repositories.setdefault(name, uploads / name).mkdir(parents=True, exist_ok=True)
                return self.json({"url": f"{self.endpoint}/{name}", "id": name})
            if path.startswith("api/models/") and path.endswith("/preupload/main"):
                files = [file["path"] for file in json.loads(body)["files"]]
                modes = ["lfs" if file.endswith(".safetensors") else "regular" for file in files]
                pairs = zip(files, modes, strict=True)
                return self.json(
                    {"files": [{"path": f, "uploadMode": m, "shouldIgnore": False} for f, m in pairs]}
                )
            if path.endswith(".git/info/lfs/objects/batch"):
                objects = [
                    file | {"actions": {"upload": {"href": f"{self.endpoint}/lfs/{file['oid']}"}}}
                    for file in json.loads(body)["objects"]
                ]
                return self.json({"transfer": "basic", "objects": objects})
            if path.startswith("api/models/") and path.endswith("/commit/main"):
                name = "/".join(path.split("/")[2:4])
                for line in map(json.loads, body.splitlines()):
                    self.commit(repositories[name], line["key"], line["value"])
                return self.json(
                    {"commitUrl": f"{self.endpoint}/{name}/commit/{COMMIT}", "commitOid": COMMIT}
                )
            return self.json({"errors": [], "warnings": []})  # of a model card

        def do_PUT(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            large[self.path.rpartition("/")[2]] = body
            self.answer(200, b"")

        def commit(self, root, key, value):
            if key == "header":
                return
            content = base64.b64decode(value["content"]) if key == "file" else large[value["oid"]]
            assert key == "file" or hashlib.sha256(content).hexdigest() == value["oid"]
            (root / value["path"]).parent.mkdir(parents=True, exist_ok=True)
            (root / value["path"]).write_bytes(content)

        @property
        def endpoint(self):
            return f"http://{self.headers['Host']}"

        def json(self, facts):
            self.answer(200, json.dumps(facts).encode())

        def facts(self, file, root):
            content = file.read_bytes()
            facts = {"rfilename": file.relative_to(root).as_posix(), "size": len(content), "blobId": COMMIT}
            if file.suffix == ".safetensors":
                own = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 1}
                facts["lfs"] = own
            return facts

        def content(self, body):
            own = {"ETag": f'"{hashlib.sha256(body).hexdigest()}"', "X-Repo-Commit": COMMIT}
            first = int((self.headers["Range"] or "bytes=0-").removeprefix("bytes=").removesuffix("-"))
            if first >= len(body) > 0:
                return self.answer(416, b"", own)
            status = 206 if self.headers["Range"] else 200
            if status == 206:
                own["Content-Range"] = f"bytes {first}-{len(body) - 1}/{len(body)}"
            kind, value = self.fault or (None, None)
            end = value if kind in ("cut", "reset") else None
            self.answer(status, value[first:] if kind == "instead" else body[first:], own, end)
            if kind == "reset":
                self.wfile.flush()
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

        def answer(self, status, body, headers=None, end=None):
            self.send_response(status)
            for name, value in {"Content-Length": len(body), **(headers or {})}.items():
                self.send_header(name, str(value))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body[:end])
            if end is not None:
                self.close_connection = True

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        over.set()
        server.shutdown()
        server.server_close()
        thread.join()
