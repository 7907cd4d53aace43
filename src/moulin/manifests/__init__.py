"""Forms of manifests that several readers share: lines, Kaldi's tables, the first entry of Lhotse's."""
