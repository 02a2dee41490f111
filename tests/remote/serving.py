"""Starts the test server on tiny models, and points nnsight's settings to it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nnsight.schema.config import CONFIG

import interp
from interp.conformance.tiny import tiny

SERVER = Path(__file__).with_name("ndif_server.py")
KEY = "a key of the test server"


@dataclass(frozen=True)
class Serving:
    """A server in another process, and the folder of each family's model there."""

    address: str
    folders: dict[str, str]

    def fault(self, **faults: Any) -> None:
        """Makes something go wrong from the next job on; nothing without arguments."""
        call = urllib.request.Request(f"{self.address}/fault", json.dumps(faults).encode(), method="POST")
        urllib.request.urlopen(call).read()

    def sizes(self) -> list[dict[str, int]]:
        """Bytes of each job's body and of its result, uncompressed, in the order of the jobs."""
        return json.loads(urllib.request.urlopen(f"{self.address}/fault").read())["sizes"]


@contextmanager
def serving(families: Sequence[str], into: Path, *options: str) -> Iterator[Serving]:
    """The server for the block, on tiny models that are written into a folder."""
    folders = {}
    for family in families:
        model, processor = tiny(family)
        folders[family] = str(into / family)
        model.save_pretrained(folders[family])
        processor.save_pretrained(folders[family])
    quiet = {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, str(SERVER), KEY, *folders.values(), *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **quiet},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        yield Serving(json.loads(line)["address"], folders)
    finally:
        process.stdin.close()
        process.stdout.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def settings(host: str, key: str | None = KEY) -> Iterator[None]:
    """nnsight's settings for the block: this server and key, and no states printed."""
    before = CONFIG.API.HOST, CONFIG.API.APIKEY, CONFIG.APP.REMOTE_LOGGING
    CONFIG.API.HOST, CONFIG.API.APIKEY, CONFIG.APP.REMOTE_LOGGING = host, key, False
    try:
        yield
    finally:
        CONFIG.API.HOST, CONFIG.API.APIKEY, CONFIG.APP.REMOTE_LOGGING = before


def opened(folder: str) -> tuple[interp.Mllm, interp.Mllm]:
    """The same model on the server and here. A connection that breaks is tried again at once."""
    from dataclasses import replace

    far = interp.load(folder, remote=True)
    quick = replace(far.server.connection, wait=0.05)
    quick.__dict__["versions"] = far.server.connection.versions
    return replace(far, server=replace(far.server, connection=quick)), interp.load(folder)


def samples(n: int = 2) -> list[interp.Sample]:
    """Pictures with questions of different lengths."""
    random = np.random.default_rng(0)
    questions = ["where is the nodule ?", "is there a circle in the left lung ?", "what is there ?"]
    return [
        interp.Sample(
            image=random.integers(0, 255, (60, 80, 3), dtype=np.uint8),
            question=questions[i % 3],
            answer=["lung", "yes", "nodule"][i % 3],
            boxes=[(8, 8, 40, 40)],
            group=f"g{i}",
        )
        for i in range(n)
    ]
