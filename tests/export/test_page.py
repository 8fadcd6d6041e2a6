"""The page of the example server in a real browser: a picture is dropped, and its boxes are drawn."""

import base64
import re
import shutil
import socket
import subprocess
import threading
import time

import pytest

from .test_server import png, server  # noqa: F401  (a fixture)

uvicorn = pytest.importorskip('uvicorn')
CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
OPTIONS = [
    '--headless',
    '--no-sandbox',
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    '--virtual-time-budget=20000',
]
DROP = """<script>
  const bytes = Uint8Array.from(atob('{picture}'), letter => letter.charCodeAt(0)), data = new DataTransfer();
  data.items.add(new File([bytes], 'dropped.png', {{type: 'image/png'}}));
  threshold.value = 0;
  drop.dispatchEvent(new DragEvent('drop', {{dataTransfer: data, bubbles: true, cancelable: true}}));
</script>"""


@pytest.fixture(scope='module')
def address(server, dino):  # noqa: F811
    """The running server, whose page `/try` drops a picture on itself, and `/text` a text."""
    from fastapi.responses import HTMLResponse

    app = server.create_app(str(dino.path))
    for name, content in (('try', png(120, 160)), ('text', b'no picture')):
        page = server.PAGE + DROP.format(picture=base64.b64encode(content).decode())
        app.get(f'/{name}', response_class=HTMLResponse)(lambda page=page: page)
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    running = uvicorn.Server(uvicorn.Config(app, host='127.0.0.1', port=port, log_level='error'))
    thread = threading.Thread(target=running.run)
    thread.start()
    while not running.started:
        assert thread.is_alive()
        time.sleep(0.05)
    yield f'http://127.0.0.1:{port}'
    running.should_exit = True
    thread.join()


@pytest.mark.skipif(CHROMIUM is None, reason='needs a browser')
@pytest.mark.parametrize(
    'page, message', [('try', '15 of 15 detections'), ('text', 'No detections: .*not a picture.*')]
)
def test_dropping(page, message, address, tmp_path):
    command = [CHROMIUM, *OPTIONS, f'--user-data-dir={tmp_path / "profile"}', '--dump-dom', f'{address}/{page}']
    done = subprocess.run(command, capture_output=True, text=True)
    shown = re.search(r'<p id="message"[^>]*>(.*?)</p>', done.stdout)
    assert shown and re.fullmatch(message, shown[1]), (shown, done.stderr[-2000:])
    assert ('hidden' in re.search(r'<canvas[^>]*>', done.stdout)[0]) == (page == 'text')
