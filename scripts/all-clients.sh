#!/usr/bin/env bash
# Tries every stock client on the demo models: serves them, with a second gateway for TLS, and runs the clients' scripts.
# Their environments are made in build/ by pip and npm and take some gigabytes. Ends with 1 if a client failed.
#
#     scripts/all-clients.sh PYTHON      # the Python that has moulin
set -uo pipefail
cd "$(dirname "$0")/.."
moulin=("${1:?usage: scripts/all-clients.sh PYTHON}" -m moulin)
speech=build/clients/speech.wav
gateway=19000 riva=19051 tls=19443
mkdir -p build/clients

openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1 \
    -keyout build/clients/key.pem -out build/clients/certificate.pem 2>/dev/null || exit
"$1" - "$speech" <<'PYTHON' || exit
import sys
import soundfile
from moulin.demo.files import DEMO_MANIFEST
samples, rate = soundfile.read(sorted(DEMO_MANIFEST.parent.glob("*.flac"))[0], dtype="int16")
soundfile.write(sys.argv[1], samples, rate)
PYTHON

"${moulin[@]}" serve --gateway-port $gateway --riva-port $riva --http-port 19001 --grpc-port 19002 --metrics-port 19003 \
    >build/clients/serve.log 2>&1 &
server=$!
"${moulin[@]}" gateway --triton localhost:19002 --port $tls --tls-certificate build/clients/certificate.pem \
    --tls-key build/clients/key.pem >build/clients/gateway.log 2>&1 &
before=$!
trap 'kill $before $server 2>/dev/null; wait' EXIT
for ((tries = 0; tries < 120; tries++)); do
    curl --silent --fail --output /dev/null "http://localhost:$gateway/readyz" && break
    sleep 1
done

failed=0
environment() { # NAME PACKAGE…
    local folder=build/clients/$1
    shift
    [ -e "$folder/ready" ] && return
    "$python" -m venv "$folder" && "$folder/bin/pip" install --quiet "$@" && touch "$folder/ready"
}
try() { # COMMAND…
    echo "\$ $*"
    timeout 900 "$@" || { failed=1 && echo "failed: $*" >&2; }
}

try "$1" scripts/openai-clients.py $speech --server http://localhost:$gateway --tls https://localhost:$tls \
    --ca build/clients/certificate.pem

python=$1
environment live nvidia-riva-client livekit-plugins-nvidia deepgram-sdk livekit-plugins-deepgram 'pipecat-ai[nvidia,deepgram]'
for client in riva livekit pipecat; do
    try build/clients/live/bin/python scripts/riva-clients.py $client $speech --server localhost:$riva
done
for client in sdk livekit pipecat; do
    try build/clients/live/bin/python scripts/deepgram-clients.py $client $speech --server localhost:$gateway
done
if command -v npm >/dev/null; then
    (mkdir -p build/clients/node && cd build/clients/node && npm install --silent --no-audit --no-fund @deepgram/sdk)
    try build/clients/live/bin/python scripts/deepgram-clients.py node $speech --server localhost:$gateway \
        --modules build/clients/node
fi
if python=$(command -v python3.12 || command -v python3.13); then
    environment wyoming wyoming_openai
    try build/clients/wyoming/bin/python scripts/wyoming-client.py $speech --server localhost:$gateway
fi
exit $failed
