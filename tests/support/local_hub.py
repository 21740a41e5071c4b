"""A server that speaks as the Hugging Face hub does, with what tests put into it."""

import contextlib
import hashlib
import http.server
import json
import pathlib
import re
import threading
import urllib.parse
from collections.abc import Iterator
from typing import Any

COMMIT = 'c' * 40
_LARGE = 1000  # bytes from which a file is kept apart, with its hash


class Handler(http.server.BaseHTTPRequestHandler):
  """Answers as `server` says: `files` by repository, and what goes wrong."""

  protocol_version = 'HTTP/1.1'

  def do_HEAD(self) -> None:
    self.answer(body=False)

  def do_GET(self) -> None:
    self.answer(body=True)

  def answer(self, *, body: bool) -> None:
    server: Any = self.server
    address = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
    server.asked.append((self.command, address, self.headers.get('Range')))
    info = re.fullmatch(r'/api/models/([^/]+/[^/]+)/(revision|tree)/([^/]+)', address)
    file = re.fullmatch(r'/([^/]+/[^/]+)/resolve/([^/]+)/(.+)', address)
    stored = re.fullmatch(r'/store/([^/]+/[^/]+)/(.+)', address)
    repository = (info or file or stored or ['', ''])[1]
    if server.status or repository not in server.files:
      status, code = server.status or (404, 'RepoNotFound')
      return self.say(status, b'{}', {'X-Error-Code': code}, body=body)
    if (info or file) and (info[3] if info else file[2]) not in ('main', COMMIT):
      return self.say(404, b'{}', {'X-Error-Code': 'RevisionNotFound'}, body=body)
    held = server.files[repository]
    if info:
      tell = self.tree if info[2] == 'tree' else self.card
      return self.say(200, json.dumps(tell(repository, held)).encode(), {}, body=body)
    name = (file or stored)[2 if stored else 3]
    if name not in held:
      headers = {'X-Error-Code': 'EntryNotFound', 'X-Repo-Commit': COMMIT}
      return self.say(404, b'', headers, body=body)
    tag = hashlib.sha256(held[name]).hexdigest()
    headers = {'ETag': f'"{tag}"', 'X-Repo-Commit': COMMIT, 'Accept-Ranges': 'bytes'}
    if file and len(held[name]) >= _LARGE:
      size = str(len(held[name]))
      headers |= {'X-Linked-Etag': f'"{tag}"', 'X-Linked-Size': size}
      headers['Location'] = f'{server.url}/store/{repository}/{name}'
      return self.say(302, b'', headers, body=body)
    return self.send(held[name], headers, body=body)

  def send(self, data: bytes, headers: dict[str, str], *, body: bool) -> None:
    server: Any = self.server
    asked = re.match(r'bytes=(\d+)-', self.headers.get('Range', ''))
    start = int(asked[1]) if asked else 0
    if asked:
      headers['Content-Range'] = f'bytes {start}-{len(data) - 1}/{len(data)}'
    if body and len(data) >= _LARGE:
      if server.replaced:
        data = data[:-1] + bytes([data[-1] ^ 1])
      if server.stops:
        self.say(206 if asked else 200, data[start:], headers, stop=server.stops.pop(0))
        return None
    return self.say(206 if asked else 200, data[start:], headers, body=body)

  def say(
    self,
    status: int,
    data: bytes,
    headers: dict[str, str],
    *,
    body: bool = True,
    stop: int | None = None,
  ) -> None:
    self.send_response(status)
    for name, value in {'Content-Type': 'application/json', **headers}.items():
      self.send_header(name, value)
    self.send_header('Content-Length', str(len(data)))
    self.end_headers()
    if body:
      with contextlib.suppress(ConnectionError):
        self.wfile.write(data[:stop])
    if stop is not None:
      self.close_connection = True

  def card(self, repository: str, held: dict[str, bytes]) -> dict[str, Any]:
    files = [
      {'rfilename': n, 'size': len(x), **lfs(x, 'sha256')} for n, x in held.items()
    ]
    licence = {'license': self.server.licence}  # type: ignore[attr-defined]
    return {'id': repository, 'sha': COMMIT, 'siblings': files, 'cardData': licence}

  def tree(self, repository: str, held: dict[str, bytes]) -> list[dict[str, Any]]:
    del repository
    return [
      {'type': 'file', 'path': n, 'size': len(x), 'oid': 'a' * 40, **lfs(x, 'oid')}
      for n, x in held.items()
    ]

  def log_message(self, *_: Any) -> None:
    pass


def lfs(data: bytes, key: str) -> dict[str, Any]:
  """What the hub tells of a large file."""
  if len(data) < _LARGE:
    return {}
  digest = hashlib.sha256(data).hexdigest()
  return {'lfs': {key: digest, 'size': len(data), 'pointerSize': 134}}


@contextlib.contextmanager
def serving() -> Iterator[Any]:
  """Yields a server with `files`, `licence`, `status`, `stops`, `replaced`, `asked`."""
  server: Any = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
  server.files, server.licence, server.status = {}, 'apache-2.0', None
  server.stops, server.replaced, server.asked = [], False, []
  server.url = f'http://127.0.0.1:{server.server_port}'
  threading.Thread(target=server.serve_forever, daemon=True).start()
  try:
    yield server
  finally:
    server.shutdown()
    server.server_close()


def folder(path: pathlib.Path) -> dict[str, bytes]:
  """The files of a folder, to put into a server."""
  found = [p for p in path.rglob('*') if p.is_file()]
  return {p.relative_to(path).as_posix(): p.read_bytes() for p in found}
