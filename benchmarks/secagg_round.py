"""One masked round in a process of its own: the real state machines, real signatures, and nothing between them but bytes.

`python -m benchmarks.secagg_round '{"n": 20, "d": 1000000, "dropouts": 0, "degree": null, "colluders": 6}'` prints one JSON object. The
peak of memory is this process's, which plays every party, one after the other; uploads lie in a folder, as the aggregator's do.
"""

import json
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR
from numpy.typing import NDArray

from benchmarks.machine import peak_rss_mb
from rexis.protocol.batch import READ_BYTES
from rexis.protocol.secagg_messages import Envelope, Stage
from rexis.protocol.signatures import address_of, sign_digest
from rexis.protocol.typed_data import TypedMessage
from rexis.secagg import Coordinator, Participant
from rexis.secagg.quantization import FixedPoint
from rexis.secagg.terms import RoundTerms
from rexis.secagg.thresholds import thresholds

T = TypeVar("T")

CLIPPING_NORM = 1.0
FLOOR_BLOCK = 1 << 18


class Clock:
    """CPU seconds of each side, all threads."""

    def __init__(self) -> None:
        self.seconds = {"client": 0.0, "server": 0.0}

    def run(self, side: str, step: Callable[[], T]) -> T:
        """Do a step on one side's account."""
        start = time.process_time()
        result = step()
        self.seconds[side] += time.process_time() - start
        return result


class Institution:
    """A participant with its own Ethereum key and its own update."""

    def __init__(self, number: int, key: bytes) -> None:
        self.number, self._key, self.address = number, key, address_of(key)

    def sign_typed_data(self, message: TypedMessage) -> bytes:
        """EIP-712 signature of 65 bytes."""
        return sign_digest(message.hash(), self._key)

    def update(self, d: int) -> NDArray[np.float32]:
        """f32 [d], of norm about 0.8, the same whenever it is asked for."""
        return np.random.default_rng(self.number).standard_normal(d, dtype=np.float32) * np.float32(0.8 / d**0.5)


class Round:
    """One round of n institutions with d parameters, of which the last `dropouts` vanish after they have shared their secrets."""

    def __init__(self, n: int, d: int, *, dropouts: int, degree: int | None, colluders: int, folder: Path) -> None:
        keys = sorted((secrets.token_bytes(32) for _ in range(n)), key=lambda key: address_of(key).lower())
        self.institutions = [Institution(number, key) for number, key in enumerate(keys)]
        self.d, self.staying, self.folder = d, n - dropouts, folder
        self.graph_seed = secrets.token_bytes(32) if degree else bytes(32)
        self.encoding = FixedPoint(n, CLIPPING_NORM)
        self.terms = RoundTerms(
            chain_id=31337,
            registry="0x00000000000000000000000000000000000000AA",
            federation=secrets.token_bytes(32),
            round=1,
            attempt=1,
            manifest_hash=secrets.token_bytes(32),
            base_model=secrets.token_bytes(32),
            roster=tuple(institution.address for institution in self.institutions),
            thresholds=thresholds(n, colluders),
            length=d,
            degree=degree,
        )
        self.clock = Clock()
        self.uploaded = 0

    def run(self) -> dict[str, float]:
        """Play it, check the sum, and tell what it took."""
        terms, clock = self.terms, self.clock
        coordinator = clock.run("server", lambda: Coordinator(terms))
        participants = [clock.run("client", lambda one=one: Participant(terms, one, earlier=())) for one in self.institutions]
        staying = participants[: self.staying]
        self._collect(coordinator, [clock.run("client", lambda one=one: one.announce_keys().to_bytes()) for one in participants])
        keys = self._closed(lambda: coordinator.close_keys(graph_seed=self.graph_seed))
        self._collect(
            coordinator, [self._answer(keys, lambda m, one=one: one.share(m, graph_seed=self.graph_seed)) for one in participants]
        )
        shares = self._closed(coordinator.close_shares)
        plain = np.zeros(self.d, dtype=terms.dtype)
        announced = []
        for institution, one in zip(self.institutions, staying, strict=False):
            announced.append(self._upload(institution, one, shares, plain))
        self._collect(coordinator, announced)
        masked = self._closed(coordinator.close_masked)
        # On chain stands what the quorum fixed; each site reads it from its own node.
        fixed = clock.run("server", lambda: coordinator.survivors.fixed)
        clock.run("server", lambda: coordinator.close_survivors(fixed=fixed))
        self._collect(coordinator, [self._answer(masked, lambda m, one=one: one.unmask_fixed(m, fixed)) for one in staying])
        total = clock.run("server", lambda: self._open(coordinator))
        if not np.array_equal(total, plain):
            raise AssertionError("expected the sum of the survivors' vectors, got another")
        n = len(participants)
        return {
            "client_s": clock.seconds["client"] / n,
            "server_s": clock.seconds["server"],
            "total_s": clock.seconds["client"] + clock.seconds["server"],
            "bytes_per_parameter": self.uploaded / self.staying / self.d,
        }

    def _answer(self, messages: list[bytes], step: Callable[[list[Envelope]], Envelope]) -> bytes:
        return self.clock.run("client", lambda: step([Envelope.parse(message) for message in messages]).to_bytes())

    def _upload(self, institution: Institution, one: Participant, shares: list[bytes], plain: NDArray[Any]) -> bytes:
        update = institution.update(self.d)
        path = self.folder / f"upload-{institution.number}"
        vector = self.clock.run("client", lambda: self.encoding.encode(update))
        plain += vector
        self.clock.run("client", lambda: one.open_shares([Envelope.parse(message) for message in shares]))
        self.clock.run("client", lambda: one.mask(vector))
        vector.tofile(path)
        self.uploaded += path.stat().st_size
        return self.clock.run("client", lambda: one.announce_masked(path.name).to_bytes())

    def _collect(self, coordinator: Coordinator, messages: list[bytes]) -> None:
        self.uploaded += sum(map(len, messages[: self.staying]))
        self.clock.run("server", lambda: [coordinator.receive(Envelope.parse(message)) for message in messages])

    def _closed(self, close: Callable[[], tuple[Envelope, ...]]) -> list[bytes]:
        return self.clock.run("server", lambda: [message.to_bytes() for message in close()])

    def _open(self, coordinator: Coordinator) -> NDArray[Any]:
        (masked_sum,) = coordinator.masked_sums()
        uploads = {message.sender: message.payload["upload"] for message in coordinator.messages(Stage.MASKED)}
        for address in masked_sum.missing:
            masked_sum.add(address, _pieces(self.folder / uploads[address]))
        (total,) = coordinator.unmask([masked_sum])
        # The mean that the next model is made of.
        self.encoding.decode(total)
        return total


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(READ_BYTES):
            yield piece


def floor_s(masks: int, d: int) -> float:
    """CPU seconds of what no client can leave out: so many AES-256-CTR streams of d u32, added up by numpy in the cache."""
    total, zeros, buffer = np.zeros(d, dtype="<u4"), bytes(FLOOR_BLOCK), bytearray(FLOOR_BLOCK)
    stream = np.frombuffer(buffer, dtype="<u4")
    start = time.process_time()
    for _ in range(masks):
        encryptor = Cipher(AES256(secrets.token_bytes(32)), CTR(bytes(16))).encryptor()
        for begin in range(0, d, len(stream)):
            part = total[begin : begin + len(stream)]
            encryptor.update_into(memoryview(zeros)[: part.nbytes], buffer)
            np.add(part, stream[: len(part)], out=part)
    return time.process_time() - start


def main() -> None:
    cell = json.loads(sys.argv[1])
    masks = 1 + (cell["degree"] or cell["n"] - 1)
    before = floor_s(masks, cell["d"])
    with TemporaryDirectory(prefix="rexis-secagg-") as folder:
        parts = {name: cell[name] for name in ("n", "d", "dropouts", "degree", "colluders")}
        figures = Round(**parts, folder=Path(folder)).run()
    floor = (before + floor_s(masks, cell["d"])) / 2
    print(json.dumps(figures | {"floor_s": floor, "client_over_floor": figures["client_s"] / floor, "peak_rss_mb": peak_rss_mb()}))


if __name__ == "__main__":
    main()
