"""Documents are canonical, change by compare-and-swap, and tell why they cannot be read."""

import multiprocessing
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import AwareDatetime, BaseModel, ConfigDict

from backfill_assets.failures import PermanentFailure, Superseded
from backfill_assets.lake import documents
from backfill_assets.lake.store import Store, open_store
from backfill_assets.settings import LakeSettings

PATH = "days/2024-01-01.json"

fork = multiprocessing.get_context("fork")


class Counter(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    value: int
    by: tuple[str, ...] = ()


class Measured(BaseModel):
    value: float


class Anything(BaseModel):
    z: AwareDatetime
    a: dict[str, Any]


def counted(found: Counter | None) -> Counter:
    return Counter(value=(found.value if found else 0) + 1)


def test_equal_documents_are_equal_bytes_with_sorted_keys_and_a_newline() -> None:
    moment = datetime(2024, 1, 1, 9, 0, 0, 5, tzinfo=UTC)
    one = documents.encode(Anything(z=moment, a={"y": 0.1, "x": ["é"]}))
    two = documents.encode(Anything(a={"x": ["é"], "y": 0.1}, z=moment))
    assert one == two == '{"a":{"x":["é"],"y":0.1},"z":"2024-01-01T09:00:00.000005Z"}\n'.encode()
    assert Anything.model_validate_json(one).z == moment


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_json_cannot_say_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="Out of range"):
        documents.encode(Measured(value=bad))


def test_a_document_that_is_not_there_is_none(store: Store) -> None:
    assert documents.load(store, PATH, Counter) is None


def test_a_change_sees_what_is_stored_and_returns_what_is_stored_then(store: Store) -> None:
    assert documents.update(store, PATH, Counter, counted) == Counter(value=1)
    assert documents.update(store, PATH, Counter, counted) == Counter(value=2)
    assert documents.load(store, PATH, Counter) == Counter(value=2)


def test_a_change_to_none_writes_nothing(store: Store) -> None:
    assert documents.update(store, PATH, Counter, lambda _: None) is None
    assert not store.exists(PATH)
    documents.update(store, PATH, Counter, counted)
    before = store.read(PATH)
    assert documents.update(store, PATH, Counter, lambda _: None) == Counter(value=1)
    assert store.read(PATH) == before


def test_a_change_to_an_equal_document_writes_nothing_but_a_real_one_does(gcs_lake: LakeSettings) -> None:
    # In a bucket even a write of the same bytes gets another generation.
    store = open_store(gcs_lake)
    documents.update(store, PATH, Counter, lambda _: Counter(value=1))
    before = store.read(PATH)
    documents.update(store, PATH, Counter, lambda _: Counter(value=1))
    assert store.read(PATH) == before
    documents.update(store, PATH, Counter, lambda _: Counter(value=2))
    assert store.read(PATH) != before


def test_a_faster_writer_is_not_undone(store: Store) -> None:
    seen: list[Counter | None] = []

    def change(found: Counter | None) -> Counter:
        seen.append(found)
        if len(seen) == 1:
            documents.update(store, PATH, Counter, lambda _: Counter(value=1, by=("other",)))
        return Counter(value=2, by=(*(found.by if found else ()), "me"))

    assert documents.update(store, PATH, Counter, change) == Counter(value=2, by=("other", "me"))
    assert seen == [None, Counter(value=1, by=("other",))]


def test_a_writer_who_always_loses_gives_up(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "ATTEMPTS", 3)
    others = iter(range(100))

    def change(_: Counter | None) -> Counter:
        documents.update(store, PATH, Counter, lambda _: Counter(value=next(others)))
        return Counter(value=-1)

    with pytest.raises(Superseded, match=r"2024-01-01\.json: other writers were faster 3 times"):
        documents.update(store, PATH, Counter, change)
    assert documents.load(store, PATH, Counter) == Counter(value=2)


def test_an_error_of_the_change_is_passed_on_and_nothing_is_written(store: Store) -> None:
    def change(_: Counter | None) -> Counter:
        raise Superseded("judge again")

    with pytest.raises(Superseded, match="judge again"):
        documents.update(store, PATH, Counter, change)
    assert not store.exists(PATH)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "EOF"),
        (b'{"value": 1', "EOF"),
        (b"\xff\xfe", "Invalid JSON"),
        (b'{"value": "many"}', "value: Input should be a valid integer"),
        (b'{"value": 1, "color": 2}', "color: Extra inputs"),
        (b"{}", "value: Field required"),
    ],
)
def test_a_document_that_cannot_be_read_is_named_with_the_remedy(
    store: Store, data: bytes, reason: str
) -> None:
    store.replace(PATH, data, None)
    for call in (
        lambda: documents.load(store, PATH, Counter),
        lambda: documents.update(store, PATH, Counter, counted),
    ):
        with pytest.raises(PermanentFailure, match="restore it, or run the version") as e:
            call()
        assert store.uri_of(PATH) in str(e.value)
        assert reason in str(e.value)
        assert "\n" not in str(e.value)
    stored = store.read(PATH)
    assert stored is not None
    assert stored.data == data


class Sum(documents.Derived):
    value: int


def test_keys_of_a_newer_version_are_left_out_and_stay_where_nothing_changes(store: Store) -> None:
    newer = b'{"value": 1, "color": 2}'
    store.replace(PATH, newer, None)
    assert documents.load(store, PATH, Sum) == Sum(value=1)
    assert documents.update(store, PATH, Sum, lambda found: found) == Sum(value=1)
    stored = store.read(PATH)
    assert stored is not None
    assert stored.data == newer


@pytest.mark.parametrize("data", [b"", b'{"value": 1', b"[" * 100_000])
def test_a_derived_document_that_is_damaged_is_made_again_and_its_bytes_are_kept(
    store: Store, data: bytes
) -> None:
    store.replace(PATH, data, None)
    assert documents.load(store, PATH, Sum) is None
    assert store.uri_of(PATH) in documents.damage(store, PATH, Sum)
    assert documents.update(store, PATH, Sum, lambda found: Sum(value=found.value if found else 7)) == Sum(
        value=7
    )
    assert documents.damage(store, PATH, Sum) == ""
    [kept] = store.list("damaged/")
    aside = store.read(kept)
    assert aside is not None
    assert aside.data == data


def test_a_damage_is_told_once_however_often_it_is_looked_at(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    for damage in (b"", b"[1]"):
        found = store.read(PATH)
        store.replace(PATH, damage, found and found.generation)
        for _ in range(3):
            assert documents.load(store, PATH, Sum) is None
    assert [record.getMessage().count(PATH) for record in caplog.records] == [1, 1]


def _count(lake: LakeSettings, times: int) -> None:
    store = open_store(lake)
    for _ in range(times):
        documents.update(store, PATH, Counter, counted)


def test_twenty_processes_that_count_together_lose_nothing(store: Store, lake: LakeSettings) -> None:
    counters = [fork.Process(target=_count, args=(lake, 5)) for _ in range(20)]
    for counter in counters:
        counter.start()
    for counter in counters:
        counter.join()
    assert [counter.exitcode for counter in counters] == [0] * 20
    assert documents.load(store, PATH, Counter) == Counter(value=100)


class Text(documents.Derived):
    text: str


def test_a_large_document_is_parsed_again_only_when_its_bytes_are_others(store: Store) -> None:
    path, long = "measures/2024-01-01.json", "x" * 100_000
    documents.update(store, path, Text, lambda _: Text(text=long))
    first = documents.load(store, path, Text)
    assert documents.load(store, path, Text) is first
    documents.update(store, path, Text, lambda _: Text(text=f"{long}y"))
    assert documents.load(store, path, Text) == Text(text=f"{long}y")


def test_parsed_documents_are_kept_up_to_a_size_the_latest_longest(store: Store) -> None:
    size = documents.PARSED_BYTES // 3
    for number in range(4):
        content = Text(text=str(number) * size)
        documents.update(store, f"measures/{number}.json", Text, lambda _, content=content: content)
    first = documents.load(store, "measures/0.json", Text)
    assert documents.load(store, "measures/0.json", Text) is first
    for number in (1, 2, 3):
        documents.load(store, f"measures/{number}.json", Text)
    assert documents.load(store, "measures/0.json", Text) is not first
