#!/usr/bin/env python3
"""Writes the tables in the docs from the raw figures in docs/benchmarks/results.

Without arguments it rewrites them; with --check it changes nothing and exits with 1 where one is out of date.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "docs" / "benchmarks" / "results"
PEER = "sherpa-onnx"


def main() -> None:
    check = sys.argv[1:] == ["--check"]
    reports = {file.stem: json.loads(file.read_text()) for file in sorted(RESULTS.glob("*-offline*.json"))}
    texts = {f"offline:{stem}": table(stem, report) for stem, report in reports.items()}
    for file in sorted(RESULTS.glob("*-streaming*.json")):
        report = json.loads(file.read_text())
        texts[f"streaming:{file.stem}"] = (largest_table if "largest" in report else streaming_table)(file.stem, report)
        if "largest" in report:
            texts["largest"] = largest(report)
    for file in sorted(RESULTS.glob("*-encoder*.json")):
        texts[f"encoder:{file.stem}"] = encoder_table(file.stem, json.loads(file.read_text()))
    for kind, write in (("accuracy", accuracy_table), ("requests", requests_table), ("generator", generator_table)):
        for file in sorted(RESULTS.glob(f"*-{kind}.json")):
            texts[f"{kind}:{file.stem}"] = write(file.stem, json.loads(file.read_text()))
    for first in sorted(RESULTS.glob("*-find-max-first.json")):
        stem = first.stem.removesuffix("-first")
        twice = [json.loads((RESULTS / f"{stem}-{time}.json").read_text()) for time in ("first", "second")]
        texts[f"find-max:{stem}"] = find_max_table(stem, twice)
    for file in sorted(RESULTS.glob("*-gpu-*.json")):
        texts[f"gpu:{file.stem}"] = gpu_tables(file.stem, json.loads(file.read_text()))
    newest = max((stem for stem in reports if stem.endswith("cpu2-offline")), default=None)
    if newest:
        texts["ratio"] = ratio(reports[newest])
    stale = [path for path in (ROOT / "README.md", *ROOT.glob("docs/**/*.md")) if fill(path, texts, check)]
    if check and stale:
        names = ", ".join(str(path.relative_to(ROOT)) for path in stale)
        sys.exit(f"Out of date: {names} (hint: run scripts/benchmark-tables.py)")


def fill(path: Path, texts: dict[str, str], check: bool) -> bool:
    """Put the texts between their markers `<!-- benchmark:NAME --> … <!-- /benchmark:NAME -->`; whether it changed."""
    old = path.read_text()

    def replace(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in texts:
            sys.exit(f"{path} wants the benchmark {name!r}, of which there is no result")
        return f"<!-- benchmark:{name} -->{texts[name]}<!-- /benchmark:{name} -->"

    new = re.sub(r"<!-- benchmark:(?P<name>\S+) -->.*?<!-- /benchmark:(?P=name) -->", replace, old, flags=re.DOTALL)
    if not check and new != old:
        path.write_text(new)
    return new != old


def gpu_tables(stem: str, report: dict[str, Any]) -> str:
    """What there is of encoders, the pipeline in process, memory and the service on a GPU."""
    machine, versions = report["machine"], report["versions"]
    lines = ["", f"{report['date']}, {machine['gpu']}, {machine['cores']} cores, PyTorch {versions['torch']}"]
    for encoder in report.get("encoder", []):
        batches, plain = encoder["ms"], encoder["plain_modules_ms"]
        lines += [
            "",
            f"| {encoder['size']}, {encoder['frames']} frames, batch | {' | '.join(batches)} |",
            "|---" * (len(batches) + 1) + "|",
            "| passes a second | " + " | ".join(f"{1e3 * int(n) / ms:,.0f}" for n, ms in batches.items()) + " |",
            "| the modules in PyTorch, fp16 | "
            + " | ".join(f"{1e3 * int(n) / ms:,.0f}" for n, ms in plain.items())
            + " |",
        ]
    if "pipeline" in report:
        lines += ["", "| in process | batch | RTFx, float32 | RTFx, int16 |", "|---|---|---|---|"]
    for run in report.get("pipeline", []):
        method = "greedy" if run["method"] == "greedy" else f"beam {run['beam']}"
        rates = " | ".join(f"{run[dtype]['rtfx']:,.0f}" for dtype in ("float32", "int16"))
        lines.append(f"| {run['size']}, {method} | {run['batch']} | {rates} |")
    for run in report.get("memory", []):
        reserved = ", ".join(map(str, run["reserved_mib"]))
        lines += ["", f"GPU memory over {run['utterances']:,} utterances, MiB: {reserved}."]
    if "triton" in report:
        lines += [
            "",
            "| through Triton | instances | requests under way | RTFx | p50, ms | p95 | p99 | failed |",
            "|---|---|---|---|---|---|---|---|",
        ]
    for run in report.get("triton", []):
        latencies = " | ".join(f"{run[name]:.0f}" for name in ("p50_ms", "p95_ms", "p99_ms"))
        what = f"{run['size']}, int16" if run.get("int16") else run["size"]
        lines.append(
            f"| {what} | {run['instances']} | {run['clients'] * run['concurrency']} "
            f"| {run['rtfx']:,.0f} | {latencies} | {run['failures']} |"
        )
    lines += ["", f"`{report['command']}` ([raw figures](results/{stem}.json))", ""]
    return "\n".join(lines)


def streaming_table(stem: str, report: dict[str, Any]) -> str:
    lines = [
        "",
        streaming_setting(report),
        "",
        "| streams | target | latency p50, ms | p95 | p99 | final p95 | first text p50 | failed | WER "
        "| cores: server, generator |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for run in sorted(report["runs"], key=lambda run: run["streams"]):
        latency, seconds = run["latency_ms"], run["seconds"]
        cores = f"{run['server_cpu_sec'] / seconds:.2f}, {run['generator_cpu_sec'] / seconds:.2f}"
        lines.append(
            f"| {streams(run)} | {run['target']} "
            f"| {latency['p50']:.0f} | {latency['p95']:.0f} | {latency['p99']:.0f} "
            f"| {run['final_latency_ms']['p95']:.0f} | {run['first_text_ms']['p50']:.0f} "
            f"| {run['failures']} | {run['wer']:.2%} | {cores} |"
        )
    lines += ["", f"`{report['command']}` ([raw figures](results/{stem}.json))", ""]
    return "\n".join(lines)


def encoder_table(stem: str, report: dict[str, Any]) -> str:
    """A row for each batch size, with the latency and throughput of each runner."""
    machine, model = report["machine"], report["model"]
    runners = list(dict.fromkeys(run["runner"] for run in report["runs"]))
    runs = {(run["batch"], run["runner"]): run for run in report["runs"]}
    lines = [
        "",
        f"{report['date']}, {machine.get('gpu', machine['cpu'])}, {machine['cores']} cores; {model['name']} "
        f"({model['family']}), {report['frames']} frames ({report['frames'] / 100:g} s) an utterance, on "
        f"{report['device']}{', where features come from and encoder frames stay' if report.get('on_device') else ''}",
        "",
        "| batch | " + " | ".join(f"{runner}: ms | QPS" for runner in runners) + " |",
        "|---" * (1 + 2 * len(runners)) + "|",
    ]
    for batch in dict.fromkeys(run["batch"] for run in report["runs"]):
        found = (runs[batch, runner] for runner in runners)
        cells = ("failed | -" if "failure" in run else f"{run['median_ms']:.2f} | {run['qps']:.1f}" for run in found)
        lines.append(f"| {batch} | " + " | ".join(cells) + " |")
    packages = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    lines += ["", f"`{report['command']}`; {packages}. Raw: [results/{stem}.json](results/{stem}.json)", ""]
    return "\n".join(lines)


def streams(run: dict[str, Any]) -> str:
    return f"{run['streams']}{' (disturbed)' if run['disturbed'] else ''}"


def largest_table(stem: str, report: dict[str, Any]) -> str:
    best_peer = max((most for name, most in report["largest"].items() if name.startswith(PEER)), default=None)
    lines = [
        "",
        f"{streaming_setting(report)}, p95 under {report['p95_limit_ms']:g} ms",
        "",
        "| target | streams that held | against the peer | tries: streams (p95 of each run, ms) |",
        "|---|---|---|---|",
    ]
    for target, most in report["largest"].items():
        tries: dict[int, list[str]] = {}
        for run in report["runs"]:
            if run["target"] == target:
                tries.setdefault(run["streams"], []).append(f"{run['latency_ms']['p95']:.0f}")
        listed = "; ".join(f"{streams} ({', '.join(p95)})" for streams, p95 in sorted(tries.items()))
        lines.append(f"| {target} | {most} | {f'{most / best_peer:.2f}' if best_peer else '-'} | {listed} |")
    lines += ["", f"`{report['command']}` ([raw figures](results/{stem}.json))", ""]
    return "\n".join(lines)


def accuracy_table(stem: str, report: dict[str, Any]) -> str:
    lines = [
        "",
        f"{setting(report)}; {report['data']['recordings']} recordings; {report['normalizer']}",
        "",
        "| target | WER | errors (ins, del, sub) | words | CER | recordings with errors | failed |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in report["accuracy"]:
        wer = result["wer"]
        kinds = ", ".join(str(wer[kind]) for kind in ("insertions", "deletions", "substitutions"))
        lines.append(
            f"| {result['target']} | {wer['rate']:.2%} | {wer['errors']} ({kinds}) | {wer['reference']} "
            f"| {result['cer']['rate']:.2%} | {result['sentence_errors']} of {result['recordings']} "
            f"| {result['failures']} |"
        )
    return "\n".join([*lines, *source(stem, report)])


def requests_table(stem: str, report: dict[str, Any]) -> str:
    lines = [
        "",
        f"{setting(report)}, load generator included; {report['seconds']:g} s a run",
        "",
        "| workers | target | audio s/s | latency p50, ms | p95 | p99 | failed | WER | cores: server, generator |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for run in sorted(report["runs"], key=lambda run: run["workers"]):
        latency, seconds = run["latency_ms"], run["seconds"]
        lines.append(
            f"| {run['workers']} | {run['target']} | {run['audio_sec_a_sec']:.0f} "
            f"| {latency['p50']:.0f} | {latency['p95']:.0f} | {latency['p99']:.0f} | {run['failures']} "
            f"| {run['wer']:.2%} | {run['server_cpu_sec'] / seconds:.2f}, {run['generator_cpu_sec'] / seconds:.2f} |"
        )
    return "\n".join([*lines, *source(stem, report)])


def generator_table(stem: str, report: dict[str, Any]) -> str:
    lines = [
        "",
        f"{setting(report)}; chunks of {report['chunk_ms']} ms, {report['runs'][0]['seconds']:g} s a run, one process",
        "",
        "| streams | generator, cores | a stream, % of a core | late by p95, ms | reply p50, ms | p95 | p99 | failed |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for run in report["runs"]:
        latency, cores = run["latency_ms"], run["generator_cpu_sec"] / run["seconds"]
        lines.append(
            f"| {streams(run)} | {cores:.2f} | {100 * cores / run['streams']:.3f} "
            f"| {run['generator_late_p95_ms']:.1f} | {latency['p50']:.1f} | {latency['p95']:.1f} "
            f"| {latency['p99']:.1f} | {run['failures']} |"
        )
    return "\n".join([*lines, *source(stem, report)])


def find_max_table(stem: str, twice: list[dict[str, Any]]) -> str:
    lines = [
        "",
        f"{streaming_setting(twice[0])}, p95 under {twice[0]['p95_limit_ms']:g} ms",
        "",
        "| search | target | streams that held | runs | raw |",
        "|---|---|---|---|---|",
    ]
    for time, report in zip(("first", "second"), twice, strict=True):
        for target, most in report["largest"].items():
            raw = f"[results/{stem}-{time}.json](results/{stem}-{time}.json)"
            lines.append(f"| {time} | {target} | {most} | {len(report['runs'])} | {raw} |")
    lines += ["", f"`{twice[0]['command']}`", ""]
    return "\n".join(lines)


def setting(report: dict[str, Any]) -> str:
    machine, model = report["machine"], report["model"]
    return (
        f"{report['date']}, {machine.get('gpu', machine['cpu'])}, {machine['cores']} cores; model {model['name']} "
        f"({model['family']}, {model['precision']})"
    )


def source(stem: str, report: dict[str, Any]) -> list[str]:
    return ["", f"`{report['command']}` ([raw figures](results/{stem}.json))", ""]


def streaming_setting(report: dict[str, Any]) -> str:
    machine, model = report["machine"], report["model"]
    return (
        f"{report['date']}, {machine.get('gpu', machine['cpu'])}, {machine['cores']} cores, load generator included; "
        f"model {model['name']} ({model['family']}, {model['precision']}), chunks of {report['chunk_ms']} ms, "
        f"{report['runs'][0]['seconds']:g} s a run"
    )


def table(stem: str, report: dict[str, Any]) -> str:
    best_peer = max((t["rtfx_median"] for t in report["targets"] if t["name"].startswith(PEER)), default=None)
    machine, model = report["machine"], report["model"]
    lines = [
        "",
        f"{report['date']}, {machine.get('gpu', machine['cpu'])}, {machine['cores']} cores; model {model['name']} "
        f"({model['family']}, {model['precision']}), {report['audio_sec']:g} s of audio a round, "
        f"{report['threads']} threads, {len(report['targets'][0]['seconds'])} rounds",
        "",
        "| target | RTFx, median (worst to best round) | against the peer's best | WER |",
        "|---|---|---|---|",
    ]
    for t in report["targets"]:
        against = f"{t['rtfx_median'] / best_peer:.2f}" if best_peer else "-"
        rtfx = f"{t['rtfx_median']} ({t['rtfx_worst']} to {t['rtfx_best']})"
        lines.append(f"| {t['name']} | {rtfx} | {against} | {t['wer']:.2%} |")
    packages = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    lines += ["", f"`{report['command']}`; {packages}. Raw: [results/{stem}.json](results/{stem}.json)", ""]
    return "\n".join(lines)


def largest(report: dict[str, Any]) -> str:
    peer = max(most for name, most in report["largest"].items() if name.startswith(PEER))
    ours = max(most for name, most in report["largest"].items() if not name.startswith(PEER))
    return (
        f"{ours} real-time streams with 95 % of replies within {report['p95_limit_ms']:g} ms where sherpa-onnx's "
        f"server holds {peer}, on {report['machine']['cores']} CPU cores in the same run."
    )


def ratio(report: dict[str, Any]) -> str:
    rtfx = {t["name"]: t["rtfx_median"] for t in report["targets"]}
    batches = max(value for name, value in rtfx.items() if name.startswith(f"{PEER}-batch"))
    best = max(value for name, value in rtfx.items() if name.startswith(PEER))
    return (
        f"{rtfx['moulin'] / batches:.1f} times the throughput of sherpa-onnx's batch decoding on "
        f"{report['machine']['cores']} CPU cores with the same model ({rtfx['moulin'] / best:.1f} times that of the "
        "fastest way we found to call it), in the same run."
    )


if __name__ == "__main__":
    main()
