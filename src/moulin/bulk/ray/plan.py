"""How a cluster's CPUs and cards are divided between actors with the model and tasks that decode. No Ray here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from moulin.errors import EngineError, OptionsError

_USUAL_THREADS = 4
"""Threads of a model on the CPU: more in one actor gain less than another actor."""

Resources = Mapping[str, float]
"""What Ray counts on one node: CPU, GPU, memory."""


@dataclass(frozen=True, slots=True)
class RayChoice:
    """What a person chooses of Ray."""

    address: str | None = None
    """HOST:PORT of a cluster or `auto`; None starts one on this machine for the time of the job."""
    gpus: int | None = None
    """Cards to use; None is all of the cluster."""
    actors_per_gpu: int = 1

    def __post_init__(self) -> None:
        if self.address is not None and "://" in self.address:
            raise OptionsError(
                f"Expected the address of a Ray cluster as HOST:PORT or auto, got {self.address!r}",
                hint="run the command on a machine of the cluster, or send it there with `ray job submit`",
            )


@dataclass(frozen=True, slots=True)
class Plan:
    """Actors with the model, and tasks that decode at once. Numbers are Ray's logical resources."""

    actors: int
    cpus_an_actor: int
    gpus_an_actor: float
    decoders: int


def planned_on_gpus(nodes: Sequence[Resources], choice: RayChoice, decoders: int | None) -> Plan:
    """Actors on cards, with a CPU each, and the other CPUs for decoding. Raises EngineError for too small a cluster."""
    cards = sum(int(node.get("GPU", 0)) for node in nodes)
    wanted = choice.gpus or cards
    if not cards or wanted > cards:
        raise EngineError(
            f"Expected {wanted or 'a'} GPU{'s'[: wanted > 1]} in Ray's cluster, got {cards or 'none'}",
            hint="`ray status` lists what the nodes have; --device cpu needs none",
        )
    actors = wanted * choice.actors_per_gpu
    return _with_decoders(Plan(actors, 1, 1 / choice.actors_per_gpu, 0), nodes, decoders)


def planned_on_cpus(nodes: Sequence[Resources], threads: int | None, decoders: int | None) -> Plan:
    """Actors of `threads` CPUs each, as many as leave some CPU for decoding. Raises EngineError for too small a
    cluster."""
    largest = max((_cpus(node) for node in nodes), default=0)
    threads = threads or max(1, min(_USUAL_THREADS, largest - 1))
    actors = sum(_cpus(node) // threads for node in nodes)
    total = sum(map(_cpus, nodes))
    if not actors:
        raise EngineError(
            f"Expected {threads + 1} CPUs in Ray's cluster, {threads} of them on one node for a model, got {total}",
            hint="--threads needs less",
        )
    free = total - actors * threads
    while free < max(1, decoders or 0) and actors > 1:
        actors, free = actors - 1, free + threads
    return _with_decoders(Plan(actors, threads, 0.0, 0), nodes, decoders)


def _with_decoders(plan: Plan, nodes: Sequence[Resources], decoders: int | None) -> Plan:
    total, needed = sum(map(_cpus, nodes)), plan.actors * plan.cpus_an_actor
    free = total - needed
    if free < max(1, decoders or 0):
        models = f"{plan.actors} model{'s'[: plan.actors > 1]}"
        raise EngineError(
            f"Expected {needed + max(1, decoders or 0)} CPUs in Ray's cluster, {needed} of them for {models}, "
            f"got {total}",
            hint="with fewer the job would wait for ever; --threads, --decoders, --gpus and --actors-per-gpu need less",
        )
    return Plan(plan.actors, plan.cpus_an_actor, plan.gpus_an_actor, decoders or free)


def _cpus(node: Resources) -> int:
    return int(node.get("CPU", 0))
