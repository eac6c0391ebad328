"""Compile every spec of the library under several releases of Triton, for GPUs that are not here.

    python tests/triton_versions.py [--triton 3.6.0 ...] [--target cuda:90 ...] [SPEC ...]

Each release is installed, without dependencies, into a virtual environment below ``build/``, which
takes all else from the environment that runs this. Prints a line per kernel that has an error or,
at its default configuration, spills; exits 1 if there is one. Takes minutes per release: it is no
part of ``make test``.
"""

from __future__ import annotations

import argparse
import json
import os
import site
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mixc.runtime.compiling import Generated

RELEASES = ("3.6.0", "3.7.1", "3.9.0")
HEAD_DIMS = (64, 128)
BUILD = Path(__file__).parent.parent / "build" / "triton_versions"


def main() -> int:
    """Run every release; the number of problems found decides the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("specs", nargs="*", metavar="SPEC", help="by default the whole library")
    parser.add_argument("--triton", nargs="+", default=RELEASES, metavar="RELEASE")
    parser.add_argument("--target", nargs="+", default=["cuda:90"], metavar="TARGET")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.inside:
        compile_library(chosen.specs, chosen.target)
        return 0
    problems = 0
    for release in chosen.triton:
        kernels = 0
        for kernel in compiled_under(release, chosen.specs, chosen.target):
            kernels += 1
            if "error" in kernel or kernel["spilled_bytes"] != 0:
                problems += 1
                print(f"{release}: {json.dumps(kernel)}", flush=True)
        print(f"{release}: {kernels} kernels compiled", flush=True)
    return 1 if problems else 0


def compiled_under(
    release: str, specs: list[str], targets: list[str]
) -> Iterator[dict[str, object]]:
    """The report of each kernel, as its compile ends, from a process with that Triton."""
    python = environment(release)
    command = [python, __file__, "--inside", *specs, "--target", *targets]
    ours = {key: text for key, text in os.environ.items() if key != "TRITON_INTERPRET"}
    ours["TRITON_CACHE_DIR"] = str(BUILD / f"cache-{release}")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ours) as process:
        assert process.stdout is not None
        for line in process.stdout:
            yield json.loads(line)
    if process.returncode != 0:
        raise SystemExit(f"triton {release}: exit status {process.returncode}")


def environment(release: str) -> Path:
    """Make, once, an environment with its own Triton before all else that is installed here."""
    folder = BUILD / release
    python = folder / "bin" / "python"
    if python.exists():
        return python
    venv.create(folder, with_pip=True)
    subprocess.run(
        [python, "-m", "pip", "install", "-q", "--no-deps", f"triton=={release}"], check=True
    )
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = folder / "lib" / version / "site-packages"
    shared = [f"import site; site.addsitedir({path!r})" for path in site.getsitepackages()]
    (packages / "zz_shared.pth").write_text("\n".join(shared) + "\n")
    return python


def compile_library(specs: list[str], targets: list[str]) -> None:
    """Print a line of JSON for each kernel of each spec, compiled under the Triton at hand."""
    from mixc.backends.triton.cross_compile import CompileWorkers
    from mixc.compiler.language.find import find_spec, library
    from mixc.ir.errors import MixcError
    from mixc.runtime.compiling import report

    with CompileWorkers(time_limit_s=60) as workers:
        for path in [find_spec(spec) for spec in specs] or library():
            for size in HEAD_DIMS:
                about = {"spec": path.stem, "head_dim": size}
                try:
                    kernels = report(generated(path, size), targets, workers)
                except MixcError as error:
                    print(json.dumps({**about, "error": str(error)}), flush=True)
                    continue
                for kernel in kernels:
                    print(json.dumps({**about, **kernel.as_dict()}), flush=True)


def generated(path: Path, size: int) -> Generated:
    """Generate the module of a spec for one size of its feature dims D and E."""
    from mixc.compiler.language.load import load_file
    from mixc.ir.roles import feature_dims
    from mixc.runtime.compiling import generate

    mixer = load_file(path)
    return generate(mixer, dict.fromkeys(feature_dims(mixer) & {"D", "E"}, size), "bf16")


if __name__ == "__main__":
    sys.exit(main())
