"""Downloads from a local server that breaks off, forgets, lies and refuses."""

import contextlib
import hashlib
import http.server
import json
import multiprocessing
import re
import shutil
import socket
import threading
import time
import urllib.request

import numpy as np
import pytest

from ovs_jax.convert import catalogue, download
from ovs_jax.convert.download import fetch

DATA = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(DATA).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
  """Serves `server.data` as `server` says, and notes what was asked for."""

  def do_GET(self):
    server = self.server
    server.requests.append(dict(self.headers))
    if server.status != 200:
      self.send_error(server.status)
      return
    data, start = server.data, 0
    asked = re.match(r'bytes=(\d+)-', self.headers.get('Range', ''))
    version = self.headers.get('If-Range')
    if asked and server.ranges and version in (None, server.tag):
      start = int(asked[1])
      if start >= len(data):
        self.send_error(416)
        return
      self.send_response(206)
      self.send_header('Content-Range', f'bytes {start}-{len(data) - 1}/{len(data)}')
    else:
      self.send_response(200)
    if server.tag:
      self.send_header('ETag', server.tag)
    self.send_header('Content-Length', str(len(data) - start))
    self.end_headers()
    stop = server.stops.pop(0) if server.stops else len(data)
    with contextlib.suppress(ConnectionError):
      while server.drip:
        self.wfile.write(data[start : start + 1])
        start += 1
        time.sleep(server.drip)
      self.wfile.write(data[start : start + stop])

  def log_message(self, *_):
    pass


@pytest.fixture
def server(monkeypatch):
  monkeypatch.setenv('no_proxy', '*')
  server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
  server.data, server.tag, server.ranges, server.status = DATA, '"one"', True, 200
  server.stops, server.requests, server.drip = [], [], 0
  server.url = f'http://127.0.0.1:{server.server_port}/model.pt'
  threading.Thread(target=server.serve_forever, daemon=True).start()
  yield server
  server.shutdown()
  server.server_close()


def get(server, target, **changes):
  wishes = {'sha256': SHA256, 'attempts': 1, 'wait': 0.0, **changes}
  return fetch(server.url, target, **wishes)


def names(folder):
  return sorted(path.name for path in folder.iterdir() if path.suffix != '.lock')


def test_a_file_comes_once(server, tmp_path):
  target = tmp_path / 'cache' / 'model.pt'
  assert get(server, target) == target
  assert target.read_bytes() == DATA
  assert names(target.parent) == ['model.pt']
  get(server, target)
  assert len(server.requests) == 1
  target.write_bytes(b'damaged')
  assert get(server, target).read_bytes() == DATA


def test_an_interrupted_file_has_no_name_and_is_resumed(server, tmp_path):
  target = tmp_path / 'model.pt'
  server.stops = [100_000, 50_000]
  for size in (100_000, 150_000):
    with pytest.raises(OSError, match=f'broke off 1 times .*{size} bytes are kept'):
      get(server, target)
    assert names(tmp_path) == ['model.pt.part', 'model.pt.part.json']
  assert get(server, target).read_bytes() == DATA
  assert [r.get('Range') for r in server.requests] == [
    None,
    'bytes=100000-',
    'bytes=150000-',
  ]
  assert server.requests[2]['If-Range'] == '"one"'
  assert names(tmp_path) == ['model.pt']


def test_a_server_that_drips_is_left(server, tmp_path, monkeypatch):
  monkeypatch.setattr(download, '_TIMEOUT', 0.5)
  server.drip = 0.1
  with pytest.raises(OSError, match=r'broke off 1 times \(\d+ bytes in 1 seconds'):
    get(server, tmp_path / 'model.pt')
  kept = (tmp_path / 'model.pt.part').stat().st_size
  assert 0 < kept < 50
  server.drip = 0
  assert get(server, tmp_path / 'model.pt').read_bytes() == DATA
  assert server.requests[1]['Range'] == f'bytes={kept}-'


@pytest.mark.parametrize('note', ['', '[]', '{}', '7', '{"url": null}', '\0\0', '"x"'])
def test_damaged_notes_of_parts_are_thrown_away(server, tmp_path, note):
  server.stops = [100_000]
  with pytest.raises(OSError, match='100000 bytes are kept'):
    get(server, tmp_path / 'model.pt')
  (tmp_path / 'model.pt.part.json').write_text(note)
  assert get(server, tmp_path / 'model.pt').read_bytes() == DATA
  assert 'Range' not in server.requests[1]


def test_a_bad_connection_is_tried_again(server, tmp_path):
  server.stops = [100_000, 0, 100_000]
  assert get(server, tmp_path / 'f', attempts=4).read_bytes() == DATA
  assert len(server.requests) == 4


def test_a_server_without_ranges(server, tmp_path):
  server.stops, server.ranges = [100_000], False
  assert get(server, tmp_path / 'f', attempts=2).read_bytes() == DATA


@pytest.mark.parametrize('tag', ['"two"', None])
def test_a_file_that_changed_meanwhile(server, tmp_path, tag):
  server.data, server.tag, server.stops = DATA[::-1], tag and '"one"', [100_000]
  with pytest.raises(OSError):
    get(server, tmp_path / 'f')
  # With a version the server sends all of it; without, only the hash tells.
  server.data, server.tag = DATA, tag
  assert get(server, tmp_path / 'f').read_bytes() == DATA
  assert len(server.requests) == (2 if tag else 3)


def test_a_part_that_is_too_long(server, tmp_path):
  (tmp_path / 'f.part').write_bytes(DATA + b'more')
  note = {'url': server.url, 'version': '"one"'}
  (tmp_path / 'f.part.json').write_text(json.dumps(note))
  assert get(server, tmp_path / 'f', attempts=2).read_bytes() == DATA


def test_parts_of_something_else_are_not_used(server, tmp_path):
  (tmp_path / 'f.part').write_bytes(b'x' * 1000)
  (tmp_path / 'f.part.json').write_text('{"url": "http://other", "version": null}')
  get(server, tmp_path / 'f')
  assert 'Range' not in server.requests[0]


def test_a_wrong_hash_leaves_nothing(server, tmp_path):
  with pytest.raises(ValueError, match=f'sha256 {SHA256} instead of 0000.*deleted'):
    get(server, tmp_path / 'f', sha256='0' * 64)
  assert names(tmp_path) == []
  assert len(server.requests) == 1
  assert get(server, tmp_path / 'f', sha256=None).read_bytes() == DATA


def test_refusals(server, tmp_path):
  server.status = 404
  with pytest.raises(OSError, match='answers 404 Not Found'):
    get(server, tmp_path / 'f', attempts=3)
  assert len(server.requests) == 1 and names(tmp_path) == []
  server.status = 503
  with pytest.raises(OSError, match='broke off 3 times .*503'):
    get(server, tmp_path / 'f', attempts=3)


def test_no_network(monkeypatch, tmp_path):
  monkeypatch.setenv('no_proxy', '*')
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    url = f'http://127.0.0.1:{free.getsockname()[1]}/f'
    with pytest.raises(OSError, match='cannot reach .*refused.*is there a network'):
      fetch(url, tmp_path / 'f', sha256=None)
  assert names(tmp_path) == []


def test_a_full_disk_before(server, tmp_path, monkeypatch):
  full = shutil.disk_usage(tmp_path)._replace(free=1000)
  monkeypatch.setattr(download.shutil, 'disk_usage', lambda _: full)
  with pytest.raises(OSError, match='0 MB free, f needs 0 MB more'):
    get(server, tmp_path / 'f')


def test_a_full_disk_meanwhile(tmp_path):
  part = download._Part(tmp_path / 'f.part', 'url')
  with open('/dev/full', 'wb', buffering=0) as full:
    with pytest.raises(OSError, match='no space left for .*f.part; what came is kept'):
      download.write_chunk(full, b'x', part)


def test_ctrl_c_leaves_what_came(server, tmp_path, monkeypatch):
  written = []
  write = download.write_chunk

  def stop(*arguments):
    if written:
      raise KeyboardInterrupt
    written.append(write(*arguments))

  monkeypatch.setattr(download, '_CHUNK', 100_000)
  monkeypatch.setattr(download, 'write_chunk', stop)
  with pytest.raises(KeyboardInterrupt):
    get(server, tmp_path / 'f')
  kept = (tmp_path / 'f.part').stat().st_size
  assert 0 < kept <= 100_000
  assert (tmp_path / 'f.part').read_bytes() == DATA[:kept]
  monkeypatch.undo()
  monkeypatch.setenv('no_proxy', '*')
  assert get(server, tmp_path / 'f').read_bytes() == DATA
  assert server.requests[1]['Range'] == f'bytes={kept}-'


def _fetch(url, target):
  fetch(url, target, sha256=SHA256)


def test_two_processes_fetch_it_once(server, tmp_path):
  context = multiprocessing.get_context('spawn')
  workers = [
    context.Process(target=_fetch, args=(server.url, tmp_path / 'f')) for _ in range(2)
  ]
  for worker in workers:
    worker.start()
  for worker in workers:
    worker.join(60)
  assert [worker.exitcode for worker in workers] == [0, 0]
  assert len(server.requests) == 1 and names(tmp_path) == ['f']


def test_https_stays_https():
  request = urllib.request.Request('https://example.org/f')
  handler = download._NoDowngrade()
  with pytest.raises(ValueError, match='leads to http://other/f, which is not HTTPS'):
    handler.redirect_request(request, None, 302, '', {}, 'http://other/f')
  other = handler.redirect_request(request, None, 302, '', {}, 'https://other/f')
  assert other.full_url == 'https://other/f'


def test_the_catalogue():
  fetched = {n: item for n, item in catalogue.PUBLISHED.items() if item.file}
  assert list(fetched) == ['ViT-B/32', 'ViT-B/16', 'ViT-L/14', 'ViT-L/14@336px']
  for item in fetched.values():
    assert item.place.startswith('https://')
    assert re.fullmatch('[0-9a-f]{64}', item.sha256) and item.sha256 in item.place
  assert all(item.licence for item in catalogue.PUBLISHED.values())
  with pytest.raises(ValueError, match="unknown checkpoint 'ViT-B16'.*'ViT-B/16'"):
    catalogue.find('ViT-B16')
  with pytest.raises(ValueError, match='get it at https://github.com/facebookresearch'):
    catalogue.find('ovseg_clip (ViT-L/14)')
