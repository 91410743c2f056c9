"""The table of the model: `python -m benchmarks model`."""

from __future__ import annotations

from dataclasses import asdict

from benchmarks.canned import SIDES
from benchmarks.report import footer, paragraph, require_folder, write
from benchmarks.scale.calibration import calibrate
from benchmarks.scale.model import OVER_S, Constants, Outcome, Scenario, Simulation
from benchmarks.scale.page import machine, measured_rates, versions
from penstock.report import markdown
from penstock.transport.sender import LOST_AFTER_MS

WANTED = 0.15
WORKERS, RANKS = (100, 1000, 10_000), (1, 8, 64)
SIZES = ("16 kB", "256 kB")
PAUSE_S = 1.0
LOST, NOTICE_S = 0.1, LOST_AFTER_MS / 1000
CROWDED = 0.9  # cores: what is busier than this limits
NAMES = {
    "worker": "a worker, beside the pause",
    "take": "receiver: the thread that takes",
    "carry": "receiver: ZeroMQ's thread",
}


def run(seconds: float, most_workers: int) -> None:
    """Print the tables, and write them to benchmarks/tables/model.md.

    Args:
        seconds: time of each calibration.
        most_workers: predictions for more workers are left out.

    Raises:
        PenstockError: `scale` has not been run here.
    """
    require_folder()
    measured = measured_rates()
    constants = calibrate(seconds)
    here, network = constants[True], constants[False]
    checks, off = [], []
    for size, (pause_s, rates) in measured.items():
        for num, rate in rates.items():
            scenario = Scenario(num_workers=num, sample_bytes=8 * SIDES[size] ** 2, pause_s=pause_s, seconds=20.0)
            predicted = Simulation(scenario, here).run().rate
            off.append(predicted / rate - 1)
            checks.append([size, str(num), f"{rate:.3g}", f"{predicted:.3g}", f"{100 * off[-1]:+.0f} %"])
            print(" | ".join(checks[-1]), flush=True)
    rows, largest = [], []
    for size in SIZES:
        for num in [num for num in WORKERS if num <= most_workers]:
            for num_ranks in RANKS:
                outcome = predict(num, num_ranks, 8 * SIDES[size] ** 2, network)
                rows.append([size, f"{num:,}", str(num_ranks), *_columns(outcome)])
                print(" | ".join(rows[-1]), flush=True)
                largest.append((size, num, num_ranks, outcome))
    write("model.md", _page(constants, checks, off, rows, largest, seconds))


def predict(num_workers: int, num_ranks: int, sample_bytes: int, constants: Constants) -> Outcome:
    """Simulate a run in which a tenth of the workers dies."""
    after_s = NOTICE_S + constants.start_s + 2 * OVER_S
    return Simulation(
        Scenario(
            num_workers=num_workers,
            num_ranks=num_ranks,
            sample_bytes=sample_bytes,
            pause_s=PAUSE_S,
            lost_share=LOST,
            notice_s=NOTICE_S,
            after_s=after_s,
        ),
        constants,
    ).run()


def _columns(outcome: Outcome) -> list[str]:
    return [
        f"{outcome.rate:,.0f}",
        f"{outcome.take_load:.2f}",
        f"{outcome.carry_load:.2f}",
        f"{outcome.driver_load:.3f}",
        f"{outcome.rank_messages:,.0f}",
        f"{outcome.driver_messages:,.0f}",
        f"{outcome.metadata_bytes / 1e6:.2f}",
        f"{outcome.bytes_under_way / 1e6:,.0f}",
        f"{outcome.back_after_s:.0f}",
    ]


def what_limits(size: str, num: int, num_ranks: int, outcome: Outcome) -> str:
    """One sentence: the part that is full, or that none is."""
    loads = {
        "the thread that takes": outcome.take_load,
        "ZeroMQ's thread at the receiver": outcome.carry_load,
        "the driver": outcome.driver_load,
    }
    name, load = max(loads.items(), key=lambda item: item[1])
    share = outcome.rate * PAUSE_S / num
    where = f"{num:,} workers on {num_ranks} rank{'s' if num_ranks > 1 else ''} with samples of {size}"
    if load >= CROWDED:
        return f"{where}: {name} is full, and the workers bring {100 * share:.0f} % of what they could."
    return f"{where}: nothing is full; {name} is busiest, with {load:.2g} of a core."


def _page(constants: dict[bool, Constants], checks, off, rows, largest, seconds: float) -> str:
    here, network = constants[True], constants[False]
    costs = [
        [f"{NAMES[name]}{where}", *(f"{1e6 * cost:.3g}" for cost in asdict(getattr(each, name)).values())]
        for where, each in ((", shared memory", here), (", network", network))
        for name in NAMES
        if not (name == "worker" and each is network)
    ]
    costs[0][0] = NAMES["worker"]
    driver, metadata = here.driver, here.metadata
    most = max(num for _, num, _, _ in largest)
    limits = " ".join(what_limits(*each) for each in largest if each[1] == most)
    text = paragraph(
        f"""A discrete-event simulation of workers with their rings of three chunks, the rule by which chunks are sent,
        leases and windows, the receiver of each rank, which has two threads, the driver's tick and its leases, and of
        the death of a share of the workers, whose leases go back and who are started again. Its constants were measured
        by this command, {seconds:g} s each, those of the receiver without a pause between chunks: one that waits for
        each takes longer. What a chunk costs is taken not to grow with the number of workers, as [scale.md](scale.md)
        shows up to 1,000. The driver's tick took {1e3 * driver.tick:.2g} ms, and
        {1e6 * driver.worker:.2g} us per worker, {1e6 * driver.sample:.2g} us per sample with a solve, and
        {1e6 * driver.lease:.3g} us per lease, without what Ray takes for its calls. A chunk's header has
        {metadata.chunk:.0f} bytes and {metadata.sample:.0f} per sample, a lease {metadata.lease:.0f} and
        {metadata.simulation:.1f} per simulation. {here.start_s:.1f} s is the time until a process has started, without
        Ray."""
    )
    check_text = paragraph(
        f"""Against what `python -m benchmarks scale` measured (scale.json): the largest difference is
        {100 * max(map(abs, off), default=0):.0f} %, and {100 * WANTED:.0f} % is wanted."""
    )
    prediction_text = paragraph(
        f"""Workers on other machines, so over the network, with {PAUSE_S:g} s per sample, spread evenly over the ranks,
        of which each has a core for either of its threads and a network that is not the limit. Messages go both ways at
        a rank, chunks, answers, leases and their ends, and at the driver, leases and statuses. Metadata are open leases
        and headers of chunks under way, at most; bytes under way those of samples that were sent and not taken. Then
        {100 * LOST:.0f} % of the workers die at once without a word, and the driver hears of it after {NOTICE_S:g} s,
        which is assumed: that is how long the network's heartbeat waits. The rate is back when it is what it was before
        within 2 %, over {OVER_S} s; 0 where the workers that were left filled the receiver."""
    )
    cost_heads = ["time, us", "per chunk", "per sample", "per MB"]
    heads = ["sample", "workers", "ranks", "unique/s", "taking, cores", "ZeroMQ, cores", "driver, cores"]
    heads += ["messages/s, a rank", "messages/s, driver", "metadata, MB", "under way, MB", "rate back after, s"]
    command = f"python -m benchmarks model --seconds {seconds:g} --workers {most}"
    return "\n\n".join(
        [
            "# Model: 10,000 workers",
            text,
            markdown(costs, cost_heads),
            "## Predicted and measured",
            check_text,
            markdown(checks, ["sample", "workers", "measured, 1/s", "predicted, 1/s", "difference"]),
            "## Predictions",
            prediction_text,
            markdown(rows, heads),
            f"What limits. {limits}",
            footer(command, machine(), versions()) + "\n",
        ]
    )
