"""The page and the JSON API of the control plane: server-rendered, read-only, no build step, no inline script or style.

Routes are in `app.py`, what a template may use is in `contexts.py`, charts are Vega-Lite in `charts.py`.
"""

from holdfast.web.app import build_app

__all__ = ["build_app"]
