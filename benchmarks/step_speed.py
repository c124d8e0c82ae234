"""CPU-seconds of a training step at full size, as a ratio to the published step written plainly.

Both take turns over the same crops: ViT-S/8 on 14 channels, 2 x 112 px and 8 x 48 px per sample,
65,536 prototypes. The plain step is float32, with a pass per crop size and stored logits; ours has
the `fixed` recipe, in bf16 where the machine has it. The ratio is that of medians over rounds. Exit
1 where it is below the bar on a CPU, or where making the views takes more than its share.

On a GPU the same script measures seconds instead, of the plain step on fewer samples, and reports
images/s, MFU and the memory that a step takes; views or a step that made the host wait would be an
error.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from plain_step import PlainShape, PlainStep, PlainValues

from dinomm_train.config import ComputeConfig, Precision, RunConfig, SamplingConfig
from dinomm_train.data.draws import ViewKey
from dinomm_train.data.inputs import InputScaling, SensorChannels
from dinomm_train.data.views import Views, make_views
from dinomm_train.distributed import Ranks
from dinomm_train.flops import measure_peak_flops, training_flops_per_image
from dinomm_train.learner import Learner, choose_half_precision
from dinomm_train.optim import clip_gradients, set_step_values, take_step
from dinomm_train.schedules import StepValues
from dinomm_train.transfer import wait_for_device

BAR = 1.8
"""Least ratio of the plain step's CPU-seconds to ours."""

PLAIN_GPU_BATCH = 64
"""Samples of the plain step on a GPU."""

VIEWS_BAR = 0.1
"""Greatest share of making the views in a step."""

CHANNELS, IMAGE_PX = 14, 120
SCALING = InputScaling(
    channels=SensorChannels(s2=slice(0, 12), s1=slice(12, 14)),
    gain=np.ones(CHANNELS, dtype=np.float32),
    bias=np.zeros(CHANNELS, dtype=np.float32),
    physical_per_input=np.ones(CHANNELS, dtype=np.float32),
    physical_at_zero=np.zeros(CHANNELS, dtype=np.float32),
    valid_range=None,
)
VALUES = StepValues(
    epoch=1,
    lr=1e-4,
    weight_decay=0.04,
    teacher_momentum=0.996,
    teacher_temperature=0.04,
    last_layer_frozen=False,
)
PLAIN_VALUES = PlainValues(lr=1e-4, weight_decay=0.04, teacher_momentum=0.996)

Stopwatch = Callable[[Callable[[], object]], float]
"""Seconds that some work takes."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is measured, and with what."""

    device: torch.device
    batch: int
    rounds: int
    config: RunConfig

    @property
    def clock(self) -> Callable[[], float]:
        """Of this process on a CPU, which others may share; on a GPU the wall's."""
        return time.process_time if self.device.type == "cpu" else time.perf_counter

    @property
    def plain_batch(self) -> int:
        """Samples of the plain step: it stores so much that a GPU holds few."""
        on_cpu = self.device.type == "cpu"
        return self.batch if on_cpu else min(self.batch, PLAIN_GPU_BATCH)

    def seconds(self, work: Callable[[], object]) -> float:
        """CPU time of this process for the work; on a GPU, time until it is done."""
        wait_for_device(self.device)
        start = self.clock()
        work()
        wait_for_device(self.device)
        return self.clock() - start


def main() -> int:
    """Run both in turns and print what they take, and what of ours is spent where."""
    setting, memory_of = read_arguments()
    torch.set_num_threads(1)
    if memory_of:
        print(peak_growth_mb(steps_of(setting)[memory_of]))
        return 0
    views_s = statistics.median(
        setting.seconds(lambda: new_views(setting)) for _ in range(setting.rounds + 1)
    )
    ratio, step_s = compare(setting)
    share = views_s / (views_s + step_s)
    print(f"views: {views_s:.3f} s, {share:.1%} of views and step, at most {VIEWS_BAR:.0%}")
    report_mfu(views_s + step_s, setting)
    report_memory(setting)
    is_slow = setting.device.type == "cpu" and ratio < BAR
    return int(is_slow or share > VIEWS_BAR)


def read_arguments() -> tuple[Setting, str]:
    """What the command line and the machine say, and whose memory alone to measure, if any's."""
    parser = argparse.ArgumentParser(description=__doc__)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--batch", type=int, default=256 if device == "cuda" else 8)
    parser.add_argument("--rounds", type=int, default=10 if device == "cuda" else 3)
    parser.add_argument("--micro-batch", type=int, default=0)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--memory-of", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    config = RunConfig(
        sampling=SamplingConfig(precision=precision_of(device), global_batch=arguments.batch),
        compute=ComputeConfig(micro_batch=arguments.micro_batch, compile=arguments.compile),
    )
    setting = Setting(
        device=torch.device(device),
        batch=arguments.batch,
        rounds=arguments.rounds,
        config=config,
    )
    return setting, arguments.memory_of


def precision_of(device: str, processor: Path = Path("/proc/cpuinfo")) -> Precision:
    """The arithmetic of our step: bf16 where the machine multiplies it, else fp32."""
    if device == "cuda":
        return "auto"
    flags = processor.read_text(encoding="utf-8")
    return "bf16" if "amx_bf16" in flags or "avx512_bf16" in flags else "fp32"


def new_views(setting: Setting) -> Views:
    """Views of random images, made on the device."""
    torch.manual_seed(0)
    images = torch.randn(setting.batch, CHANNELS, IMAGE_PX, IMAGE_PX, device=setting.device)
    sample_ids = np.arange(setting.batch, dtype=np.uint64)
    key = ViewKey(seed=0, epoch=0, sample_ids=sample_ids)
    with no_waiting():
        return make_views(images, key, setting.config.views, SCALING)


def steps_of(setting: Setting) -> dict[str, Callable[[], object]]:
    """One step of each, to be called again and again."""
    views = new_views(setting)
    few = next(views.split(setting.plain_batch))
    plain = PlainStep(PlainShape(), setting.device)
    ours = new_learner(setting)

    def our_step() -> None:
        with no_waiting():
            ours.step(views, VALUES, 0)

    return {"plain": lambda: plain.step(few.student_crops, PLAIN_VALUES), "ours": our_step}


def new_learner(setting: Setting) -> Learner:
    """The student, the teacher and all else of a run."""
    ranks = Ranks(rank=0, world=1, device=setting.device)
    return Learner(setting.config, ranks, channels=CHANNELS)


@contextmanager
def no_waiting() -> Iterator[None]:
    """On a GPU, the block fails where the host waits for the device."""
    if not torch.cuda.is_available():
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def compare(setting: Setting) -> tuple[float, float]:
    """How many times longer the plain step takes per sample, and the seconds of ours."""
    steps = steps_of(setting)
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for round_number in range(-1, setting.rounds):
        for name, step in steps.items():
            seconds = setting.seconds(step)
            if round_number >= 0:  # the first warms up
                taken[name].append(seconds)
    del steps
    medians = {name: statistics.median(one) for name, one in taken.items()}
    on_cpu = setting.device.type == "cpu"
    plain_s = medians["plain"] * setting.batch / setting.plain_batch
    ratio = plain_s / medians["ours"]
    print(
        f"step of {setting.batch} samples: plain {plain_s:.3f} {'CPU-' * on_cpu}seconds, ours "
        f"{medians['ours']:.3f} ({min(taken['ours']):.3f} to {max(taken['ours']):.3f}), "
        f"{ratio:.2f} times as fast, at least {BAR} on a CPU"
    )
    break_down(setting)
    return ratio, medians["ours"]


def break_down(setting: Setting) -> None:
    """Print the seconds of each part of a step, medians over rounds."""
    parts = Parts(setting)
    rounds = [parts.measure() for _ in range(setting.rounds + 1)][1:]
    medians = {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
    for name, seconds in medians.items():
        print(f"  {name:<26} {seconds:8.3f} s  {seconds / sum(medians.values()):6.1%}")


class Parts:
    """One step, part by part, as the learner takes it."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.ours, self.views = new_learner(setting), new_views(setting)

    def measure(self) -> dict[str, float]:
        """Seconds of each."""
        parts = {
            "teacher forward": self.teacher,
            "student forward": self.student,
            "loss forward": self.loss,
            "loss backward": self.loss_backward,
            "student backward": self.student_backward,
            "clip, AdamW, centre, EMA": self.update,
        }
        return {name: self.setting.seconds(part) for name, part in parts.items()}

    def arithmetic(self) -> torch.autocast:
        """The learner's."""
        enabled = self.ours.half_precision
        return torch.autocast(self.setting.device.type, dtype=torch.bfloat16, enabled=enabled)

    def teacher(self) -> None:
        """Targets."""
        with torch.no_grad(), self.arithmetic():
            self.targets = self.ours.networks.teacher((self.views.teacher_crops,))

    def student(self) -> None:
        """All crops."""
        with self.arithmetic():
            self.predictions = self.ours.networks.student(self.views.student_crops)

    def loss(self) -> None:
        """Forward alone, on copies that its gradient ends at."""
        self.leaves = type(self.predictions)(
            *(one.detach().requires_grad_() for one in self.predictions)
        )
        with self.arithmetic():
            self.value = self.ours.loss(self.leaves, self.targets, teacher_temperature=0.04)

    def loss_backward(self) -> None:
        """To directions and prototypes."""
        self.value.backward()

    def student_backward(self) -> None:
        """From there to the weights."""
        self.ours.optimizer.zero_grad()
        torch.autograd.backward(list(self.predictions), [one.grad for one in self.leaves])

    def update(self) -> None:
        """All that moves."""
        flag = torch.zeros((), device=self.setting.device)
        set_step_values(self.ours.optimizer, VALUES)
        clip_gradients(list(self.ours.networks.student.parameters()), self.ours.config.optim)
        take_step(self.ours.optimizer, flag)
        self.ours.loss.update_centre(self.targets, flag)
        self.ours.average.follow(VALUES.teacher_momentum, flag)


def report_mfu(seconds: float, setting: Setting) -> None:
    """Print images per second, and the share of the measured matmul ceiling that they need."""
    flops = training_flops_per_image(setting.config, channels=CHANNELS)
    half = choose_half_precision(setting.config.sampling.precision, setting.device)
    dtype = torch.bfloat16 if half else torch.float32
    ceiling = measure_peak_flops(setting.device, dtype, setting.clock)
    reached = flops * setting.batch / seconds
    print(
        f"{setting.batch / seconds:.2f} images/s of views and step, {flops / 1e9:.1f} GFLOP each: "
        f"{reached / 1e12:.2f} of the {ceiling / 1e12:.2f} TFLOP/s that large matrix products "
        f"reach, MFU {reached / ceiling:.1%}"
    )


def report_memory(setting: Setting) -> None:
    """Print by how much a step of each lets the memory of its process, or of the GPU, grow."""
    grown = {}
    for name in ("plain", "ours"):
        command = [sys.executable, __file__, *sys.argv[1:], "--memory-of", name]
        result = subprocess.run(  # noqa: S603 (this script itself)
            command, check=True, capture_output=True, text=True
        )
        grown[name] = float(result.stdout)
    print(
        f"memory of a step: plain {grown['plain']:.0f} MB of {setting.plain_batch} samples, ours "
        f"{grown['ours']:.0f} MB of {setting.batch}"
    )


def peak_growth_mb(step: Callable[[], object]) -> float:
    """Greatest memory of this process during a step, or of the GPU, beyond that before it."""
    if torch.cuda.is_available():
        before = torch.cuda.memory_allocated()
        step()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    before = resident_mb("VmRSS")
    step()
    return resident_mb("VmHWM") - before


def resident_mb(field: str) -> float:
    """This process's memory, now or at most so far, as Linux names it."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(field)) / 1e3


if __name__ == "__main__":
    sys.exit(main())
