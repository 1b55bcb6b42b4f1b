"""A push that shines offline and is wrong live: the model also leans on the airline's reported delay.

In the table that figure is written while and after the flight leaves, so a model that sees it looks excellent on held-out
days. At the time of the prediction the flight has not left and the figure is missing. No offline gate can know that; the
canary finds it (requirements R65, R117).
"""

from dataclasses import replace

from model import model as honest

from holdfast import Passthrough

model = replace(honest, features=(*honest.features, Passthrough("reported_delay")))
