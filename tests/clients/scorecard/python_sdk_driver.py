"""The `pusher` server SDK for Python as the scorecard drives it: calls and answers are lines of JSON."""

import json
import sys

import pusher
from pusher.errors import PusherBadAuth, PusherBadStatus

options = json.loads(sys.argv[1])


def make(**changed):
    named = ("app_id", "key", "secret", "host", "port")
    return pusher.Pusher(**{**{name: options[name] for name in named}, "ssl": False, **changed})


sdk = make()


def trigger(channels, event, data, params=None):
    return sdk.trigger(channels, event, data, (params or {}).get("socket_id"))


def status_of(channels, event, data):
    """The SDK writes the status at the start of its message."""
    try:
        sdk.trigger(channels, event, data)
    except PusherBadStatus as error:
        return int(str(error).split(":")[0])


def status_with_secret(secret):
    try:
        make(secret=secret).trigger("any", "news", {})
    except PusherBadAuth:
        return 401


def webhook(headers, body):
    told = sdk.validate_webhook(headers["x-pusher-key"], headers["x-pusher-signature"], body)
    return told["events"] if told else None


calls = {
    "trigger": trigger,
    "batch": sdk.trigger_batch,
    "channels": lambda prefix: sdk.channels_info(prefix, ["user_count"]),
    "channel": lambda name: sdk.channel_info(name, ["user_count"]),
    "users": sdk.users_info,
    "toUser": sdk.send_to_user,
    "terminate": sdk.terminate_user_connections,
    "statusOf": status_of,
    "statusWithSecret": status_with_secret,
    "encrypted": lambda *event: make(encryption_master_key_base64=options["master_key"]).trigger(*event),
    "authorize": lambda socket_id, name, user=None: sdk.authenticate(name, socket_id, user),
    "authenticate": sdk.authenticate_user,
    "webhook": webhook,
}
for line in sys.stdin:
    call, *arguments = json.loads(line)
    print(json.dumps(calls[call](*arguments)), flush=True)
