"""aioapns on one connection: PORT DIR COUNT STREAMS KEY_ID TEAM_ID TOPIC, see ../peers.rs. Its host is a
constant of a class, which is derived from."""

import asyncio
import json
import ssl
import sys
import time

from aioapns import APNs, NotificationRequest, PushType

port, folder, count, streams, key_id, team_id, topic = sys.argv[1:]
count, streams = int(count), int(streams)
warm = streams * 2


class Oldest(dict):
    """aioapns finds the request of an answer by its apns-id, and the sink's are all the same: so are
    the answers, and any request that waits may have this one."""

    def pop(self, _key, default=None):
        return super().pop(next(iter(self)), default) if self else default


def request(nth):
    alert = {"title": f"Order {nth}", "body": "Your order is ready to be collected at the counter."}
    return NotificationRequest(f"{nth:064x}", {"aps": {"alert": alert}}, push_type=PushType.ALERT)


async def run(client, numbers):
    numbers = iter(numbers)

    async def work():
        for nth in numbers:
            result = await client.send_notification(request(nth))
            assert result.is_successful, result.description

    await asyncio.gather(*[work() for _ in range(streams)])


async def main():
    with open(f"{folder}/key.p8", encoding="utf-8") as file:
        key = file.read()
    client = APNs(
        key=key, key_id=key_id, team_id=team_id, topic=topic, max_connections=1,
        ssl_context=ssl.create_default_context(cafile=f"{folder}/ca.pem"),
    )

    class Here(client.pool.protocol_class):
        APNS_SERVER = "localhost"
        APNS_PORT = int(port)

        def __init__(self, *words, **named):
            super().__init__(*words, **named)
            self.requests = Oldest()

    client.pool.protocol_class = Here
    await client.send_notification(request(0))
    await run(client, range(1, warm))
    cpu, began = time.process_time_ns(), time.monotonic_ns()
    await run(client, range(warm, count))
    cpu, took = time.process_time_ns() - cpu, time.monotonic_ns() - began
    print(json.dumps({"sent": count - warm, "warm": warm, "cpu": cpu, "took": took}))


asyncio.run(main())
