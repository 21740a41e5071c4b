"""Serves a page to try a model on; needs requirements/demo.txt.

    python -m ovs_jax.demo --checkpoint=DIR

Whoever opens it drops a photo and types names. A photo is encoded once, so that other
names take a moment. Names are switched, the threshold and the opacity moved in the
browser. The page is for this machine alone unless --host says otherwise, and loads
nothing from elsewhere.
"""

import argparse
import os
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Sequence

from ovs_jax.console import complain
from ovs_jax.core.errors import UserError
from ovs_jax.core.files import local
from ovs_jax.core.programs import keep_programs
from ovs_jax.demo.desk import Desk
from ovs_jax.demo.limits import Limits
from ovs_jax.inference.named import located
from ovs_jax.inference.segmenter import Segmenter
from ovs_jax.photos import find_photos

_HERE = '127.0.0.1'


def parser() -> argparse.ArgumentParser:
  """Returns the parser of all flags."""
  flags = argparse.ArgumentParser(
    prog='python -m ovs_jax.demo', description='Serves a page to try a model on.'
  )
  flags.add_argument(
    '--checkpoint',
    required=True,
    metavar='DIR|NAME',
    help='an OVSeg, CLIPSeg or CoSeg model: its directory, or a name such as '
    'clipseg-rd64-refined or hf://ORG/NAME, which is fetched once',
  )
  flags.add_argument(
    '--accept-licence',
    action='store_true',
    help='fetch a model by name although its licence restricts what it may be used for',
  )
  flags.add_argument(
    '--names', default='', help='what the box of names has at first: "red ball, grass"'
  )
  flags.add_argument(
    '--examples',
    nargs='+',
    metavar='PATH',
    help="photos to try, files or a folder (default: some of Gradio's)",
  )
  flags.add_argument(
    '--host',
    default=_HERE,
    help='address of this machine to listen at; 0.0.0.0 serves the network, to anybody '
    'in it (default: %(default)s)',
  )
  flags.add_argument(
    '--port', type=int, help='(default: the first free one from 7860 on)'
  )
  group = flags.add_argument_group('limits of a user')
  most = Limits()
  for flag, help_ in (
    ('--max-megabytes', 'of a file'),
    ('--max-megapixels', 'of a photo, once decoded'),
    ('--max-names', 'at once, with those of the background'),
    ('--max-seconds', "of the model's time for a request"),
    ('--max-waiting', 'requests in the queue'),
    ('--max-pictures', 'kept encoded; each takes up to 0.3 GB of an OVSeg'),
  ):
    own = getattr(most, flag.removeprefix('--max-'))
    group.add_argument(
      flag, type=int, default=own, metavar='N', help=f'{help_} (default: %(default)s)'
    )
  return flags


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns 0, or 2 after a mistake, which it explains."""
  arguments = parser().parse_args(argv)
  keep_programs()
  try:
    return serve(arguments)
  except (UserError, OSError) as error:
    complain(error)
    return 2
  except KeyboardInterrupt:
    return 0


def serve(arguments: argparse.Namespace) -> int:
  """Serves the page until it is interrupted.

  Raises:
    UserError: Gradio is not installed, or something that was given is wrong.
  """
  given, port = vars(arguments), arguments.port
  if port is not None and not 0 < port < 2**16:
    raise UserError(f'--port={port}: ports are 1 to 65535')
  limits = Limits(**{k[4:]: v for k, v in given.items() if k.startswith('max_')})
  # Before Gradio is imported, which reads them then.
  os.environ['GRADIO_ANALYTICS_ENABLED'] = 'False'
  os.environ['HF_HUB_DISABLE_TELEMETRY'] = '1'
  with tempfile.TemporaryDirectory(prefix='ovs_jax_demo_') as temporary:
    os.environ['GRADIO_TEMP_DIR'] = temporary
    try:
      from ovs_jax.demo import page
    except ModuleNotFoundError as error:
      raise UserError(
        f'the page needs Gradio ({error}); pip install -r requirements/demo.txt, or '
        'pip install "ovs-jax[demo]"'
      ) from error
    folder = local(temporary).resolve()
    examples = _examples(arguments.examples, folder)
    checkpoint = located(arguments.checkpoint, accept_licence=arguments.accept_licence)
    print(f'loading {checkpoint}', file=sys.stderr)
    desk = Desk(Segmenter.load(checkpoint), limits)
    blocks = page.build(
      desk,
      model=_called(arguments.checkpoint, desk.segmenter.system.kind),
      folder=folder,
      examples=examples,
      names=arguments.names,
    )
    address = page.launch(
      blocks, desk, host=arguments.host, port=arguments.port, wait=False
    )
    print(f'open {address} in a browser; Ctrl-C ends it', flush=True)
    blocks.block_thread()
  return 0


def _called(checkpoint: str, kind: str) -> str:
  """Returns what the page calls the model: no folders of this machine."""
  name = checkpoint.removeprefix('hf://')
  own = '/'.join(name.rstrip('/').split('/')[-2:]) if '://' not in name else name
  return f'{own} ({kind})'


def _examples(given: Sequence[str] | None, folder: pathlib.Path) -> list[pathlib.Path]:
  """Copies the example photos to where photos may be taken from."""
  if given is None:
    import gradio

    own = local(gradio.__file__).parent / 'media_assets' / 'images'
    names = ('cheetah.jpg', 'lion.jpg', 'tower.jpg')
    found = [own / name for name in names if (own / name).is_file()]
  else:
    found = list(find_photos(given))
  copies = []
  for i, path in enumerate(found):
    target = folder / f'example_{i}' / path.name
    target.parent.mkdir()
    copies.append(local(shutil.copyfile(path, target)))
  return copies


if __name__ == '__main__':
  sys.exit(main())
