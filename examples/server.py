"""A web server that detects on pictures: ``python examples/server.py model.onnx``, then open http://localhost:8000.

It needs neither torch nor mmdet. ``mmdet_stable_runtime``, which ``export --with-runtime`` writes, must be where
Python finds it, e.g. in the folder that it is started from. It has no login and no encryption: put it behind a server
that has.
"""

import argparse
import threading
from pathlib import Path
from typing import Any, Dict, List

import uvicorn
from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.responses import HTMLResponse
from mmdet_stable_runtime import Detector, PictureError
from starlette.concurrency import run_in_threadpool

MOST_PICTURES = 8  # in one request
MOST_BYTES = 16 * 2**20  # of one request
MOST_PIXELS = 40_000_000  # of one picture
PAGE = (Path(__file__).parent / 'page.html').read_text(encoding='utf-8')


def create_app(model: str, threads: int = 0) -> FastAPI:
    """The server for one model, which detects on one picture at a time."""
    app = FastAPI(title='mmdet_stable')
    detector = Detector(model, threads or None, most_pixels=MOST_PIXELS)
    one_at_a_time = threading.Lock()

    def detect(content: bytes, threshold: float) -> List[Dict[str, Any]]:
        with one_at_a_time:
            return detector(content, threshold).records()

    @app.get('/', response_class=HTMLResponse)
    def page() -> str:
        return PAGE

    @app.post('/detect')
    async def detections(request: Request, threshold: float = Query(0.3, ge=0, le=1)) -> List[Dict[str, Any]]:
        """Detections of each picture of a form, or why there are none."""
        length = request.headers.get('content-length', '')
        if not length.isdigit():
            raise HTTPException(411, 'say by Content-Length how much you send')
        if int(length) > MOST_BYTES:
            raise HTTPException(413, f'{length} bytes: at most {MOST_BYTES} in one request')
        answers = []
        async with request.form(max_files=MOST_PICTURES, max_fields=0) as form:
            for _, file in form.multi_items():
                try:
                    found = await run_in_threadpool(detect, await file.read(), threshold)
                    answers.append({'picture': file.filename, 'detections': found})
                except PictureError as error:
                    answers.append({'picture': file.filename, 'error': str(error)})
        if not answers:
            raise HTTPException(400, 'send pictures as files of a form')
        return answers

    return app


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description='Serve an exported model.')
    parser.add_argument('model')
    parser.add_argument('--port', type=int, default=8000)
    parser.add_argument('--threads', type=int, default=0, help='default: all cores')
    args = parser.parse_args()
    uvicorn.run(create_app(args.model, args.threads), host='127.0.0.1', port=args.port)
