"""Ray: which nodes there are, and the seats on them. No other module asks it anything.

A seat is a named, detached actor pinned to its node: it outlives the gateway that made it, Ray starts it again when its
process ends, and it ends with its node. All methods but ``address`` block.
"""

import asyncio
import contextlib
import os
import secrets
from dataclasses import dataclass
from typing import Any, Final

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from structlog.stdlib import get_logger

from lhm_runtime.errors import BackendError
from streaming.cluster.seat import Address
from streaming.config import Config

NAMESPACE: Final = "lhm-live"

LOCAL: Final = "local"
"""Instead of an address: a cluster of this machine alone, which ends with the program."""

ENVIRONMENT: Final = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_worker_niceness": "0",
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "4",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "86400",
}
"""Of a cluster that is started here: it sends nothing anywhere, its sessions are worth as much as other programs (Ray
would have them wait for all of them), it notices within seconds that a node is gone, and it goes on for a day without
its head (Ray would end it after a minute)."""

_OBJECTS_BYTES: Final = 80 * 2**20
"""Of shared memory, the least that Ray takes: no frame goes through it."""

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Node:
    """A machine of the cluster."""

    id: str
    address: str
    seats: int
    """How many have room on it."""


class Placement:
    """The cluster's nodes and seats."""

    def __init__(self, config: Config, cluster: str) -> None:
        """Work with the cluster at an address, as ``10.0.0.1:6379``, or LOCAL."""
        self._config, self._cluster = config, cluster

    def connect(self) -> None:
        """Raises BackendError when there is no such cluster, or none of this version."""
        known: dict[str, Any] = {"namespace": NAMESPACE, "log_to_driver": False}
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        try:
            if self._cluster == LOCAL:
                _log.info("starting", cluster="this machine's")
                ray.init(
                    address="local",
                    include_dashboard=False,
                    object_store_memory=_OBJECTS_BYTES,
                    _node_ip_address="127.0.0.1",
                    **known,
                )
            else:
                ray.init(address=self._cluster, **known)
        except (ConnectionError, ValueError, RuntimeError, RayError) as error:
            raise BackendError(
                f"no Ray cluster at {self._cluster!r}: {error}. This machine has to be a node of it: ray start "
                f"--address {self._cluster} (docs/cluster.md)"
            ) from error

    def disconnect(self) -> None:
        """Leave the cluster, or end it, if it is LOCAL."""
        ray.shutdown()

    def nodes(self) -> dict[str, Node]:
        """Those that Ray takes for alive, by id."""
        return {
            str(node["NodeID"]): Node(
                str(node["NodeID"]), str(node["NodeManagerAddress"]), self._room(node.get("Resources", {}))
            )
            for node in ray.nodes()
            if node["Alive"]
        }

    def seats(self) -> set[str]:
        """Names of all, also of those that are starting."""
        return {str(name) for name in ray.util.list_named_actors() if str(name).startswith("seat.")}

    def create(self, node: Node) -> str:
        """Ask for a seat on a node; its name."""
        from streaming.cluster.worker import Worker  # noqa: PLC0415 - a gateway needs it only to send it

        wants, name = self._config.cluster, f"seat.{node.id}.{secrets.token_hex(4)}"
        ray.remote(Worker).options(
            name=name,
            lifetime="detached",
            num_cpus=wants.cpus,
            num_gpus=wants.gpus or None,
            memory=wants.memory_mb * 1_000_000 or None,
            max_restarts=-1,
            max_concurrency=4,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False),
        ).remote(
            name,
            {section: getattr(self._config, section) for section in type(self._config).model_fields},
            node.address,
        )
        return name

    def kill(self, name: str, *, restart: bool) -> None:
        """End a seat's process at once; with ``restart`` Ray starts another by the same name."""
        with contextlib.suppress(ValueError, RayError):  # it has gone
            ray.kill(ray.get_actor(name), no_restart=not restart)

    async def address(self, name: str) -> Address | None:
        """Where a seat listens, once it does; None where there is none any more, or it is lost meanwhile."""
        try:
            actor = await asyncio.to_thread(ray.get_actor, name)
            found = await actor.address.remote()
        except (ValueError, RayError):
            return None
        return found if isinstance(found, Address) else None

    def _room(self, resources: dict[str, float]) -> int:
        wants = self._config.cluster
        shares = [resources.get("CPU", 0.0) / wants.cpus]
        if wants.memory_mb:
            shares.append(resources.get("memory", 0.0) / (wants.memory_mb * 1_000_000))
        if wants.gpus:
            shares.append(resources.get("GPU", 0.0) / wants.gpus)
        return int(min(shares) + 1e-9)


def node_of(seat: str) -> str:
    """The node that a seat is on, by the seat's name."""
    return seat.split(".")[1]
