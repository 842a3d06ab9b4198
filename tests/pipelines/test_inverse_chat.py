"""`crispedit export --inverse-chat`: a chat model writes the inverse where no rule can."""

from __future__ import annotations

import json
from pathlib import Path

from chat_server import serving

from crispedit.compositor.landscape import landscape
from crispedit.images import encode_jpeg
from crispedit.pipelines import cli
from crispedit.record import content_key
from crispedit.shards.pack import Pair, finish, plan, write_shard

ASKED = {
    "Add a red ball on the grass.": ("add", None),  # a rule knows it
    "Make the car blue.": ("color", '{"possible": true, "instruction": "Change the  color of the car to red."}'),
    "Paint the door green.": ("color", '{"possible": true, "instruction": "Remove the door."}'),  # another kind
    "Give the house a new roof colour.": ("color", '{"possible": false, "instruction": ""}'),
    "Get rid of all that is on the table.": ("remove", "I cannot help with that."),
    "Make it winter.": ("background", None),  # has no opposite kind
}


def test_a_model_writes_what_no_rule_can(tmp_path: Path):
    pairs: dict[str, list[str]] = {}
    made = {}
    for number, (instruction, (category, _)) in enumerate(ASKED.items()):
        key = content_key(instruction)
        source, edited = (encode_jpeg(landscape(seed, 64, 48)) for seed in (number, number + 50))
        made[key] = Pair(key, category, source, edited, None, {"instruction": instruction})
        pairs.setdefault(category, []).append(key)
    entries = [
        write_shard(tmp_path / "set", shard, (made[key] for key in shard.keys), "d")
        for shard in plan(pairs, 4, 0, frozenset())
    ]
    finish(tmp_path / "set", entries, {})

    def reply(asked):
        if asked.is_hello:
            return '{"ready": true}'
        assert len(asked.images) == 2
        return next(answer for words, (_, answer) in ASKED.items() if f'"{words}"' in asked.text)

    with serving(reply) as server:
        out = tmp_path / "out"
        chat = json.dumps(server.spec)
        command = ["export", str(tmp_path / "set"), "--to", "folder", "--output", str(out), "--inverse-chat", chat]
        assert cli.main(command) == 0
        told = {asked.text for asked in server.asked if not asked.is_hello}
    assert not any("red ball" in text or "winter" in text for text in told)
    rows = [json.loads(line) for line in (out / "metadata.jsonl").read_text().splitlines()]
    inverses = {row["inverse_of"]: row for row in rows if row.get("inverse_of")}
    assert len(rows) == len(ASKED) + 2
    by_model = inverses[content_key("Make the car blue.")]
    assert by_model["instruction"] == "Change the color of the car to red."
    assert (by_model["category"], by_model["inverse_by"]) == ("color", "tiny")
    source = (out / by_model["source_file_name"]).read_bytes()
    assert source == made[by_model["inverse_of"]].edited_jpeg
    by_rule = inverses[content_key("Add a red ball on the grass.")]
    assert (by_rule["instruction"], by_rule["inverse_by"]) == ("Remove the red ball on the grass.", "rule")
