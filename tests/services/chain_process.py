"""An anvil that can be killed, a proxy that stops a request at a chosen point, and a contract that counts."""

import json
import shutil
import subprocess
import threading
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from rexis.chain.artifacts import artifact
from rexis.chain.calls import selector
from rexis.chain.connection import Chain, genesis_hash, open_web3
from rexis.chain.deployments import Deployment
from rexis.chain.signer import LocalSigner, development_signer
from rexis.encoding import checksum_address, to_hex
from services.local.anvil import CHAIN_ID, anvil_command, find_anvil, wait_for_anvil
from tests.services.conftest import free_port

ETHER = 10**18

_ZERO_HASH = next(entry for entry in artifact("DatasetRegistry").abi if entry["type"] == "error" and entry["name"] == "ZeroHash")
# Called with data it logs the data, unless it is closed: then it reverts with DatasetRegistry.ZeroHash. Called without, it opens
# or closes. Nothing in it remembers a call, so that a call that runs twice is seen twice.
_GATE = bytes.fromhex(
    "36600a57" + "5f54155f5500" + "5b5f54601857" + "365f5f37365fa000" + "5b63" + selector(_ZERO_HASH).hex() + "5f526004601cfd"
)
_DEPLOY_GATE = bytes([0x60, len(_GATE), 0x60, 0x0B, 0x5F, 0x39, 0x60, len(_GATE), 0x5F, 0xF3, 0x00]) + _GATE


class ChainProcess:
    """One anvil on one port; its state file is kept between starts."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder, self.port, self.state = folder, free_port(), folder / "state.json"
        self.options = options
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *, keep_state: bool = False) -> None:
        ready = self.folder / "ready.json"
        state = self.state if keep_state else None
        command = anvil_command(find_anvil(), self.port, ready, state=state, block_time_s=None)
        self.process = subprocess.Popen([*command, *self.options])
        wait_for_anvil(self.process, self.port, ready)

    def kill(self) -> None:
        """SIGKILL: everything since the last dump is gone."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def stop(self) -> None:
        """SIGTERM: the state is dumped."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait()

    def keep(self, name: str) -> None:
        """Put the dumped state aside."""
        shutil.copyfile(self.state, self.folder / name)

    def restore(self, name: str) -> None:
        """Use a state that was put aside."""
        shutil.copyfile(self.folder / name, self.state)


@contextmanager
def running(folder: Path, *options: str, keep_state: bool = False) -> Iterator[ChainProcess]:
    chain = ChainProcess(folder, *options)
    chain.start(keep_state=keep_state)
    try:
        yield chain
    finally:
        chain.kill()


@contextmanager
def replaced(folder: Path, url: str) -> Iterator[ChainProcess]:
    """A chain that is not the one at `url`: a genesis carries the second of its making, so it may take a second to get one."""
    genesis, deadline = rpc(url, "eth_getBlockByNumber", "0x0", False)["hash"], time.monotonic() + 10
    while True:
        with running(folder) as chain:
            if rpc(chain.url, "eth_getBlockByNumber", "0x0", False)["hash"] != genesis:
                yield chain
                return
        assert time.monotonic() < deadline, "two chains with one genesis"


def rpc(url: str, method: str, *parameters: Any) -> Any:
    """One raw JSON-RPC call."""
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}).encode()
    with urllib.request.urlopen(urllib.request.Request(url, body, {"content-type": "application/json"}), timeout=10) as response:
        answer = json.loads(response.read())
    assert "error" not in answer, answer
    return answer["result"]


def transact(url: str, **fields: Any) -> Any:
    """Send from an account of the node, wait for the block, and return the receipt."""
    sent = rpc(url, "eth_sendTransaction", fields)
    deadline = time.monotonic() + 10
    while (receipt := rpc(url, "eth_getTransactionReceipt", sent)) is None:
        assert time.monotonic() < deadline, "the node does not mine"
    assert receipt["status"] == "0x1", receipt
    return receipt


def connect(url: str) -> Chain:
    """A chain without recorded contracts."""
    web3 = open_web3(url)
    return Chain(web3, Deployment(CHAIN_ID, genesis_hash(web3), {}))


def funded_signer(url: str) -> LocalSigner:
    """A new account with one ether."""
    signer = LocalSigner.generate()
    rpc(url, "anvil_setBalance", signer.address, hex(ETHER))
    return signer


class Gate:
    """The counting contract."""

    def __init__(self, url: str) -> None:
        self.url, self.operator = url, development_signer(9).address
        receipt = transact(url, **{"from": self.operator, "data": to_hex(_DEPLOY_GATE)})
        self.address = checksum_address(receipt["contractAddress"])

    def toggle(self) -> None:
        """Open or close it."""
        transact(self.url, **{"from": self.operator, "to": self.address})

    def toggle_first(self) -> str:
        """Open or close it in the next block, before the others in it, without waiting for the block; returns the hash."""
        fees = {"maxPriorityFeePerGas": hex(10**10), "maxFeePerGas": hex(10**12)}
        return str(rpc(self.url, "eth_sendTransaction", {"from": self.operator, "to": self.address, "gas": hex(100_000), **fees}))

    def calls(self) -> list[bytes]:
        """Data of every call that ran, in the order of the chain."""
        logs = rpc(self.url, "eth_getLogs", {"fromBlock": "0x0", "toBlock": "latest", "address": self.address})
        return [bytes.fromhex(entry["data"][2:]) for entry in logs]


Hook = Callable[[], None]


class Proxy:
    """Passes JSON-RPC on to a chain; hooks run in the request, before it reaches the chain or after it has had its effect."""

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.before: dict[str, Hook] = {}
        self.after: dict[str, Hook] = {}
        # Given the parameters, whether the chain answers with an error of its own making, or with which one; "status" is its HTTP status.
        self.refuses: dict[str, Callable[[list[Any]], bool | dict[str, Any]]] = {}
        # Given the parameters and the chain's result, what is answered instead.
        self.rewrites: dict[str, Callable[[list[Any], Any], Any]] = {}
        # Parameters of every request that got through, by method.
        self.passed: dict[str, list[list[Any]]] = defaultdict(list)
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:  # the name that http.server asks for
                body = self.rfile.read(int(self.headers["content-length"]))
                asked = json.loads(body)
                method = asked["method"]
                try:
                    proxy.before.get(method, lambda: None)()
                    status = 200
                    refused = proxy.refuses.get(method, lambda _: False)(asked["params"])
                    if refused:
                        error = refused if isinstance(refused, dict) else {"code": -32005, "message": "limit exceeded"}
                        status = error.get("status", 200)
                        answer = json.dumps({"jsonrpc": "2.0", "id": asked["id"], "error": error}).encode()
                    else:
                        request = urllib.request.Request(proxy.upstream, body, {"content-type": "application/json"})
                        with urllib.request.urlopen(request, timeout=10) as response:
                            answer = response.read()
                        proxy.passed[method].append(asked["params"])
                        if method in proxy.rewrites:
                            read = json.loads(answer)
                            answer = json.dumps(read | {"result": proxy.rewrites[method](asked["params"], read["result"])}).encode()
                    proxy.after.get(method, lambda: None)()
                except OSError:
                    self.send_response(503)
                    self.send_header("content-length", "0")
                    self.end_headers()
                    return
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: Any) -> None:
                """Requests are not logged."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class Outage(dict[str, Hook]):
    """Hooks of a proxy under every name: the node is away, and `asked` counts who came in vain."""

    asked = 0

    def get(self, *_: object) -> Hook:
        return self._refuse

    def _refuse(self) -> None:
        self.asked += 1
        raise ConnectionAbortedError


def is_call(parameters: list[Any], function: str) -> bool:
    """Whether the parameters of `eth_sendRawTransaction` are a call of the FederationRegistry's function."""
    entry = next(entry for entry in artifact("FederationRegistry").abi if entry["type"] == "function" and entry["name"] == function)
    return selector(entry).hex() in parameters[0]


class Halt:
    """A hook that stops the `number`-th request until it is released, and says when that has happened."""

    def __init__(self, number: int = 1) -> None:
        self.left = number
        self.reached, self.released = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.left -= 1
        if self.left == 0:
            self.reached.set()
            self.released.wait(60)
            raise ConnectionAbortedError("the client is gone")


class Once:
    """A hook that does something the first time only."""

    def __init__(self, action: Hook) -> None:
        self.action: Hook | None = action

    def __call__(self) -> None:
        action, self.action = self.action, None
        if action is not None:
            action()
