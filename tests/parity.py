"""Compares this package with stored outputs of the reference implementations.

    python tests/parity.py FILE.npz [...] [--case=NAME]
    python tests/parity.py --oracles=DIR [--only=NAME]

DIR holds one .npz per case. Every size comes from the file, so that other files with
the same names work too; `--case` runs files of any name as such a case. Prints what was
compared, the largest error and the tolerance; ends with code 1 if anything is out of
tolerance, a case ends with an error (the others are still compared), or a FILE is no
known case.
"""

import argparse
import fnmatch
import pathlib
import sys
import time
import traceback
from collections.abc import Callable

import jax

_HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(_HERE.parent), str(_HERE / 'support'), str(_HERE / 'parity')]

import parity_backbones  # noqa: E402
import parity_clipseg  # noqa: E402
import parity_hf  # noqa: E402
import parity_models  # noqa: E402
import parity_ops  # noqa: E402
import parity_training  # noqa: E402
from parity_case import Case, Check, table  # noqa: E402

CASES: dict[str, Callable[[Case], None]] = {
  'clip_mask_prompt': parity_models.clip_mask_prompt,
  'clip_tiny*': parity_hf.clip,
  'clipseg_tiny*': parity_clipseg.clipseg_tiny,
  'clipseg_train*': parity_clipseg.clipseg_train,
  'region_crops': parity_ops.region_crops,
  'tokenizer': parity_ops.tokenizer,
  'criterion*': parity_ops.criterion,
  'maskformer_head': parity_models.maskformer_head,
  'clip_adapt_step_*': parity_training.clip_adapt_step,
  'evaluator': parity_ops.evaluator,
  'r101c': parity_models.r101c,
  'ovseg_full_*': parity_models.ovseg_full,
  'swin': parity_backbones.swin,
  'swin_tiny': parity_backbones.swin_tiny,
  'resnet_tiny_*': parity_backbones.resnet,
  'maskformer_tiny_*': parity_backbones.maskformer,
}


def find_case(name: str) -> Callable[[Case], None] | None:
  """Returns the function that runs the file of this name, or None."""
  for pattern, function in CASES.items():
    if fnmatch.fnmatch(name, pattern):
      return function
  return None


def run(path: pathlib.Path, name: str | None = None) -> tuple[list[Check], list[str]]:
  """Runs one file; returns its checks and the outputs that none of them looked at.

  Args:
    path: of the file.
    name: the case that it is; None goes by its name.
  """
  function = find_case(name or path.stem)
  if function is None:
    raise ValueError(f'{name or path.stem} is not supported; known: {", ".join(CASES)}')
  case = Case(path)
  with jax.default_matmul_precision('highest'):
    function(case)
  return case.checks, case.unchecked()


def main(arguments: list[str] | None = None) -> int:
  """Runs the command line; returns the exit code."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('files', nargs='*', type=pathlib.Path, metavar='FILE.npz')
  parser.add_argument('--case', help='what the files are, if not what they are called')
  parser.add_argument('--oracles', type=pathlib.Path, help='a folder of files')
  parser.add_argument('--only', help='names or patterns, separated by commas')
  options = parser.parse_args(arguments)
  wanted = options.only.split(',') if options.only else ['*']
  paths = list(options.files)
  if options.oracles is not None:
    paths += [
      path
      for path in sorted(options.oracles.glob('*.npz'))
      if any(fnmatch.fnmatch(path.stem, pattern) for pattern in wanted)
    ]
  if not paths:
    print(f'no .npz file in {options.oracles} matches {", ".join(wanted)}')
    return 1
  rows, skipped, broken = {}, [], {}
  for path in paths:
    if find_case(options.case or path.stem) is None:
      skipped.append(path.stem)
      continue
    began = time.time()
    try:
      rows[path.stem], unchecked = run(path, options.case)
    except Exception as error:  # one case must not hide the others
      traceback.print_exc()
      broken[path.stem] = f'{type(error).__name__}: {error}'.splitlines()[0]
      continue
    print(f'{path.stem}: {time.time() - began:.1f} s', file=sys.stderr)
    if unchecked:
      print(f'{path.stem}: not compared: {", ".join(unchecked)}')
  print(table(rows))
  for name, problem in broken.items():
    print(f'{name}: ended with {problem}')
  for name in skipped:
    print(f'{name}: not supported yet')
  checks = [check for checks in rows.values() for check in checks]
  failed = sum(not check.passed for check in checks)
  print(
    f'{len(rows)} cases, {len(checks)} quantities, {failed} out of tolerance, '
    f'{len(broken)} cases ended with an error, {len(skipped)} not supported yet'
  )
  unknown = [path for path in options.files if path.stem in skipped]
  return 1 if failed or broken or unknown else 0


if __name__ == '__main__':
  sys.exit(main())
