"""How many workers compute a run, on which machines and devices."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from interp.errors import RunError

__all__ = ["Workers"]

MOST_GPUS = 1024
"""More GPUs than any machine has: a larger number is a slip of the pen."""


@dataclass(frozen=True)
class Workers:
    """How many workers compute a run, and where. The bytes that are stored do not depend on it.

    Args:
        n: The number of workers. Each has its own copy of the model. One worker without `address` and `devices` is
            the calling process itself.
        address: None for processes of this machine. "local" starts a private Ray on this machine; "auto",
            "host:port" and "ray://host:port" join a Ray cluster.
        gpus: On Ray, the GPUs that each worker gets: a fraction such as 0.5, or a whole number. By default 1 for a
            model on "cuda" and 0 for any other.
        devices: Without Ray, the devices that the workers take in turn, such as ("cuda:0", "cuda:1"). "cuda" stands
            for all visible CUDA devices. With n = 1 there is one worker per device. By default every worker takes
            the device of the study's model.

    Raises:
        RunError: A value that makes no sense, or options that contradict each other.
    """

    n: int = 1
    address: str | None = None
    gpus: float | None = None
    devices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.n, int) or isinstance(self.n, bool) or self.n < 1:
            raise RunError(f"expected a whole number of workers ≥ 1, got {self.n!r}.")
        if self.address is not None and not _is_address(self.address):
            raise RunError(
                f'expected address to be None, "local", "auto", "host:port" or "ray://host:port", got '
                f"{self.address!r}."
            )
        object.__setattr__(self, "devices", _devices(self.devices))
        if self.address is not None and self.devices:
            raise RunError(
                "expected either address or devices, got both: Ray chooses the devices of its workers. Pass gpus=1 "
                "with address, or devices without it."
            )
        if self.gpus is not None:
            self._check_gpus()
        if self.n == 1 and len(self.devices) > 1:
            object.__setattr__(self, "n", len(self.devices))

    def _check_gpus(self) -> None:
        gpus = self.gpus
        if self.address is None:
            raise RunError(
                f"expected gpus only with an address of Ray, got gpus={gpus!r} without one. Name the devices of local "
                f'workers instead: devices=["cuda:0", "cuda:1"], or devices="cuda" for all.'
            )
        if not _is_share(gpus):
            raise RunError(
                f"expected gpus to be 0, a fraction below 1 or a whole number, got {gpus!r}. Ray divides one GPU "
                f"among workers, but gives no worker one and a half."
            )

    @classmethod
    def of(
        cls,
        workers: int | Workers,
        *,
        address: str | None = None,
        gpus: float | None = None,
        devices: str | Sequence[str] = (),
    ) -> Workers:
        """Returns the options as one value; `workers` may be that value already.

        Raises:
            RunError: As for the class, or options beside a value that holds them already.
        """
        if not isinstance(workers, Workers):
            return cls(workers, address, gpus, _devices(devices))
        if address is not None or gpus is not None or devices:
            raise RunError(
                f"expected address, gpus and devices either inside {workers!r} or beside a number of workers, got both."
            )
        return workers

    @property
    def is_this_process(self) -> bool:
        """Whether the calling process itself computes."""
        return self.n == 1 and self.address is None and not self.devices

    def for_models_on(self, devices: Iterable[str]) -> Workers:
        """Returns the options for models on these devices: the number of GPUs is then known.

        Raises:
            RunError: The workers' devices are of another type than a model's, or a model on "cuda" gets no GPU.
        """
        types = {device.partition(":")[0] for device in devices}
        if self.devices and "remote" in types:
            raise RunError(
                f"expected no devices for workers whose model runs on a server, got {', '.join(self.devices)}. Run "
                "the study without them, with a number of workers."
            )
        other = [device for device in self.devices if types - {device.partition(":")[0]}]
        if other:
            raise RunError(
                f"expected workers' devices of the type of the study's model, {' and '.join(sorted(types))}, got "
                f"{', '.join(other)}: results depend on the type. Open the model there too: "
                f'ModelSpec(id, device="{other[0].partition(":")[0]}").'
            )
        if self.address is None:
            return self
        if self.gpus == 0 and "cuda" in types:
            raise RunError(
                "expected at least a part of a GPU for each worker, because the study's model is on cuda, got gpus=0."
            )
        return dataclasses.replace(self, gpus=float("cuda" in types)) if self.gpus is None else self


def _is_address(address: Any) -> bool:
    known = r"local|auto|(ray://)?([A-Za-z0-9._-]+|\[[0-9A-Fa-f:]+\]):[0-9]{1,5}"
    return isinstance(address, str) and re.fullmatch(known, address) is not None


def _is_share(gpus: Any) -> bool:
    """Whether Ray can give a worker so many GPUs."""
    number = isinstance(gpus, int | float) and not isinstance(gpus, bool) and 0 <= gpus <= MOST_GPUS
    return number and (gpus < 1 or float(gpus).is_integer())


def _devices(given: Any) -> tuple[str, ...]:
    """The devices as names; "cuda" becomes one name for each visible device."""
    listed = (
        [given] if isinstance(given, str) else list(given) if isinstance(given, list | tuple) else [given]
    )
    for name in listed:
        if not isinstance(name, str) or re.fullmatch(r"[a-z]+(:[0-9]{1,4})?", name) is None:
            raise RunError(
                f'expected devices to be names such as "cuda:0", "cuda" or "cpu", or a list of them, got {given!r}.'
            )
    return tuple(one for name in listed for one in (_all_cuda() if name == "cuda" else (name,)))


def _all_cuda() -> tuple[str, ...]:
    import torch

    n = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not n:
        raise RunError(
            'expected devices="cuda" on a machine with CUDA devices, but torch finds none. Check nvidia-smi and '
            "CUDA_VISIBLE_DEVICES, or leave devices out."
        )
    return tuple(f"cuda:{index}" for index in range(n))
