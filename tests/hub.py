"""A stand-in for the model hub: serves folders as repositories over the few routes that huggingface_hub asks."""

import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789" * 4


@contextmanager
def serve(repositories: dict[str, Path]):
    """Yields (endpoint, paths asked for) of a hub that has the given folders as `owner/name`."""
    asked = []

    class Hub(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            path = self.path.split("?")[0].strip("/")
            asked.append(path)
            parts = path.removeprefix("api/models/").split("/")
            root = repositories.get("/".join(parts[:2]))
            if root is None:
                return self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            files = sorted(file for file in root.rglob("*") if file.is_file())
            if not path.startswith("api/"):  # owner/name/resolve/revision/file
                file = root.joinpath(*parts[4:])
                return self.answer(200, file.read_bytes()) if file.is_file() else self.answer(404, b"")
            names = [file.relative_to(root).as_posix() for file in files]
            if "tree" in parts:
                facts = [
                    {"type": "file", "path": name, "size": file.stat().st_size, "oid": COMMIT}
                    for name, file in zip(names, files)
                ]
                return self.answer(200, json.dumps(facts).encode())
            facts = {"id": "/".join(parts[:2]), "sha": COMMIT, "siblings": [{"rfilename": name} for name in names]}
            return self.answer(200, json.dumps(facts).encode())

        do_HEAD = do_GET

        def answer(self, status, body, headers=None):
            self.send_response(status)
            etag = hashlib.sha256(body).hexdigest()
            own = {"Content-Length": len(body), "X-Repo-Commit": COMMIT, "ETag": f'"{etag}"', **(headers or {})}
            for name, value in own.items():
                self.send_header(name, str(value))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
