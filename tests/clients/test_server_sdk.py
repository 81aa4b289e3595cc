"""The `pusher` server SDK for Python. Unlike the others it signs the MD5 of the empty body on reads."""

import itertools
import json
import os
import secrets
import unittest

import pusher
import websocket
from pusher.errors import PusherBadAuth, PusherBadRequest, PusherBadStatus
from pusher.http import POST, Request

HOST = os.environ["LINEMAN_HOST"]
PORT = int(os.environ["LINEMAN_PORT"])
APP_ID = os.environ["LINEMAN_APP_ID"]
KEY = os.environ["LINEMAN_APP_KEY"]
SECRET = os.environ["LINEMAN_APP_SECRET"]

PATIENCE_SECONDS = 15


def server_sdk(**changed):
    """The SDK, for our server instead of the hosted one."""
    options = dict(app_id=APP_ID, key=KEY, secret=SECRET, host=HOST, port=PORT, ssl=False)
    return pusher.Pusher(**{**options, **changed})


def fresh(prefix):
    """A channel name nobody else uses."""
    return f"{prefix}-{secrets.token_hex(5)}"


class Subscriber:
    """A connection that subscribes to channels and collects what it hears."""

    def __init__(self, user=None):
        self.user = user
        self.heard = []
        self.sdk = server_sdk()
        url = f"ws://{HOST}:{PORT}/app/{KEY}?protocol=7&client=python&version=1.0"
        self.socket = websocket.create_connection(url, timeout=PATIENCE_SECONDS)
        greeting = self.wait("pusher:connection_established")
        self.socket_id = json.loads(greeting["data"])["socket_id"]

    def wait(self, event):
        """The next message of this name; a subscription error on the way is a failure."""
        while True:
            message = json.loads(self.socket.recv())
            if message["event"] == event:
                return message
            if message["event"] == "pusher:subscription_error":
                raise AssertionError(f"refused: {message}")

    def subscribe(self, channel):
        data = {"channel": channel}
        if channel.startswith(("private-", "presence-")):
            member = self.user if channel.startswith("presence-") else None
            data |= self.sdk.authenticate(channel, self.socket_id, member)
        self.socket.send(json.dumps({"event": "pusher:subscribe", "data": data}))
        return self.wait("pusher_internal:subscription_succeeded")

    def hears(self, channel):
        """All (name, data) of the channel so far. Events of one channel keep their order, so when a
        last event published now arrives, nothing before it is still on its way."""
        mark = secrets.token_hex(5)
        self.sdk.trigger(channel, "fence", mark)
        while (channel, "fence", mark) not in self.heard:
            message = json.loads(self.socket.recv())
            if ":" not in message["event"]:
                self.heard.append((message["channel"], message["event"], message["data"]))
        return [
            (event, data)
            for (where, event, data) in self.heard
            if where == channel and event != "fence"
        ]


class PythonServerSdk(unittest.TestCase):
    def subscriber(self, *channels, user=None):
        one = Subscriber(user)
        self.addCleanup(one.socket.close)
        for channel in channels:
            one.subscribe(channel)
        return one

    def members(self, channel, connections, users):
        """Connections of so many users, dealt out in turn: enough for both workers to have some."""
        ids = itertools.cycle(f"user{n}" for n in range(users))
        return [
            self.subscriber(channel, user={"user_id": next(ids)}) for _ in range(connections)
        ]

    def test_an_event_to_one_channel_reaches_everybody(self):
        channel = fresh("news")
        listeners = [self.subscriber(channel) for _ in range(16)]
        self.assertEqual(server_sdk().trigger(channel, "headline", {"text": "grüße 👋"}), {})
        for listener in listeners:
            [(name, data)] = listener.hears(channel)
            self.assertEqual((name, json.loads(data)), ("headline", {"text": "grüße 👋"}))

    def test_an_event_to_several_channels_reaches_each_once(self):
        channels = [fresh("many") for _ in range(100)]
        listener = self.subscriber(channels[0], channels[57], channels[99])
        self.assertEqual(server_sdk().trigger(channels, "all", "x"), {})
        for channel in (channels[0], channels[57], channels[99]):
            self.assertEqual(listener.hears(channel), [("all", "x")])

    def test_socket_id_leaves_one_connection_out(self):
        channel = fresh("edits")
        sender, *others = [self.subscriber(channel) for _ in range(4)]
        server_sdk().trigger(channel, "edit", "1", sender.socket_id)
        self.assertEqual(sender.hears(channel), [])
        for other in others:
            self.assertEqual(other.hears(channel), [("edit", "1")])

    def test_a_batch_is_published_in_order(self):
        channel = fresh("batch")
        listener = self.subscriber(channel)
        batch = [{"channel": channel, "name": "b", "data": str(n)} for n in range(10)]
        self.assertEqual(server_sdk().trigger_batch(batch), {})
        self.assertEqual(listener.hears(channel), [("b", str(n)) for n in range(10)])

    def test_a_private_channel_takes_the_sdk_s_signature(self):
        channel = fresh("private-orders")
        listener = self.subscriber(channel)
        server_sdk().trigger(channel, "order", "1")
        self.assertEqual(listener.hears(channel), [("order", "1")])

    def test_channels_are_listed_with_prefix_and_counts(self):
        prefix = fresh("presence-list")
        other = fresh("other")
        self.members(f"{prefix}-a", connections=8, users=3)
        self.subscriber(other)
        sdk = server_sdk()
        everything = sdk.channels_info()["channels"]
        self.assertEqual(everything[other], {})
        self.assertEqual(everything[f"{prefix}-a"], {})
        self.assertEqual(
            sdk.channels_info(prefix, ["user_count"]),
            {"channels": {f"{prefix}-a": {"user_count": 3}}},
        )
        self.assertEqual(sdk.channels_info(fresh("none")), {"channels": {}})
        with self.assertRaises(PusherBadRequest):
            sdk.channels_info(attributes=["user_count"])

    def test_one_channel_is_told_with_its_users_counted(self):
        channel = fresh("presence-one")
        sdk = server_sdk()
        self.assertEqual(sdk.channel_info(channel), {"occupied": False})
        self.members(channel, connections=8, users=5)
        self.assertEqual(
            sdk.channel_info(channel, ["user_count"]), {"occupied": True, "user_count": 5}
        )
        with self.assertRaises(PusherBadRequest):
            sdk.channel_info(fresh("public"), ["user_count"])

    def test_users_are_listed_once_each(self):
        channel = fresh("presence-users")
        self.members(channel, connections=16, users=7)
        users = server_sdk().users_info(channel)["users"]
        self.assertEqual(sorted(user["id"] for user in users), [f"user{n}" for n in range(7)])
        self.assertEqual(server_sdk().users_info(fresh("presence-none")), {"users": []})
        with self.assertRaises(PusherBadRequest):
            server_sdk().users_info(fresh("public"))

    def test_a_user_is_reached_and_his_connections_are_ended(self):
        user_id = fresh("ann")
        sdk = server_sdk()
        people = [self.subscriber() for _ in range(4)]
        for person in people:
            auth = sdk.authenticate_user(person.socket_id, {"id": user_id})
            person.socket.send(json.dumps({"event": "pusher:signin", "data": auth}))
            person.wait("pusher:signin_success")
        self.assertEqual(sdk.send_to_user(user_id, "hint", {"n": 1}), {})
        for person in people:
            self.assertEqual(json.loads(person.wait("hint")["data"]), {"n": 1})
        # The SDK leaves /apps/ID out of the path.
        self.assertEqual(sdk.terminate_user_connections(user_id), {})
        for person in people:
            opcode, frame = person.socket.recv_data()
            self.assertEqual((opcode, frame[:2]), (0x8, (4009).to_bytes(2, "big")))

    def test_a_wrong_secret_is_refused(self):
        for call in (
            lambda sdk: sdk.trigger(fresh("safe"), "e", "x"),
            lambda sdk: sdk.channels_info(),
            lambda sdk: sdk.channel_info("any"),
        ):
            with self.assertRaises(PusherBadAuth):
                call(server_sdk(secret="guess"))

    def test_data_over_ten_kilobytes_is_refused_with_413(self):
        # The SDK itself lets thirty kilobytes through.
        channel = fresh("large")
        listener = self.subscriber(channel)
        server_sdk().trigger(channel, "big", "x" * 10_240)
        with self.assertRaisesRegex(PusherBadStatus, "^413"):
            server_sdk().trigger(channel, "big", "x" * 10_241)
        self.assertEqual(listener.hears(channel), [("big", "x" * 10_240)])

    def test_too_many_channels_or_events_are_refused_with_400(self):
        # The SDK would not send so many channels by itself; its client signs anything.
        sdk = server_sdk()
        client = sdk._pusher_client
        crowd = {"name": "e", "data": "x", "channels": [f"crowd-{n}" for n in range(101)]}
        with self.assertRaises(PusherBadRequest):
            client.http.send_request(Request(client, POST, f"/apps/{APP_ID}/events", crowd))
        with self.assertRaises(PusherBadRequest):
            sdk.trigger_batch([{"channel": "c", "name": "b", "data": "x"} for _ in range(11)])


if __name__ == "__main__":
    unittest.main()
