"""What the small servers of the tests answer."""

import json
from http.server import BaseHTTPRequestHandler


class JsonAnswers(BaseHTTPRequestHandler):
    """Answers in JSON, and is silent about it."""

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers["Content-Length"]))

    def say(self, answer: object) -> None:
        text = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        pass
