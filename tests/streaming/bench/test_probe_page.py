from streaming.bench.probe_page import browser_parts


def test_parts_are_means_of_what_came_between() -> None:
    before = {"inbound-rtp": {"totalDecodeTime": 1.0, "framesDecoded": 100, "jitterBufferDelay": 0.5}}
    after = {"inbound-rtp": {"totalDecodeTime": 1.3, "framesDecoded": 200, "jitterBufferDelay": 0.9}}
    assert browser_parts(before, after) == {"decode": 3.0}
    assert browser_parts({}, {}) == {}
