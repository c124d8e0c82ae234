"""Build the images without a daemon and hold them to what clusters ask of one.

    image_check.py [prep] [train]

Runs as root, with buildah, mmdebstrap and bubblewrap from Debian's packages; where one of them is
missing it says so and ends well. A base made of Debian's packages stands in for the Dockerfile's,
so no registry is asked; pip is set up as on this machine. Then the commands run in each image on a
made-up archive: as a user without a name, on a read-only root, without a network.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]
WORK = ROOT / "build" / "image-check"
"""The stand-in base stays there for the next time; images do not."""

FREE_GB = {"prep": 10, "train": 25}
"""What building an image takes of the disk for a while."""

BASE = "localhost/python:stand-in"
NEEDED = ("buildah", "mmdebstrap", "bwrap", "setpriv", "tar")
UNKNOWN_USER, UNKNOWN_GROUP = 54321, 65432

ARCHIVE = ["--s2", "archive/BigEarthNet-S2", "--s1", "archive/BigEarthNet-S1"]
ARCHIVE += ["--metadata", "archive/metadata.parquet"]
PREPARATION = [
    ["bigearth-prep", "make-archive", "archive", "--pairs", "40"],
    ["bigearth-prep", "build-shards", *ARCHIVE, "--out", "dataset", "--workers", "2"],
    ["bigearth-prep", "verify", "dataset", "--source"],
    ["bigearth-prep", "inspect", "dataset", "--html", "dataset.html"],
]
SMALL = ["model.depth=1", "model.width=24", "model.heads=2", "head.hidden=16", "head.bottleneck=8"]
SMALL += ["head.prototypes=32", "sampling.global_batch=8", "views.crops.local_count=2"]
PRETRAIN = ["-m", "dinomm_train", "pretrain", "dataset", "--out", "run", "--max-steps", "2"]
PRETRAIN += [part for setting in SMALL for part in ("--set", setting)]
TRAINING = [
    # Two ranks, as on two GPUs, in a network that is only this machine.
    ["torchrun", "--nproc-per-node", "2", "--master-addr", "127.0.0.1", *PRETRAIN],
    ["dinomm-train", "evaluate", "run", "dataset", "--out", "scores", "--protocol", "knn"],
]
COMMANDS = {"prep": PREPARATION, "train": [*PREPARATION, *TRAINING]}
ENTRY_POINTS = {"prep": ["bigearth-prep"], "train": ["dinomm-train"]}


def main() -> None:
    """Check the images named on the command line, or both."""
    targets = sys.argv[1:] or list(COMMANDS)
    missing = [program for program in NEEDED if shutil.which(program) is None]
    if os.geteuid() != 0:
        missing.append("root")
    needed_gb = max(FREE_GB[target] for target in targets)
    if shutil.disk_usage(ROOT).free < needed_gb * 1e9:
        missing.append(f"{needed_gb} GB of free disk")
    if missing:
        print(f"image-check skipped: this machine lacks {', '.join(missing)}")
        return
    say("hadolint")
    call("hadolint", ROOT / "docker" / "Dockerfile")
    with image_store():
        make_base()
        for target in targets:
            check_image(target)
        if "prep" in targets:
            check_definition("prep")
    print("image-check passed")


def check_image(target: str) -> None:
    """Build one target, look at what it says of itself, and run its commands."""
    say(f"{target}: build")
    image = f"localhost/bigearth-dinomm:{target}"
    build(target, image)
    say(f"{target}: configuration")
    description = json.loads(call("buildah", "inspect", "--type", "image", image))["OCIv1"]
    config = description["config"]
    user = config["User"].split(":")
    require(all(part.isdigit() and part != "0" for part in user), f"user is {user}")
    require(config["Entrypoint"] == ENTRY_POINTS[target], f"entry point is {config['Entrypoint']}")
    for label in ("title", "version", "revision", "licenses"):
        require(config["Labels"].get(f"org.opencontainers.image.{label}"), f"no label {label}")
    with root_of(image) as root:
        has_torch = any(root.glob("opt/venv/lib/python3*/site-packages/torch"))
        require(has_torch == (target == "train"), f"torch in {target}: {has_torch}")
        environment = dict(pair.split("=", 1) for pair in config["Env"])
        try_commands(target, root, environment)
    size = call("buildah", "images", "--format", "{{.Size}}", image).strip()
    print(f"{target}: {size} in {len(description['rootfs']['diff_ids'])} layers")


def try_commands(target: str, root: Path, environment: dict[str, str]) -> None:
    """Run a target's commands under a cluster's conditions."""
    with tempfile.TemporaryDirectory(prefix="image-check-") as scratch:
        Path(scratch).chmod(0o777)
        inside = sandbox(root, Path(scratch), environment)
        conditions = "! id -un 2>/dev/null && ! touch /opt/x 2>/dev/null && touch /scratch/x"
        call(*inside, "sh", "-c", conditions)
        for command in COMMANDS[target]:
            say(f"{target}: {' '.join(command)[:80]}")
            call(*inside, *command)


def sandbox(root: Path, scratch: Path, environment: dict[str, str]) -> list[str]:
    """What runs a command as Apptainer would, and stricter: no network, no capability."""
    # Mount points that Apptainer makes by itself.
    (root / "etc" / "hosts").touch()
    variables = [part for name, value in environment.items() for part in ("--setenv", name, value)]
    user = ["--reuid", str(UNKNOWN_USER), "--regid", str(UNKNOWN_GROUP), "--clear-groups"]
    return [
        *("bwrap", "--die-with-parent", "--unshare-net", "--ro-bind", str(root), "/"),
        *("--proc", "/proc", "--dev", "/dev", "--perms", "1777", "--tmpfs", "/dev/shm"),
        *("--perms", "1777", "--tmpfs", "/tmp", "--ro-bind", "/etc/hosts", "/etc/hosts"),
        *("--bind", str(scratch), "/scratch", "--chdir", "/scratch", "--clearenv", *variables),
        *("--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"),
        *("setpriv", *user, "--bounding-set=-all", "--no-new-privs"),
    ]


def check_definition(target: str) -> None:
    """Do what the Apptainer definition says, in a copy of the base, and run its test."""
    say(f"{target}.def")
    sections = sections_of(ROOT / "docker" / f"{target}.def")
    container = call("buildah", "from", "--pull-never", BASE).strip()
    try:
        for line in sections["files"]:
            source, destination = line.split()
            call("buildah", "copy", container, ROOT / source, destination)
        environment = "\n".join(sections["environment"])
        run = ["buildah", "run", "--network", "host", *pip_setup(), container, "sh", "-ec"]
        call(*run, "\n".join(sections["post"]))
        call(*run, "\n".join([environment, *sections["test"]]))
    finally:
        call("buildah", "rm", container)


def sections_of(definition: Path) -> dict[str, list[str]]:
    """The lines of each section of an Apptainer definition."""
    sections: dict[str, list[str]] = {"": []}
    name = ""
    for line in definition.read_text(encoding="utf-8").splitlines():
        if line.startswith("%"):
            name = line[1:]
            sections[name] = []
        elif line.strip():
            sections[name].append(line.strip())
    return sections


def build(target: str, image: str) -> None:
    """Build one target of the Dockerfile."""
    revision = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    call(
        *("buildah", "bud", "--layers", "--pull-never", "--network", "host", *pip_setup()),
        *("--build-arg", f"BASE={BASE}", "--build-arg", "VERSION=0+check"),
        *("--build-arg", f"REVISION={revision.stdout.strip() or 'unknown'}"),
        *("--file", ROOT / "docker" / "Dockerfile", "--target", target, "--tag", image, ROOT),
    )


def make_base() -> None:
    """An image of Debian's Python 3.11, in the place of the official one."""
    tar = WORK / "base.tar"
    if not tar.exists():
        say("base from Debian's packages")
        packages = "ca-certificates,python3,python3-venv"
        hook = 'mkdir -p "$1/usr/local/bin"; ln -sf ../../bin/python3 "$1/usr/local/bin/python3"'
        lean = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("man", "doc", "locale")]
        options = ["--mode=root", "--variant=minbase", f"--include={packages}", *lean]
        suite = release()["VERSION_CODENAME"]
        call("mmdebstrap", *options, f"--customize-hook={hook}", suite, WORK / "partial.tar")
        (WORK / "partial.tar").rename(tar)
    container = call("buildah", "from", "scratch").strip()
    call("buildah", "add", "--quiet", container, tar, "/")
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    call("buildah", "config", "--env", f"PATH={path}", "--cmd", "python3", container)
    call("buildah", "commit", "--quiet", "--rm", container, BASE)


def release() -> dict[str, str]:
    """What this machine's system says of itself."""
    lines = Path("/etc/os-release").read_text(encoding="utf-8").splitlines()
    return {name: value.strip('"') for name, value in (line.split("=", 1) for line in lines)}


def pip_setup() -> list[str]:
    """Binds for steps that run pip: this machine's certificates and pip settings, and their files.

    They are there while a step runs and leave nothing in the image.
    """
    listing = call(sys.executable, "-m", "pip", "config", "list")
    settings = {}
    for line in listing.splitlines():
        name, _, value = line.partition("=")
        key = name.rsplit(".", 1)[-1]
        if key in {"cert", "constraint", "extra-index-url", "find-links", "index-url"}:
            settings[key] = value.strip("'\"").replace("\\n", " ")
    text = "[global]\n" + "".join(f"{key} = {value}\n" for key, value in settings.items())
    (WORK / "pip.conf").write_text(text, encoding="utf-8")
    named = [word.removeprefix("file://") for value in settings.values() for word in value.split()]
    places = {str(Path("/etc/ssl/certs")), *(place for place in named if Path(place).exists())}
    # An index of files may lead to files beside it.
    places |= {str(Path(place).parent) for place in places if place.endswith("/simple")}
    binds = [(place, place) for place in sorted(places)] + [(WORK / "pip.conf", "/etc/pip.conf")]
    return [part for source, target in binds for part in ("--volume", f"{source}:{target}:ro")]


@contextmanager
def image_store() -> Iterator[None]:
    """A store of images that goes when the block ends."""
    WORK.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=WORK, prefix="store-") as store:
        config = Path(store) / "storage.conf"
        config.write_text(
            f'[storage]\ndriver = "overlay"\nrunroot = "{store}/run"\ngraphroot = "{store}/graph"\n'
        )
        os.environ |= {"CONTAINERS_STORAGE_CONF": str(config), "TMPDIR": store}
        os.environ |= {"BUILDAH_ISOLATION": "chroot", "BUILDAH_FORMAT": "oci"}
        try:
            yield
        finally:
            call("buildah", "rm", "--all")
            call("buildah", "rmi", "--all", "--force")
            os.environ.pop("TMPDIR")


@contextmanager
def root_of(image: str) -> Iterator[Path]:
    """The image's files, as a folder."""
    container = call("buildah", "from", "--pull-never", image).strip()
    try:
        yield Path(call("buildah", "mount", container).strip())
    finally:
        call("buildah", "umount", container)
        call("buildah", "rm", container)


def call(*command: str | Path) -> str:
    """The command's standard output; it ends the check where it fails."""
    result = subprocess.run(
        [str(part) for part in command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if result.returncode:
        lines: Sequence[str] = (result.stdout + result.stderr).splitlines()
        print("\n".join(lines[-40:]), file=sys.stderr)
        sys.exit(f"image-check failed: {' '.join(map(str, command))[:300]}")
    return result.stdout


def require(holds: object, otherwise: str) -> None:
    """End the check where this does not hold."""
    if not holds:
        sys.exit(f"image-check failed: {otherwise}")


def say(what: str) -> None:
    """Print what comes now."""
    print(f"== {what}", flush=True)


if __name__ == "__main__":
    main()
