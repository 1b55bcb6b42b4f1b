"""A push that is good offline and wrong live: the model also reads the airline's reported delay.

The airline writes that number after the departure, so a model that reads it looks excellent on held-out days. At the
time of the prediction the flight has not left, and the number is missing. No offline gate can detect that; the canary
does (requirements R65, R117).
"""

from dataclasses import replace

from model import model as honest

from holdfast import Passthrough

model = replace(honest, features=(*honest.features, Passthrough("reported_delay")))
