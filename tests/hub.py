"""A stand-in for the model hub: serves folders as repositories over the few routes that huggingface_hub asks,
and fails where a test wants it to."""

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
def serve(repositories: dict[str, Path], faults: dict[str, list] | None = None):
    """Yields (endpoint, paths asked for) of a hub that has the given folders as `owner/name`.

    A path asked for is followed by the range, where one was asked for. faults: end of a path -> what happens
    to its requests (of a file, to those for its content), one after the other: None (nothing), the status of
    an error, STALL, `cut`, `reset` or `instead`; after the last, all is well.
    """
    asked, over = [], threading.Event()
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
                return self.content(file.read_bytes()) if file.is_file() else self.answer(404, b"")
            facts = {
                "id": "/".join(parts[:2]),
                "sha": COMMIT,
                "siblings": [self.facts(file, root) for file in files],
            }
            return self.answer(200, json.dumps(facts).encode())

        do_HEAD = do_GET

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
            if self.command == "GET":
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
