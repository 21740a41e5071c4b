"""Scripts of the exported page in Node.js, without a browser."""

import json
import pathlib
import shutil
import subprocess
from typing import Any

from ovs_jax.export.web import PAGE


def in_node(folder: pathlib.Path, code: str, given: Any) -> Any:
  """Returns what a function of the page's modules makes of a value.

  Args:
    folder: for the files.
    code: a module that exports `main`, from JSON to JSON.
    given: its argument.
  """
  node = shutil.which('node')
  assert node, 'apt install nodejs'
  for path in PAGE.glob('*.js'):
    shutil.copyfile(path, folder / path.name)
  (folder / 'package.json').write_text('{"type": "module"}')
  (folder / 'code.js').write_text(code)
  (folder / 'start.js').write_text(
    "import { readFileSync } from 'node:fs';\n"
    "import { main } from './code.js';\n"
    "const given = JSON.parse(readFileSync('given.json', 'utf8'));\n"
    'process.stdout.write(JSON.stringify(main(given)));\n'
  )
  (folder / 'given.json').write_text(json.dumps(given))
  done = subprocess.run(
    [node, 'start.js'], cwd=folder, capture_output=True, text=True, check=False
  )
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout)
