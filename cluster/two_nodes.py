"""A real Ray cluster of two nodes on one machine: two raylets, each with processes and resources of its own.

    python cluster/two_nodes.py                    # starts it, prints its address, ends it with Ctrl-C
    python cluster/two_nodes.py -- COMMAND ...     # runs COMMAND against it, then ends it; its exit code is ours

COMMAND finds RAY_ADDRESS in its environment, and RAY_API_SERVER_ADDRESS for `ray job submit`. Token authentication is
on: the token is made anew in the cluster's own folder and handed to COMMAND by RAY_AUTH_TOKEN_PATH. Only processes
started here are ended, by their own ids; another Ray on this machine is left alone (`ray stop` would end that too).
"""

import argparse
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

RAY = Path(sys.executable).parent / "ray"
START_TIMEOUT_S = 90.0


@dataclass(frozen=True)
class TwoNodes:
    """A running cluster. `environment` is what a process needs to reach it."""

    address: str
    dashboard: str
    environment: dict[str, str]
    logs: Path


@contextmanager
def two_nodes(cpus: int = 1) -> Iterator[TwoNodes]:
    """Head and second node, `cpus` each, up while the block runs.

    Raises: RuntimeError with the end of its log when a node does not come up.
    """
    with ExitStack() as stack:
        # Short, since Ray's socket paths lie below it and may be 107 bytes long.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ray2_", ignore_cleanup_errors=True)))
        token = folder / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        port, dashboard_port = free_port(), free_port()
        address, dashboard = f"127.0.0.1:{port}", f"http://127.0.0.1:{dashboard_port}"
        environment = {
            **os.environ,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_ADDRESS": address,
            "RAY_API_SERVER_ADDRESS": dashboard,
        }
        node_environment = {key: value for key, value in environment.items() if key != "RAY_ADDRESS"}
        common = ["start", "--block", f"--num-cpus={cpus}", "--node-ip-address=127.0.0.1", "--disable-usage-stats"]
        head = [
            *common,
            "--head",
            f"--port={port}",
            f"--dashboard-port={dashboard_port}",
            f"--ray-client-server-port={free_port()}",
        ]
        for name, arguments in (("head", head), ("second", [*common, f"--address={address}"])):
            log = folder / f"{name}.log"
            # A folder for each, as on two machines: in a common one they unpack a job's files over one another.
            command = [str(RAY), *arguments, f"--temp-dir={folder / name}"]
            child = stack.enter_context(_process(command, node_environment, log))
            _wait_for_nodes(1 if name == "head" else 2, environment, child, log)
        yield TwoNodes(address, dashboard, environment, folder)


@contextmanager
def _process(command: list[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("w") as stream:
        child = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True
        )
    try:
        yield child
    finally:
        child.send_signal(signal.SIGTERM)  # `ray start --block` ends its own node on it
        try:
            child.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)  # its session, hence only what it started
            child.wait()


def _wait_for_nodes(count: int, environment: dict[str, str], child: subprocess.Popen[bytes], log: Path) -> None:
    probe = (
        "import ray; ray.init('auto', log_to_driver=False, logging_level='ERROR');"
        "print(sum(node['Alive'] for node in ray.nodes()))"
    )
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and child.poll() is None:
        time.sleep(1)
        seen = subprocess.run(
            [sys.executable, "-c", probe], env=environment, capture_output=True, text=True, check=False
        )
        if seen.stdout.strip().endswith(str(count)):
            return
    why = "ended by itself" if child.poll() is not None else f"is not up after {START_TIMEOUT_S:.0f} s"
    raise RuntimeError(f"the node {why}:\n{log.read_text()[-2000:]}")


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def main() -> int:
    """Starts the cluster and runs the command, or waits for Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpus", type=int, default=1, help="of each node")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="-- COMMAND ...")
    arguments = parser.parse_args()
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end the nodes on it as on Ctrl-C
    try:
        with two_nodes(arguments.cpus) as cluster:
            if command:
                return subprocess.run(command, env=cluster.environment, check=False).returncode
            for key in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
                print(f"export {key}={cluster.environment[key]}")
            print("# two nodes are up; Ctrl-C ends them", flush=True)
            signal.pause()
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
