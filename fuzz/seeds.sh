#!/bin/bash
# Fills fuzz/corpus from what the original agent was really sent (tests/fixtures): one file a message for
# `frame`, one a task for `payload`. Safe to repeat; what the fuzzer found itself stays.
set -euo pipefail
cd "$(dirname "$0")/.."
python3 - <<'EOF'
import glob, hashlib, json, os

frames = []
for name in ("payloads", "messages"):
    with open(f"tests/fixtures/control/{name}.json") as file:
        frames += json.load(file)
for name in sorted(glob.glob("tests/fixtures/recordings/*.jsonl")):
    with open(name) as file:
        for event in map(json.loads, file):
            if event["dir"] == "out" and "body" in event:
                frames.append({"type": event["op"], "message": event["body"]})

def put(target, value):
    text = json.dumps(value, separators=(",", ":"))
    os.makedirs(f"fuzz/corpus/{target}", exist_ok=True)
    with open(f"fuzz/corpus/{target}/seed-{hashlib.sha256(text.encode()).hexdigest()[:16]}", "w") as file:
        file.write(text)

for frame in frames:
    put("frame", frame)
    for task in frame["message"].get("tasks", []) if frame["type"] == "PayloadMessage" else []:
        put("payload", task)
EOF
echo "seeds: $(find fuzz/corpus/frame -name 'seed-*' | wc -l) messages, $(find fuzz/corpus/payload -name 'seed-*' | wc -l) tasks"
