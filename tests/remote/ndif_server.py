"""An NDIF server for tests: nnsight 0.8's protocol over HTTP and a websocket, and the way ndif 0.1.2 runs a block.

    python tests/remote/ndif_server.py KEY FOLDER [FOLDER …] [--sandbox]

Prints its address, and serves the models in the folders under their paths until its input is closed. It cannot import
`interp`, as a real server cannot. `POST /fault` sets what goes wrong with the next jobs (see `Faults`). With --sandbox
blocks run as real servers run those of untrusted keys, in a process of their own, by the code of the package `ndif`.
"""

import asyncio
import io
import json
import linecache
import sys
import threading
import traceback
import uuid
from dataclasses import dataclass, field
from importlib.abc import MetaPathFinder


class Absent(MetaPathFinder):
    """Hides what a real server does not have."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("interp", "jaxtyping", "beartype", "tests"):
            raise ModuleNotFoundError(f"No module named {name!r} on the server", name=name)


sys.meta_path.insert(0, Absent())

import nnsight  # noqa: E402
import torch  # noqa: E402
import tornado.web  # noqa: E402
import tornado.websocket  # noqa: E402
import zstandard  # noqa: E402
from nnsight import TransformersModel  # noqa: E402
from nnsight.modeling import huggingface  # noqa: E402
from nnsight.schema.request import RequestModel  # noqa: E402
from nnsight.schema.response import ResponseModel, Status  # noqa: E402
from nnsight.tracing.globals import BLOCKS, SOURCES  # noqa: E402
from nnsight.tracing.tracer import _saves, dec, inc  # noqa: E402
from transformers import AutoTokenizer  # noqa: E402


@dataclass
class Faults:
    """What goes wrong, counted in jobs. `drop`: the socket closes while it runs; `error`: one ends with these words."""

    drop: int = 0
    error: str = ""
    after: int = 0
    refuse: int = 0
    silent: bool = False
    versions: dict = field(default_factory=dict)


@dataclass
class State:
    key: str
    models: dict
    sandbox: bool
    loop: asyncio.AbstractEventLoop
    faults: Faults = field(default_factory=Faults)
    sockets: dict = field(default_factory=dict)
    jobs: dict = field(default_factory=dict)
    sizes: list = field(default_factory=list)
    env: dict = field(default_factory=nnsight.ndif.get_local_env)
    turn: threading.Lock = field(default_factory=threading.Lock)
    address: str = ""


def executed(model, blob, request):
    """What the block saved: `prepare_traced_block` and `execute_traced_block` of ndif 0.1.2, on this model."""
    kept = [(one, dict(one)) for one in (linecache.cache, SOURCES, BLOCKS)]
    try:
        tracer = RequestModel.deserialize(blob, model._remoteable_persistent_objects(), request.compress)
        inc()
        try:
            tracer.execute(tracer.info.code)
            saves = _saves()
            return {name: one for name, one in tracer.info.frame.f_locals.items() if id(one) in saves}
        finally:
            dec()
    finally:
        for one, before in kept:
            one.clear()
            one.update(before)


def sandboxed(model, blob, request):
    """What the block saved, run apart from the model by ndif's own sandbox."""
    from ndif.services.ray.sandbox.driver import SandboxDriver
    from ndif.services.ray.sandbox.host import spawn

    runner = spawn(model_key=request.model_key, timeout=180.0)
    try:
        connection = runner.connection()
        connection.send((blob, request.compress, "float32", None, request.env))
        data, _ = SandboxDriver(model, torch.float32).pump(connection)
    finally:
        runner.stop()
    return torch.load(io.BytesIO(data), weights_only=False)


class Handler(tornado.web.RequestHandler):
    state: State

    def initialize(self, state):
        self.state = state


class Env(Handler):
    def get(self):
        found = self.state.env
        self.write({**found, "packages": {**found["packages"], **self.state.faults.versions}})


class Deployments(Handler):
    def get(self):
        told = {"deployment_level": "HOT", "application_state": "RUNNING", "task": "image-text-to-text"}
        self.write(
            {
                "deployments": {
                    key: {**told, "model_key": key, "repo_id": json.loads(key.partition(":")[2])["repo_id"]}
                    for key in self.state.models
                }
            }
        )


class Request(Handler):
    def post(self):
        if self.request.headers.get("ndif-api-key") != self.state.key:
            self.set_status(403)
            self.write({"detail": "This API key is not authorized."})
            return
        if self.state.faults.refuse:
            self.state.faults.refuse -= 1
            self.set_status(503)
            self.write({"detail": "Service temporarily unavailable."})
            return
        request = RequestModel.model_validate_json(self.get_body_argument("data"))
        blob, job = self.request.files["blob"][0]["body"], uuid.uuid4().hex
        self.state.sizes.append({"payload": len(blob)})
        threading.Thread(target=work, args=(self.state, job, request, blob), daemon=True).start()
        self.write(
            ResponseModel(id=job, status=Status.RECEIVED, description="received").model_dump_json(
                exclude_none=True
            )
        )


def work(state, job, request, blob):
    """Runs a job and tells its states: on the socket of its session, or for those who ask."""

    def tell(status, description="", data=None):
        response = ResponseModel(id=job, status=status, description=description, data=data)
        if not request.session_id:
            if data is not None:
                response.data = f"{state.address}/result/{job}"
            state.jobs[job] = (response, data)
            return
        socket = state.sockets.get(request.session_id)
        if socket is None:
            return
        if status is Status.COMPLETED and len(data) > 100_000:  # as a presigned address
            state.jobs[job] = (response, data)
            response = ResponseModel(
                id=job, status=status, description=description, data=f"{state.address}/result/{job}"
            )
        message = response.pickle() if isinstance(response.data, bytes) else response.model_dump_json()
        state.loop.call_soon_threadsafe(socket.tell, message)

    tell(Status.QUEUED)
    faults = state.faults
    if faults.drop:
        faults.drop -= 1
        tell(Status.RUNNING)
        if request.session_id in state.sockets:
            state.loop.call_soon_threadsafe(state.sockets[request.session_id].close)
        return
    if faults.after:
        faults.after -= 1
    elif faults.error:
        told, faults.error = faults.error, ""
        tell(Status.ERROR, told)
        return
    with state.turn:
        tell(Status.RUNNING, "running")
        try:
            model = state.models[request.model_key]
            model._remoteable_set_env(request.env)
            saved = (sandboxed if state.sandbox else executed)(model, blob, request)
            buffer = io.BytesIO()
            torch.save(saved, buffer)
            data = buffer.getvalue()
            state.sizes[-1]["result"] = len(data)
            if request.compress:
                data = zstandard.ZstdCompressor(level=3).compress(data)
        except KeyError:
            tell(Status.ERROR, f"Model {request.model_key} is not deployed.")
        except BaseException as error:
            told = (
                str(error)
                if type(error).__name__ == "RunnerError"
                else "".join(traceback.format_exception(error))
            )
            tell(Status.ERROR, told)
        else:
            tell(Status.COMPLETED, "done", data)


class Response(Handler):
    def get(self, job):
        if job not in self.state.jobs:
            self.set_status(404)
            self.write({"detail": f"No response for request {job}."})
            return
        self.write(self.state.jobs[job][0].model_dump_json())


class Result(Handler):
    def get(self, job):
        self.write(self.state.jobs[job][1])


class Fault(Handler):
    def post(self):
        self.state.faults = Faults(**json.loads(self.request.body))

    def get(self):
        self.write({"sizes": self.state.sizes})


class Subscribe(tornado.websocket.WebSocketHandler):
    def initialize(self, state):
        self.state = state
        self.session = uuid.uuid4().hex

    def open(self, *args, **kwargs):
        self.state.sockets[self.session] = self
        self.write_message(json.dumps({"session_id": self.session}))

    def tell(self, message):
        self.write_message(message, binary=isinstance(message, bytes))

    def on_message(self, message):
        pass

    def on_close(self):
        self.state.sockets.pop(self.session, None)


async def main(key, folders, sandbox):
    models = {}
    for folder in folders:
        huggingface._ID_CACHE[folder] = folder
        # jobs send tensors, so nothing is processed here, and tiny processors lack parts that would be looked for
        processor = AutoTokenizer.from_pretrained(folder)
        model = TransformersModel(
            folder, task="image-text-to-text", processor=processor, dispatch=True, dtype="float32"
        )
        model._module.requires_grad_(False)
        models[model.to_model_key()] = model
    state = State(key, models, sandbox, asyncio.get_running_loop())
    routes = [
        (r"/env", Env),
        (r"/status", Deployments),
        (r"/request", Request),
        (r"/subscribe", Subscribe),
        (r"/response/(.*)", Response),
        (r"/result/(.*)", Result),
        (r"/fault", Fault),
    ]
    app = tornado.web.Application([(path, kind, {"state": state}) for path, kind in routes])
    server = app.listen(0, "127.0.0.1", max_buffer_size=2**31)
    port = next(iter(server._sockets.values())).getsockname()[1]
    state.address = f"http://127.0.0.1:{port}"
    print(json.dumps({"address": state.address}), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    torch.set_num_threads(1)
    given = [one for one in sys.argv[1:] if one != "--sandbox"]
    asyncio.run(main(given[0], given[1:], "--sandbox" in sys.argv))
