"""Converts checkpoints of other projects, and ours back, on the command line.

python -m ovs_jax.convert --input=ViT-B-16.pt --output=checkpoints/b16 --check
python -m ovs_jax.convert --export=openai --input=DIR --output=FILE.pt
python -m ovs_jax.convert --list
python -m ovs_jax.convert --download=ViT-B/16 --output=checkpoints/b16
"""

import argparse
import dataclasses
import sys
from collections.abc import Callable, Sequence
from typing import Any

from ovs_jax.convert import SOURCES, catalogue, exchange, hub, open_clip
from ovs_jax.convert.download import cache_directory, fetch
from ovs_jax.convert.family import Options
from ovs_jax.core.tree import shorten
from ovs_jax.models.layers import ACTIVATIONS

# Fields of configurations that are ways to compute and no facts of a checkpoint.
_COMPUTATION = ('dtype', 'remat', 'unroll')
_UNSURE = """\
  note: the file does not say its activation; this is GELU, as open_clip by default. If
  the weights derive from OpenAI's (...-quickgelu, CLIPs fine-tuned by OVSeg), run again
  with --activation=quick_gelu --overwrite"""


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns 0, or 2 after a mistake, which it explains."""
  parser = _parser()
  arguments = parser.parse_args(argv)
  try:
    return _run(arguments, parser)
  except (ValueError, OSError) as error:
    print(f'error: {error}', file=sys.stderr)
    return 2
  except KeyboardInterrupt:
    print('stopped; run the same command again to go on', file=sys.stderr)
    return 130


def _parser() -> argparse.ArgumentParser:
  families = '\n'.join(f'  {name}: {family.clue}' for name, family in SOURCES.items())
  parser = argparse.ArgumentParser(
    prog='python -m ovs_jax.convert',
    description='Converts checkpoints of other projects into ours, and ours back.',
    epilog=f'families:\n{families}',
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = parser.add_argument
  add('--input', metavar='PATH', help='file or folder to convert; for --export, ours')
  add('--output', metavar='PATH', help='directory to write; for --export, a file')
  add(
    '--source',
    default='auto',
    choices=('auto', *SOURCES),
    help='family of the input (default: by the names of its tensors)',
  )
  add(
    '--key',
    metavar='NAME',
    help='entry of a pickled file that has the model, such as ema.state_dict',
  )
  add('--export', choices=tuple(SOURCES), help='write our checkpoint in this layout')
  add('--check', action='store_true', help='read both again and compare every number')
  add('--overwrite', action='store_true', help='replace what is at --output')
  add(
    '--allow_not_finite',
    action='store_true',
    help='convert parameters that are NaN or infinite, too',
  )
  add(
    '--activation',
    choices=tuple(ACTIVATIONS),
    help='of CLIP, where the file does not say. openai and ovseg_clip: quick_gelu, '
    'as for everything derived from those weights; open_clip: gelu unless told '
    "(its models called ...-quickgelu need quick_gelu); hf_clip: config.json's",
  )
  add(
    '--image_size',
    type=int,
    metavar='PIXELS',
    help='side of the input that CLIP shall take; position tables are resized',
  )
  add(
    '--antialias',
    action='store_const',
    const=True,
    help='resize them as open_clip and timm do, and later on too',
  )
  add('--vision_heads', type=int, help='attention heads (default: width / 64)')
  add('--text_heads', type=int, help='attention heads (default: width / 64)')
  add(
    '--clip',
    metavar='DIR',
    help='our CLIP that belongs to a file which holds a decoder alone (clipseg)',
  )
  _add_downloads(add)
  return parser


def _add_downloads(add: Callable[..., Any]) -> None:
  add('--list', action='store_true', help='tell which checkpoints are published where')
  add(
    '--download',
    metavar='NAME',
    help='fetch a checkpoint of --list into ~/.cache/ovs_jax/downloads, resuming and '
    'verifying; converts it if --output is given',
  )
  add(
    '--accept_licence',
    '--accept-licence',
    action='store_true',
    help='with --download: fetch a model whose licence restricts its use, too',
  )


def _run(arguments: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
  if arguments.list:
    print(catalogue.table())
    return 0
  if arguments.download:
    return _download(arguments)
  if not arguments.input or not arguments.output:
    parser.error('--input and --output are required (or --list, or --download)')
  if arguments.export:
    return _export(arguments)
  return _convert(arguments, arguments.input, arguments.source)


def _download(arguments: argparse.Namespace) -> int:
  item = catalogue.find(arguments.download)
  accepted = arguments.accept_licence
  if item.repository:
    path = hub.download(item.repository, licence=item.licence, accepted=accepted)
  else:
    hub.check_licence(arguments.download, item.licence, accepted)
    path = fetch(item.place, cache_directory() / item.file, sha256=item.sha256)
  print(f'{path} (licence: {item.licence})')
  if not arguments.output:
    return 0
  return _convert(arguments, str(path), item.family)


def _convert(arguments: argparse.Namespace, path: str, source: str) -> int:
  wishes = {f.name: getattr(arguments, f.name) for f in dataclasses.fields(Options)}
  options = Options(**wishes)
  report = exchange.convert(
    path,
    arguments.output,
    source=source,
    options=options,
    key=arguments.key,
    overwrite=arguments.overwrite,
    allow_not_finite=arguments.allow_not_finite,
  )
  print(_summary(report))
  told = options.activation or report.model['source']['settings'] == open_clip.FILE
  if source == 'auto' and report.family == 'open_clip' and not told:
    print(_UNSURE)
  print(f'  written to {arguments.output}')
  if arguments.check:
    done = exchange.check(path, arguments.output)
    print(f'  checked: {done.tensors} tensors, {done.values:,} numbers, all equal')
  return 0


def _export(arguments: argparse.Namespace) -> int:
  report = exchange.export(
    arguments.input,
    arguments.output,
    layout=arguments.export,
    overwrite=arguments.overwrite,
  )
  print(f'{report.family}: {report.tensors} tensors written to {arguments.output}')
  for note in SOURCES[report.family].notes(report.model):
    print(f'  {note}')
  return 0


def _summary(report: exchange.Report) -> str:
  """Tells what was found, so that a wrong guess is seen."""
  record: dict[str, Any] = report.model['source']
  kind = report.model['model']
  shown = [
    f'{key} {value}'
    for part in (('proposer', 'clip') if kind == 'ovseg' else (kind,))
    for key, value in report.model[part].items()
    if key not in _COMPUTATION
  ]
  lines = [
    f'{report.family}: {report.tensors} tensors, {report.values:,} numbers',
    f'  {", ".join(shown)}',
    *(f'  {name}: sha256 {digest}' for name, digest in record['files'].items()),
  ]
  if record['prefix']:
    lines.append(f'  every name begins with {record["prefix"]}, which is left out')
  if record['constants']:
    lines.append(f'  constants without a parameter: {", ".join(record["constants"])}')
  if record['left_out']:
    lines.append(f'  parts of other models, left out: {", ".join(record["left_out"])}')
  if record['skipped']:
    lines.append(f'  entries beside the model: {shorten(record["skipped"], 8)}')
  return '\n'.join(lines)
