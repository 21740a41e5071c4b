"""Ctrl-C at a command ends it with one line, wherever it comes."""

import signal
import sys
from collections.abc import Sequence
from types import TracebackType


def end_in_one_line() -> None:
  """Lets an interrupt of this process print a line in place of a traceback.

  The exit status is that of a process which an interrupt has ended, 130 in a shell.
  """
  others = sys.excepthook

  def hook(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
  ) -> None:
    if not issubclass(kind, KeyboardInterrupt):
      others(kind, error, trace)
      return
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one while this one ends
    print('\nstopped; run the same command again to go on', file=sys.stderr)

  sys.excepthook = hook


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
