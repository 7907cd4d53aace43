"""How clusters are divided, and which are refused."""

from __future__ import annotations

import pytest

from moulin.bulk.ray.plan import Plan, RayChoice, planned_on_cpus, planned_on_gpus
from moulin.errors import EngineError, OptionsError

USUAL = RayChoice()


@pytest.mark.parametrize(
    ("cpus", "threads", "decoders", "plan"),
    [
        ([8], None, None, Plan(1, 4, 0.0, 4)),
        ([8], 2, None, Plan(3, 2, 0.0, 2)),
        ([8], 2, 4, Plan(2, 2, 0.0, 4)),
        ([16, 16], 4, None, Plan(7, 4, 0.0, 4)),
        ([2], None, None, Plan(1, 1, 0.0, 1)),
        ([3, 3], 2, None, Plan(2, 2, 0.0, 2)),  # a model does not span nodes
        ([0, 5], 2, None, Plan(2, 2, 0.0, 1)),
    ],
)
def test_cpus(cpus: list[int], threads: int | None, decoders: int | None, plan: Plan) -> None:
    assert planned_on_cpus([{"CPU": float(count)} for count in cpus], threads, decoders) == plan


@pytest.mark.parametrize(
    ("cpus", "threads", "needed"), [([1], None, 2), ([2], 2, 3), ([0], None, 2), ([], None, 2), ([3, 3], 4, 5)]
)
def test_too_few_cpus(cpus: list[int], threads: int | None, needed: int) -> None:
    with pytest.raises(EngineError, match=f"Expected {needed} CPUs in Ray's cluster"):
        planned_on_cpus([{"CPU": float(count)} for count in cpus], threads, None)


def test_cards() -> None:
    nodes = [{"CPU": 16.0, "GPU": 2.0}, {"CPU": 32.0}]
    assert planned_on_gpus(nodes, USUAL, None) == Plan(2, 1, 1.0, 46)
    assert planned_on_gpus(nodes, RayChoice(gpus=1, actors_per_gpu=2), 7) == Plan(2, 1, 0.5, 7)


@pytest.mark.parametrize(
    ("nodes", "choice", "message"),
    [
        ([{"CPU": 8.0}], USUAL, "Expected a GPU in Ray's cluster, got none"),
        ([{"CPU": 8.0, "GPU": 1.0}], RayChoice(gpus=2), "Expected 2 GPUs in Ray's cluster, got 1"),
        ([{"CPU": 1.0, "GPU": 1.0}], USUAL, "Expected 2 CPUs in Ray's cluster, 1 of them for 1 model, got 1"),
        ([{"CPU": 4.0, "GPU": 1.0}], RayChoice(actors_per_gpu=4), "Expected 5 CPUs .* for 4 models, got 4"),
    ],
)
def test_too_few_for_cards(nodes: list[dict[str, float]], choice: RayChoice, message: str) -> None:
    with pytest.raises(EngineError, match=message):
        planned_on_gpus(nodes, choice, None)


def test_rays_client_is_refused() -> None:
    with pytest.raises(OptionsError, match="HOST:PORT or auto"):
        RayChoice("ray://head:10001")
