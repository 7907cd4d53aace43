"""Settings of a target in a report."""

from __future__ import annotations

from moulin.evaluate.targets.target import ServerSettings
from moulin.models.engine_choice import EngineChoice


def test_a_report_names_the_settings_that_a_target_ran_with() -> None:
    settings = ServerSettings(EngineChoice(threads=2), sherpa={"max-batch-size": "99"})
    assert settings.described("moulin-triton-http") == {"threads": 2, "device": "cpu"}
    assert settings.described("sherpa-onnx-server")["max-batch-size"] == "99"
    assert "num-work-threads" in settings.described("sherpa-onnx-server")


def test_options_of_moulins_service_are_named_for_it_alone() -> None:
    settings = ServerSettings(EngineChoice(threads=2), moulin={"instances": "3"})
    assert settings.described("moulin-triton-http")["instances"] == "3"
    assert "instances" not in settings.described("sherpa-onnx-server")
