"""Byte pairs by hand, and where the list of merges is found."""

import functools
import gzip
import hashlib
import http.server
import pathlib
import threading

import pytest

from ovs_jax.text import bpe

# In rank order; so the ids are 512 to 517, start 518 and end 519.
MERGES = [
  ('l', 'o'),
  ('lo', 'w</w>'),
  ('e', 'r</w>'),
  ('lo', 'w'),
  ('a', 'a'),
  ("'", 's'),
]
CONTENT = gzip.compress(b'#version: 0.2\nl o\nlo w</w>\n')


def letter(character: str) -> int:
  """Id inside a word: printable ASCII in order from '!'."""
  return ord(character) - ord('!')


@pytest.fixture
def encoder() -> bpe.BytePairEncoder:
  return bpe.BytePairEncoder(MERGES)


@pytest.mark.parametrize(
  ('text', 'ids'),
  [
    ('', []),
    ('low', [513]),
    ('lo', [letter('l'), letter('o') + 256]),  # "l o</w>" is not the pair "l o"
    ('lower', [515, 514]),  # "e r</w>" comes before "lo w"
    ('low low', [513, 513]),
    ('aaaa', [516, letter('a'), letter('a') + 256]),
    ('aaaaa', [516, 516, letter('a') + 256]),
    ("a's", [letter('a') + 256, letter("'"), letter('s') + 256]),
    ('a1', [letter('a') + 256, letter('1') + 256]),
    ('12', [letter('1') + 256, letter('2') + 256]),
    ('?!', [letter('?'), letter('!') + 256]),
    ('\u00e9', [127, 102 + 256]),  # bytes C3 A9: both printable Latin-1
    ('\u0100', [128, 189 + 33 + 256]),  # bytes C4 80: 80 is the 35th that is not
    ('<|startoftext|> low', [518, 513]),
    ('a<|endoftext|>', [letter('a') + 256, 519]),
  ],
)
def test_encode(encoder, text, ids):
  assert encoder.encode(text) == ids


def test_bytes_have_distinct_characters():
  order, characters = bpe.byte_characters()
  assert sorted(order) == list(range(256))
  assert len(set(characters.values())) == 256
  assert order[:3] == [0x21, 0x22, 0x23]
  assert characters[0x20] == '\u0120'


def test_from_file(tmp_path):
  path = tmp_path / 'merges.gz'
  path.write_bytes(CONTENT)
  assert bpe.BytePairEncoder.from_file(path).encode('low') == [513]


class Handler(http.server.BaseHTTPRequestHandler):
  def do_GET(self):
    self.send_response(200 if self.path == '/merges.gz' else 404)
    self.end_headers()
    if self.path == '/merges.gz':
      self.wfile.write(CONTENT)

  def log_message(self, *_):
    pass


@pytest.fixture
def server():
  server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
  thread = threading.Thread(target=functools.partial(server.serve_forever, 0.01))
  thread.start()
  yield f'http://127.0.0.1:{server.server_port}'
  server.shutdown()
  server.server_close()
  thread.join()


@pytest.fixture
def nowhere(tmp_path, monkeypatch) -> pathlib.Path:
  """No copy of the list anywhere; returns where the cache will be."""
  monkeypatch.delenv('OVS_CLIP_VOCABULARY', raising=False)
  for name in ('http_proxy', 'https_proxy', 'HTTP_PROXY', 'HTTPS_PROXY', 'ALL_PROXY'):
    monkeypatch.delenv(name, raising=False)
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  monkeypatch.setattr(bpe, 'package_paths', lambda: [])
  monkeypatch.setattr(bpe, 'SHA256', hashlib.sha256(CONTENT).hexdigest())
  return tmp_path / 'cache' / 'ovs_jax' / 'bpe_simple_vocab_16e6.txt.gz'


def test_download_fills_the_cache(server, nowhere):
  urls = [f'{server}/absent.gz', f'{server}/merges.gz']
  assert bpe.find_vocabulary(urls=urls) == nowhere
  assert nowhere.read_bytes() == CONTENT
  assert [path.name for path in nowhere.parent.iterdir()] == [nowhere.name]
  assert bpe.find_vocabulary(urls=[]) == nowhere


def test_damaged_cache_is_replaced(server, nowhere):
  nowhere.parent.mkdir(parents=True)
  nowhere.write_bytes(b'half')
  bpe.find_vocabulary(urls=[f'{server}/merges.gz'])
  assert nowhere.read_bytes() == CONTENT


def test_wrong_content_is_not_kept(server, nowhere, monkeypatch):
  monkeypatch.setattr(bpe, 'SHA256', '0' * 64)
  with pytest.raises(FileNotFoundError, match='downloaded .* bytes with SHA-256'):
    bpe.find_vocabulary(urls=[f'{server}/merges.gz'])
  assert not nowhere.parent.exists()


def test_absent_and_refused_are_one_error_with_the_ways_out(server, nowhere):
  urls = [f'{server}/absent.gz', 'http://127.0.0.1:9/merges.gz']
  with pytest.raises(FileNotFoundError) as error:
    bpe.find_vocabulary(urls=urls)
  message = str(error.value)
  for part in (
    'pip install --no-deps open_clip_torch',
    'OVS_CLIP_VOCABULARY',
    f'{urls[0]}: HTTP Error 404',
    'refused',
    str(nowhere),
  ):
    assert part in message


def test_variable_wins(nowhere, tmp_path, monkeypatch):
  path = tmp_path / 'mine.gz'
  monkeypatch.setenv('OVS_CLIP_VOCABULARY', str(path))
  with pytest.raises(FileNotFoundError, match='not a file'):
    bpe.find_vocabulary(urls=[])
  path.write_bytes(b'other')
  with pytest.raises(ValueError, match='expected'):
    bpe.find_vocabulary(urls=[])
  path.write_bytes(CONTENT)
  assert bpe.find_vocabulary(urls=[]) == path


def test_copy_in_an_installed_package(tmp_path, monkeypatch):
  package = tmp_path / 'open_clip'
  package.mkdir()
  (package / '__init__.py').write_text('raise AssertionError("imported")')
  (package / bpe.FILE_NAME).write_bytes(CONTENT)
  monkeypatch.syspath_prepend(str(tmp_path))
  assert package / bpe.FILE_NAME in bpe.package_paths()
