"""A PostgreSQL server of the tests' own."""

import os
import pwd
import shutil
import subprocess
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def postgresql():
    """A server of our own, with a socket in a folder; it refuses to run as root."""
    folder = binaries()
    if folder is None:
        pytest.skip("no PostgreSQL server here (apt-get install postgresql)")
    pytest.importorskip("psycopg")
    user = "postgres" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
    home = Path("/tmp") / f"mixc-postgresql-{os.getpid()}"  # a socket's path has to be short
    home.mkdir(mode=0o700)
    if os.getuid() == 0:
        shutil.chown(home, user)

    def run(*words):
        subprocess.run(
            words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=home,
            user=user if os.getuid() == 0 else None,
        )  # fmt: skip

    data = home / "data"
    run(folder / "initdb", "-D", data, "-U", "mixc", "-A", "trust", "--no-sync")
    options = f"-k {home} -c listen_addresses='' -c fsync=off"
    run(folder / "pg_ctl", "-D", data, "-o", options, "-l", home / "log", "-w", "start")
    try:
        yield f"postgresql+psycopg://mixc@/postgres?host={home}"
    finally:
        run(folder / "pg_ctl", "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(home, ignore_errors=True)


def binaries():
    """Where the server's programs are: on the path, or where Debian has them."""
    found = shutil.which("initdb")
    places = [Path(found).parent] if found else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((p for p in places if (p / "initdb").exists()), None)
