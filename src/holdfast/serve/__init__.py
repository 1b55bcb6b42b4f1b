"""The inference server: Open Inference Protocol v2 over HTTP, one model to a process.

`http/` is the bounded HTTP edge and `protocol/` the codec. `api/routes.py` joins them to `inference/data_plane.py`,
which knows no transport. `follower/` follows the traffic plan on threads of its own. `server.py` is the process. No
request touches the ledger.
"""
