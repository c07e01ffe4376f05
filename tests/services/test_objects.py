"""The object store on a folder, in memory, and on an S3 server: create-only, all or nothing, and the same errors everywhere."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rexis.errors import ConfigurationError, UnavailableError
from services.foundation.objects import ObjectStore, checked_key, open_store

MIB = 1 << 20


@pytest.fixture
def objects(object_store_url: str) -> ObjectStore:
    return open_store(object_store_url)


async def blocks(data: bytes, size: int = MIB) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def keys(objects: ObjectStore, prefix: str | None = None) -> set[str]:
    return {found.key for found in objects.list(prefix)}


def test_what_is_put_is_read_back(objects: ObjectStore) -> None:
    data = os.urandom(MIB + 17)
    objects.put_new("a/b/data", data)
    assert objects.get("a/b/data") == data
    assert objects.get_range("a/b/data", 1000, 50) == data[1000:1050]
    assert objects.get_range("a/b/data", MIB, 100) == data[MIB:]
    assert b"".join(objects.open_stream("a/b/data", 300_000)) == data
    assert [(found.key, found.size) for found in objects.list("a")] == [("a/b/data", MIB + 17)]


def test_an_object_is_never_replaced(objects: ObjectStore) -> None:
    objects.put_new("once", b"first")
    with pytest.raises(FileExistsError, match="already an object once"):
        objects.put_new("once", b"second")
    assert objects.get("once") == b"first"


def test_of_many_simultaneous_writers_one_wins_and_the_others_know(objects: ObjectStore) -> None:
    outcomes: dict[int, bool] = {}
    barrier = threading.Barrier(8)

    def write(number: int) -> None:
        barrier.wait()
        try:
            objects.put_new("contested", bytes([number]) * 1000)
            outcomes[number] = True
        except FileExistsError:
            outcomes[number] = False

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [number for number, won in outcomes.items() if won]
    assert len(outcomes) == 8
    assert len(winners) == 1
    assert objects.get("contested") == bytes([winners[0]]) * 1000


def test_a_stream_is_stored_whole(objects: ObjectStore) -> None:
    data = os.urandom(8 * MIB + 3)
    asyncio.run(objects.put_stream("streamed", blocks(data)))
    assert objects.get("streamed") == data


@pytest.mark.parametrize("before", [100, 7 * MIB])
def test_a_stream_that_fails_stores_nothing_and_passes_its_reason_on(before: int, objects: ObjectStore) -> None:
    async def breaking() -> AsyncIterator[bytes]:
        async for block in blocks(bytes(before)):
            yield block
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(objects.put_stream("broken", breaking()))
    assert keys(objects) == set()


def test_a_cancelled_stream_stores_nothing(objects: ObjectStore) -> None:
    async def cancel_in_the_middle() -> None:
        reached = asyncio.Event()

        async def hanging() -> AsyncIterator[bytes]:
            yield bytes(MIB)
            reached.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(objects.put_stream("cancelled", hanging()))
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel_in_the_middle())
    assert keys(objects) == set()


def test_missing_objects(objects: ObjectStore) -> None:
    for read in (objects.get, lambda key: objects.get_range(key, 0, 1), lambda key: list(objects.open_stream(key))):
        with pytest.raises(FileNotFoundError, match="no object nothing"):
            read("nothing")
    objects.delete("nothing")
    objects.delete_folder("nothing")
    assert keys(objects, "nothing") == set()


def test_a_folder_is_deleted_without_its_neighbours(objects: ObjectStore) -> None:
    for key in ("uploads/1/a", "uploads/1/b", "uploads/10/a", "uploads/2"):
        objects.put_new(key, b"x")
    assert keys(objects, "uploads/1") == {"uploads/1/a", "uploads/1/b"}
    objects.delete_folder("uploads/1")
    assert keys(objects) == {"uploads/10/a", "uploads/2"}
    objects.put_new("uploads/1/a", b"again")


def test_a_folder_store_also_deletes_what_an_interrupted_write_left(tmp_path: Path) -> None:
    objects = open_store(tmp_path.as_uri())
    objects.put_new("uploads/1/a", b"x")
    left = tmp_path / "uploads" / "1" / "b#1"  # the name of a file that is being written
    left.write_bytes(b"half")
    objects.delete_folder("uploads/1")
    assert not left.exists()


@pytest.mark.parametrize("key", ["", "/a", "a/", "a//b", "../a", "a/../b", "a/.b", ".", "A", "a b", "a\\b", "a#1", "a\0", "ä", "a" * 513])
def test_keys_that_could_mean_something_else_are_refused(key: str, objects: ObjectStore) -> None:
    for operation in (objects.get, objects.delete, lambda name: objects.put_new(name, b"")):
        with pytest.raises(ValueError, match="object key"):
            operation(key)
    assert keys(objects) == set()


def test_keys_of_our_own_are_accepted() -> None:
    for key in ("uploads/0f/00001-ab", "a", "documents/0x12", "a.b_c-d/1"):
        assert checked_key(key) == key


def test_a_check_of_a_working_store(objects: ObjectStore) -> None:
    objects.check()


def test_a_check_of_a_store_that_is_gone(tmp_path: Path, s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "objects"
    local = open_store(folder.as_uri())
    folder.rmdir()
    with pytest.raises(UnavailableError):
        local.check()
    with pytest.raises(UnavailableError, match="does not answer") as caught:
        open_store("s3://no-such-bucket").check()
    assert "AWS" not in str(caught.value)


@pytest.mark.parametrize("url", ["", "http://host/bucket", "s3://", "file://host/folder", "file:", "gs://bucket"])
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="REXIS_OBJECT_STORE_URL"):
        open_store(url)
