"""`make bench`: each measurement says against what, and how far its runs lie apart."""

from bench import latencycost, lookingcost, measuring, probecost, startup, stormcost

probecost.run()
latencycost.run()
lookingcost.run()
stormcost.run()
startup.first_sample()
startup.status()
startup.apply()
measuring.run()
