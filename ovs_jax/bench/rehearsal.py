"""Measures every stage of a rehearsal, and kills every stage once.

    python -m ovs_jax.bench.rehearsal --workdir=runs/rehearsal
    python -m ovs_jax.bench.rehearsal --config=rehearsal:test --kill
    python -m ovs_jax.bench.rehearsal --config=rehearsal:volume --images=1183

The stages run in a process of their own, whose memory is read from outside. With --kill
there is a second run beside the first, in WORKDIR_killed: every stage of it is killed
(SIGKILL) in its midst, started again, and must end with the same results.
"""

import argparse
import collections
import contextlib
import dataclasses
import pathlib
import re
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from ovs_jax.bench.drawn import configuration
from ovs_jax.core import checkpoint, content
from ovs_jax.core.errors import UserError
from ovs_jax.core.files import below, local, read_json, write_json, write_text
from ovs_jax.evaluate import tables
from ovs_jax.settings import Settings

_BEGUN = re.compile(r'\[\d+/\d+\] (\S+) \(\w+\)$')
_DONE = re.compile(r'\[\d+/\d+\] (\S+): \d+ s$')
_MOMENTS = (0.3, 0.6, 0.9)  # of a stage's time, at which it is killed, in turns
_LAST_LINES = 20  # of a command that failed
# Keys of results that say when and where, not what.
_WHEN = ('seconds', 'run', 'checkpoint', 'sheet')


@dataclasses.dataclass(frozen=True)
class Measured:
  """What a stage took.

  Attributes:
    name: of the stage.
    seconds: from its first line to its last.
    peak: largest resident memory of its process meanwhile, in 2**20 bytes.
    disk: growth of the directory of the run, likewise.
  """

  name: str
  seconds: float
  peak: float
  disk: float


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns 0, 1 if results differ, or 2 after a mistake."""
  parser = argparse.ArgumentParser(
    prog='python -m ovs_jax.bench.rehearsal', allow_abbrev=False
  )
  add = parser.add_argument
  add('--config', default='rehearsal', help='a file in configs, with its argument')
  add('--workdir', default='runs/rehearsal', help='where results go')
  add('--images', type=int, default=0, help='photographs of train2017 (default: all)')
  add('--kill', action='store_true', help='kill every stage once, in a second run')
  arguments = parser.parse_args(argv)
  workdir = local(arguments.workdir)
  try:
    config = Settings.of(configuration(arguments.config))
    command = _command(arguments.config, arguments.images)
    note = workdir / 'measured.json'
    if not (note.is_file() and arguments.kill):
      found = run(command, workdir)
      write_json(note, [dataclasses.asdict(x) for x in found])
      write_text(workdir / 'measured.md', markdown(found))
      print(markdown(found))
    if not arguments.kill:
      return 0
    seconds = {x['name']: x['seconds'] for x in read_json(note)}
    other = workdir.with_name(f'{workdir.name}_killed')
    kill_each(command, other, seconds)
    return _compare(config, workdir, other)
  except (ValueError, OSError) as error:
    print(f'error: {error}', file=sys.stderr)
    return 2


def _command(config: str, images: int) -> list[str]:
  file, _, argument = config.partition(':')
  words = [sys.executable, '-m', 'ovs_jax.main']
  words.append(f'--config=configs/{file}.py:{argument}'.rstrip(':'))
  return words + [f'--config.rehearsal.images={images}'] * bool(images)


def _start(command: Sequence[str], workdir: pathlib.Path) -> subprocess.Popen[str]:
  return subprocess.Popen(
    [*command, f'--workdir={workdir}'],
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def run(command: Sequence[str], workdir: pathlib.Path) -> list[Measured]:
  """Runs all stages and measures them; those that are finished already are left out.

  Raises:
    UserError: the command failed; with its last lines.
  """
  found: list[Measured] = []
  last: collections.deque[str] = collections.deque(maxlen=_LAST_LINES)
  size, began = _size(workdir), time.monotonic()
  with (
    _start(command, workdir) as process,
    contextlib.closing(Peak(process.pid)) as peak,
  ):
    for line in process.stdout or ():
      last.append(line)
      if _BEGUN.match(line):
        peak.forget()
        size, began = _size(workdir), time.monotonic()
        print(line, end='', flush=True)
      elif done := _DONE.match(line):
        seconds, grown = time.monotonic() - began, _size(workdir) - size
        stage = Measured(done[1], seconds, peak.value(), grown)
        print(f'{stage.name}: {seconds:.0f} s, {stage.peak:,.0f} MB', flush=True)
        found.append(stage)
  if process.returncode:
    raise UserError(f'the command failed:\n{"".join(last)}')
  return found


def kill_each(
  command: Sequence[str], workdir: pathlib.Path, seconds: dict[str, float]
) -> None:
  """Runs all stages, each of which is killed once in its midst.

  Args:
    command: of the run.
    workdir: its directory.
    seconds: that each stage takes.

  Raises:
    UserError: the command failed where it was not killed.
  """
  left = dict(seconds)
  while True:
    last: collections.deque[str] = collections.deque(maxlen=_LAST_LINES)
    killed = ''
    with _start(command, workdir) as process:
      for line in process.stdout or ():
        last.append(line)
        stage = _BEGUN.match(line)
        if stage and stage[1] in left:
          killed = stage[1]
          time.sleep(left.pop(killed) * _MOMENTS[len(left) % len(_MOMENTS)])
          process.kill()
          print(f'killed {killed}', flush=True)
          break
    if not killed and process.returncode:
      raise UserError(f'the command failed:\n{"".join(last)}')
    if not killed:
      return


class Peak:
  """The largest memory of a process, in 2**20 bytes, also after it has ended.

  The system forgets it with the process, so it is looked at all the time.
  """

  def __init__(self, pid: int) -> None:
    self._directory = local(f'/proc/{pid}')
    self._lock, self._ended = threading.Lock(), threading.Event()
    self._found = 0.0
    self._thread = threading.Thread(target=self._watch, daemon=True)
    self._thread.start()

  def _watch(self) -> None:
    while not self._ended.wait(0.05):
      self.value()

  def value(self) -> float:
    """Returns the largest memory since the start, or since `forget`."""
    with self._lock:
      with contextlib.suppress(OSError):
        text = (self._directory / 'status').read_text()
        if found := re.search(r'VmHWM:\s+(\d+) kB', text):
          self._found = int(found[1]) / 1024
      return self._found

  def forget(self) -> None:
    """Begins anew."""
    with self._lock, contextlib.suppress(OSError):
      (self._directory / 'clear_refs').write_text('5')
      self._found = 0.0

  def close(self) -> None:
    """Ends the watching."""
    self._ended.set()
    self._thread.join()


def _size(directory: pathlib.Path) -> float:
  return sum(size for _, size in below(directory)) / 2**20


def markdown(found: Sequence[Measured]) -> str:
  """Returns the measurements as a table."""
  rows = [
    [x.name, f'{x.seconds:.1f}', f'{x.peak:,.0f}', f'{x.disk:,.0f}'] for x in found
  ]
  titles = ['stage', 'seconds', 'peak memory, MB', 'disk, MB']
  return '\n'.join(tables.markdown(titles, rows))


def _compare(config: Settings, one: pathlib.Path, other: pathlib.Path) -> int:
  expected, found = (results(config, directory) for directory in (one, other))
  differ = [name for name in expected if expected[name] != found[name]]
  print(f'{len(expected) - len(differ)} of {len(expected)} results are the same bits')
  if differ:
    print(f'different: {", ".join(differ)}')
  return bool(differ)


def results(config: Settings, run: pathlib.Path) -> dict[str, str]:
  """Returns a hash of what each stage of a finished run leaves, and others read."""
  found = {}
  for name, stage in config.stages.items():
    place = local((stage.place or f'{{run}}/{name}').replace('{run}', str(run)))
    if stage.mode in ('train', 'assemble'):
      model = place if stage.mode == 'train' else place / 'model'
      found[name] = checkpoint.identity(model)
    elif stage.mode == 'mine':
      found[name] = content.identity(place / 'pairs', without=('datasheet.json',))
    elif stage.mode in ('benchmark', 'table'):
      report = _what(read_json(place / 'report.json'))
      found[name] = content.of_arrays({}, report)
    elif stage.rehearsal.part == 'weights':
      folders = (stage.rehearsal.clip, stage.rehearsal.backbone)
      where = [local(x.replace('{run}', str(run))) for x in folders]
      found[name] = ' '.join(checkpoint.identity(x) for x in (*where, place / 'ovseg'))
    elif stage.rehearsal.part == 'files':
      found[name] = content.identity(place / 'data')
  return found


def _what(value: Any) -> Any:
  if isinstance(value, dict):
    return {k: _what(x) for k, x in value.items() if k not in _WHEN}
  return [_what(x) for x in value] if isinstance(value, list) else value


if __name__ == '__main__':
  sys.exit(main())
