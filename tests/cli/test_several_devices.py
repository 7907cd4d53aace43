"""Several devices on the command line, with a patched list of GPUs: no card is needed to write what Triton reads."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from moulin.bundle.load import load_bundle
from moulin.cli.models import NamedModel, Services, build_models
from moulin.client.served_model import instances
from moulin.engine.device import device_list
from moulin.errors import OptionsError
from moulin.models.engine_choice import EngineChoice
from moulin.triton_repo.built_models import built_models
from moulin.triton_repo.offline_options import OfflineOptions
from tests.bundles import BUNDLES

TWO = Services(offline=OfflineOptions(engine=EngineChoice("onnxruntime", precision="fp32"), instances=2))


def test_instances_on_every_gpu(tmp_path: Path) -> None:
    services = TWO.on(device_list("cuda:all", lambda: 3))
    assert services.engine.device == "cuda:0"
    spec = load_bundle(BUNDLES / "conformer-offline")
    (folder,) = build_models([NamedModel(spec, "transducer", services.engine)], tmp_path, services)
    config = text_format.Parse((folder / "config.pbtxt").read_text(), pb.ModelConfig())
    (group,) = config.instance_group
    assert (group.kind, group.count, list(group.gpus)) == (pb.ModelInstanceGroup.KIND_GPU, 2, [0, 1, 2])
    assert instances(config) == 6
    (built,) = built_models(tmp_path)
    assert (built.device, built.options.num_instances) == ("cuda:0,cuda:1,cuda:2", 6)


@pytest.mark.parametrize(("device", "gpus"), [("cpu", ()), ("cuda", ()), ("cuda:1", ())])
def test_one_device_alone_is_as_it_was(device: str, gpus: tuple[int, ...]) -> None:
    services = TWO.on((device,))
    assert (services.engine.device, services.offline.gpus, services.streaming.gpus) == (device, gpus, gpus)


def test_what_does_not_go_together() -> None:
    with pytest.raises(OptionsError, match="Expected GPUs alone where there are several devices, got cpu, cuda:0"):
        TWO.on(("cpu", "cuda:0"))
    with pytest.raises(OptionsError, match="Expected one device for --layout ensemble, got cuda:0, cuda:1"):
        Services(layout="ensemble").on(("cuda:0", "cuda:1"))
