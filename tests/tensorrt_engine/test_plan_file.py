"""The description beside an engine."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from moulin.bundle.load import load_bundle
from moulin.errors import BundleError, EngineError
from moulin.tensorrt_engine.build import build_plan, prepare
from moulin.tensorrt_engine.builders import (
    TrtexecBuilder,
)
from moulin.tensorrt_engine.plan_file import Machine, PlanFacts, check_plan, facts_file, file_hash

from .fake_trtexec import CONFORMER, PROFILES, trtexec


def test_a_plan_of_another_machine_is_refused(tmp_path: Path) -> None:
    spec = load_bundle(CONFORMER)
    builder = TrtexecBuilder(trtexec(tmp_path))
    plan = build_plan(spec, prepare(spec), tmp_path / "e", builder, "NVIDIA A100, 8.0", "fp16")
    model = file_hash(spec.encoder.file)
    check_plan(plan, Machine("NVIDIA A100, 8.0", "10.3.0"), model)
    with pytest.raises(EngineError, match=r"built for the GPU NVIDIA A100, 8.0, and here is NVIDIA H200, 9.0 \(hint"):
        check_plan(plan, Machine("NVIDIA H200, 9.0", "10.3.0"), model)
    with pytest.raises(
        EngineError, match=r"with TensorRT 10.3.0, and here is TensorRT 10.9.0 .*run `moulin trt build` here"
    ):
        check_plan(plan, Machine("NVIDIA A100, 8.0", "10.9.0"), model)
    facts_file(plan).write_text("{}")
    with pytest.raises(BundleError, match="cannot be read"):
        check_plan(plan, Machine("NVIDIA A100, 8.0", "10.3.0"), model)
    with pytest.raises(BundleError, match="There is no engine at"):
        check_plan(tmp_path / "none.plan", Machine("", ""), model)


def test_every_fact_makes_another_key() -> None:
    facts = PlanFacts(Machine("gpu", "10.3.0"), "fp16", "abc", PROFILES, ["encoder_out"], 4.0)
    changes: list[dict[str, Any]] = [
        {"machine": Machine("other", "10.3.0")},
        {"machine": Machine("gpu", "10.4.0")},
        {"precision": "fp32"},
        {"model": "abd"},
        {"profiles": PROFILES[:1]},
        {"outputs": ["encoder_out", "blank_log_probs"]},
    ]
    keys = {dataclasses.replace(facts, **change).key for change in changes}
    assert len(keys | {facts.key}) == 1 + len(changes)
    assert facts.key == dataclasses.replace(facts, workspace_gib=2.0).key
