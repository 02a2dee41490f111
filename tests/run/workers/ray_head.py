"""A Ray cluster of one machine that lives until its standard input is closed: python tests/run/workers/ray_head.py

Prints its address. `ray start --head` does the same, but gives up where a busy machine takes more than 30 s.
"""

from __future__ import annotations

import logging
import sys

import ray

from interp.run.workers.private_ray import quiet_and_patient

if __name__ == "__main__":
    with quiet_and_patient():
        ray.init(
            address="local",
            num_cpus=8,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    print(ray.get_runtime_context().gcs_address, flush=True)
    sys.stdin.read()
