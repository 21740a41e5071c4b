"""A folder for any static server: a page that segments photos in the browser."""

import hashlib
import html
import html.entities
import json
import pathlib
import shutil
import subprocess
import tarfile
import tempfile
from typing import Any

import numpy as np
from PIL import Image

from ovs_jax.core.errors import UserError
from ovs_jax.core.files import Path, local
from ovs_jax.ops import overlay
from ovs_jax.ops.colours import palette

PAGE = local(__file__).with_name('page')
ORT = '1.30.0'  # of onnxruntime-web; its files, and their SHA-256
ORT_FILES = {
  'ort.wasm.bundle.min.mjs': (
    '11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90'
  ),
  'ort-wasm-simd-threaded.wasm': (
    '3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2'
  ),
}
_PACKAGE = f'onnxruntime-web@{ORT}'
_COLOURS = 256  # of names on the page, after which they repeat


def write_page(target: pathlib.Path, tokenizer: dict[str, Any]) -> None:
  """Writes all of the folder but the model.

  Args:
    target: a folder, made before.
    tokenizer: as in tokenizer.json.
  """
  from ovs_jax.data.scenes_draw import NAMES, draw_scene  # with TensorFlow: seconds

  for path in sorted(PAGE.iterdir()):
    if path.is_file():
      shutil.copyfile(path, target / path.name)
  _write(target / 'tokenizer.json', {**tokenizer, **html_tables()})
  _write(target / 'colours.json', _colours())
  # A scene that the quickstart's model segments well; of others it misses things.
  scene = draw_scene(np.random.default_rng(13))
  Image.fromarray(scene.image).save(target / 'example.png')
  names = dict.fromkeys(NAMES[region.train_id] for region in scene.regions)
  _write(target / 'example.json', {'photo': 'example.png', 'names': ', '.join(names)})


def _colours() -> list[dict[str, Any]]:
  colours = palette(_COLOURS)
  lines = overlay.lines(colours).tolist()
  return [
    {'colour': colour, 'line': line}
    for colour, line in zip(colours.tolist(), lines, strict=True)
  ]


def html_tables() -> dict[str, dict[str, str]]:
  """Returns what Python's `html.unescape` knows, which the page does likewise.

  Returns:
    `entities` by name, and `references`: numbers that do not stand for themselves.
  """
  ends = (0xFFFE + 0x10000 * plane + low for plane in range(17) for low in (0, 1))
  codes = [*range(0xA0), *range(0xFDD0, 0xFDF0), *ends]
  texts = {code: html.unescape(f'&#{code};') for code in codes}
  odd = {str(code): text for code, text in texts.items() if text != chr(code)}
  return {'entities': html.entities.html5, 'references': odd}


def write_engine(target: pathlib.Path, given: Path | None = None) -> None:
  """Puts the files of onnxruntime-web into a folder.

  Args:
    target: to be made.
    given: its package or the folder `dist` of it; None: npm downloads it.

  Raises:
    UserError: they are not there, or are others.
  """
  files = _downloaded() if given is None else _found(local(given))
  for name, content in files.items():
    if hashlib.sha256(content).hexdigest() != ORT_FILES[name]:
      raise UserError(
        f'{name} of {given or "npm"} is not that of {_PACKAGE}; take this version: '
        f'npm pack {_PACKAGE}'
      )
  target.mkdir()
  for name, content in files.items():
    # Few servers know that .mjs is JavaScript, and browsers ask for that.
    (target / name.replace('.mjs', '.js')).write_bytes(content)


def _found(folder: pathlib.Path) -> dict[str, bytes]:
  dist = folder / 'dist' if (folder / 'dist').is_dir() else folder
  missing = [name for name in ORT_FILES if not (dist / name).is_file()]
  if missing:
    raise UserError(
      f'{dist} has no {", ".join(missing)}; give the folder that npm pack {_PACKAGE} '
      'and unpacking make'
    )
  return {name: (dist / name).read_bytes() for name in ORT_FILES}


def _downloaded() -> dict[str, bytes]:
  npm = shutil.which('npm')
  hint = f'give the unpacked package by --ort=DIR (npm pack {_PACKAGE} elsewhere)'
  if npm is None:
    raise UserError(f"the format 'web' takes {_PACKAGE}, and npm is not there; {hint}")
  with tempfile.TemporaryDirectory() as folder:
    done = subprocess.run(
      [npm, 'pack', '--silent', _PACKAGE], cwd=folder, capture_output=True, text=True
    )
    archives = list(local(folder).glob('*.tgz'))
    if done.returncode or not archives:
      lines = [line for line in done.stderr.splitlines() if line.strip()]
      said = lines[0] if lines else 'it says nothing'
      raise UserError(f'npm did not bring {_PACKAGE} ({said}); {hint}')
    with tarfile.open(archives[0]) as archive:
      return {name: _member(archive, f'package/dist/{name}') for name in ORT_FILES}


def _member(archive: tarfile.TarFile, name: str) -> bytes:
  file = archive.extractfile(name)
  assert file is not None, name
  return file.read()


def _write(path: pathlib.Path, value: Any) -> None:
  text = json.dumps(value, ensure_ascii=False, separators=(',', ':'))
  path.write_text(text, encoding='utf-8')
