from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from interp.errors import RunError
from interp.run import Workers, run_task
from tests.run.fake_task import Roots


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "workers ≥ 1, got 0"),
        ({"n": True}, "workers ≥ 1, got True"),
        (
            {"address": "somewhere"},
            'None, "local", "auto", "host:port" or "ray://host:port", got \'somewhere\'',
        ),
        ({"address": "--head:1\n"}, "expected address to be None"),
        ({"address": "local", "devices": ("cuda:0",)}, "either address or devices, got both"),
        ({"gpus": 1}, "gpus only with an address of Ray, got gpus=1"),
        ({"address": "auto", "gpus": 1.5}, "a fraction below 1 or a whole number, got 1.5"),
        ({"address": "auto", "gpus": -1}, "got -1"),
        ({"address": "auto", "gpus": float("nan")}, "got nan"),
        ({"n": 1.5}, r"workers ≥ 1, got 1\.5"),
        ({"address": "auto", "gpus": True}, "got True"),
        ({"address": "auto", "gpus": 1025}, "got 1025"),
        ({"address": "head:123456"}, "expected address to be None"),
        ({"address": ""}, "expected address to be None"),
        ({"address": 6379}, "expected address to be None.*got 6379"),
        ({"gpus": 0}, "gpus only with an address of Ray, got gpus=0"),
        ({"devices": ("cpu", "CUDA")}, 'names such as "cuda:0"'),
        ({"devices": ("cuda:first",)}, 'names such as "cuda:0"'),
        ({"devices": 3}, "or a list of them, got 3"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RunError, match=message):
        Workers(**options)


@pytest.mark.parametrize(
    "address", ["local", "auto", "10.0.0.7:6379", "ray://head.cluster:10001", "ray://[::1]:9"]
)
def test_addresses_of_ray_are_accepted(address: str) -> None:
    assert not Workers(address=address).is_this_process
    for gpus in (0, 0.5, 2.0, 1024):
        assert Workers(address=address, gpus=gpus).gpus == gpus


def test_one_worker_per_device_unless_a_number_is_given() -> None:
    assert Workers(devices=("cuda:0", "cuda:1")).n == 2
    assert Workers(4, devices=("cuda:0", "cuda:1")).n == 4
    assert not Workers(devices=("cuda:1",)).is_this_process
    assert Workers().is_this_process


def test_cuda_stands_for_every_visible_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert Workers.of(1, devices="cuda") == Workers(3, devices=("cuda:0", "cuda:1", "cuda:2"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RunError, match="torch finds none"):
        Workers.of(1, devices="cuda")


def test_options_are_given_once() -> None:
    whole = Workers(2, address="local")
    assert Workers.of(whole) is whole
    with pytest.raises(RunError, match="beside a number of workers, got both"):
        Workers.of(whole, gpus=1)
    beside: tuple[dict[str, Any], ...] = ({"gpus": 0}, {"address": "auto"}, {"devices": ("cpu",)})
    for options in beside:
        with pytest.raises(RunError, match="beside a number of workers, got both"):
            Workers.of(whole, **options)


def test_models_on_cuda_get_a_gpu_on_ray_and_others_none() -> None:
    ray = Workers(2, address="auto")
    assert ray.for_models_on(["cuda:1"]).gpus == 1
    assert ray.for_models_on(["cpu"]).gpus == 0
    assert Workers(2, address="auto", gpus=0).for_models_on(["cpu"]).gpus == 0
    assert Workers(2, address="auto", gpus=0.5).for_models_on(["cuda"]).gpus == 0.5
    with pytest.raises(RunError, match="at least a part of a GPU"):
        Workers(2, address="auto", gpus=0).for_models_on(["cuda"])


def test_devices_of_another_type_than_the_models_are_refused() -> None:
    assert Workers(devices=("cuda:0",)).for_models_on(["cuda"]).devices == ("cuda:0",)
    with pytest.raises(RunError, match=r'of the type of the study\'s model, cpu, got cuda:1.*device="cuda"'):
        Workers(devices=("cuda:1",)).for_models_on(["cpu"])
    with pytest.raises(
        RunError, match=r"expected no devices .* on a server, got cpu\. Run the study without"
    ):
        Workers(devices=("cpu",)).for_models_on(["remote", "cpu"])
    assert Workers(2).for_models_on(["remote"]) == Workers(2)
    assert Workers(2, address="auto").for_models_on(["remote"]).gpus == 0


def test_a_run_refuses_bad_options_before_it_starts(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="gpus only with an address"):
        run_task(Roots(), tmp_path / "out", gpus=1, progress=False)
    assert not (tmp_path / "out").exists()
