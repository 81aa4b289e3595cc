"""One Pysher client as the scorecard drives it: commands and answers are lines of JSON."""

import json
import sys

import pysher

options = json.loads(sys.argv[1])
client = pysher.Pusher(
    options["key"],
    secure=False,
    custom_host=options["host"],
    port=options["port"],
    secret=options["secret"],
    user_data=options["user"],
    reconnect_interval=1,
    auto_sub=True,
)
heard = {}
seen = {"pongs": 0, "codes": []}


def count_pong(_):
    seen["pongs"] += 1


def note_error(data):
    seen["codes"].append((data or {}).get("code"))


client.connection.bind("pusher:pong", count_pong)
client.connection.bind("pusher:error", note_error)
client.connection.ping_interval = options["ping_seconds"]


dispatch = client.connection.event_handler


def hear(event, data, channel):
    """Before Pysher's own dispatch: a handler bound after subscribing could miss the first events."""
    heard.setdefault(channel, []).append([event, data])
    dispatch(event, data, channel)


client.connection.event_handler = hear


def join(name):
    heard[name] = []
    client.subscribe(name)


def say(name, event, data):
    client.channel(name).trigger(event, data)


def state():
    connection = client.connection
    return {
        "connected": connection.state == "connected",
        "socketId": connection.socket_id,
        **seen,
    }


commands = {
    "join": join,
    "heard": lambda name: heard.get(name, []),
    "say": say,
    "leave": client.unsubscribe,
    "state": state,
}
client.connect()
for line in sys.stdin:
    command, *arguments = json.loads(line)
    print(json.dumps(commands[command](*arguments)), flush=True)
