"""Files that grow, nest or wait: refused in one line, at once."""

import json
import os
import pathlib
import pickle
import struct
import time
import zipfile
from collections.abc import Callable
from typing import Any

import pytest

from ovs_jax.convert import command


def grown(make: Callable[[Any], Any]) -> bytes:
  """A pickle of some hundred bytes whose value has 2 to the 60 parts."""
  value = make(None)
  for _ in range(60):
    value = make(value)
  return pickle.dumps({'model': value}, 2)


def number(value: int) -> bytes:
  return pickle.dumps({'model': value}, 2)


def table(header: Any) -> bytes:
  text = header if isinstance(header, bytes) else json.dumps(header).encode()
  return struct.pack('<Q', len(text)) + text + bytes(4)


def tensor(**changes: Any) -> dict[str, Any]:
  return {'dtype': 'F32', 'shape': [1], 'data_offsets': [0, 4], **changes}


FILES = {
  'tuples.pkl': grown(lambda x: (x, x)),
  'lists.pkl': grown(lambda x: [x, x]),
  'tables.pkl': grown(lambda x: {'a': x, 'b': x}),
  'deep.pkl': b'\x80\x02)' + b'\x85' * 60_000 + b'.',
  'marks.pkl': b'\x80\x02' + b'(' * 60_000 + b'.',
  'large.pkl': number(10**300_000),
  'digits.pkl': b'\x80\x02}X\x05\x00\x00\x00modelL' + b'9' * 900_000 + b'L\ns.',
  'size.pkl': b'\x80\x02ctorch\nSize\n(L' + b'9' * 3000 + b'L\ntR.',
  'bytes.pkl': b'\x80\x02cbuiltins\nbytearray\n\x8a\x05\x00\xe8\x76\x48\x17\x85R.',
  'itself.pkl': b'\x80\x02]q\x00' + b'h\x00(h\x00h\x00e0' * 50 + b'.',
  'null.safetensors': table({'__metadata__': None, 'a': tensor()}),
  'list.safetensors': table({'__metadata__': [1], 'a': tensor()}),
  'top.safetensors': table([1, 2]),
  'text.safetensors': table({'a': 'x'}),
  'ones.safetensors': table({'a': tensor(shape=[1] * 100_000)}),
  'minus.safetensors': table({'a': tensor(shape=[-1, -1])}),
  'huge.safetensors': table({'a': tensor(shape=[10**4000])}),
  'nested.safetensors': table(b'{"a":' + b'[' * 100_000 + b']' * 100_000 + b'}'),
  'twice.safetensors': table({'a': tensor(), 'b': tensor()}),
  'words.safetensors': table({'a': tensor(data_offsets=['0', '4'])}),
}


def refused(path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
  began = time.process_time()
  line = [f'--input={path}', f'--output={path.parent / "out"}']
  assert command.main(line) == 2
  assert time.process_time() - began < 5  # of two to the sixty parts, or of all digits
  (said,) = capsys.readouterr().err.splitlines()
  assert said.startswith(f'error: {path}')
  assert len(said) < 1000
  assert not (path.parent / 'out').exists()


@pytest.mark.parametrize('name', FILES)
def test_refused(
  name: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
  (tmp_path / name).write_bytes(FILES[name])
  refused(tmp_path / name, capsys)
  if name.endswith('.pkl'):
    with zipfile.ZipFile(tmp_path / 'file.pt', 'w') as file:
      file.writestr('archive/data.pkl', FILES[name])
      file.writestr('archive/version', '3\n')
    refused(tmp_path / 'file.pt', capsys)


def test_a_pipe_is_not_waited_for(
  tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
  os.mkfifo(tmp_path / 'model.pt')
  refused(tmp_path / 'model.pt', capsys)
