#!/usr/bin/env python3
"""A player on plain TCP, in the same room as the browsers: game.py [HOST PORT [NAME]]"""
import hashlib, hmac, json, socket, sys

host, port, name = (sys.argv[1:] + ["127.0.0.1", "7000", "ada"][len(sys.argv) - 1:])[:3]
lines = socket.create_connection((host, int(port))).makefile("rw", encoding="utf-8", newline="\n")

def send(event, data, **more):
    lines.write(json.dumps({"event": event, "data": data, **more}) + "\n")
    lines.flush()

send("pusher:connect", {"app_key": "demo-key"})
for event in map(json.loads, lines):
    print(event["event"], event["data"], flush=True)
    if event["event"] == "pusher:connection_established":
        me = json.dumps({"user_id": name, "user_info": {"name": name}})
        # Your backend signs this, after it has checked who asks; only the demo's secret is public.
        text = f'{json.loads(event["data"])["socket_id"]}:presence-room:{me}'
        auth = "demo-key:" + hmac.new(b"demo-secret", text.encode(), hashlib.sha256).hexdigest()
        send("pusher:subscribe", {"channel": "presence-room", "auth": auth, "channel_data": me})
    elif event["event"] == "pusher_internal:subscription_succeeded":
        send("client-message", {"text": f"{name} is here"}, channel="presence-room")
    elif event["event"] == "pusher:ping":
        send("pusher:pong", {})
