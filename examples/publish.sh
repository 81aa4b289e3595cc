#!/usr/bin/env bash
# Publishes one event with a signed request: what every `pusher` server SDK does, in the open.
#
#   examples/publish.sh room message '{"text":"hi"}'
#
# HOST, APP_ID, KEY and SECRET choose the server and the app; without them it is the demo.
set -euo pipefail

host=${HOST:-127.0.0.1:8080} app_id=${APP_ID:-demo} key=${KEY:-demo-key} secret=${SECRET:-demo-secret}

if [ $# -ne 3 ]; then
  echo "usage: publish.sh CHANNEL EVENT DATA   (environment: HOST APP_ID KEY SECRET)" >&2
  exit 2
fi

# A text as a JSON string. Bash holds no zero bytes; what else JSON wants escaped is escaped here.
json() {
  local text=$1 code char escape
  text=${text//\\/\\\\}
  text=${text//\"/\\\"}
  for code in {1..31}; do
    printf -v char "\\x$(printf %02x "$code")"
    printf -v escape '\\u%04x' "$code"
    text=${text//"$char"/"$escape"}
  done
  printf '"%s"' "$text"
}

# The last field of what openssl prints is the digest.
digest() { openssl dgst "$@" | sed 's/.*= *//'; }

# The event. Its data is always a string; clients parse it when it is JSON.
body="{\"name\":$(json "$2"),\"channel\":$(json "$1"),\"data\":$(json "$3")}"
path="/apps/$app_id/events"

# The signed text: method, path and the parameters in alphabetical order. The body is in it as MD5,
# the time keeps the request from being repeated later than ten minutes from now.
md5=$(printf %s "$body" | digest -md5)
query="auth_key=$key&auth_timestamp=$(date +%s)&auth_version=1.0&body_md5=$md5"
signature=$(printf 'POST\n%s\n%s' "$path" "$query" | digest -sha256 -hmac "$secret")

answer=$(curl -sS -w '\n%{http_code}' -H 'Content-Type: application/json' --data-binary "$body" \
  "http://$host$path?$query&auth_signature=$signature")
status=${answer##*$'\n'}
echo "$status ${answer%$'\n'*}"
[ "$status" = 200 ]
