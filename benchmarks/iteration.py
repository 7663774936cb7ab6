"""Speed and peak memory of one iteration, in turns with the reference.

Run as `python -m benchmarks.iteration speed|memory NETWORK CONTENDER… --rounds N` in its own process for each network,
and for memory for each contender.
"""

import argparse
import gc
import json
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.contenders import REFERENCE, SETTINGS, Step, step_of
from benchmarks.machine import fresh, matmul_peak
from benchmarks.networks import NETWORKS, Network
from benchmarks.tables import Table, spread

ROUNDS = 9
ROUND_SECONDS = 0.25  # at least one iteration per round; for fast networks as many as fit
LEAN = ["eager", "eager, shared samples", "gradient checkpointing", "compiled, shared samples", "bf16"]
# Freed memory is returned to the system at once, so that the peak is of memory in use.
RETURN_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "65536"}
# Each compiled contender compiles everything itself, without the caches of earlier runs and contenders.
COMPILE_ANEW = {"TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1"}


def measure(quick: bool = False) -> dict[str, Any]:
    """Seconds per round, and megabytes, by network and contender."""
    networks = ["mlp"] if quick else list(NETWORKS)
    contenders = [REFERENCE, "eager", "eager, shared samples"] if quick else [REFERENCE, *SETTINGS]
    lean = [REFERENCE, "eager"] if quick else [REFERENCE, *LEAN]
    rounds = "3" if quick else str(ROUNDS)
    measured: dict[str, Any] = {}
    for name in networks:
        threads = NETWORKS[name].threads
        asked = ["speed", name, *contenders, "--rounds", rounds]
        measured[name] = fresh("iteration", *asked, threads=threads, environment=COMPILE_ANEW)
        measured[name]["megabytes"] = {
            contender: fresh("iteration", "memory", name, contender, threads=threads, environment=RETURN_MEMORY)
            for contender in lean
        }
    return {"networks": measured}


def tables(measured: dict[str, Any]) -> list[Table]:
    """A table for each network."""
    columns = [
        "contender",
        "images/s",
        "speed-up over the reference",
        "share of matmul peak",
        "peak memory",
        "relative to the reference",
        "first two iterations",
    ]
    found: list[Table] = []
    for name, figures in measured["networks"].items():
        seconds, network = figures["seconds"], NETWORKS[name]
        rows: list[list[str]] = []
        for contender, own in seconds.items():
            ratios = [theirs / ours for theirs, ours in zip(seconds[REFERENCE], own, strict=True)]
            flops = figures["flops"].get(contender)
            share = f"{flops / median(own) / figures['peak']:.0%}" if flops else "–"
            megabytes = figures["megabytes"].get(contender)
            rows.append(
                [
                    contender,
                    f"{network.batch / median(own):,.1f}",
                    spread(ratios),
                    share,
                    f"{megabytes:,.0f} MB" if megabytes else "–",
                    f"{megabytes / figures['megabytes'][REFERENCE]:.2f}" if megabytes else "–",
                    f"{figures['start'][contender]:.0f} s",
                ]
            )
        title = (
            f"One iteration of {network.description}: {figures['parameters']:,} parameters, batch {network.batch}, "
            f"{figures['threads']} thread(s), {figures['flops'][REFERENCE] / 1e9:,.1f} GFLOP, "
            f"matmul peak {figures['peak'] / 1e9:,.0f} GFLOP/s"
        )
        found.append(Table(f"iteration {name}", title, columns, rows))
    return found


def speed(name: str, contenders: list[str], rounds: int) -> dict[str, Any]:
    """Seconds per iteration in each round, the contenders in turns; the FLOPs of an iteration; the machine's peak."""
    network = NETWORKS[name]
    flops = {contender: _operations(contender, network) for contender in contenders}
    steps: dict[str, Step] = {}
    start: dict[str, float] = {}
    for contender in contenders:
        began = time.perf_counter()
        steps[contender] = step_of(contender, network)
        for _ in range(2):
            steps[contender]()
        start[contender] = time.perf_counter() - began
    peak = matmul_peak()
    seconds: dict[str, list[float]] = {contender: [] for contender in contenders}
    processor: dict[str, list[float]] = {contender: [] for contender in contenders}
    repeats = max(1, round(ROUND_SECONDS / network.seconds))
    for _ in range(rounds):
        for contender, step in steps.items():
            gc.collect()
            wall, cpu = time.perf_counter(), time.process_time()
            for _ in range(repeats):
                step()
            processor[contender].append((time.process_time() - cpu) / repeats)
            seconds[contender].append((time.perf_counter() - wall) / repeats)
    return {
        "parameters": sum(p.numel() for p in network.make().parameters()),
        "threads": torch.get_num_threads(),
        "peak": max(peak, matmul_peak()),
        "flops": flops,
        "start": start,
        "seconds": seconds,
        "processor_seconds": processor,
    }


def memory(name: str, contender: str) -> float:
    """Megabytes of the tensors that stay between two iterations, plus the peak that an iteration adds.

    The first two iterations are not counted: a compiler needs its own memory, once.
    """
    step = step_of(contender, NETWORKS[name])
    for _ in range(2):
        step()
    stays, before = _tensor_bytes(), _kilobytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    for _ in range(2):
        step()
    return (stays + 1024 * (_kilobytes("VmHWM") - before)) / 1e6


def _tensor_bytes() -> int:
    gc.collect()
    plain = (torch.Tensor, torch.nn.Parameter)  # not a compiler's fake tensors
    tensors = [thing for thing in gc.get_objects() if type(thing) in plain]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


def _kilobytes(entry: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(entry))


def _operations(contender: str, network: Network) -> float:
    """Floating-point operations of the second iteration, counted eagerly: compilation does not change them."""
    if "compiled" in contender:
        contender = contender.replace("compiled", "eager")
    step = step_of(contender, network)
    step()
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # a kernel that the counter does not know
    try:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            step()
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return float(counter.get_total_flops())


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["speed", "memory"])
    parser.add_argument("network")
    parser.add_argument("contenders", nargs="+")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    asked = parser.parse_args()
    if asked.what == "speed":
        print(json.dumps(speed(asked.network, asked.contenders, asked.rounds)))
    else:
        print(json.dumps(memory(asked.network, asked.contenders[0])))
