"""Features by kaldi-native-fbank, as sherpa-onnx has them: in int8 differences in the last digits become steps."""

from __future__ import annotations

from moulin.arrays import Floats
from moulin.audio.fbank import Fbank
from moulin.engine.features import FeatureExtractor
from moulin.engine.host_pipeline import HostPipeline


class LibraryFeatures(FeatureExtractor):
    def _features(self, waveform: Floats) -> Floats:
        return Fbank()(waveform)


def on_library_features(pipeline: HostPipeline) -> HostPipeline:
    """`pipeline`, which is to append no silence, on features of the library."""
    pipeline.features.close()
    pipeline.features = LibraryFeatures(feature_dim=80, threads=1, tail_padding_sec=0.0)
    return pipeline
