"""A tiny OVSeg, exported, and a vocabulary of few merges for it."""

import contextlib
import gzip
import importlib
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import jaxtyping
import numpy as np
import pytest
from PIL import Image

from ovs_jax.export.artefact import ONNX_PYTHON
from ovs_jax.text import bpe, tokenizer

ROOT = pathlib.Path(__file__).parents[2]
MERGES = ('r e', 're d</w>', 'b a', 'l l</w>', 'ba ll</w>', 'a s', 'as s</w>', 'g r')


def use_merges(folder: pathlib.Path, patch: pytest.MonkeyPatch) -> None:
  """Has the package and what is exported tokenize by `MERGES`."""
  path = folder / 'merges.txt.gz'
  path.write_bytes(gzip.compress('\n'.join(['#version', *MERGES, '']).encode()))
  encoder = bpe.BytePairEncoder.from_file(path)
  known = 512 + len(MERGES)
  special = {known: tokenizer.START_ID, known + 1: tokenizer.END_ID}

  def encode(text: str) -> list[int]:
    return [special.get(i, i) for i in encoder.encode(text)]

  patch.setattr(bpe, 'find_vocabulary', lambda: path)
  patch.setattr(tokenizer, 'load_backend', lambda _='auto': encode)


def onnx_python(folder: pathlib.Path) -> str:
  """Returns the Python of an environment with jax2onnx; makes one if none is named."""
  given = os.environ.get(ONNX_PYTHON)
  if given is None:
    environment = {**os.environ, 'OVS_PYTHON': sys.executable}
    script = ROOT / 'launch' / 'onnx_env.sh'
    subprocess.run([script, folder / 'env'], check=True, env=environment)
    given = str(folder / 'env' / 'bin' / 'python')
  return given


def refusing(*packages: str) -> str:
  """Returns code after which a program cannot import these packages."""
  return f"""
import sys
class Refuse:
  def find_spec(self, name, *_):
    if name.split('.')[0] in {packages!r}:
      raise ImportError(f'{{name}} is refused')
sys.meta_path.insert(0, Refuse())
"""


@contextlib.contextmanager
def unchecked() -> Iterator[None]:
  """Turns the check of annotations off, which takes lengths to be numbers."""
  jaxtyping.config.update('jaxtyping_disable', True)
  try:
    yield
  finally:
    jaxtyping.config.update('jaxtyping_disable', False)


def runner(folder: pathlib.Path, module: str = 'run', name: str = 'Runner') -> Any:
  """Returns a runner of an artefact, by the files that lie beside it."""
  sys.path.insert(0, str(folder))
  try:
    for one in ('run_parts', 'run', module):
      sys.modules.pop(one, None)
    return getattr(importlib.import_module(module), name)(folder)
  finally:
    sys.path.remove(str(folder))


def photo(seed: int, width: int, height: int) -> np.ndarray:
  """Returns a smooth picture of a few colours."""
  small = np.random.default_rng(seed).integers(0, 256, (5, 6, 3)).astype(np.uint8)
  resize = Image.fromarray(small).resize
  return np.asarray(resize((width, height), Image.Resampling.BICUBIC))
