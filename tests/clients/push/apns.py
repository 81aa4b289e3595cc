"""aioapns against `lineman mock apns`. Its hosts are constants of a class, which is derived from; the
authority comes in an SSL context, as for everybody."""

import asyncio
import json
import os
import ssl
from urllib.parse import urlsplit

from aioapns import APNs, NotificationRequest, PushType

mock = json.loads(os.environ["MOCK"])
url = urlsplit(mock["urls"][0])


def request(token, message=None):
    message = message or {"aps": {"alert": "hello from aioapns"}}
    return NotificationRequest(token.ljust(64, "0"), message, push_type=PushType.ALERT)


async def main():
    with open(mock["key"], encoding="utf-8") as file:
        key = file.read()
    context = ssl.create_default_context(cafile=mock["ca"])
    client = APNs(
        key=key, key_id=mock["key_id"], team_id=mock["team_id"], topic="org.example.app",
        max_connections=2, ssl_context=context,
    )

    class Here(client.pool.protocol_class):
        APNS_SERVER = url.hostname
        APNS_PORT = url.port

    client.pool.protocol_class = Here
    result = await client.send_notification(request("aa"))
    assert result.is_successful, result.description
    result = await client.send_notification(request("dead"))
    assert (result.status, result.description) == ("410", "Unregistered"), result.description
    result = await client.send_notification(request("aa", {"aps": {"alert": "x" * 5000}}))
    assert (result.status, result.description) == ("413", "PayloadTooLarge"), result.description
    results = await asyncio.gather(*[
        client.send_notification(request(f"{number:04x}")) for number in range(200)
    ])
    assert all(result.is_successful for result in results)


asyncio.run(main())
