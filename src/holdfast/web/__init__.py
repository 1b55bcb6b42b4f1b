"""The page and the JSON API of the control plane: server-rendered and read-only, without a build step.

Routes are in `app.py`, what a template may use is in `contexts.py`, charts are Vega-Lite in `charts.py`.
"""

from holdfast.web.app import build_app

__all__ = ["build_app"]
