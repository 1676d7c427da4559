"""How many frames per second, whether memory grows with the movie, and how much work the network takes.

Small and large frames, sparse and crowded; the whole way from array to table, and the network alone. In the same run,
on the same frames: untrained networks as large as DECODE's and LiteLoc's, treated as well as ours is; and Picasso,
where it is installed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from _report import COLOURS, Table, load, make_parser, new_figure, number, parse, publish, run_as_program
from _runs import write_movie

from smlm_pb.errors import SmlmPbError
from smlm_pb.simulation.presets import density_sweep

DENSITIES_PER_UM2 = (0.1, 1.0, 6.0)
#: Frames that are simulated; movies are these over and over, as long as a measurement needs.
FRAMES = {64: 256, 256: 16}
#: A run takes about as long, s: what is found out before the first frame counts as in a movie of some thousand frames.
RUN_S = 12.0
LONGEST = {64: 10_000, 256: 1500}
#: How much longer movies are tried until one takes so large a share of that time.
LONGER, SHARE_OF_RUN = 4, 0.3
OURS, DECODE = "smlm-pb, as used", "DECODE-sized"
#: Networks that are timed after every run from array to table.
COMPARED = (OURS, DECODE)
MEMORY_FRAMES = (1000, 10_000, 100_000)
PSF_SIGMA_PX = 1.1

#: Runs in a process of its own; the peak is that of its own memory, not of the process it was forked from.
_PEAK_MEMORY = """
import sys, time, warnings
import smlm_pb
warnings.simplefilter("ignore")
began = time.perf_counter()
smlm_pb.localize_to_file(sys.argv[1], sys.argv[2], model=sys.argv[3], device=sys.argv[4], pixel_size_nm=100,
                         offset_adu=100, e_per_adu=0.5, psf_sigma_px=1.1)
seconds = time.perf_counter() - began
try:
    kilobytes = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
except OSError:
    import resource
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "darwin" else 1)
print(float(kilobytes) / 1024, seconds)
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = make_parser(__doc__ or "")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="the median of N counts (default: 3)")
    parser.add_argument("--picasso-python", type=Path, metavar="PATH", help="Python in which Picasso is installed")
    parser.add_argument("--no-memory", action="store_true", help="leave out the long movies")
    args = parse(parser, argv)
    repeats = 1 if args.quick else args.repeats
    frames = {32: 4} if args.quick else FRAMES
    model = load(args)
    movies = {(size, density): _movie(size, n, density) for size, n in frames.items() for density in DENSITIES_PER_UM2}
    alone = {size: _Networks(size, n, model) for size, n in frames.items()}
    whole = [
        _end_to_end(size, density, movie, model, repeats, alone[size]) for (size, density), movie in movies.items()
    ]
    networks = [alone[size].rates(repeats) for size in frames]
    memory = [] if args.no_memory else _memory((8,) if args.quick else MEMORY_FRAMES, args)
    picasso = _picasso(movies, args, repeats) if args.picasso_python else []
    card = _graphics_card(model, repeats)
    publish(
        "throughput",
        args,
        tables=_tables(whole, networks, memory, picasso, card),
        results={
            "end_to_end": whole,
            "networks": networks,
            "memory": memory,
            "picasso": picasso,
            "graphics_card": card,
        },
        settings={"repeats": repeats, "psf_sigma_px": PSF_SIGMA_PX, "device": args.device},
        figure=_figure(whole, networks, memory),
        model=model,
    )
    return 0


def _movie(size: int, frames: int, density: float) -> Any:
    from smlm_pb.simulation import simulate

    return simulate(density_sweep(density, frames=frames, size_px=size), seed=1)[0]


def _end_to_end(
    size: int, density: float, scenes: Any, model: Any, repeats: int, networks: _Networks
) -> dict[str, Any]:
    """Runs from array to table, and after each, while the machine is as busy, what it is compared with."""
    recipe = density_sweep(density)
    options = {
        "camera": recipe.camera.camera(),
        "pixel_size_nm": recipe.pixel_size_nm,
        "psf_sigma_px": PSF_SIGMA_PX,
    }
    _localize(scenes, model, options)
    longest, movie = LONGEST.get(size, len(scenes)), scenes
    while (seconds := _localize(movie, model, options)[0]) < SHARE_OF_RUN * RUN_S and len(movie) < longest:
        movie = _repeated(scenes, min(longest, LONGER * len(movie)))
    movie = _repeated(scenes, int(min(longest, max(len(scenes), RUN_S * len(movie) / seconds))))
    frames, runs = len(movie), []
    for _ in range(repeats):
        seconds, molecules = _localize(movie, model, options)
        runs.append({"frames_per_s": frames / seconds, **{name: networks.rate(name) for name in COMPARED}})
    rates = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    return {
        "frame_px": size,
        "density_per_um2": density,
        "frames": frames,
        "molecules": molecules,
        "frames_per_s": rates["frames_per_s"],
        "molecules_per_s": molecules / frames * rates["frames_per_s"],
        "network_frames_per_s": rates[OURS],
        "share_of_network": statistics.median(run["frames_per_s"] / run[OURS] for run in runs),
        "times_decode": statistics.median(run["frames_per_s"] / run[DECODE] for run in runs),
        "runs": runs,
    }


def _repeated(scenes: Any, frames: int) -> Any:
    """The same frames over and over."""
    return np.concatenate([scenes] * -(-frames // len(scenes)))[:frames]


def _localize(movie: Any, model: Any, options: dict[str, Any]) -> tuple[float, int]:
    """Wall time from array to table, s, and the molecules in it."""
    import smlm_pb

    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        table = smlm_pb.localize(movie, model=model, **options)
    return time.perf_counter() - began, len(table)


class _Networks:
    """The networks alone, on batches of the size that the program itself chooses.

    Ours as it was trained, and as the program uses it: the PSF width folded into its weights, only the logits of all
    pixels, in the arithmetic that it chooses. The others in float32, and in bfloat16 where the device has that. Each in
    the better of two ways: all threads on one batch, or every thread on batches of its own.
    """

    def __init__(self, size: int, frames: int, model: Any) -> None:
        import torch
        from _stand_ins import DecodeSized, LiteLocSized, weights_and_gflop

        from smlm_pb.localization.candidate_finder import arithmetic
        from smlm_pb.localization.pipeline import plan_work
        from smlm_pb.localization.precision import choose_precision, device_has_bfloat16
        from smlm_pb.networks.inference import FixedWidthNetwork

        self.size, self.device, self.precision = size, model.device, choose_precision(model)
        self.batch = plan_work(size, size, model.device).batch_frames
        image = torch.from_numpy(np.random.default_rng(0).poisson(60.0, (frames, 1, size, size)).astype(np.float32))
        self._image = image.to(model.device)
        self._work: dict[str, tuple[Callable[[Any], Any], int]] = {}
        self.sizes: dict[str, dict[str, float]] = {}

        def trained(frames: Any) -> Any:
            return model.network(frames, torch.full((len(frames),), PSF_SIGMA_PX, device=model.device))

        with arithmetic(model.device):
            weights, gflop = weights_and_gflop(_with_width(model.network, model.device))
            used = FixedWidthNetwork(model.network, PSF_SIGMA_PX, precision=self.precision)
            self._add("smlm-pb", trained, frames, weights, gflop)

            def as_used(frames: Any) -> Any:
                return used.logits(used.features(frames).permute(0, 2, 3, 1))

            self._add(OURS, as_used, frames, weights, gflop)
            for name, kind in ((DECODE, DecodeSized), ("LiteLoc-sized", LiteLocSized)):
                network: torch.nn.Module = kind().eval()
                weights, gflop = weights_and_gflop(network)
                network.to(model.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

                def theirs(frames: Any, network: Any = network) -> Any:
                    return network(frames.contiguous(memory_format=torch.channels_last))

                def reduced(frames: Any, theirs: Callable[[Any], Any] = theirs) -> Any:
                    with torch.autocast(model.device.type, torch.bfloat16):
                        return theirs(frames)

                # They are slower: fewer frames are enough.
                few = max(2, frames // 16)
                self._add(name, theirs, few, weights, gflop)
                if device_has_bfloat16(model.device):
                    self._add(f"{name}, bfloat16", reduced, few, weights, gflop)

    def _add(self, name: str, work: Callable[[Any], Any], frames: int, weights: float, gflop: float) -> None:
        self._work[name] = work, frames
        self.sizes[name] = {"weights": weights, "gflop_64px": gflop}

    def rate(self, name: str, repeats: int = 1) -> float:
        """Frames per second."""
        from smlm_pb.localization.candidate_finder import arithmetic

        work, frames = self._work[name]
        with arithmetic(self.device):
            return frames / _fastest_s(lambda part: work(self._image[part]), frames, self.batch, repeats, self.device)

    def rates(self, repeats: int) -> dict[str, Any]:
        """Of all of them, with what they are like."""
        found = {name: {**self.sizes[name], "frames_per_s": self.rate(name, repeats)} for name in self._work}
        return {"frame_px": self.size, "batch_frames": self.batch, "precision": self.precision, **found}


def _fastest_s(work: Callable[[slice], Any], frames: int, batch: int, repeats: int, device: Any) -> float:
    """Median wall time of all frames, with all threads on one batch or every thread on batches of its own."""
    import torch

    from smlm_pb.localization.candidate_finder import arithmetic

    parts = [slice(start, min(start + batch, frames)) for start in range(0, frames, batch)]
    threads = torch.get_num_threads()

    def together() -> None:
        for part in parts:
            work(part)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    def one(part: slice) -> None:
        torch.set_num_threads(1)
        with arithmetic(device):
            work(part)

    seconds = _median_s(together, repeats)
    if device.type == "cpu" and threads > 1:
        with ThreadPoolExecutor(threads) as pool:
            seconds = min(seconds, _median_s(lambda: list(pool.map(one, parts)), repeats))
        torch.set_num_threads(threads)
    return seconds


def _with_width(network: Any, device: Any) -> Any:
    """Our network as a function of the image alone, for counting."""
    import torch

    class Conditioned(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network

        def forward(self, image: Any) -> Any:
            return self.inner(image.to(device), torch.full((len(image),), PSF_SIGMA_PX, device=device))

    return Conditioned()


def _median_s(work: Callable[[], Any], repeats: int) -> float:
    """Median wall time after one run to warm up."""
    work()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def _memory(lengths: Sequence[int], args: argparse.Namespace) -> list[dict[str, Any]]:
    """Peak memory of a process that localizes a file, for short and long movies."""
    from smlm_pb.simulation import simulate

    # Small frames, as crowded as to give the table of larger ones: what could grow is the table, not the frame.
    size, distinct = 32, 4 if args.quick else 100
    scene, _ = simulate(density_sweep(4.0, frames=distinct, size_px=size), seed=2)
    environment = dict(os.environ)
    if args.threads is not None:
        environment["OMP_NUM_THREADS"] = str(args.threads)
    found = []
    for length in lengths:
        with tempfile.TemporaryDirectory() as temporary:
            blocks = (scene[: min(distinct, length - first)] for first in range(0, length, distinct))
            path = write_movie(Path(temporary) / "movie.tif", blocks)
            command = [sys.executable, "-c", _PEAK_MEMORY, str(path), temporary, str(args.model), args.device]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SmlmPbError(f"Localizing {length} frames failed: {done.stderr.strip().splitlines()[-1]}")
        megabytes, seconds = map(float, done.stdout.split())
        found.append(
            {
                "frames": length,
                "frame_px": size,
                "movie_mb": length * size * size * 2 / 2**20,
                "peak_mb": megabytes,
                "frames_per_s": length / seconds,
            }
        )
    return found


def _picasso(movies: dict[tuple[int, float], Any], args: argparse.Namespace, repeats: int) -> list[dict[str, Any]]:
    """Frames per second of Picasso on the same frames, after one run to warm up."""
    import torch
    from _picasso import PicassoSettings, time_picasso

    camera = density_sweep(1.0).camera
    found = []
    with tempfile.TemporaryDirectory() as temporary:
        names = {f"{size}_{density:g}".replace(".", "p"): (size, density) for size, density in movies}
        paths = {n: write_movie(Path(temporary) / f"{n}.tif", [movies[key]]) for n, key in names.items()}
        for fit in ("lq", "mle"):
            times = time_picasso(
                args.picasso_python,
                paths,
                PicassoSettings(fit=fit, box=5, gradient=5000.0),
                offset_adu=camera.offset_adu,
                e_per_adu=camera.e_per_adu,
                pixel_size_nm=100.0,
                processors=torch.get_num_threads(),
                repeats=repeats,
            )
            found += [
                {
                    "frame_px": size,
                    "density_per_um2": density,
                    "fit": fit,
                    "frames_per_s": len(movies[size, density]) / times[name]["seconds"],
                    "molecules_per_frame": times[name]["molecules"] / len(movies[size, density]),
                }
                for name, (size, density) in names.items()
            ]
    return found


def _graphics_card(model: Any, repeats: int) -> dict[str, Any] | None:
    """What a graphics card does with frames in memory, beside what its arithmetic and its memory would allow.

    From uint16 frames to candidates in memory; nothing where the model is not on a graphics card. The roofline is that
    of the convolutions: every layer's features read and written once.
    """
    if model.device.type != "cuda":
        return None
    import torch
    from _stand_ins import weights_and_gflop

    from smlm_pb.localization.pipeline import find_candidates
    from smlm_pb.localization.precision import choose_precision
    from smlm_pb.movies import open_movie

    size, density = 256, 1.0
    scenes = _movie(size, 64, density)
    movie, camera = np.concatenate([scenes] * 64), density_sweep(density).camera.camera()

    def run() -> None:
        with find_candidates(
            open_movie(movie),
            model,
            camera=camera,
            psf_sigma_px=PSF_SIGMA_PX,
            frames=(0, len(movie)),
            floor=0.05,
            least_significance=4.0,
            precision=choose_precision(model),
        ) as blocks:
            for _ in blocks:
                pass

    seconds = _median_s(run, repeats)
    gflop = weights_and_gflop(_with_width(model.network, model.device))[1] * (size / 64) ** 2
    network = model.card.network
    layers = 2 + 2 * network.get("blocks", 0)
    digits = 2 if choose_precision(model) == "bfloat16" else 4
    return {
        "name": torch.cuda.get_device_name(model.device),
        "cards": torch.cuda.device_count(),
        "mb_per_s": movie.nbytes / seconds / 1e6,
        "frames_per_s": len(movie) / seconds,
        "tflop_per_s": gflop * len(movie) / seconds / 1e3,
        "gb_per_s_of_features": 2 * layers * network.get("channels", 0) * digits * movie.size / seconds / 1e9,
    }


def _tables(
    whole: list[dict[str, Any]],
    networks: list[dict[str, Any]],
    memory: list[dict[str, Any]],
    picasso: list[dict[str, Any]],
    card: dict[str, Any] | None,
) -> list[Table]:
    kinds = [name for name in networks[0] if isinstance(networks[0][name], dict)]
    tables = [
        Table(
            "From array to table",
            (
                "frame (px)",
                "molecules/µm²",
                "frames/s",
                "network alone, whole frames (frames/s)",
                "share of the network",
                "times a network of DECODE's size",
                "molecules/s",
            ),
            [
                [
                    f"{w['frame_px']}²",
                    f"{w['density_per_um2']:g}",
                    number(w["frames_per_s"], 1),
                    number(w["network_frames_per_s"], 1),
                    f"{100 * w['share_of_network']:.0f} %",
                    number(w["times_decode"], 1),
                    number(w["molecules_per_s"], 0),
                ]
                for w in whole
            ],
        ),
        Table(
            f"Networks alone, same frames and batches, float32 unless said; ours is used in {networks[0]['precision']}",
            ("network", "weights (10⁶)", "GFLOP per 64² frame", *(f"frames/s at {n['frame_px']}²" for n in networks)),
            [
                [
                    name,
                    number(networks[0][name]["weights"] / 1e6, 2),
                    number(networks[0][name]["gflop_64px"], 2),
                    *(number(n[name]["frames_per_s"], 1) for n in networks),
                ]
                for name in kinds
            ],
        ),
    ]
    if picasso:
        rows = {(p["frame_px"], p["density_per_um2"]): {} for p in picasso}  # type: dict[Any, dict[str, Any]]
        for p in picasso:
            rows[p["frame_px"], p["density_per_um2"]][p["fit"]] = p
        tables.append(
            Table(
                "Picasso on the same frames, once warm: spots found and fitted",
                ("frame (px)", "molecules/µm²", "least squares (frames/s)", "likelihood (frames/s)", "spots per frame"),
                [
                    [
                        f"{size}²",
                        f"{density:g}",
                        number(fits["lq"]["frames_per_s"], 1),
                        number(fits["mle"]["frames_per_s"], 1),
                        number(fits["lq"]["molecules_per_frame"], 1),
                    ]
                    for (size, density), fits in rows.items()
                ],
            )
        )
    if memory:
        tables.append(
            Table(
                "Memory of a process that localizes a file (32² px, 4 molecules/µm²)",
                ("frames", "movie (MB)", "peak memory (MB)", "frames/s"),
                [
                    [
                        str(m["frames"]),
                        number(m["movie_mb"], 1),
                        number(m["peak_mb"], 0),
                        number(m["frames_per_s"], 1),
                    ]
                    for m in memory
                ],
            )
        )
    if card is not None:
        tables.append(
            Table(
                "Graphics card, 256² px, 1 molecule/µm², from memory",
                ("card", "raw uint16 (MB/s)", "frames/s", "arithmetic (TFLOP/s)", "features moved (GB/s)"),
                [
                    [
                        f"{card['cards']} × {card['name']}",
                        number(card["mb_per_s"], 0),
                        number(card["frames_per_s"], 0),
                        number(card["tflop_per_s"], 1),
                        number(card["gb_per_s_of_features"], 0),
                    ]
                ],
            )
        )
    return tables


def _figure(whole: list[dict[str, Any]], networks: list[dict[str, Any]], memory: list[dict[str, Any]]) -> Any:
    figure, axes = new_figure(3 if memory else 2, height=3.2)
    ax = axes[0, 0]
    sizes = [n["frame_px"] for n in networks]
    for size, colour in zip(sizes, ("ours", "ours, second"), strict=False):
        here = [w for w in whole if w["frame_px"] == size]
        rates = [w["frames_per_s"] * (size / 64) ** 2 for w in here]
        ax.plot([w["density_per_um2"] for w in here], rates, "o-", color=COLOURS[colour], label=f"{size}×{size}")
        alone = next(n for n in networks if n["frame_px"] == size)[OURS]["frames_per_s"]
        alone *= (size / 64) ** 2
        ax.axhline(alone, color=COLOURS[colour], ls=":", label=f"{size}×{size}, network alone")
    ax.set_xscale("log")
    ax.set_xticks(DENSITIES_PER_UM2, [f"{d:g}" for d in DENSITIES_PER_UM2])
    ax.minorticks_off()
    ax.set(xlabel="molecules per µm²", ylabel="64×64 px per second", title="From array to table")
    ax.set_ylim(bottom=0)
    ax.legend(frameon=False, fontsize=8)
    ax = axes[0, 1]
    names = (OURS, "smlm-pb", DECODE, "LiteLoc-sized")
    for k, (n, shade) in enumerate(zip(networks, (1.0, 0.5), strict=False)):
        rates = [n[name]["frames_per_s"] * (n["frame_px"] / 64) ** 2 for name in names]
        places = np.arange(len(names)) + 0.4 * (k - 0.5)
        colours = [COLOURS["ours"], COLOURS["ours"], COLOURS["other"], COLOURS["other"]]
        ax.bar(places, rates, width=0.38, color=colours, alpha=shade)
        for place, rate in zip(places, rates, strict=True):
            ax.text(place, rate, f"{rate:.0f}", ha="center", va="bottom", fontsize=8)
    ax.set_xticks(range(len(names)), [name.replace(", ", "\n") for name in names])
    sizes_text = ", ".join(f"{where} {size}²" for where, size in zip(("left", "pale"), sizes, strict=False))
    ax.set(ylabel="64×64 px per second", title=f"Networks alone ({sizes_text})")
    if memory:
        ax = axes[0, 2]
        lengths = [f"{m['frames']}" for m in memory]
        ax.bar(lengths, [m["peak_mb"] for m in memory], color=COLOURS["ours"], width=0.5, label="peak memory")
        ax.plot(lengths, [m["movie_mb"] for m in memory], "D", color=COLOURS["other"], label="size of the movie")
        ax.set(xlabel="frames", ylabel="MB", title="Memory")
        ax.set_ylim(0, 1.3 * max(m["peak_mb"] for m in memory))
        ax.legend(frameon=False, fontsize=8)
    return figure


if __name__ == "__main__":
    run_as_program(main)
