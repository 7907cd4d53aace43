from __future__ import annotations

from tritonclient.grpc import service_pb2 as pb

from moulin.client.served_model import ServedModel, ready_models, served_models


def _response(
    name: str,
    inputs: str,
    output: str,
    *,
    streaming: bool = False,
    limit: str | None = None,
    hotwords: str | None = None,
    **facts: str,
) -> object:
    response = pb.ModelConfigResponse()
    response.config.name = name
    for tensor in inputs.split():
        response.config.input.add(name=tensor)
    response.config.output.add(name=output)
    if streaming:
        response.config.sequence_batching.SetInParent()
    if limit is not None:
        response.config.parameters["max_utterance_sec"].string_value = limit
    if hotwords is not None:
        response.config.parameters["hotwords"].string_value = hotwords
    for name_of_fact, value in facts.items():
        response.config.parameters[name_of_fact].string_value = value
    return response


def test_models_of_moulin_are_told_by_their_tensors() -> None:
    responses = [
        _response("zipformer", "WAV WAV_LENS", "RESULT", limit="120", hotwords="true"),
        _response("resnet", "IMAGE", "RESULT"),
        _response("encoder", "WAV", "HIDDEN"),
        _response("live", "WAV WAV_LENS", "RESULT", streaming=True, limit="20.5", hotwords="false"),
        _response("older", "WAV WAV_LENS", "RESULT"),
    ]
    assert served_models(responses) == [
        ServedModel("live", True, 20.5),
        ServedModel("older", False, 30.0),
        ServedModel("zipformer", False, 120.0, uses_hotwords=True),
    ]


def test_facts_about_a_model() -> None:
    told = _response("m", "WAV", "RESULT", bundle="zipformer-zh-en", languages="zh en", created="1790000000")
    odd = _response("o", "WAV", "RESULT", created="-1e9")
    told_model, odd_model = served_models([told, odd])
    assert (told_model.bundle, told_model.languages, told_model.created) == (
        "zipformer-zh-en",
        ("zh", "en"),
        1_790_000_000,
    )
    assert (odd_model.bundle, odd_model.languages, odd_model.created) == (None, (), 0)


def test_only_ready_models_are_named() -> None:
    index = pb.RepositoryIndexResponse()
    for name, state in (("a", "READY"), ("b", "UNAVAILABLE"), ("c", "")):
        index.models.add(name=name, state=state)
    assert ready_models(index) == ["a"]
