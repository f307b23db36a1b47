"""openwandb, with what it lacks for a run that goes on: ``python openwandb_with_resume.py PORT``.

openwandb 0.5 says of every run that its history has no rows and that it never began, so that the client begins at the
first row again; and it adds what comes to the end of the history, where W&B's server writes it to the row it is for.
"""

import json
import sys
from pathlib import Path

import uvicorn
from openwandb import file_stream, graphql_schema, storage

HISTORY = "wandb-history.jsonl"
process = file_stream.process_file_stream


def history_file(entity: str, project: str, run: str) -> Path:
    return storage.get_run_files_dir(entity, project, run) / "history_by_row.jsonl"


def process_in_place(entity: str, project: str, run: str, payload: dict, user_id: int | None = None) -> dict:
    sent = payload.get("files", {}).get(HISTORY)
    if sent:
        path = history_file(entity, project, run)
        rows = path.read_text().splitlines() if path.exists() else []
        begin, lines = sent["offset"], [line for line in sent["content"] if line.strip()]
        if begin > len(rows):
            raise ValueError(f"rows from {begin} on, but there are {len(rows)}")
        rows[begin : begin + len(lines)] = lines
        path.write_text("".join(f"{row}\n" for row in rows))
    return process(entity, project, run, payload, user_id)


def run_of_row(row: dict) -> graphql_schema.RunType:
    run = run_to_type(row)
    path = history_file(run._entity_name, run._project_name, run.name)
    rows = path.read_text().splitlines() if path.exists() else []
    run.history_line_count = len(rows)
    run.history_tail, run.events_tail = json.dumps(rows[-1:]), "[]"
    config = json.loads(run._config_json)
    # What W&B's server gives as the configuration's "t".
    run._config_json = json.dumps(config | {"t": config.get("_wandb", {}).get("value", {}).get("t")})
    return run


file_stream.process_file_stream = process_in_place
run_to_type, graphql_schema._run_to_type = graphql_schema._run_to_type, run_of_row

if __name__ == "__main__":
    uvicorn.run("openwandb.server:app", host="127.0.0.1", port=int(sys.argv[1]))
