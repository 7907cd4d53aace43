"""An operator's options in config.pbtxt: whatever they are, they come back equal through Triton's protobuf."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import model_config_pb2 as pb

from moulin.decoding.options import METHODS, DecodingOptions
from moulin.errors import BundleError
from moulin.streaming.endpoint_rules import EndpointRules
from moulin.streaming.options import StreamOptions
from moulin.triton_repo.offline_options import OfflineOptions
from moulin.triton_repo.service_parameter import add_service, read_service
from moulin.triton_repo.streaming_options import StreamingOptions
from tests.models.test_engine_choice import choices

counts = st.integers(1, 10**6)
times = st.floats(0, 1e6, exclude_min=True, exclude_max=True)
names = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", fullmatch=True)
words = st.text(st.characters(exclude_categories=["Cs"]))
decodings = st.builds(
    DecodingOptions,
    st.sampled_from(METHODS),
    st.integers(1, 32),
    st.floats(0.01, 100),
    st.floats(-100, 100),
)
rules = st.builds(EndpointRules, *[st.floats(min_value=0, exclude_min=True)] * 3)
services = {"model_name": names, "engine": choices, "instances": st.integers(1, 1024), "encoder": words}
offline = st.builds(
    OfflineOptions,
    **services,
    max_batch=counts,
    max_audio_sec=st.floats(min_value=0, exclude_min=True),
    max_queue=counts,
    queue_delay_ms=st.floats(min_value=0),
    decoding=decodings,
)
streaming = st.builds(
    StreamingOptions,
    **services,
    max_batch=st.none() | counts,
    max_streams=counts,
    idle_timeout_sec=times,
    max_step_ms=st.none() | times,
    linger_ms=times,
    queue_delay_ms=times,
    stream=st.builds(StreamOptions, decodings, st.booleans(), rules),
)


@given(offline | streaming)
def test_there_and_back(options: OfflineOptions | StreamingOptions) -> None:
    config = pb.ModelConfig()
    add_service(config, options)
    parsed: Any = text_format.Parse(text_format.MessageToString(config), pb.ModelConfig())
    values = {name: value.string_value for name, value in parsed.parameters.items()}
    assert list(values) == ["service"]
    if isinstance(options, OfflineOptions):
        assert read_service(OfflineOptions, values, "config.pbtxt") == options
    else:
        assert read_service(StreamingOptions, values, "config.pbtxt") == options


def test_an_option_that_was_added_later_has_its_default() -> None:
    assert read_service(StreamingOptions, {"service": '{"max_streams": 3}'}, "x") == StreamingOptions(max_streams=3)


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(BundleError, match=r"There is no option .rule4. in rules") as refused:
        read_service(StreamingOptions, {"service": '{"stream": {"rules": {"rule4": 1}}}'}, "there/config.pbtxt")
    assert refused.value.message.startswith("there/config.pbtxt was written for another moulin")
    assert "moulin repo build" in (refused.value.hint or "")
