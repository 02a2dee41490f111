"""Serves the explorer's page, by default only to browsers on this machine."""

from __future__ import annotations

import ipaddress
import threading
import webbrowser
from collections.abc import Mapping
from importlib.util import find_spec
from types import TracebackType
from typing import Any

from interp.errors import ModelError, RunError
from interp.explore.exploration import Exploration
from interp.inputs.prompt import PAPER_PROMPT, Prompt
from interp.inputs.sample import Sample
from interp.tracing import Mllm

__all__ = ["LOOPBACK", "Server", "check_installed", "serve"]

LOOPBACK = "127.0.0.1"


def check_installed() -> None:
    """Checks that the extra `explore` is installed.

    Raises:
        ModelError: The extra is not installed.
    """
    if find_spec("dash") is None:
        raise ModelError("the explorer needs dash. Install it with: pip install 'interp[explore]'")


class Server:
    """A running explorer; used as a context manager, it stops at the end of the block.

    Anyone who reaches the address can run the model, so the default is the loopback address. Requests under another
    host name are refused, so pages of other sites cannot reach the explorer through a name that points to this machine.

    Args:
        mllm: The model.
        sample: The sample that is shown first; None for an empty page.
        model: The arguments of `interp.load` that the code on the page names, "model" among them.
        prompt: The prompt.
        generate: The most tokens of an answer.
        host: The address to listen at.
        port: The port; 0 for any free one.

    Attributes:
        url: The address of the page.

    Raises:
        ModelError: The extra `explore` is not installed, or the model has no maps.
        RunError: The port is taken, or the address does not belong to this machine.
    """

    def __init__(
        self,
        mllm: Mllm,
        sample: Sample | None = None,
        *,
        model: Mapping[str, Any] | None = None,
        prompt: Prompt = PAPER_PROMPT,
        generate: int = 8,
        host: str = LOOPBACK,
        port: int = 0,
    ) -> None:
        check_installed()
        from werkzeug.serving import WSGIRequestHandler, make_server

        from interp.explore.application import application

        named = dict(model or {"model": type(mllm.hf).__name__})

        class Quiet(WSGIRequestHandler):
            """A request handler that logs errors and no requests."""

            def log_request(self, *_: Any, **__: Any) -> None:
                """Logs nothing."""

        app = application(Exploration(mllm, prompt, generate), named, sample)
        try:
            self._server = make_server(host, port, app.server, threaded=True, request_handler=Quiet)
        except (OSError, SystemExit) as error:  # werkzeug ends the process where a port is taken
            raise RunError(
                f"the explorer cannot listen at {host}:{port} ({error}). Is another one running? Choose another port, "
                "or 0 for any that is free."
            ) from None
        self.url = f"http://{_written(host)}:{self._server.port}/"
        app.server.before_request(_only_for({_written(host), "localhost"} if _is_loopback(host) else None))
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Waits until the server is stopped."""
        while self._thread.is_alive():
            self._thread.join(0.5)  # short, so that Ctrl-C is noticed

    def stop(self) -> None:
        """Stops the server after it has finished the requests in progress."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def serve(mllm: Mllm, sample: Sample | None = None, *, open_page: bool = True, **options: Any) -> None:
    """Serves the explorer until Ctrl-C.

    Args:
        mllm: The model.
        sample: The sample that is shown first; None for an empty page.
        open_page: Whether to open the page in a browser.
        **options: The other arguments of `Server`.

    Raises:
        ModelError, RunError: As in `Server`.
    """
    with Server(mllm, sample, **options) as server:
        print(f"The explorer is at {server.url} — Ctrl-C ends it.", flush=True)
        if open_page:
            webbrowser.open(server.url)
        server.wait()


def _only_for(hosts: set[str] | None) -> Any:
    """A check that refuses requests under other host names; None allows all, as a public address has any name."""

    def check() -> Any:
        from flask import request

        name = request.host.rsplit(":", 1)[0] if not request.host.endswith("]") else request.host
        if hosts is not None and name not in hosts:
            return f"This explorer answers under {' or '.join(sorted(hosts))} only.", 403
        return None

    return check


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _written(host: str) -> str:
    """The host as it is written in a URL: an IPv6 address gets brackets."""
    return f"[{host}]" if ":" in host else host
