"""Ctrl-C at a command ends it with one line, wherever it comes."""

import atexit
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType, TracebackType

_ALWAYS = 3  # the interrupt that ends a process whatever it does
_came = 0


def end_in_one_line() -> None:
  """Lets an interrupt of this process print a line in place of a traceback.

  Amid the imports, where nothing has begun, the process ends at once: compiled modules
  turn an exception into errors of their own. Later the first interrupt is an exception,
  the second, while the process ends, is ignored, and a third ends it at once. The exit
  status is that of a process which an interrupt has ended, 130 in a shell.
  """
  if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
    return  # it was said already, or whoever started this process wants no interrupts
  signal.signal(signal.SIGINT, _interrupt)
  others = sys.excepthook

  def hook(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
  ) -> None:
    if not issubclass(kind, KeyboardInterrupt):
      others(kind, error, trace)
      return
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # while this one ends
    _say()
    ended.append(error)

  def end() -> None:
    if ended:
      _die()

  ended: list[BaseException] = []
  sys.excepthook = hook
  # Called last, as it is registered first: after all that tidies up, but before the
  # interpreter is taken down, which other threads' programs do not always survive.
  atexit.register(end)


def _interrupt(number: int, frame: FrameType | None) -> None:
  global _came
  _came += 1
  if _came >= _ALWAYS or _is_import(frame):
    _say()
    _die()
  if _came == 1:
    raise KeyboardInterrupt


def _is_import(frame: FrameType | None) -> bool:
  """Whether a command's modules are being imported, or it has not begun to be."""
  stack = []
  while frame is not None:
    stack.append(frame)
    frame = frame.f_back
  for outer in reversed(stack):
    name = outer.f_globals.get('__name__', '')
    if name not in ('__main__', 'runpy', 'importlib', 'ovs_jax.__main__'):
      return name.startswith(('importlib.', '_frozen_importlib')) or name == 'ovs_jax'
  return False


def _say() -> None:
  print('\nstopped; run the same command again to go on', file=sys.stderr, flush=True)


def _die() -> None:
  signal.signal(signal.SIGINT, signal.SIG_DFL)
  os.kill(os.getpid(), signal.SIGINT)


def is_command(line: Sequence[str], package: str) -> bool:
  """Returns whether a process runs a module of a package as a command.

  Args:
    line: its command line, such as `sys.orig_argv`.
    package: whose modules count.
  """
  if '-m' not in line[:-1]:
    return False
  module = line[line.index('-m') + 1]
  return module == package or module.startswith(f'{package}.')
