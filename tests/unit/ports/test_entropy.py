"""Drawn bytes are never given twice, whoever asks."""

from concurrent.futures import ThreadPoolExecutor

from overnight.ports.entropy import SystemEntropy


def test_no_bytes_are_given_twice_also_across_pages_and_threads() -> None:
    entropy = SystemEntropy()

    with ThreadPoolExecutor(4) as pool:
        drawn = list(pool.map(lambda _: entropy.bytes(14), range(5_000)))

    assert {len(one) for one in drawn} == {14}
    assert len(set(drawn)) == 5_000


def test_more_than_a_page_is_given_whole() -> None:
    entropy = SystemEntropy()
    entropy.bytes(1)

    assert len(entropy.bytes(10_000)) == 10_000
    assert entropy.bytes(0) == b""
