import asyncio
from pathlib import Path

import pytest
from broker import free_tcp_port, needs_mosquitto, rig, run_broker

from lhm_runtime.errors import BackendError
from streaming.config import load_config
from streaming.inputs import describe_inputs, list_rigs


def test_where_to_send_is_told_without_secrets() -> None:
    config = load_config(
        vmc={"host": "192.168.1.5", "senders": ["192.168.1.0/24"]},
        mqtt={"host": "broker", "username": "me", "password": "hunter2"},
        merged={"body": {"source": "mqtt", "rig": "stage"}, "face": {"source": "facemocap"}},
    )
    inputs = describe_inputs(config)
    assert (inputs.vmc.host, inputs.vmc.port, inputs.vmc.senders) == ("192.168.1.5", 39539, ["192.168.1.0/24"])
    assert inputs.broker == "broker:1883"
    assert {part: driver.source for part, driver in inputs.merged.items()} == {
        "body": "mqtt",
        "head": "mqtt",
        "hands": "mqtt",
        "face": "facemocap",
    }
    assert "hunter2" not in inputs.model_dump_json()
    assert describe_inputs(load_config()).merged == {}


@needs_mosquitto
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
def test_rigs_are_those_that_are_there_now(tmp_path: Path) -> None:
    async def main(port: int) -> None:
        config = load_config(mqtt={"port": port})
        async with rig(port, "stage"), rig(port, "desk"):
            assert await list_rigs(config) == ["desk", "stage"]
        async with rig(port, "gone") as client:
            await client.publish("lhm-live/default/gone/meta", b"", qos=1, retain=True)
            await client.publish("lhm-live/other/elsewhere/meta", b"{}", qos=1, retain=True)
            assert "gone" not in await list_rigs(config)
            assert "elsewhere" not in await list_rigs(config)

    with run_broker(tmp_path) as broker:
        asyncio.run(main(broker.port))


def test_no_broker_is_told() -> None:
    port = free_tcp_port()
    with pytest.raises(BackendError, match=f"127.0.0.1:{port} cannot be used"):
        asyncio.run(list_rigs(load_config(mqtt={"port": port})))
